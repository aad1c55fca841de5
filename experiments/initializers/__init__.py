"""Which initialisers serve LSTM and GRU, on long sequences and on long lags?

    python -m experiments.initializers --help

What Muccino (2019) left to future work: kernel, recurrent and bias initialisers of each
cell, one at a time.
"""
