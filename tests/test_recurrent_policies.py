"""docs/recurrent_policies.md: its code equals a Python loop over the episodes."""

import itertools
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gated_rnn import gru_step

pytestmark = pytest.mark.usefixtures("strict_promotion")

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "recurrent_policies.md"
SIZES = {"num_actions": 4, "num_observations": 3, "num_envs": 5}
NUM_STEPS = 11
FLOAT32 = 1e-5  # relative; a dozen steps of rounding


@pytest.fixture(scope="module")
def page():
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names = dict(SIZES)
    exec(compile(code, str(PAGE), "exec"), names)
    keys = iter(jax.random.split(jax.random.key(1), 9))
    names["params"] = jax.tree.map(
        lambda leaf: leaf + 0.3 * jax.random.normal(next(keys), leaf.shape),
        names["params"],
    )
    return names


@pytest.fixture(scope="module")
def rollout():
    observations_key, firsts_key = jax.random.split(jax.random.key(2))
    shape = (NUM_STEPS, SIZES["num_envs"])
    observations = jax.random.normal(observations_key, (*shape, 3))
    firsts = jax.random.bernoulli(firsts_key, 0.3, shape)
    # Not every environment begins with the rollout; some episode lasts one step.
    return observations, firsts.at[0, :2].set(False).at[4:6, 3].set(True)


def loop_over_episodes(page, observations, firsts, carry):
    """Run every episode by itself, from zero or from what the rollout began with."""
    gru, dense = page["params"]
    logits = np.zeros((*firsts.shape, SIZES["num_actions"]), np.float32)
    for env in range(SIZES["num_envs"]):
        begins = [0, *(t for t in range(1, NUM_STEPS) if firsts[t, env]), NUM_STEPS]
        for begin, end in itertools.pairwise(begins):
            start = jax.tree.map(lambda leaf, env=env: leaf[env], carry)
            if firsts[begin, env]:
                start = jax.tree.map(jnp.zeros_like, start)
            for t in range(begin, end):
                start, hidden = gru_step(gru, start, observations[t, env])
                logits[t, env] = hidden @ dense.kernel + dense.bias
    return logits


def test_rollout_equals_loop_over_episodes(page, rollout):
    observations, firsts = rollout
    carry = page["carry"]
    warm = jax.random.normal(jax.random.key(3), carry.layers[0].hidden.shape)
    carry = carry._replace(layers=(carry.layers[0]._replace(hidden=warm), ()))
    _, logits = page["evaluate"](page["params"], carry, observations, firsts)
    expected = loop_over_episodes(page, observations, firsts, carry.layers[0])
    assert np.max(np.abs(logits - expected)) <= FLOAT32 * np.max(np.abs(expected))


def test_acting_step_by_step_equals_evaluating_the_rollout(page, rollout):
    observations, firsts = rollout
    carry, logits = page["carry"], []
    for observation, first in zip(observations, firsts, strict=True):
        carry, now = page["act"](page["params"], carry, observation, first)
        logits.append(now)
    final, expected = page["evaluate"](
        page["params"], page["carry"], observations, firsts
    )
    error = np.max(np.abs(np.stack(logits) - expected))
    assert error <= FLOAT32 * np.max(np.abs(expected))
    np.testing.assert_allclose(
        carry.layers[0].hidden, final.layers[0].hidden, rtol=0, atol=FLOAT32
    )


def test_flags_that_are_integers_are_refused(page, rollout):
    observations, firsts = rollout
    with pytest.raises(ValueError, match=r"invalid value for resets: expected a bool"):
        page["evaluate"](
            page["params"], page["carry"], observations, firsts.astype(jnp.int32)
        )
