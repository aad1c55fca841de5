"""Do a GRU, an LSTM and a plain network judge reviews alike, and from how many?

    python -m experiments.reviews --help

Sentiment of short texts, word by word and character by character, over the amount of
training data, beside a bag of words.
"""
