"""What tests of training share."""

import jax
import pytest


@pytest.fixture(scope="module")
def quick_compiling():
    """Compile without optimisation, in half the time, where no claim is on the bits."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
