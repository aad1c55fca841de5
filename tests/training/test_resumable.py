import json

import jax
import numpy as np
import pytest

from gated_rnn.training.checkpoints import CheckpointError, Checkpoints
from gated_rnn.training.resumable import Stopped, train_resumable
from tests.training import test_seeds as echo

IDENTITY = {"learning_rate": 0.01, "sizes": [3, 2]}
NUM_UPDATES = 9
SEEDS = (4, 0, 2, 7, 1)


def run(
    folder,
    *,
    seed_ids=SEEDS,
    num_updates=NUM_UPDATES,
    stop_after=None,
    resume=True,
    hyper=None,
    notices=None,
    **changes,
):
    """Train the GRU of test_seeds, saving after every piece of two updates."""
    pieces = iter(range(1, 1000))
    return train_resumable(
        echo.ECHO,
        jax.random.key(3),
        seed_ids,
        num_updates,
        optimizer=echo.adam,
        hyper=echo.make_hyper(seed_ids) if hyper is None else hyper,
        checkpoints=Checkpoints(folder / "checkpoints", keep=3),
        resume=resume,
        metrics_file=folder / "metrics.jsonl",
        should_stop=lambda: stop_after is not None and next(pieces) >= stop_after,
        on_notice=None if notices is None else notices.append,
        **{
            "identity": IDENTITY,
            "seed_block": 3,
            "save_seconds": 0.0,
            "updates_per_piece": 2,
            **changes,
        },
    )


def lines_of(folder):
    text = (folder / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that was never interrupted, and its metrics file."""
    folder = tmp_path_factory.mktemp("whole")
    return run(folder, resume=False), lines_of(folder)


def by_seed_and_step(lines):
    keys = [(line["seed"], line["step"]) for line in lines]
    assert len(set(keys)) == len(keys)
    return dict(zip(keys, lines, strict=True))


def assert_same(result, lines, whole):
    expected, expected_lines = whole
    assert echo.digests(result) == echo.digests(expected)
    for name in ("reason", "step"):
        actual, wanted = getattr(result.status, name), getattr(expected.status, name)
        np.testing.assert_array_equal(actual, wanted)
    assert by_seed_and_step(lines) == by_seed_and_step(expected_lines)


def test_whole_run_is_that_of_train_seeds(whole):
    plain = echo.run_echo(SEEDS, num_updates=NUM_UPDATES, seed_block=3)
    assert echo.digests(whole[0]) == echo.digests(plain)
    assert len(whole[1]) == len(SEEDS) * NUM_UPDATES
    for line in whole[1]:
        row = SEEDS.index(line["seed"])
        assert line["loss"] == whole[0].metrics["loss"][row, line["step"]]


@pytest.mark.parametrize("stop_after", [1, 3, 4])
def test_interrupted_run_goes_on_to_the_same_bits(stop_after, whole, tmp_path):
    with pytest.raises(Stopped) as stopped:
        run(tmp_path, resume=False, stop_after=stop_after)
    assert stopped.value.step == 2 * stop_after
    # What was written after the last checkpoint is there a second time, then not.
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"seed": 4, "step": 8, "loss": 0.0}\n{"seed": 4, "st')
    assert_same(run(tmp_path), lines_of(tmp_path), whole)
    again = run(tmp_path)  # nothing left to do
    assert_same(again, lines_of(tmp_path), whole)
    assert len(again.seconds.pieces) == 5


def test_run_goes_on_twice_in_other_blocks_order_and_pieces(whole, tmp_path):
    with pytest.raises(Stopped):
        run(tmp_path, resume=False, stop_after=1)
    with pytest.raises(Stopped):
        run(tmp_path, stop_after=2, updates_per_piece=1, seed_ids=SEEDS[::-1])
    result = run(tmp_path, seed_ids=(0, 1, 2, 4, 7))
    assert result.seed_ids.tolist() == [0, 1, 2, 4, 7]
    assert_same(result, lines_of(tmp_path), whole)


def test_finished_run_is_given_more_updates_and_more_seeds(whole, tmp_path):
    run(tmp_path, resume=False, seed_ids=(0, 4), num_updates=3)
    assert run(tmp_path, seed_ids=(0, 4), num_updates=7).metrics["loss"].shape == (2, 7)
    with pytest.raises(Stopped):
        run(tmp_path, num_updates=7, stop_after=2)  # of the three new seeds
    assert_same(run(tmp_path), lines_of(tmp_path), whole)


@pytest.mark.parametrize("num_damaged", [1, 2])
def test_damaged_checkpoints_do_not_hide_an_older_one(num_damaged, whole, tmp_path):
    with pytest.raises(Stopped):
        run(tmp_path, resume=False, stop_after=4)
    folders = sorted((tmp_path / "checkpoints").iterdir(), key=lambda p: int(p.name))
    assert [folder.name for folder in folders] == ["1", "2", "3"]
    for folder in folders[-num_damaged:]:
        path = folder / "arrays"
        path.write_bytes(path.read_bytes()[:-7])
    notices = []
    assert_same(run(tmp_path, notices=notices), lines_of(tmp_path), whole)
    said = [line.split(" (")[0] for line in notices]
    assert said == [f"Checkpoint {3 - i} cannot be read" for i in range(num_damaged)]


def test_without_an_intact_checkpoint_nothing_runs(tmp_path):
    run(tmp_path, resume=False, num_updates=1, seed_ids=(0, 1))
    (folder,) = (tmp_path / "checkpoints").iterdir()  # the end is saved once
    for path in folder.rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    with pytest.raises(
        CheckpointError, match=r"^None of the 1 checkpoints in .* can be"
    ):
        run(tmp_path, seed_ids=(0, 1))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"identity": {**IDENTITY, "learning_rate": 0.1}},
            "learning_rate 0.01, now 0.1",
        ),
        ({"seed_ids": (0, 1)}, "have the seeds [2], which are not asked for"),
        ({"num_updates": 2}, "has made 3 updates: expected num_updates of at least"),
        ({"hyper": echo.make_hyper((0, 9))}, "hyper['rate'] of its seeds has other"),
        ({"resume": False}, "There are checkpoints of an earlier run in"),
    ],
    ids=["identity", "seeds", "updates", "hyper", "not_resumed"],
)
def test_other_run_is_refused_in_a_line_and_harms_nothing(changes, words, tmp_path):
    arguments = {"seed_ids": (0, 2), "num_updates": 3}
    run(tmp_path, resume=False, **arguments)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    if "hyper" in changes:
        changes = {
            "hyper": {**echo.make_hyper((0, 2)), "rate": changes["hyper"]["rate"]}
        }
    with pytest.raises(CheckpointError) as error:
        run(tmp_path, **{**arguments, **changes})
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert before == {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed_block": 2}, "seed_block was 3 and is 2"),
        ({"vectorize": True}, "vectorize was None and is True"),
    ],
    ids=["block width", "side by side"],
)
def test_what_may_change_the_last_bits_is_said_before_it_does(tmp_path, change, words):
    run(tmp_path, resume=False, seed_ids=(0, 2), num_updates=1)
    notices = []
    run(tmp_path, seed_ids=(0, 2), num_updates=2, notices=notices, **change)
    assert notices == [f"{words}: the run may go on with other last bits."]


def test_resuming_nothing_starts(whole, tmp_path):
    notices = []
    assert_same(run(tmp_path, notices=notices), lines_of(tmp_path), whole)
    assert [line.split(" in ")[0] for line in notices] == ["No checkpoint"]


def test_one_poisoned_seed_of_64_changes_no_bit_of_the_others(tmp_path):
    ids = tuple(range(64))
    healthy, poisoned = echo.make_hyper(ids), echo.make_hyper(ids)
    poisoned["rate"][37] = np.nan
    expected = echo.run_echo(ids, hyper=healthy, num_updates=4, seed_block=3)
    arguments = {"seed_ids": ids, "num_updates": 4, "hyper": poisoned}
    with pytest.raises(Stopped):
        run(tmp_path, resume=False, stop_after=1, **arguments)
    result = run(tmp_path, **arguments)  # a hyper that is NaN is equal to itself
    assert list(result.ended) == [37]
    actual, wanted = echo.digests(result), echo.digests(expected)
    assert [seed for seed in wanted if actual[seed] != wanted[seed]] == ["37"]
    lines = by_seed_and_step(lines_of(tmp_path))
    assert len(lines) == 64 * 4
    assert lines[37, 3]["loss"] is None
    assert lines[36, 3]["loss"] == expected.metrics["loss"][36, 3]


def test_identity_may_have_tuples(tmp_path):
    arguments = {"seed_ids": (0, 2), "num_updates": 1, "identity": {"sizes": (3, 2)}}
    run(tmp_path, resume=False, **arguments)
    run(tmp_path, **arguments)
