"""Who bridges long lags: Elman network, GRU or LSTM, and up to which length?

    python -m experiments.long_lags --help

Adding, copying, temporal order and recall among distractors at growing lengths, over
learning rates and seeds: what share solves a task, and after how many updates.
"""
