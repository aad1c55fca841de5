"""Do 60 days of prices tell the 61st, and does it matter which cell reads them?

    python -m experiments.bitcoin --help

The network of Singhal (2020) with Elman, GRU and LSTM layers on daily closes of
Bitcoin, in dollars and next to forecasts that need no network.
"""
