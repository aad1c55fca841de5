"""Does the reset gate forget and the update gate copy, as the resort review has it?

    python -m experiments.gates_in_action --help

Gates of GRU and LSTM, trained on reviews and on prices, word by word and step by step:
heat maps, and averages over many reviews and seeds. `--text` shows a review of yours.
"""
