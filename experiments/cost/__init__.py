"""What does a GRU cost, and what an LSTM: time, latency, memory, operations, bytes?

    python -m experiments.cost --help

The cells take turns, round by round, at the sizes of the texts and over batch, length
and units; compiling is counted apart. Run it on a quiet machine.
"""
