"""A run that is killed before, in or after any change of its files goes on the same."""

import logging
import re

import pytest

from tests import snapshots
from tests.training import test_resumable as runs
from tests.training import test_seeds as echo

# Five saves with three kept: old ones are deleted on the way.
SEEDS, NUM_UPDATES = (4, 0, 2), 9
# What happens to the files of a run, at the least.
MUST_BE_SEEN = [
    r"open .*/metrics\.jsonl\.new$",  # the metrics file anew
    r"os\.rename .*/metrics\.jsonl\.new$",
    r"open .*/metrics\.jsonl$",  # the lines of a piece
    r"os\.mkdir .*/checkpoints/\d+\.orbax-checkpoint-tmp$",  # a checkpoint
    r"open .*-tmp/arrays$",
    r"os\.rename .*-tmp$",
    r"os\.rename .*/checkpoints/\d+$",  # an old one is taken away
    r"shutil\.rmtree .*-tmp$",
]


def run(folder, **options):
    return runs.run(folder, seed_ids=SEEDS, num_updates=NUM_UPDATES, **options)


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """The run that was not killed, and what was on disk before each of its changes."""
    folder = tmp_path_factory.mktemp("killed") / "run"
    copies = tmp_path_factory.mktemp("copies")
    folder.mkdir()
    with snapshots.recording(folder, copies) as names:
        result = run(folder, resume=False)
    whole = result, runs.lines_of(folder)
    return whole, snapshots.distinct(copies), list(names)


def test_every_kind_of_change_is_seen(killed):
    _, contents, names = killed
    for pattern in MUST_BE_SEEN:
        assert any(re.match(pattern, name) for name in names), pattern
    assert len(contents) > 30


def test_killed_at_any_instant_it_goes_on_to_the_same_bits(killed, tmp_path, caplog):
    whole, contents, _ = killed
    plain = echo.run_echo(SEEDS, num_updates=NUM_UPDATES, seed_block=3)
    assert echo.digests(whole[0]) == echo.digests(plain)
    steps = set()
    for number, content in enumerate(contents):
        folder, notices = tmp_path / str(number), []
        snapshots.restore(content, folder)
        result = run(folder, notices=notices)
        runs.assert_same(result, runs.lines_of(folder), whole)
        # Nothing is damaged by a kill: either a checkpoint is there or it is not.
        assert all(notice.startswith("No checkpoint in ") for notice in notices)
        assert {path.name for path in folder.iterdir()} == {
            "checkpoints",
            "metrics.jsonl",
        }
        # Every saved piece is counted once.
        assert len(result.seconds.pieces) == 5
        steps.add(bool(notices))
    assert steps == {True, False}
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]
