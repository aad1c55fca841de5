"""Seeds that end: frozen where they diverge, stopped early, gone on from a state.

All claims are asked of one small problem, whose faults are hyperparameters: at a chosen
update the loss, the gradient or the learning rate of a seed is no number.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gated_rnn.training import Problem, StopReason, make_optimizer, train_seeds
from tests import cases

NEVER = -1
BATCH_SIZE, IN_FEATURES = 4, 3
TABLE = np.arange(1.0, 13.0, dtype=np.float32).reshape(BATCH_SIZE, IN_FEATURES)
NUM_UPDATES = 8
UPDATES_PER_PIECE = 3
SEED_BLOCK = 3
TARGET = -0.5  # of the validation, which lies between -4 and 4
# Sums of a few products of order one, in a program compiled by itself.
FLOAT32_TOLERANCE = 1e-5

LOSS, GRADIENT, PARAMETERS = (
    StopReason.LOSS_NOT_FINITE,
    StopReason.GRADIENT_NOT_FINITE,
    StopReason.PARAMETERS_NOT_FINITE,
)


# The problem: a regression, with faults


class Faults(NamedTuple):
    """At which update something is no number, and which."""

    loss_at: int = NEVER
    gradient_at: int = NEVER
    rate_at: int = NEVER
    value: float = np.nan


class Case(NamedTuple):
    """A seed, and how it ends: None if it does not."""

    faults: Faults = Faults()
    ends: tuple[StopReason, int] | None = None
    weight: float = 1.0  # of the loss
    clip: float = 0.5
    blind: bool = False  # its validation is no number


# By seed id. After the update at which a fault strikes, everything would be finite
# again, but for those that have a second one.
CASES = {
    0: Case(),
    1: Case(Faults(loss_at=2), (LOSS, 2)),
    2: Case(),
    # A block that ends whole, before the last piece.
    3: Case(Faults(loss_at=0, gradient_at=5, value=np.inf), (LOSS, 0)),
    4: Case(Faults(gradient_at=3), (GRADIENT, 3)),
    5: Case(Faults(loss_at=4, gradient_at=1, value=-np.inf), (GRADIENT, 1)),
    # A gradient that is finite and has no finite norm.
    6: Case(Faults(gradient_at=2, value=3e38), (GRADIENT, 2)),
    7: Case(Faults(rate_at=4, value=np.inf), (PARAMETERS, 4)),
    8: Case(Faults(rate_at=2), (PARAMETERS, 2)),
    # All at once: the loss is what is named. The gradient goes before the parameters.
    9: Case(Faults(3, 3, 3), (LOSS, 3)),
    10: Case(Faults(NEVER, 5, 5, np.inf), (GRADIENT, 5)),
    # Clipped to nothing, without and with a gradient: 0 / 0 were NaN.
    11: Case(weight=0.0, clip=0.0),
    12: Case(clip=0.0),
    # The last update of all.
    13: Case(Faults(loss_at=7), (LOSS, 7)),
    14: Case(blind=True),
    15: Case(),
    16: Case(),
}
SEED_IDS = list(CASES)
HEALTHY = [seed_id for seed_id, case in CASES.items() if case.ends is None]
BROKEN = [seed_id for seed_id, case in CASES.items() if case.ends is not None]


@jax.custom_vjp
def tilt(params, slope):
    """Return 0, whose derivative by every parameter is `slope`."""
    return 0.0 * slope


tilt.defvjp(
    lambda params, slope: (0.0, (params, slope)),
    lambda residuals, g: (
        jax.tree.map(lambda leaf: g * jnp.full_like(leaf, residuals[1]), residuals[0]),
        jnp.zeros_like(residuals[1]),
    ),
)


# No draws: each is half a second of compiling.


def init(key, hyper):
    return {"kernel": jnp.cos(hyper["bias"] * TABLE[0]), "bias": hyper["bias"]}


def dataset(key, hyper):
    return {**hyper, "inputs": jnp.sin(hyper["bias"] + TABLE)}


def batch(key, step, dataset):
    targets = jnp.cos(dataset["inputs"] @ jnp.ones(IN_FEATURES) * (1 + step))
    faults = dataset["faults"]
    struck = [step == faults.loss_at, step == faults.gradient_at]
    added, slope = [jnp.where(is_it, faults.value, 0.0) for is_it in struck]
    return dataset["inputs"], targets, dataset["weight"], added, slope


def loss(params, batch, key):
    inputs, targets, weight, added, slope = batch
    errors = inputs @ params["kernel"] + params["bias"] - targets
    value = weight * jnp.mean(errors**2) + tilt(params, slope) + added
    draw = jax.random.key_data(key)[0]
    return value, {"errors": errors, "draw": draw, "odd": draw % 2 == 1}


def adam(hyper):
    faults = hyper["faults"]

    def rate(count):
        return jnp.where(count == faults.rate_at, faults.value, hyper["rate"])

    return make_optimizer(rate, hyper["clip"])


def validate(params, dataset):
    # Rises and falls from update to update.
    value = jnp.sum(jnp.sin(40.0 * (dataset["inputs"] @ params["kernel"])))
    return jnp.where(dataset["blind"], jnp.nan, value)


FAULTY = Problem(init, loss, batch, dataset)
VALIDATED = FAULTY._replace(validate=validate)


def make_hyper(chosen):
    """Stack what the seeds are given; `chosen` maps seed ids to cases."""
    ids = np.array(list(chosen), np.float32)
    faults = [case.faults for case in chosen.values()]
    return {
        "bias": 0.5 + ids,
        "rate": 0.01 * (1.0 + ids % 5),
        "clip": np.array([case.clip for case in chosen.values()], np.float32),
        "blind": np.array([case.blind for case in chosen.values()]),
        "weight": np.array([case.weight for case in chosen.values()], np.float32),
        "faults": Faults(
            *(np.array(rows, np.int32) for rows in list(zip(*faults, strict=True))[:3]),
            np.array([fault.value for fault in faults], np.float32),
        ),
    }


def run(problem=FAULTY, chosen=CASES, num_updates=NUM_UPDATES, **options):
    return train_seeds(
        problem,
        jax.random.key(5),
        list(chosen),
        num_updates,
        optimizer=adam,
        hyper=make_hyper(chosen),
        **{
            "updates_per_piece": UPDATES_PER_PIECE,
            "seed_block": SEED_BLOCK,
            "devices": jax.devices("cpu")[:1],
            **options,
        },
    )


def rows_of(tree, rows):
    return jax.tree.map(lambda leaf: leaf[rows], tree)


def assert_same_bits(actual, expected):
    flat = jax.tree_util.tree_leaves_with_path(actual)
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for (path, leaf), other in zip(flat, jax.tree.leaves(expected), strict=True):
        leaf, other = (np.asarray(value) for value in (leaf, other))
        name = jax.tree_util.keystr(path)
        assert (leaf.dtype, leaf.shape) == (other.dtype, other.shape), name
        assert leaf.tobytes() == other.tobytes(), name


@pytest.fixture(scope="module", params=[True, False], ids=["vmap", "in_turn"])
def vectorize(request):
    return request.param


@pytest.fixture(scope="module")
def whole(vectorize):
    """Every case, all updates, without validation."""
    return run(vectorize=vectorize)


# Seeds that diverge


def test_diverged_seeds_are_reported_with_update_and_reason(whole):
    expected = {seed_id: CASES[seed_id].ends for seed_id in BROKEN}
    assert whole.ended == expected
    assert whole.status.reason.dtype == whole.status.step.dtype == np.int32
    running = rows_of(whole.status, HEALTHY)
    assert set(running.reason.tolist()) == {StopReason.RUNNING}
    assert set(running.step.tolist()) == {-1}


@pytest.mark.parametrize("seed_id", BROKEN)
def test_diverged_seed_keeps_what_a_run_had_that_stopped_there(
    seed_id, whole, vectorize
):
    stopped = run(num_updates=CASES[seed_id].ends[1], vectorize=vectorize)
    actual, expected = (
        rows_of((result.params, result.opt_state), seed_id)
        for result in (whole, stopped)
    )
    assert_same_bits(actual, expected)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(actual))


def test_healthy_seeds_have_the_bits_they_have_among_healthy_seeds(whole, vectorize):
    chosen = {i: case._replace(faults=Faults()) for i, case in CASES.items()}
    healthy = run(chosen=chosen, vectorize=vectorize)
    assert healthy.ended == {}
    names = ("params", "opt_state", "metrics")
    actual, expected = (
        [rows_of(getattr(result, name), HEALTHY) for name in names]
        for result in (whole, healthy)
    )
    assert_same_bits(actual, expected)
    # And a broken seed has them up to the update at which it breaks.
    for seed_id in BROKEN:
        count = CASES[seed_id].ends[1]
        assert_same_bits(
            jax.tree.map(lambda curve: curve[seed_id, :count], whole.metrics),  # noqa: B023 - called at once
            jax.tree.map(lambda curve: curve[seed_id, :count], healthy.metrics),  # noqa: B023 - called at once
        )


def test_metrics_are_what_they_are_at_the_fault_and_absent_after_it(whole):
    for seed_id in BROKEN:
        reason, step = CASES[seed_id].ends
        metrics = rows_of(whole.metrics, seed_id)
        assert np.isfinite(metrics["errors"][step]).all(), seed_id
        assert np.isfinite(metrics["loss"][step]) == (reason != LOSS), seed_id
        norm_is_finite = CASES[seed_id].faults.gradient_at != step
        assert np.isfinite(metrics["grad_norm"][step]) == norm_is_finite, seed_id
        for name in ("loss", "grad_norm", "errors"):
            assert np.isnan(metrics[name][step + 1 :]).all(), (seed_id, name)
        assert metrics["draw"][: step + 1].all(), seed_id  # 0 is one draw in 2^32
        assert not metrics["draw"][step + 1 :].any(), seed_id
        assert not metrics["odd"][step + 1 :].any(), seed_id
    assert whole.metrics["draw"].dtype == np.uint32
    assert whole.metrics["odd"].dtype == np.bool_
    assert whole.metrics["odd"][HEALTHY].any(axis=1).all()


def test_value_of_the_fault_is_shown(whole):
    at_fault = {i: whole.metrics["loss"][i, CASES[i].ends[1]] for i in BROKEN}
    assert np.isnan(at_fault[1])
    assert at_fault[3] == np.inf
    norms = {i: whole.metrics["grad_norm"][i, CASES[i].ends[1]] for i in BROKEN}
    assert np.isnan(norms[4])
    assert norms[5] == norms[6] == np.inf


def test_clipping_to_nothing_leaves_a_seed_as_it_was(whole, vectorize):
    first = run(num_updates=0, vectorize=vectorize)
    for seed_id in (11, 12):
        assert_same_bits(rows_of(whole.params, seed_id), rows_of(first.params, seed_id))
    assert np.all(whole.metrics["grad_norm"][11] == 0)
    assert np.all(whole.metrics["grad_norm"][12] > 0)
    assert not np.array_equal(whole.params["kernel"][0], first.params["kernel"][0])


# What runs: a problem so small that every call of it is noted


CALLS = []  # what was called, of which seed, at which step


def note(what, seed_id, step):
    jax.debug.callback(
        lambda *numbers: CALLS.append((what, *map(int, numbers))), seed_id, step
    )


def noted_batch(key, step, dataset):
    note("batch", dataset["id"], step)
    return jnp.where(step == dataset["at"], jnp.nan, 1.0)


def noted_validate(params, dataset):
    note("validate", dataset["id"], 0)
    return params


NOTED = Problem(
    init=lambda key, hyper: jnp.float32(1.0),
    loss=lambda params, batch, key: (params * batch, {}),
    batch=noted_batch,
    dataset=lambda key, hyper: hyper,
    validate=noted_validate,
)
DESCENT = optax.sgd(0.1)


def run_noted(ends, num_updates, **options):
    """Run seeds whose losses are no number at the updates `ends`; return the calls."""
    CALLS.clear()
    result = train_seeds(
        NOTED,
        jax.random.key(0),
        np.arange(len(ends)),
        num_updates,
        optimizer=DESCENT,
        hyper={"id": np.arange(len(ends)), "at": np.array(ends)},
        devices=jax.devices("cpu")[:1],
        updates_per_piece=2,
        seed_block=2,
        validate_every=3,
        **options,
    )
    jax.effects_barrier()
    calls = {what: [] for what in ("batch", "validate")}
    for what, *numbers in sorted(CALLS):
        calls[what].append(tuple(numbers))
    return result, calls


def test_block_of_which_every_seed_has_ended_is_not_run_any_more(vectorize):
    # The first block ends in its first piece, the second in its second; of the third
    # one seed goes on to the end.
    ends = [0, 1, 3, 0, 2, NEVER]
    result, calls = run_noted(ends, 7, vectorize=vectorize)
    assert list(result.ended) == [0, 1, 2, 3, 4]
    # A seed that has ended beside one that has not costs nothing if they run in turn.
    last = [2, 2, 4, 4, 7, 7] if vectorize else [2, 2, 4, 2, 4, 7]
    assert calls["batch"] == [(i, step) for i in range(6) for step in range(last[i])]
    assert result.metrics["loss"].shape == (6, 7)
    counts = np.isfinite(result.metrics["loss"]).sum(axis=1)
    assert counts.tolist() == [0, 1, 3, 0, 2, 7]

    more, calls = run_noted(ends, 9, vectorize=vectorize, state=result.state)
    rest = (4, 5) if vectorize else (5,)
    assert calls["batch"] == [(i, step) for i in rest for step in (7, 8)]
    assert more.ended == result.ended


def test_validation_is_computed_where_it_is_due_alone(vectorize):
    _, calls = run_noted([NEVER, 1], 7, vectorize=vectorize)
    # In turn, seed 1 makes no more updates after the piece in which it ended.
    expected = [0, 0, 1, 1] if vectorize else [0, 0]
    assert [seed_id for seed_id, _ in calls["validate"]] == expected


# Validation


def trace(chosen, problem=VALIDATED, **options):
    """Return the parameters after 0, 1, 2, ... updates, and the result."""
    states = [run(problem, chosen, 0, **options).state]
    result = run(
        problem,
        chosen,
        updates_per_piece=1,
        on_piece=lambda piece: states.append(piece.take_state()),
        **options,
    )
    return [state.params for state in states], result


class Expected(NamedTuple):
    """What a loop in Python makes of a seed's trajectory."""

    curve: list
    value: float
    step: int
    params: dict
    last: int  # the update after which it has stopped
    stopped: StopReason | None


def loop(
    params,
    dataset,
    num_made,
    *,
    every,
    patience=None,
    min_improvement=0.0,
    target=-np.inf,
):
    """Validate, keep the best and stop: `params` of one seed, after each update."""
    best = (np.float32(np.inf), 0, params[0])
    curve, last, stopped = [], num_made, None
    for step in range(1, num_made + 1):
        value = np.nan
        if step % every == 0:
            value = float(validate(params[step], dataset))
            if value < best[0] - min_improvement:
                best = (value, step, params[step])
        curve.append(value)
        if value <= target:
            last, stopped = step, StopReason.TARGET_REACHED
            break
        if patience is not None and step - best[1] >= patience:
            last, stopped = step, StopReason.NO_IMPROVEMENT
            break
    return Expected(curve, *best, last, stopped)


def datasets_of(chosen):
    hyper = make_hyper(chosen)
    return [dataset(None, rows_of(hyper, row)) for row in range(len(chosen))]


@pytest.fixture(scope="module")
def trajectory(vectorize):
    return trace(CASES, validate_every=2, vectorize=vectorize)


@pytest.mark.parametrize(
    "rules",
    [
        {"every": 2},
        {"every": 2, "patience": 3},
        {"every": 3, "patience": 4},
        {"every": 2, "patience": 4, "min_improvement": 1.0},
        {"every": 2, "target": TARGET},
        {"every": 2, "patience": 2, "target": TARGET},
    ],
    ids=str,
)
def test_validation_best_and_patience_equal_a_loop_in_python(
    rules, trajectory, vectorize
):
    snapshots, _ = trajectory
    every = rules["every"]
    rest = {name: rules[name] for name in rules if name != "every"}
    result = run(VALIDATED, vectorize=vectorize, validate_every=every, **rest)
    datasets = datasets_of(CASES)
    for row, seed_id in enumerate(SEED_IDS):
        case = CASES[seed_id]
        num_made = NUM_UPDATES if case.ends is None else case.ends[1]
        params = [rows_of(snapshot, row) for snapshot in snapshots]
        expected = loop(params, datasets[row], num_made, **rules)
        best = rows_of(result.best, row)
        assert best.step == expected.step, seed_id
        cases.assert_close(best.params, expected.params, FLOAT32_TOLERANCE, "best")
        if expected.step:
            assert abs(best.value - expected.value) < 1e-3
        else:
            assert best.value == np.inf
        ends = (expected.stopped, expected.last)
        assert result.ended.get(seed_id) == (ends if expected.stopped else case.ends)
        curve = result.metrics["validation"][row]
        np.testing.assert_allclose(curve[: expected.last], expected.curve, atol=1e-3)
        losses = result.metrics["loss"][row]
        assert np.isfinite(losses[: expected.last]).all()
        if expected.stopped:
            # It keeps its last parameters; the best ones are beside them.
            last = rows_of(result.params, row)
            cases.assert_close(last, params[expected.last], FLOAT32_TOLERANCE, "last")
            for name in ("loss", "grad_norm", "errors", "validation"):
                assert np.isnan(result.metrics[name][row, expected.last :]).all()


def test_rules_of_the_test_above_end_seeds_at_different_updates(trajectory):
    # Else it would say little.
    snapshots, whole = trajectory
    found, good, datasets = set(), [], datasets_of(CASES)
    for row in HEALTHY:
        params = [rows_of(snapshot, row) for snapshot in snapshots]
        expected = loop(params, datasets[row], NUM_UPDATES, every=2, patience=3)
        found.add((expected.step, expected.last, expected.stopped))
        expected = loop(params, datasets[row], NUM_UPDATES, every=2, target=TARGET)
        good.append(expected.last if expected.stopped else None)
    assert len(found) >= 4, found
    assert (0, 3, StopReason.NO_IMPROVEMENT) in found  # the blind one
    assert None in good
    assert len(set(good)) >= 3, good
    # A seed that diverges after an update that was not validated, when it is due.
    assert CASES[4].ends == (GRADIENT, 3)
    assert whole.best.step[4] == 2


def test_dtypes_are_kept_in_float64(x64):
    chosen = {0: Case(), 1: CASES[1], 2: Case()}
    hyper = jax.tree.map(
        lambda leaf: leaf.astype(float) if leaf.dtype == np.float32 else leaf,
        make_hyper(chosen),
    )
    result = train_seeds(
        VALIDATED,
        jax.random.key(5),
        list(chosen),
        4,
        optimizer=adam,
        hyper=hyper,
        validate_every=2,
        patience=2,
    )
    assert result.params["kernel"].dtype == result.metrics["loss"].dtype == np.float64
    assert result.best.params["kernel"].dtype == np.float64
    assert result.best.value.dtype == result.metrics["validation"].dtype == np.float32
    dtypes = {leaf.dtype for leaf in (*result.status, result.best.step)}
    assert dtypes == {np.dtype(np.int32)}
    assert result.ended[1] == (LOSS, 2)


# Going on


def cut_and_go_on(cuts, problem=VALIDATED, chosen=CASES, **options):
    """Run in parts; return the parts' results."""
    results, state = [], None
    for num_updates in cuts:
        result = run(problem, chosen, num_updates, state=state, **options)
        results.append(result)
        state = result.state
    return results


ALL_BUT_METRICS = ("seed_ids", "params", "opt_state", "status", "best")


@pytest.mark.parametrize("cuts", [(4, 8), (3, 5, 5, 8), (0, 1, 8)], ids=str)
def test_run_that_went_on_has_the_bits_of_one_that_did_not_stop(cuts, vectorize):
    options = {"validate_every": 2, "patience": 3, "vectorize": vectorize}
    expected = run(VALIDATED, **options)
    parts = cut_and_go_on(cuts, **options)
    for name in ALL_BUT_METRICS:
        assert_same_bits(getattr(parts[-1], name), getattr(expected, name))
    assert_same_bits(parts[-1].state, expected.state)
    joined = {
        name: np.concatenate([part.metrics[name] for part in parts], axis=1)
        for name in expected.metrics
    }
    assert_same_bits(joined, expected.metrics)
    reasons = {reason for reason, _ in expected.ended.values()}
    assert reasons == {LOSS, GRADIENT, PARAMETERS, StopReason.NO_IMPROVEMENT}


def test_state_taken_on_the_way_is_a_copy_to_go_on_from(vectorize):
    options = {"validate_every": 2, "vectorize": vectorize}
    pieces, states = [], []

    def take(piece):
        pieces.append(piece)
        states.append(piece.take_state())

    expected = run(VALIDATED, on_piece=take, **options)
    for count, state in zip((3, 6, 8), states, strict=True):
        assert state.step == count
        assert_same_bits(state, run(VALIDATED, num_updates=count, **options).state)
    went_on = run(VALIDATED, state=states[0], **options)
    for name in ALL_BUT_METRICS:
        assert_same_bits(getattr(went_on, name), getattr(expected, name))
    tails = {name: curve[:, 3:] for name, curve in expected.metrics.items()}
    assert_same_bits(went_on.metrics, tails)
    # The same, from the state that the run has just gone on from.
    again = run(VALIDATED, state=states[0], **options)
    assert_same_bits(again.state, went_on.state)


def test_pieces_of_a_run_that_went_on_count_from_its_first_update(vectorize):
    steps = []
    state = run(num_updates=4, vectorize=vectorize).state
    result = run(
        vectorize=vectorize,
        state=state,
        on_piece=lambda piece: steps.append((piece.step, piece.num_updates)),
    )
    assert steps == [(7, 8), (8, 8)]
    assert result.metrics["loss"].shape == (len(CASES), 4)
    assert result.state.step == 8


class KeyState(NamedTuple):
    """An optimiser's state that is a random key, another one after each update."""

    key: jax.Array


def shake(hyper):
    def init(params):
        return KeyState(jax.random.key(8, impl="rbg"))

    def update(updates, state, params=None):
        key, noise_key = jax.random.split(state.key)
        noise = jax.random.normal(noise_key)
        return jax.tree.map(lambda g: -0.1 * g * noise, updates), KeyState(key)

    return optax.GradientTransformation(init, update)


def test_keys_in_the_optimiser_state_are_frozen_and_gone_on_from():
    chosen = {i: CASES[i] for i in (0, 1, 2, 7)}
    options = {
        "optimizer": shake,
        "hyper": make_hyper(chosen),
        "seed_block": 3,
    }

    def run_shaken(num_updates, state=None):
        ids = list(chosen)
        return train_seeds(
            FAULTY, jax.random.key(5), ids, num_updates, state=state, **options
        )

    def bits(state):
        return jax.random.key_data(state.opt_state.key)

    expected = run_shaken(5)
    went_on = run_shaken(5, run_shaken(3).state)
    assert jax.random.key_impl(went_on.opt_state.key) == "rbg"
    assert expected.ended == {1: (LOSS, 2)}
    assert_same_bits(went_on.params, expected.params)
    np.testing.assert_array_equal(bits(went_on), bits(expected))
    np.testing.assert_array_equal(bits(run_shaken(2))[1], bits(expected)[1])
    assert not np.array_equal(bits(expected)[0], bits(expected)[1])


# Errors


def refused(name, *words, **options):
    chosen = options.pop("chosen", {0: Case(), 2: Case()})
    problem = options.pop("problem", FAULTY)
    num_updates = options.pop("num_updates", 3)
    with pytest.raises(ValueError) as error:
        run(problem, chosen, num_updates, **options)
    cases.assert_says(error, name, *words)
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def short():
    """The state of two seeds after two updates."""
    return run(chosen={0: Case(), 2: Case()}, num_updates=2).state


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state._replace(seed_ids=np.array([2, 0])), ["[0, 2]", "[2, 0]"]),
        (lambda state: state._replace(seed_ids=np.array([0])), ["[0, 2]", "[0]"]),
        (lambda state: state._replace(step=4), ["3", "4"]),
        (lambda state: state._replace(step=-1), ["-1"]),
        (
            lambda state: state._replace(
                params={**state.params, "kernel": np.zeros((2, 5), np.float32)}
            ),
            [".params['kernel'] of float32[3]", ".params['kernel'] of float32[5]"],
        ),
        (
            lambda state: state._replace(
                params={**state.params, "bias": np.zeros(2, np.float64)}
            ),
            [".params['bias'] of float32[]", ".params['bias'] of float64[]"],
        ),
        (
            lambda state: state._replace(params={"kernel": state.params["kernel"]}),
            ["no .params['bias']"],
        ),
        (lambda state: state._replace(opt_state=()), ["no .opt_state"]),
        (
            lambda state: state._replace(status=tuple(state.status)),
            [".status.reason of int32[]", "no .status.reason"],
        ),
        (
            lambda state: state._replace(
                opt_state=state.opt_state._replace(
                    inner_state=list(state.opt_state.inner_state)
                )
            ),
            ["expected PyTreeDef", "got PyTreeDef"],
        ),
    ],
    ids=[
        *("another order", "other seeds", "too far", "before the first"),
        *("another shape", "another dtype", "a leaf less", "no optimiser"),
        *("a tuple", "a list"),
    ],
)
def test_wrong_state_is_refused(change, words, short):
    refused("state", *words, state=change(short))


def test_state_of_a_run_without_validation_is_refused_by_one_with(short):
    refused("state", ".best", state=short, problem=VALIDATED, validate_every=2)


def test_state_of_a_run_with_validation_is_refused_by_one_without():
    state = run(VALIDATED, {0: Case(), 2: Case()}, 2, validate_every=2).state
    refused("state", ".best", state=state)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("validate_every", 0, "positive"),
        ("validate_every", 2.5, "2.5"),
        ("validate_every", True, "True"),
        ("patience", 0, "positive"),
        ("patience", 1.5, "1.5"),
        ("patience", 9, "at least validate_every, 10"),
        ("min_improvement", -0.1, "-0.1"),
        ("min_improvement", np.nan, "nan"),
        ("min_improvement", np.inf, "inf"),
    ],
    ids=str,
)
def test_rules_that_say_nothing_are_refused(name, value, words):
    refused(name, words, problem=VALIDATED, **{name: value})


def test_patience_without_validation_is_refused():
    refused("patience", "nothing is validated", "12", patience=12)


def test_target_is_a_finite_number_and_needs_a_validation():
    refused("target", "nothing is validated", "0.5", target=0.5)
    for target in (np.nan, np.inf):
        refused("target", "a finite number", str(target), target=target)
