import json

import numpy as np
import pytest
import scipy.io

from experiments.data import polyphonic_music
from experiments.data.polyphonic_music import LOWEST_PITCH, NUM_KEYS
from tests.cases import assert_says
from tests.experiments.data.mangling import MANGLINGS, outcome, refusal, written

GENERATOR = np.random.default_rng(6)
LENGTHS = {"train": (5, 9, 3, 2), "valid": (4, 7), "test": (6, 2, 8)}
ROLLS = {
    part: [GENERATOR.random((length, NUM_KEYS)) < 0.05 for length in lengths]
    for part, lengths in LENGTHS.items()
}


def write_mat(path, rolls=ROLLS, dtype=np.uint8):
    content = {}
    for part, pieces in rolls.items():
        cells = np.empty((1, len(pieces)), object)
        for at, piece in enumerate(pieces):
            cells[0, at] = np.asarray(piece).astype(dtype)
        content[f"{part}data"] = cells
    scipy.io.savemat(path, content, do_compression=True)
    return path


def pitches_of(roll):
    return [[int(key) + LOWEST_PITCH for key in np.flatnonzero(step)] for step in roll]


def as_json(rolls=ROLLS):
    return {
        part: [pitches_of(roll) for roll in pieces] for part, pieces in rolls.items()
    }


def read_json(tmp_path, content):
    text = content if isinstance(content, str | bytes) else json.dumps(content)
    return polyphonic_music.read_music(written(tmp_path / "music.json", text))


def assert_same(music, rolls=ROLLS):
    for part, expected in rolls.items():
        pieces = getattr(music, part)
        assert len(pieces) == len(expected)
        for piece, roll in zip(pieces, expected, strict=True):
            assert piece.dtype == bool
            np.testing.assert_array_equal(piece, roll)


@pytest.mark.parametrize("dtype", [np.uint8, np.float64, np.int32])
def test_mat_file_is_read(dtype, tmp_path):
    music = polyphonic_music.read_music(write_mat(tmp_path / "a.mat", dtype=dtype))
    assert_same(music)
    assert music.report[2:6] == ("pieces", 9, 9, ())
    assert "4 train, 2 valid, 3 test; 46 steps" in str(music.report)


def test_published_name_is_found_in_a_folder(tmp_path):
    write_mat(tmp_path / "Nottingham.mat")
    assert_same(polyphonic_music.load_music("nottingham", tmp_path))
    words = "JSB_Chorales.mat"
    refusal(lambda: polyphonic_music.load_music("jsb_chorales", tmp_path), words)
    with pytest.raises(ValueError) as error:
        polyphonic_music.load_music("muse", tmp_path)
    assert_says(error, "collection", "nottingham", "'muse'")


def test_json_file_is_read_with_rests_and_floats(tmp_path):
    content = as_json()
    assert_same(read_json(tmp_path, content))
    content["train"][1][2] += [-1, None]
    content["train"][0] = [
        [float(pitch) for pitch in step] for step in content["train"][0]
    ]
    assert_same(read_json(tmp_path, content))
    assert_same(read_json(tmp_path, "\ufeff" + json.dumps(content, indent=1)))


def test_lowest_and_highest_key(tmp_path):
    content = as_json()
    content["test"][1] = [[21], [108]]
    roll = read_json(tmp_path, content).test[1]
    assert np.argwhere(roll).tolist() == [[0, 0], [1, 87]]


def test_pieces_too_short_to_predict_are_left_out_and_reported(tmp_path):
    content = as_json()
    content["train"] += [[], [[60]]]
    music = read_json(tmp_path, content)
    assert_same(music)
    short = ("of fewer than two steps", 2, "train piece 4")
    assert music.report.dropped == (short,)
    rolls = {**ROLLS, "valid": [*ROLLS["valid"], np.zeros((0, NUM_KEYS))]}
    path = write_mat(tmp_path / "a.mat", rolls)
    assert polyphonic_music.read_music(path).report.dropped[0].first == "valid piece 2"


@pytest.mark.parametrize(
    "pitch",
    [20, 109, 60.5, "60", True, [60], float("nan"), float("inf"), 10**400],
    ids=str,
)
def test_what_is_no_pitch_is_refused_with_its_place(pitch, tmp_path):
    content = as_json()
    content["valid"][1][3] = [60, pitch]
    refusal(lambda: read_json(tmp_path, content), "pitch", "valid piece 1")


@pytest.mark.parametrize(
    "content",
    [
        *([], {}, {"train": [], "valid": []}, {"train": 1, "valid": 2, "test": 3}),
        {**as_json(), "valid": []},
        {**as_json(), "test": [7, 8]},
        {**as_json(), "test": [[7, 8]]},
        "[" * 100_000,
    ],
    ids=["list", "empty", "lacking", "numbers", "no piece", "flat", "flatter", "deep"],
)
def test_other_json_is_refused(content, tmp_path):
    refusal(lambda: read_json(tmp_path, content), "music.json")


@pytest.mark.parametrize(
    "piece",
    [np.full((4, NUM_KEYS), 2), np.zeros((4, 12)), np.full((4, NUM_KEYS), np.nan)],
    ids=["two", "12 keys", "NaN"],
)
def test_matrix_of_anything_else_is_refused_with_its_place(piece, tmp_path):
    rolls = {**ROLLS, "test": [*ROLLS["test"], piece]}
    path = write_mat(tmp_path / "a.mat", rolls, np.float64)
    refusal(lambda: polyphonic_music.read_music(path), "test piece 3")


def test_mat_file_of_something_else_is_refused(tmp_path):
    scipy.io.savemat(tmp_path / "a.mat", {"traindata": np.eye(3), "x": 1})
    path = tmp_path / "a.mat"
    refusal(lambda: polyphonic_music.read_music(path), "no variable 'validdata'")


@pytest.mark.parametrize("name", ["music.pickle", "music.pkl", "music"])
def test_pickle_is_never_opened(name, tmp_path):
    path = tmp_path / name  # there is none: it is refused before it is looked for
    refusal(lambda: polyphonic_music.read_music(path), "pickle", ".mat nor .json")


@pytest.mark.parametrize("way", MANGLINGS)
@pytest.mark.parametrize("suffix", ["mat", "json"])
def test_mangled_file_is_refused_in_one_line(way, suffix, tmp_path):
    path = tmp_path / f"music.{suffix}"
    if suffix == "mat":
        write_mat(path)
    else:
        written(path, json.dumps(as_json(), indent=1))
    content = path.read_bytes()
    changed = MANGLINGS[way](content)
    assert changed != content
    written(path, changed)
    refusal(lambda: polyphonic_music.read_music(path), path.name)


def test_flipped_bytes_of_a_mat_file_never_escape(tmp_path):
    path = write_mat(tmp_path / "a.mat")
    content = path.read_bytes()
    for seed in range(60):
        generator = np.random.default_rng(seed)
        changed = bytearray(content)
        for at in generator.integers(0, len(content), 3):
            changed[at] = generator.integers(256)
        written(path, bytes(changed))
        outcome(lambda: polyphonic_music.read_music(path))


def test_next_step_is_what_follows():
    inputs, targets, lengths = polyphonic_music.make_next_step(ROLLS["train"])
    assert inputs.shape == targets.shape == (8, 4, NUM_KEYS)
    assert inputs.dtype == targets.dtype == bool
    assert list(lengths) == [4, 8, 2, 1]
    for row, roll in enumerate(ROLLS["train"]):
        length = len(roll) - 1
        np.testing.assert_array_equal(inputs[:length, row], roll[:-1])
        np.testing.assert_array_equal(targets[:length, row], roll[1:])
        assert not inputs[length:, row].any()
        assert not targets[length:, row].any()


def test_longer_pieces_are_cut_at_their_end():
    inputs, targets, lengths = polyphonic_music.make_next_step(
        ROLLS["train"], num_steps=3
    )
    assert list(lengths) == [3, 3, 2, 1]
    np.testing.assert_array_equal(inputs[:, 1], ROLLS["train"][1][:3])
    np.testing.assert_array_equal(targets[:, 1], ROLLS["train"][1][1:4])
