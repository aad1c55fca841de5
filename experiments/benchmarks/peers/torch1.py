"""PyTorch with one thread on a CPU.

Its small matmuls wait for one another, and with several threads also at barriers: a
user who has measured it sets one thread.
"""

from experiments.benchmarks.peers.torch import Torch

IMPLEMENTATION = Torch(num_threads=1)
