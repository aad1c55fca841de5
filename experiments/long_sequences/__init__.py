"""Does a GRU end lower, run smoother and train faster than an LSTM on 20,000 steps?

    python -m experiments.long_sequences --help

The comparison of Muccino (2019) again, over several seeds: 40 sequences in one batch,
backpropagation through all steps, one layer of 16 units, 1000 updates with --paper.
"""
