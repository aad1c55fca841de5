"""Do fewer gates explain it? Cells between Elman's network and the LSTM.

    python -m experiments.cell_variants --help

Eight cells that differ by a gate or a nonlinearity each, on three tasks, with matched
parameters and with matched units.
"""
