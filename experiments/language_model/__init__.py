"""With less text, is a GRU faster and better than an LSTM at predicting characters?

    python -m experiments.language_model --help

Both cells, with equal units and with equal parameters, on a share of a text and on all
of it, beside n-grams that are fitted on the same characters; and what they write.
"""
