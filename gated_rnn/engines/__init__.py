"""Time: one way of running a cell a file, nothing about a particular cell (layer 1)."""

from gated_rnn.engines.associative import Associative
from gated_rnn.engines.fused import FusedScan
from gated_rnn.engines.scan import Scan

__all__ = ["Associative", "FusedScan", "Scan"]
