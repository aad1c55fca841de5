"""What tests of training share: a count of compilations."""

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
