"""Do gates help to predict the next chord, and does one gated cell win?

    python -m experiments.polyphonic_music --help

The music part of Chung et al. (2014) again, over several seeds: Bach's chorales and
Nottingham folk tunes, one layer of tanh, GRU or LSTM units with as many parameters.
"""
