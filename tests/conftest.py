"""Fixtures shared by all tests: dtypes, key reuse, compilations, hypothesis."""

import hypothesis
import jax
import pytest

hypothesis.settings.register_profile(
    "repository", deadline=None, derandomize=True, database=None, max_examples=25
)
hypothesis.settings.load_profile("repository")


@pytest.fixture(scope="module", autouse=True)
def _forget_programs():
    """Free the compiled programs of a module.

    Each maps pieces of memory; beyond vm.max_map_count of them XLA ends the process.
    """
    yield
    jax.clear_caches()


@pytest.fixture
def strict_promotion():
    """Make any silent mixing of dtypes an error; not for optax, which mixes them."""
    with jax.numpy_dtype_promotion("strict"):
        yield


@pytest.fixture
def x64():
    """Compute in float64, without changing the path that other tests take."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def no_key_reuse():
    """Make the second use of a random key an error."""
    with jax.debug_key_reuse(True):
        yield


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
