"""Every implementation by its name on the command line, loaded when asked for."""

import functools
import importlib
import importlib.metadata
from typing import NamedTuple

from experiments.benchmarks import ours
from experiments.benchmarks.model import Implementation


class Entry(NamedTuple):
    """What is known of an implementation before it is imported.

    Attributes:
        title: Its name in tables.
        package: The distribution it comes from.
        is_jax: Whether it computes with JAX.
    """

    title: str
    package: str
    is_jax: bool = True

    @property
    def is_ours(self) -> bool:
        """Whether it is the package under test."""
        return self.package == "gated_rnn"


IMPLEMENTATIONS = {
    "scan": Entry("gated_rnn Scan", "gated_rnn"),
    "fused": Entry("gated_rnn FusedScan", "gated_rnn"),
    "linen": Entry("Flax linen", "flax"),
    "nnx": Entry("Flax nnx", "flax"),
    "haiku": Entry("Haiku", "dm-haiku"),
    "equinox": Entry("Equinox", "equinox"),
    "keras": Entry("Keras", "keras"),
    "cudnn": Entry("cuDNN from JAX", "jax"),
    "torch": Entry("PyTorch", "torch", is_jax=False),
    "torch1": Entry("PyTorch, one thread", "torch", is_jax=False),
}
PACKAGES = tuple(dict.fromkeys(entry.package for entry in IMPLEMENTATIONS.values()))


@functools.cache
def load(name: str) -> Implementation | str:
    """Import an implementation.

    Args:
        name: One of `IMPLEMENTATIONS`.

    Returns:
        The implementation, or the reason why there is none.
    """
    try:
        if IMPLEMENTATIONS[name].is_ours:
            return ours.implement(name)
        module = importlib.import_module(f"experiments.benchmarks.peers.{name}")
    except ImportError as error:
        return f"not installed: {error}"
    return module.IMPLEMENTATION


def versions() -> dict[str, str | None]:
    """Look up the version of every package compared; None where it is missing."""
    found = {}
    for package in (*PACKAGES, "jaxlib", "optax"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found
