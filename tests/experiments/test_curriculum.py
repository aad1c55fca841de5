import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from experiments.long_sequences.__main__ import main
from experiments.long_sequences.config import Config
from experiments.long_sequences.curriculum import Trainer
from experiments.long_sequences.curriculum_run import first_epochs
from experiments.long_sequences.problem import (
    choose_optimizer,
    draw_data,
    make_network,
    make_problem,
    objective,
)
from gated_rnn.training import PieceSchedule, train_seeds

ROOT = Path(__file__).parents[2]
DATA, TRAIN = jax.random.key(3), jax.random.key(8)
SMALL = Config(
    curriculum=True,
    num_sequences=3,
    num_steps=23,  # not a multiple of the pieces
    hidden_features=2,
    learning_rate=0.05,
    periods=(50.0, 11.0),
    discount=0.8,
)
SCHEDULE = PieceSchedule(counts=(3, 1), patience=1)
OPTIONS = (
    "--curriculum --num-seeds 3 --num-epochs 5 --num-sequences 3 --num-steps 23 "
    "--held-out-sequences 2 --hidden-features 2 --learning-rate 0.05 --periods 50 11 "
    "--discount 0.8 --piece-counts 3 1 --piece-patience 1 --cells gru"
)


@pytest.fixture(scope="module", autouse=True)
def _quick_compiling(tmp_path_factory):
    """Leave out most of XLA's passes, and compile nothing twice."""
    settings = {
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("cache")),
        "jax_disable_most_optimizations": True,
        "jax_persistent_cache_min_compile_time_secs": 0,
    }
    before = {name: jax.config.values[name] for name in settings}
    for name, value in settings.items():
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.fixture(scope="module")
def trainer():
    return Trainer(SMALL, "gru", SCHEDULE, DATA, TRAIN, np.array([0, 5, 9]))


@pytest.fixture(scope="module")
def course(trainer):
    """Ten epochs of three seeds."""
    course = trainer.start()
    for _ in range(10):
        course = trainer.advance(course)
    return course


def test_one_piece_is_full_backpropagation():
    ids = np.array([0, 5])
    trainer = Trainer(SMALL, "lstm", PieceSchedule((1,)), DATA, TRAIN, ids)
    course = trainer.start()
    for _ in range(4):
        course = trainer.advance(course)
    result = train_seeds(
        *(make_problem(SMALL, "lstm", DATA), TRAIN, ids, 4),
        optimizer=choose_optimizer(SMALL),
        hyper=ids,
    )
    np.testing.assert_allclose(course.losses, result.metrics["loss"], rtol=1e-4)
    for ours, theirs in zip(
        jax.tree.leaves(course.train.params),
        jax.tree.leaves(result.params),
        strict=True,
    ):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_loss_of_the_first_epoch_is_the_mean_over_its_steps(course, trainer):
    # A rate this small leaves the network as it is: pieces with the state carried on
    # add up to one pass over the whole.
    still = dataclasses.replace(SMALL, learning_rate=1e-9)
    frozen = Trainer(still, "gru", SCHEDULE, DATA, TRAIN, np.array([5]))
    before = frozen.start()
    params = jax.tree.map(lambda leaf: leaf[0], before.train.params)
    data, network = draw_data(SMALL, DATA, 5), make_network(SMALL, "gru")
    _, predictions = jax.jit(network.apply)(params, data.inputs)
    expected = objective(SMALL, predictions, data.targets)
    after = frozen.advance(before)
    np.testing.assert_allclose(after.losses[0, 0], expected, rtol=1e-4)
    assert after.train.step.tolist() == [3]
    assert abs(course.losses[1, 0] - expected) > 1e-3  # which learns within the epoch


def test_each_seed_follows_its_own_losses(course):
    for losses, counts in zip(course.losses, course.counts, strict=True):
        state = SCHEDULE.init()
        for loss, count in zip(losses, counts, strict=True):
            assert count == SCHEDULE.count(state)
            state = SCHEDULE.update(state, loss)
    np.testing.assert_array_equal(course.train.step, course.counts.sum(axis=1))
    assert len({tuple(counts) for counts in course.counts.tolist()}) > 1
    assert (course.counts[:, 0] == 3).all()
    assert (course.losses[:, -1] < course.losses[:, 0]).all()


def test_first_epochs_of_each_number_of_pieces(course):
    made = course._replace(counts=np.array([[4, 4, 2, 2, 1], [4, 4, 4, 4, 2]]))
    np.testing.assert_array_equal(
        first_epochs(made, PieceSchedule((4, 2, 1))), [[0, 2, 4], [0, 4, np.nan]]
    )


def test_seed_that_diverges_is_kept_as_it_was_and_the_others_go_on(trainer, course):
    start = trainer.start()
    poisoned = jax.tree.map(np.copy, start.train.params)
    jax.tree.leaves(poisoned)[0][1] = np.nan
    broken = start._replace(train=start.train._replace(params=poisoned))
    for _ in range(3):
        broken = trainer.advance(broken)
    assert broken.diverged.tolist() == [False, True, False]
    assert np.isnan(broken.losses[1]).all()
    assert broken.counts[1].tolist() == [3, 0, 0]
    assert broken.train.step[1] == 0
    np.testing.assert_array_equal(broken.losses[[0, 2]], course.losses[[0, 2], :3])


def record_of(directory):
    return json.loads((directory / "results.json").read_text())


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    directory = tmp_path_factory.mktemp("finished")
    asked = ("--save-models", "--tensorboard", "--output-dir", str(directory))
    assert main([*OPTIONS.split(), *asked]) == 0
    return directory


def test_command_compares_pieces_with_the_whole(finished):
    record = record_of(finished)
    assert set(record["cells"]) == {"gru_whole", "gru_pieces"}
    pieces, whole = (record["cells"][f"gru_{name}"] for name in ("pieces", "whole"))
    assert np.shape(pieces["loss"]) == (3, 5)
    assert whole["updates"] == [5, 5, 5]
    assert min(pieces["updates"]) > 5
    assert whole["first_epoch_of_count"] == [[0.0]] * 3
    comparisons = record["summary"]["comparisons"]
    assert [one["measure"] for one in comparisons] == ["training loss", "held-out loss"]
    for one in comparisons:
        name = one["measure"].replace("-", "_").replace(" ", "_")
        expected = np.mean(pieces[name]) - np.mean(whole[name])
        np.testing.assert_allclose(one["difference"]["mean"]["estimate"], expected)
        np.testing.assert_allclose(one["margin"], 0.05 * np.mean(whole[name]))
    summary = (finished / "summary.md").read_text()
    assert "| GRU, pieces | 3 from 0 (3 seeds)" in summary
    assert "true values" in summary
    assert (finished / "loss_curves.png").exists()
    names = {path.name for path in (finished / "models").iterdir()}
    assert names == {
        f"gru_{arm}_seed_{seed}.safetensors"
        for arm in ("whole", "pieces")
        for seed in range(3)
    }
    assert len(list((finished / "tensorboard").iterdir())) == 2


def test_run_that_was_stopped_goes_on_to_the_same_numbers(
    finished, tmp_path, monkeypatch
):
    seen, stop_at = [], 7  # the second epoch of the second arm

    def count(self, start):
        seen.append(1)
        if len(seen) == stop_at:
            signal.raise_signal(signal.SIGTERM)
        return advance(self, start)

    advance = Trainer.advance
    arguments = [*OPTIONS.split(), "--output-dir", str(tmp_path)]
    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "advance", count)
        assert main([*arguments, "--save-seconds", "1000"]) == 130
    assert not (tmp_path / "results.json").exists()
    assert main([*arguments, "--resume"]) == 0
    assert record_of(tmp_path)["cells"] == record_of(finished)["cells"]


def test_another_run_is_not_gone_on_with(finished, tmp_path, capsys):
    for change, words in (
        (["--learning-rate", "0.1"], "another run: learning_rate 0.05, now 0.1."),
        (["--num-seeds", "2"], "another run: num_seeds 3, now 2."),
        (["--num-epochs", "4"], "has made 5 epochs"),
    ):
        folder = ["--output-dir", str(finished), "--resume"]
        assert main([*OPTIONS.split(), *folder, *change]) == 2
        errors = capsys.readouterr().err
        assert errors.count("\n") == 1
        assert words in errors


def test_two_devices_train_three_seeds_to_the_same_losses(finished, tmp_path):
    done = subprocess.run(
        [
            *(sys.executable, "-W", "error", "-m", "experiments.long_sequences"),
            *(*OPTIONS.split(), "--output-dir", str(tmp_path)),
        ],
        cwd=ROOT,
        env={
            **os.environ,
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
            "JAX_NUM_CPU_DEVICES": "2",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    one, two = record_of(finished), record_of(tmp_path)
    assert len(two["environment"]["devices"]) == 2
    for name in ("gru_whole", "gru_pieces"):
        np.testing.assert_allclose(
            one["cells"][name]["loss"], two["cells"][name]["loss"], rtol=1e-3
        )


def test_sizes_that_are_left_alone_are_smaller():
    small, paper = Config(curriculum=True), Config(curriculum=True, paper=True)
    assert (small.num_steps, small.num_sequences, small.num_seeds) == (2000, 15, 10)
    assert (paper.num_steps, paper.num_sequences, paper.num_epochs) == (20_000, 15, 800)
    chosen = Config(curriculum=True, num_steps=500, num_seeds=3)
    assert (chosen.num_steps, chosen.num_seeds, chosen.num_epochs) == (500, 3, 300)
    assert small.output_dir != Config().output_dir
    assert (Config().num_steps, Config().num_seeds) == (20_000, 4)


@pytest.mark.parametrize(
    "flag", ["--piece-counts 4 0", "--piece-patience 0", "--memory-budget 9"]
)
def test_bad_schedule_is_one_line(flag, tmp_path, capsys):
    arguments = [*flag.split(), "--curriculum", "--output-dir", str(tmp_path / "out")]
    assert main(arguments) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "out").exists()
