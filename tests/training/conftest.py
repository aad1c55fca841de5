"""What tests of training share: compilations, counted and quick ones."""

import jax
import pytest


@pytest.fixture
def compilations():
    """A list that gets an entry whenever anything is compiled."""
    seen = []

    def listen(event, duration, **details):
        if event.endswith("backend_compile_duration"):
            seen.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield seen
    jax.monitoring.unregister_event_duration_listener(listen)


@pytest.fixture(scope="module")
def quick_compiling():
    """Compile without optimisation, in half the time, where no claim is on the bits."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
