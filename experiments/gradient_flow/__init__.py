"""How much of the gradient arrives from an answer at the inputs before it?

    python -m experiments.gradient_flow --help

Elman network, GRU and LSTM, as they start, under several initialisers, and trained on a
task that asks for memory.
"""
