"""Flax modules around the cells, layers and networks (layer 4).

`gated_rnn.flax.linen` and `gated_rnn.flax.nnx` hold parameters and call the functions
of the package; docs/flax.md shows both. Import the one you use: this file imports none.
"""

__all__: list[str] = []
