"""The past hour of a road's traffic to the next five minutes: LSTM, GRU or a line?

    python -m experiments.traffic_flow --help

The comparison of Fu, Zhang and Li (2016) in the protocol of its public
reimplementation, over several seeds, next to linear models and ARIMA.
"""
