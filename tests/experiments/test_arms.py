"""Arms on parabolas, whose every step can be written down.

With gradient descent of rate r the loss (p - 1)^2 takes p to p + 2 r (1 - p).
"""

import io
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from rich.console import Console

from experiments import arms as arms_module
from experiments.arms import (
    FIRST_TUNING_SEED,
    Arm,
    diverged,
    score_seeds,
    time_arms,
    train_arms,
    tune_arms,
)
from experiments.command import UsageError
from experiments.run_config import ComparisonConfig
from gated_rnn.networks import Dense, Stack
from gated_rnn.training import Problem, StopReason

KEY = jax.random.key(4)
NETWORK = Stack(Dense(1))
START = 0.01  # standard deviation of p before training
#: Takes p to 100 in one step, away by a factor of 99 in every other.
WILD = 50.0
OPTIONS = {"updates_per_piece": 5, "validate_every": 1}


@pytest.fixture
def console():
    return Console(file=io.StringIO(), width=100)


def descend(rate):
    return optax.sgd(rate)


def start(key, hyper):
    return START * jax.random.normal(key, ())


def miss_one(params, batch, key):
    return jnp.square(params - 1), {}


def no_batch(key, step):
    return ()


def distance(goal, params):
    return jnp.square(params - goal)


def make_arm(name, goal=None):
    """An arm that is trained towards 1 and validated by its distance to `goal`."""
    validate = None
    if goal is not None:
        validate = jax.tree_util.Partial(distance, jnp.float32(goal))
    problem = Problem(start, miss_one, no_batch, validate=validate)
    return Arm(name, name.upper(), NETWORK, problem)


def make_config(directory, **changes):
    settings = {"num_seeds": 3, "seed_block": 2, "tuning_seeds": 2, **changes}
    return ComparisonConfig(output_dir=directory, **settings)


def seeds_of(directory, name):
    lines = (directory / f"metrics_{name}.jsonl").read_text().splitlines()
    return {json.loads(line)["seed"] for line in lines}


def test_rate_is_chosen_on_validation_and_not_by_the_training_loss(tmp_path, console):
    # Ten steps at 0.02 take p to 1 - 0.96^10 = 0.34; at 0.5 one step ends the training.
    config = make_config(tmp_path, learning_rates=(0.02, 0.1, 0.5))
    arms = [make_arm("near", goal=0.3), make_arm("far", goal=0.9)]
    tuned = tune_arms(config, console, arms, KEY, 10, optimizer=descend, **OPTIONS)
    expected = {
        rate: [min((1 - (1 - 2 * rate) ** n - goal) ** 2 for n in range(1, 11))]
        for goal in (0.9,)
        for rate in config.learning_rates
    }
    assert tuned["near"].rate == 0.02
    assert tuned["near"].at_edge
    assert tuned["far"].rate == 0.1
    assert not tuned["far"].at_edge
    np.testing.assert_allclose(
        tuned["far"].values, np.ravel(list(expected.values())), atol=0.05
    )
    assert tuned["far"].rates == [0.02, 0.1, 0.5]
    assert tuned["far"].seeds == 2


def test_value_of_a_rate_is_the_mean_of_its_own_seeds(tmp_path, console):
    # At these rates p hardly moves: the value is the seed's own start, squared.
    config = make_config(tmp_path, learning_rates=(1e-9, 2e-9, 3e-9), tuning_seeds=2)
    arms = [make_arm("one", goal=0.0)]
    tuned = tune_arms(config, console, arms, KEY, 1, optimizer=descend, **OPTIONS)
    first = [
        start(jax.random.split(jax.random.fold_in(KEY, FIRST_TUNING_SEED + i), 4)[0], 0)
        for i in range(6)
    ]
    expected = np.square(first).reshape(3, 2).mean(axis=1)
    np.testing.assert_allclose(tuned["one"].values, expected, rtol=1e-4)


def test_rate_that_diverges_is_not_chosen_however_low_it_was_before(tmp_path, console):
    config = make_config(tmp_path, learning_rates=(0.1, WILD))
    arms = [make_arm("one", goal=100.0)]
    tuned = tune_arms(config, console, arms, KEY, 30, optimizer=descend, **OPTIONS)
    assert tuned["one"].rate == 0.1
    assert tuned["one"].values[1] == np.inf
    assert np.isfinite(tuned["one"].values[0])


def test_one_diverged_seed_of_two_makes_the_rate_infinite(tmp_path, console):
    def start_apart(key, hyper):  # at 1 the gradient is 0 at any rate
        return jnp.where(jax.random.bernoulli(key), 1.0, 0.0)

    arm = make_arm("one", goal=1.0)
    arm = arm._replace(problem=arm.problem._replace(init=start_apart))
    config = make_config(tmp_path, learning_rates=(0.1, WILD), tuning_seeds=6)
    tuned = tune_arms(config, console, [arm], KEY, 30, optimizer=descend, **OPTIONS)
    assert tuned["one"].values[1] == np.inf
    assert tuned["one"].rate == 0.1


def test_no_finite_rate_is_one_line(tmp_path, console):
    config = make_config(tmp_path, learning_rates=(WILD,))
    arms = [make_arm("one", goal=0.0)]
    with pytest.raises(UsageError, match=r"ONE: no learning rate of \[50.0\]"):
        tune_arms(config, console, arms, KEY, 30, optimizer=descend, **OPTIONS)
    (tmp_path / "short").mkdir()
    config = make_config(tmp_path / "short", learning_rates=(0.1,))
    late = {**OPTIONS, "validate_every": 7}
    with pytest.raises(UsageError, match="train for longer"):
        tune_arms(config, console, arms, KEY, 6, optimizer=descend, **late)


def test_tuning_needs_a_validation_and_can_be_left_out(tmp_path, console):
    arms = [make_arm("one")]
    with pytest.raises(ValueError, match="expected problems with validate"):
        tune_arms(
            make_config(tmp_path), console, arms, KEY, 3, optimizer=descend, **OPTIONS
        )
    config = make_config(tmp_path, tuning_seeds=0)
    assert tune_arms(config, console, arms, KEY, 3, optimizer=descend) == {}
    assert list(tmp_path.iterdir()) == []


def test_seeds_that_tune_are_none_of_those_compared(tmp_path, console):
    config = make_config(tmp_path, learning_rates=(0.01, 0.1))
    arms = [make_arm("one", goal=0.3)]
    tune_arms(config, console, arms, KEY, 5, optimizer=descend, **OPTIONS)
    result = train_arms(
        *(config, console, arms, KEY, 5),
        optimizer=descend,
        rates={"one": 0.1},
        **OPTIONS,
    )["one"]
    assert result.seed_ids.tolist() == [0, 1, 2]
    assert seeds_of(tmp_path, "one") == {0, 1, 2}
    tuning = seeds_of(tmp_path, "one_tuning")
    assert tuning == {FIRST_TUNING_SEED + i for i in range(4)}


def test_arms_start_from_the_same_seeds_and_have_rates_of_their_own(tmp_path, console):
    config = make_config(tmp_path)
    arms = [make_arm("slow"), make_arm("fast")]
    rates = {"fast": 0.2, "slow": 0.01}
    results = train_arms(
        *(config, console, arms, KEY, 5), optimizer=descend, rates=rates, **OPTIONS
    )
    slow, fast = (results[name].metrics["loss"] for name in ("slow", "fast"))
    np.testing.assert_array_equal(slow[:, 0], fast[:, 0])
    assert np.unique(slow[:, 0]).size == 3
    for losses, rate in ((slow, 0.01), (fast, 0.2)):
        expected = losses[:, :1] * (1 - 2 * rate) ** (2 * np.arange(5))
        np.testing.assert_allclose(losses, expected, rtol=1e-5)


def test_training_after_tuning_compiles_nothing(tmp_path, console, compilations):
    config = make_config(tmp_path, learning_rates=(0.01, 0.1))
    arms = [make_arm("one", goal=0.3)]
    options = {"optimizer": lambda rate: optax.adam(rate), **OPTIONS}
    tuned = tune_arms(config, console, arms, KEY, 5, **options)
    assert compilations
    compilations.clear()
    train_arms(
        *(config, console, arms, KEY, 9), rates={"one": tuned["one"].rate}, **options
    )
    assert compilations == []


def test_memory_budget_chooses_the_block_whatever_else_is_asked_for(tmp_path, console):
    config = make_config(tmp_path, memory_budget=2**30, num_seeds=4)
    options = {**OPTIONS, "patience": 3}
    arms = [make_arm("one", goal=0.3)]
    results = train_arms(
        *(config, console, arms, KEY, 5),
        optimizer=descend,
        rates={"one": 0.1},
        **options,
    )
    assert results["one"].metrics["loss"].shape == (4, 5)
    assert "of 4 seeds" in console.file.getvalue()


def test_scores_are_those_of_the_best_parameters(tmp_path, console):
    # p goes 0, 0.2, 0.36, ...: nearest to 0.3 after two updates, then past it.
    config = make_config(tmp_path)
    arms = [make_arm("best", goal=0.3), make_arm("last")]
    rates = {"best": 0.1, "last": 0.1}
    results = train_arms(
        *(config, console, arms, KEY, 8), optimizer=descend, rates=rates, **OPTIONS
    )

    def score(params):
        return {"value": params, "double": jnp.stack([params, 2 * params])}

    best, last = (score_seeds(results[name], score) for name in ("best", "last"))
    np.testing.assert_allclose(best["value"], [0.36] * 3, atol=0.05)
    np.testing.assert_allclose(last["value"], [1 - 0.8**8] * 3, atol=0.02)
    np.testing.assert_array_equal(last["value"], results["last"].params)
    np.testing.assert_array_equal(best["double"][:, 1], 2 * best["value"])
    assert np.unique(best["value"]).size == 3


def test_data_of_a_score_are_an_argument_of_its_program(
    tmp_path, console, compilations
):
    config = make_config(tmp_path)
    result = train_arms(
        *(config, console, [make_arm("one")], KEY, 1),
        optimizer=descend,
        rates={"one": 0.1},
        **OPTIONS,
    )["one"]
    for goal in (2.0, 3.0):
        score = jax.tree_util.Partial(distance, jnp.float32(goal))
        got = score_seeds(result, score)
        np.testing.assert_allclose(got, (result.params - goal) ** 2, rtol=1e-5)
        if goal == 2.0:
            compilations.clear()
    assert compilations == []


def test_seed_that_stops_early_has_not_diverged(tmp_path, console):
    config = make_config(tmp_path)
    arms = [make_arm("stops", goal=0.0), make_arm("diverges", goal=0.0)]
    results = train_arms(
        *(config, console, arms, KEY, 30),
        optimizer=descend,
        rates={"stops": 0.1, "diverges": WILD},
        **OPTIONS,
        patience=20,
    )
    assert (results["stops"].status.reason == StopReason.NO_IMPROVEMENT).all()
    assert not diverged(results["stops"]).any()
    assert diverged(results["diverges"]).all()
    assert "DIVERGES: seed 2 ended at update" in console.file.getvalue()


def test_arms_take_turns_and_are_timed_without_compiling_again(
    tmp_path, console, compilations, monkeypatch
):
    config = make_config(tmp_path)
    arms = [make_arm("first"), make_arm("second", goal=0.3)]
    rates = {"first": 0.1, "second": 0.2}
    options = {"optimizer": descend, "rates": rates, **OPTIONS}
    train_arms(config, console, arms, KEY, 3, **options)
    compilations.clear()
    turns, clock = [], {"first": [0.5, 0.25, 0.125], "second": [4.0, 8.0, 16.0]}

    def train_seeds(problem, key, ids, num_updates, **rest):
        name = next(arm.name for arm in arms if arm.problem is problem)
        turns.append((name, num_updates, len(ids), rest["hyper"]["learning_rate"][0]))
        result = real(problem, key, ids, num_updates, **rest)
        count = sum(turn[0] == name for turn in turns) - 1
        pieces = np.array([clock[name][count] / 2] * 2)
        return result._replace(seconds=result.seconds._replace(pieces=pieces))

    real = arms_module.train_seeds
    monkeypatch.setattr(arms_module, "train_seeds", train_seeds)
    seconds = time_arms(config, arms, KEY, 2, 3, **options)
    assert [turn[0] for turn in turns] == [
        *("first", "second", "second", "first", "first", "second")
    ]
    assert {turn[1:3] for turn in turns} == {(2, config.num_seeds)}
    rate_of = {turn[0]: turn[3] for turn in turns}
    assert rate_of == {"first": np.float32(0.1), "second": np.float32(0.2)}
    assert seconds == {"first": [0.25, 0.125, 0.0625], "second": [2.0, 4.0, 8.0]}
    assert compilations == []
