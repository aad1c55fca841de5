"""Programs of these tests are compiled as quickly as they can be."""

import jax
import pytest


@pytest.fixture(scope="module", autouse=True)
def quick_programs():
    """Leave out XLA's optimisations: compiling takes nearly all of the time."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
