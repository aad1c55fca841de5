"""Adam with clipping: against a NumPy float64 oracle, per seed, in every dtype."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gated_rnn.training import make_optimizer
from gated_rnn.training.optimizer import clip_by_global_norm, global_norm

NUM_UPDATES = 6
SHAPES = {"bias": (3,), "kernel": (4, 3), "scale": ()}
FLOAT64_TOLERANCE = 1e-12
FLOAT32_TOLERANCE = 1e-5  # relative, of an array's largest entry
# With the default b2 = 0.999 the first 1 - b2^t is about 1e-3, a difference of numbers
# that float32 rounds by 6e-8: 6e-5 in v_hat, 3e-5 in its root.
FLOAT32_DEFAULT_B2 = 5e-5
CONSTANTS = {"learning_rate": 0.03, "b1": 0.8, "b2": 0.95, "eps": 1e-2}


def draw_gradients(seed=0):
    """Gradients whose global norms are spread over 0.04 to 40."""
    rng = np.random.default_rng(seed)
    sizes = 10.0 ** np.linspace(-2, 1, NUM_UPDATES)
    return [
        {name: size * rng.normal(size=shape) for name, shape in SHAPES.items()}
        for size in rng.permutation(sizes)
    ]


def norm_of(grads):
    return np.sqrt(sum(np.sum(np.square(g)) for g in grads.values()))


def clipped_adam(gradients, learning_rate, max_grad_norm, *, b1, b2, eps):
    """Kingma and Ba, algorithm 1, on clipped gradients; yields the updates."""
    m = {name: np.zeros(shape) for name, shape in SHAPES.items()}
    v = {name: np.zeros(shape) for name, shape in SHAPES.items()}
    for t, grads in enumerate(gradients, start=1):
        norm = norm_of(grads)
        clip = 1.0 if norm <= max_grad_norm[t - 1] else max_grad_norm[t - 1] / norm
        updates = {}
        for name, g in grads.items():
            m[name] = b1 * m[name] + (1 - b1) * clip * g
            v[name] = b2 * v[name] + (1 - b2) * (clip * g) ** 2
            m_hat, v_hat = m[name] / (1 - b1**t), v[name] / (1 - b2**t)
            updates[name] = -learning_rate[t - 1] * m_hat / (np.sqrt(v_hat) + eps)
        yield updates


def run(optimizer, gradients, dtype):
    """Return the updates that an optimiser makes of a list of gradients."""
    params = {name: jnp.ones(shape, dtype) for name, shape in SHAPES.items()}
    state, all_updates = optimizer.init(params), []
    update = jax.jit(optimizer.update)
    for grads in gradients:
        grads = jax.tree.map(lambda g: jnp.asarray(g, dtype), grads)
        updates, state = update(grads, state, params)
        all_updates.append(updates)
    return all_updates, state


def assert_close(actual, expected, tolerance):
    for ours, theirs in zip(actual, expected, strict=True):
        for name in SHAPES:
            error = np.max(np.abs(np.asarray(ours[name], np.float64) - theirs[name]))
            assert error <= tolerance * np.max(np.abs(theirs[name])), name


@pytest.mark.parametrize(
    ("max_grad_norm", "clipped"),
    [(0.01, 6), (1.0, 3), (1e3, 0), (None, 0)],
    ids=["always", "sometimes", "never", "none"],
)
def test_updates_equal_adam_on_clipped_gradients(max_grad_norm, clipped, x64):
    gradients = draw_gradients()
    limit = np.inf if max_grad_norm is None else max_grad_norm
    assert sum(norm_of(g) > limit for g in gradients) == clipped
    constants = {**CONSTANTS, "max_grad_norm": max_grad_norm}
    updates, _ = run(make_optimizer(**constants), gradients, jnp.float64)
    expected = clipped_adam(
        gradients,
        [CONSTANTS["learning_rate"]] * NUM_UPDATES,
        [limit] * NUM_UPDATES,
        **{name: CONSTANTS[name] for name in ("b1", "b2", "eps")},
    )
    assert_close(updates, expected, FLOAT64_TOLERANCE)


def test_defaults_are_adam_at_1e_3_with_clip_norm_1():
    gradients = draw_gradients()
    updates, state = run(make_optimizer(), gradients, jnp.float32)
    expected = clipped_adam(
        gradients, [1e-3] * NUM_UPDATES, [1.0] * NUM_UPDATES, b1=0.9, b2=0.999, eps=1e-8
    )
    assert_close(updates, expected, FLOAT32_DEFAULT_B2)
    assert state.hyperparams["learning_rate"] == np.float32(1e-3)
    assert state.hyperparams["max_grad_norm"] == 1.0


def test_updates_equal_those_of_optax():
    theirs = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.03))
    expected, _ = run(theirs, draw_gradients(), jnp.float32)
    updates, _ = run(make_optimizer(0.03), draw_gradients(), jnp.float32)
    expected = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), expected)
    assert_close(updates, expected, FLOAT32_TOLERANCE)


def test_schedules_see_the_number_of_updates_made_so_far(x64):
    gradients = draw_gradients()
    rates = np.array([0.5, 0.1, 0.7, 0.2, 0.05, 0.3])
    limits = np.array([0.1, 5.0, 0.02, 1.0, 100.0, 0.5])
    optimizer = make_optimizer(
        lambda step: jnp.asarray(rates)[step], lambda step: jnp.asarray(limits)[step]
    )
    updates, state = run(optimizer, gradients, jnp.float64)
    expected = clipped_adam(gradients, rates, limits, b1=0.9, b2=0.999, eps=1e-8)
    assert_close(updates, expected, FLOAT64_TOLERANCE)
    assert state.hyperparams["learning_rate"] == rates[-1]


def test_rate_and_norm_may_differ_along_a_mapped_axis():
    gradients = draw_gradients()
    rates, limits = jnp.array([0.1, 0.02, 0.3]), jnp.array([0.05, 2.0, 100.0])

    def updates_of(rate, limit):
        return run(make_optimizer(rate, limit), gradients, jnp.float32)[0]

    together = jax.vmap(updates_of)(rates, limits)
    for row, (rate, limit) in enumerate(zip(rates, limits, strict=True)):
        expected = clipped_adam(
            gradients,
            [float(rate)] * NUM_UPDATES,
            [float(limit)] * NUM_UPDATES,
            b1=0.9,
            b2=0.999,
            eps=1e-8,
        )
        ours = jax.tree.map(lambda leaf, row=row: leaf[row], together)
        assert_close(ours, expected, FLOAT32_DEFAULT_B2)


def test_new_values_in_the_state_compile_nothing():
    traces = []
    optimizer = make_optimizer()

    @jax.jit
    def update(grads, state, params):
        traces.append(None)
        return optimizer.update(grads, state, params)

    params = {name: jnp.ones(shape) for name, shape in SHAPES.items()}
    grads = jax.tree.map(jnp.asarray, draw_gradients()[0])
    grads = jax.tree.map(lambda g: g.astype(jnp.float32), grads)
    state = optimizer.init(params)
    first, _ = update(grads, state, params)
    doubled = jax.tree.map(lambda leaf: leaf, state)
    doubled.hyperparams["learning_rate"] = 2 * state.hyperparams["learning_rate"]
    second, _ = update(grads, doubled, params)
    assert len(traces) == 1
    np.testing.assert_allclose(second["kernel"], 2 * first["kernel"], rtol=1e-6)


def test_zero_gradient_stays_zero_at_zero_norm():
    zeros = {name: jnp.zeros(shape) for name, shape in SHAPES.items()}
    updates, _ = run(make_optimizer(0.1, 0.0), [zeros, zeros], jnp.float32)
    assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(updates))


def test_gradient_without_limit_to_its_norm_is_seen_or_dropped():
    clip = clip_by_global_norm(1.0)
    state = clip.init(None)
    overflowing, _ = clip.update({"a": jnp.float32(1e30), "b": jnp.float32(2)}, state)
    assert overflowing["a"] == overflowing["b"] == 0
    broken, _ = clip.update({"a": jnp.float32(np.nan), "b": jnp.float32(2)}, state)
    assert np.isnan(broken["a"])


def test_moments_of_bfloat16_parameters_are_float32():
    # Rounded to bfloat16 the gradients are the oracle's inputs; the rest is float32.
    gradients = [
        jax.tree.map(lambda g: np.asarray(jnp.bfloat16(g), np.float64), grads)
        for grads in draw_gradients()
    ]
    updates, state = run(make_optimizer(), gradients, jnp.bfloat16)
    expected = clipped_adam(
        gradients, [1e-3] * NUM_UPDATES, [1.0] * NUM_UPDATES, b1=0.9, b2=0.999, eps=1e-8
    )
    assert_close(updates, expected, FLOAT32_DEFAULT_B2)
    floats = [x for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, np.floating)]
    assert {leaf.dtype for leaf in floats} == {np.dtype(np.float32)}
    params = {name: jnp.ones(shape, jnp.bfloat16) for name, shape in SHAPES.items()}
    moved = optax.apply_updates(params, updates[0])
    assert {leaf.dtype for leaf in jax.tree.leaves(moved)} == {jnp.dtype(jnp.bfloat16)}


def test_float64_rates_leave_the_state_of_float32_parameters(x64):
    optimizer = make_optimizer(jnp.float64(0.1), jnp.float64(0.5))
    params = {name: jnp.ones(shape, jnp.float32) for name, shape in SHAPES.items()}
    before = optimizer.init(params)
    _, after = run(optimizer, draw_gradients(), jnp.float32)
    dtypes = [jax.tree.map(lambda leaf: leaf.dtype, state) for state in (before, after)]
    assert dtypes[0] == dtypes[1]


def test_global_norm_is_over_all_leaves_in_at_least_float32():
    tree = {"a": jnp.full((1000,), 3.0, jnp.bfloat16), "b": jnp.full((2,), 4j)}
    assert global_norm(tree).dtype == jnp.float32
    np.testing.assert_allclose(global_norm(tree), np.sqrt(9000 + 32), rtol=1e-6)


@pytest.mark.parametrize(
    "arguments",
    [
        {"learning_rate": -1e-3},
        {"learning_rate": float("nan")},
        {"learning_rate": np.float32(-1)},
        {"learning_rate": "1e-3"},
        {"max_grad_norm": -1},
        {"eps": -1e-8},
        {"b1": 1.0},
        {"b2": -0.1},
    ],
    ids=str,
)
def test_constants_out_of_range_are_refused(arguments):
    (name,) = arguments
    with pytest.raises(ValueError, match=f"invalid value for {name}: expected"):
        make_optimizer(**arguments)
