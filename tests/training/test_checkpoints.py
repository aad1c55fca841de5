"""Checkpoints by themselves: to the bit, or not at all, whatever was done to them."""

import random
import resource
import signal
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from gated_rnn.training import checkpoint_file
from gated_rnn.training.checkpoints import CheckpointError, Checkpoints

REPOSITORY = Path(__file__).parents[2]
NUM_MUTATIONS = 600
ENOSPC = 28


def make_arrays(step):
    """Arrays of every kind; the bits of NaN and of a negative zero count, too."""
    rng = np.random.default_rng(step)
    odd = np.array([np.nan, -0.0, np.inf, 1e-45, step], np.float32)
    odd[:1].view(np.uint32)[:] = 0x7FC00ABC
    return {
        "weights": rng.normal(size=(3, 2)).astype(np.float32),
        "odd": odd,
        "half": np.asarray(jnp.asarray(rng.normal(size=5), jnp.bfloat16)),
        "double": rng.normal(size=(2, 1, 2)),
        "count": np.int32(-7 * step),
        "key": rng.integers(0, 2**32, size=(2, 2), dtype=np.uint32),
        "flags": np.array([True, False, step % 2 == 0]),
        "none": np.zeros((0, 3), np.float32),
        "0/state[0]['ä b']": np.array(step),
    }


def assert_same(arrays, expected):
    assert list(arrays) == list(expected)
    for name, wanted in expected.items():
        wanted, actual = np.asarray(wanted), arrays[name]
        assert (actual.dtype, actual.shape) == (wanted.dtype, wanted.shape), name
        assert actual.tobytes() == wanted.tobytes(), name
        assert actual.flags.writeable
        assert actual.flags.aligned


def description_of(step):
    return {"step": step, "rate": 0.1 + step, "names": ["ä", None, True]}


def fill(folder, steps, **options):
    checkpoints = Checkpoints(folder, **options)
    for step in steps:
        checkpoints.save(make_arrays(step), description_of(step))
    return checkpoints


# What is saved, and what is kept


def test_arrays_and_description_come_back_to_the_bit(tmp_path):
    loaded = fill(tmp_path, [5]).load()
    assert_same(loaded.arrays, make_arrays(5))
    assert loaded.description == description_of(5)
    assert (loaded.number, loaded.damaged) == (0, ())


@pytest.mark.parametrize(
    "arrays", [{}, {"none": np.zeros((2, 0))}], ids=["none", "empty"]
)
def test_nothing_to_save_is_saved(arrays, tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(arrays, {})
    assert_same(checkpoints.load().arrays, arrays)


def test_arrays_of_another_byte_order_or_layout_keep_their_values(tmp_path):
    values = np.arange(6.0).reshape(2, 3) + 0.5
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save({"order": values.astype(">f4"), "layout": values.T}, {})
    arrays = checkpoints.load().arrays
    assert_same(arrays, {"order": values.astype("<f4"), "layout": values.T})


def test_newest_are_kept_and_numbers_go_on(tmp_path):
    checkpoints = fill(tmp_path, range(5), keep=2)
    assert checkpoints.numbers() == [3, 4]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["3", "4"]
    again = Checkpoints(tmp_path, keep=3)
    assert again.save(make_arrays(9), description_of(9)) == 5
    assert again.numbers() == [3, 4, 5]
    assert again.load().description["step"] == 9


def test_nothing_is_there_before_the_first(tmp_path):
    checkpoints = Checkpoints(tmp_path / "made" / "later")
    assert checkpoints.load() is None
    assert checkpoints.numbers() == []
    assert not (tmp_path / "made").exists()
    assert checkpoints.save({}, {}) == 0


@pytest.mark.parametrize("keep", [0, -1, 1.5])
def test_wrong_keep_is_refused(keep, tmp_path):
    with pytest.raises(ValueError, match="keep"):
        Checkpoints(tmp_path, keep=keep)


def test_foreign_files_and_folders_are_left_alone_and_hide_nothing(tmp_path):
    foreign = ["7_old", "notes", "007", "-1", "1.5", "٣", "note.orbax-checkpoint-tmp"]
    for name in foreign:
        (tmp_path / name).mkdir()
        (tmp_path / name / "kept").write_text("kept")
    (tmp_path / "2").write_text("a file")
    (tmp_path / "4").mkdir()
    (tmp_path / "4" / "kept").write_text("kept")
    checkpoints = fill(tmp_path, range(4), keep=1)
    assert checkpoints.load().description["step"] == 3
    assert checkpoints.numbers() == [2, 4, 8]
    for name in [*foreign, "4"]:
        assert (tmp_path / name / "kept").read_text() == "kept"


def test_checkpoints_that_were_never_finished_are_deleted_by_the_next(tmp_path):
    for name in ("0.orbax-checkpoint-tmp", "3.orbax-checkpoint-tmp-170000"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "arrays").write_bytes(b"half")
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.load() is None
    checkpoints.save({}, {})
    assert [path.name for path in tmp_path.iterdir()] == ["0"]


# Damage


def files_of(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def flip(rng, data):
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 3, 50])):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def huge_lengths(rng, data):
    """Say that header or arrays are as long as no memory is."""
    first = data.index(b"\n") + 1 + 32 + rng.choice([0, 8])
    length = rng.choice([2**31, 2**40, 2**63, 2**64 - 1])
    return data[:first] + length.to_bytes(8, "little") + data[first + 8 :]


def huge_shape(rng, data):
    return data.replace(b"[3, 2]", b"[9, 9]").replace(b"[5]", b"[9" + b"9" * 12 + b"]")


# Each makes other bytes out of those of the file.
REWRITES = {
    "flip": flip,
    "cut": lambda rng, data: data[: rng.randrange(len(data))],
    "empty": lambda rng, data: b"",
    "longer": lambda rng, data: data + rng.randbytes(rng.randrange(1, 99)),
    "zeros": lambda rng, data: bytes(len(data)),
    "noise": lambda rng, data: rng.randbytes(len(data)),
    "pickle": lambda rng, data: b"cos\nsystem\n(S'touch pickled'\ntR.",
    "json": lambda rng, data: rng.choice(
        [b"{", b"null", b'{"arrays": 3}', b"[" * 9999, b'{"a": 1e999}', b"\xff\xfe{}"]
    ),
    "moved": lambda rng, data: data[7:] + data[:7],
    "repeated": lambda rng, data: data[: len(data) // 2] * 2,
}
ARRAYS_ONLY = {"huge_lengths": huge_lengths, "huge_shape": huge_shape}


def mutate(rng, folder, number):
    """Damage a checkpoint; return what was done, and which ones that makes useless."""
    paths = files_of(folder / str(number))
    path = rng.choice([folder / str(number) / "arrays", *paths])
    kinds = {**REWRITES, **(ARRAYS_ONLY if path.name == "arrays" else {})}
    kind = rng.choice([*kinds, "delete", "delete_all", "swap", "folder", "link"])
    if kind in kinds:
        path.write_bytes(kinds[kind](rng, path.read_bytes()))
    elif kind == "delete":
        path.unlink()
    elif kind == "delete_all":
        for path in paths:
            path.unlink()
    elif kind == "swap":
        other = folder / "0" / path.name
        ours, theirs = path.read_bytes(), other.read_bytes()
        path.write_bytes(theirs)
        other.write_bytes(ours)
    elif kind == "folder":
        path.unlink()
        path.mkdir()
    else:
        path.unlink()
        path.symlink_to("/dev/zero")
    if kind != "delete_all" and path.name != "arrays":
        return kind, set()  # Orbax' own files, which say nothing of the run
    return kind, {number, 0} if kind == "swap" else {number}


def test_damaged_checkpoint_is_passed_over_and_never_read_wrongly(tmp_path, capfd):
    fill(tmp_path / "whole", range(3))
    names = files_of(tmp_path / "whole")
    whole = {p.relative_to(tmp_path / "whole"): p.read_bytes() for p in names}
    rng, passed_over, kinds = random.Random(3), 0, set()
    for mutation in range(NUM_MUTATIONS):
        folder = tmp_path / str(mutation)
        for name, data in whole.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        numbers = rng.choice([[2], [2], [1], [2, 1]])
        done = [mutate(rng, folder, number) for number in numbers]
        kinds |= {kind for kind, _ in done}
        lost = set().union(*(numbers for _, numbers in done))
        if lost == {0, 1, 2}:
            with pytest.raises(CheckpointError, match=r"^None of the 3 [^\n]*$"):
                Checkpoints(folder).load()
            continue
        loaded = Checkpoints(folder).load()
        assert loaded.number == max({0, 1, 2} - lost), done
        assert loaded.description == description_of(loaded.number), done
        assert_same(loaded.arrays, make_arrays(loaded.number))
        damaged = dict(loaded.damaged)
        assert list(damaged) == list(range(2, loaded.number, -1)), done
        assert all(reason and "\n" not in reason for reason in damaged.values())
        passed_over += bool(damaged)
        if mutation % 20 == 0:
            assert Checkpoints(folder).save(make_arrays(3), {}) == 3
            assert_same(Checkpoints(folder).load().arrays, make_arrays(3))
    assert passed_over > NUM_MUTATIONS / 4
    assert kinds == {*REWRITES, *ARRAYS_ONLY} | {
        *("delete", "delete_all", "swap", "folder", "link")
    }
    assert capfd.readouterr() == ("", "")
    assert not list(Path.cwd().glob("pickled"))


def test_every_single_bit_and_every_length_counts(tmp_path):
    (path,) = [p for p in files_of(fill(tmp_path, [1]).directory) if p.name == "arrays"]
    data = path.read_bytes()
    broken = [data[:length] for length in range(len(data))]
    for place in range(len(data)):
        flipped = bytearray(data)
        flipped[place] ^= 1 << (place % 8)
        broken.append(bytes(flipped))
    for content in broken:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"^its "):
            checkpoint_file.read_arrays(path)


def test_lengths_in_the_file_take_no_memory(tmp_path):
    (path,) = [p for p in files_of(fill(tmp_path, [1]).directory) if p.name == "arrays"]
    data = path.read_bytes()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for seed in range(8):
        path.write_bytes(huge_lengths(random.Random(seed), data))
        with pytest.raises(ValueError, match=r"bytes, expected \d{10}"):
            checkpoint_file.read_arrays(path)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert after - before < 10_000  # kilobytes, or bytes on macOS


def test_where_all_are_damaged_the_error_is_a_line_about_the_newest(tmp_path):
    checkpoints = fill(tmp_path, range(2))
    for number in range(2):
        (tmp_path / str(number) / "arrays").write_bytes(b"")
    with pytest.raises(CheckpointError) as error:
        checkpoints.load()
    assert str(error.value) == (
        f"None of the 2 checkpoints in {tmp_path} can be read; the newest, 1: "
        "its file arrays is of another kind."
    )
    assert checkpoints.save(make_arrays(2), description_of(2)) == 2
    assert checkpoints.load().number == 2


def test_checkpoint_under_another_number_is_not_taken_for_it(tmp_path):
    checkpoints = fill(tmp_path, range(2))
    (tmp_path / "1").rename(tmp_path / "5")
    loaded = checkpoints.load()
    assert loaded.number == 0
    assert loaded.damaged == ((5, "its file is that of checkpoint 1"),)


# Disks


def fill_disk(monkeypatch, num_bytes):
    """Let the files of checkpoints take so many bytes more."""
    real_open = Path.open

    def open_(path, *arguments, **options):
        file = real_open(path, *arguments, **options)
        if path.name != "arrays" or "w" not in str(arguments):
            return file
        real_write, left = file.write, [num_bytes]

        class Full:
            def write(self, data):
                if len(data) > left[0]:
                    real_write(data[: left[0]])
                    raise OSError(ENOSPC, "No space left on device")
                left[0] -= len(data)
                return real_write(data)

            def __getattr__(self, name):
                return getattr(file, name)

            def __enter__(self):
                return self

            def __exit__(self, *_):
                file.close()

        return Full()

    monkeypatch.setattr(Path, "open", open_)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.7, 0.99])
def test_full_disk_is_one_line_and_earlier_checkpoints_stay(
    share, tmp_path, monkeypatch, capfd
):
    checkpoints = fill(tmp_path, range(2), keep=2)
    before = {path: path.read_bytes() for path in files_of(tmp_path)}
    with monkeypatch.context() as full:
        fill_disk(full, int(share * len(before[tmp_path / "1" / "arrays"])))
        with pytest.raises(CheckpointError) as error:
            checkpoints.save(make_arrays(2), description_of(2))
    assert str(error.value) == (
        f"Cannot save a checkpoint in {tmp_path}: No space left on device. "
        "Earlier checkpoints are as they were."
    )
    assert before == {path: path.read_bytes() for path in files_of(tmp_path)}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1"]
    assert checkpoints.load().number == 1
    assert checkpoints.save(make_arrays(2), description_of(2)) == 2
    assert_same(checkpoints.load().arrays, make_arrays(2))
    assert capfd.readouterr() == ("", "")


# A limit on the size of a file is the full disk that every machine has.
ON_A_SMALL_DISK = """
import resource, signal, sys
import numpy as np
from gated_rnn.training.checkpoints import CheckpointError, Checkpoints
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
checkpoints = Checkpoints(sys.argv[1])
checkpoints.save({"a": np.arange(9)}, {})
for limit in (40_000, 30):  # the arrays, then Orbax' own files
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, -1))
    try:
        checkpoints.save({"a": np.ones(10_000)}, {})
    except CheckpointError as error:
        print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))
loaded = checkpoints.load()
print(loaded.number, loaded.damaged, loaded.arrays["a"].tolist())
print(checkpoints.save({"a": np.ones(10_000)}, {}), checkpoints.load().number)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="no such limit")
def test_disk_that_is_really_full_is_one_line_too(tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", ON_A_SMALL_DISK, str(tmp_path)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    line = (
        f"Cannot save a checkpoint in {tmp_path}: File too large. "
        "Earlier checkpoints are as they were."
    )
    expected = [line, line, "0 () [0, 1, 2, 3, 4, 5, 6, 7, 8]", "1 1"]
    assert (done.stdout.splitlines(), done.stderr) == (expected, "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1"]


def test_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("kept")
    checkpoints = Checkpoints(tmp_path / "file" / "checkpoints")
    assert checkpoints.load() is None
    with pytest.raises(CheckpointError, match=r"^Cannot save .*: Not a directory\. "):
        checkpoints.save({}, {})


def test_description_that_json_cannot_say_is_refused_and_leaves_nothing(tmp_path):
    checkpoints = fill(tmp_path, [0])
    with pytest.raises(CheckpointError, match="set is not JSON serializable"):
        checkpoints.save({}, {"a": {1}})
    assert [path.name for path in tmp_path.iterdir()] == ["0"]
