import json
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from experiments.arms import Arm
from experiments.data.polyphonic_music import LOWEST_PITCH, NUM_KEYS
from experiments.polyphonic_music import baselines, report, run
from experiments.polyphonic_music.__main__ import main
from experiments.polyphonic_music.config import PAPER_RATES, UNITS, Config
from experiments.polyphonic_music.problem import (
    RMS_DECAY,
    Steps,
    add_noise,
    draw_stretches,
    init_params,
    join_pieces,
    make_network,
    make_optimizer_of_rate,
    make_problem,
    nll,
    pack_pieces,
)
from tests.cases import assert_says
from tests.reference import as_arrays
from tests.reference_cells import (
    elman_step,
    gru_reset_before_step,
    peephole_lstm_step,
)

KEY = jax.random.key(11)
GENERATOR = np.random.default_rng(4)
#: Of float32 sums over some hundred terms.
TOLERANCE = 1e-5
ORACLES = {
    "elman": elman_step,
    "gru_reset_before": gru_reset_before_step,
    "peephole_lstm": peephole_lstm_step,
}
PIECES = [GENERATOR.random((length, NUM_KEYS)) < 0.1 for length in (7, 2, 5, 12, 4)]


def song(length, shift):
    """A melody of which one step does not tell the next: each key sounds twice."""
    notes = [60, 60, 64, 64, 60, 60, 67, 67]
    roll = np.zeros((length, NUM_KEYS), bool)
    for time in range(length):
        roll[time, notes[(time + shift) % len(notes)] - LOWEST_PITCH] = True
    return roll


SONGS = {
    "train": [song(length, length) for length in (40, 25, 30, 33)],
    "valid": [song(24, 1), song(17, 2)],
    "test": [song(30, 3), song(21, 6), song(2, 1)],
}


def each_pair(rolls):
    return [
        (roll[time], roll[time + 1]) for roll in rolls for time in range(len(roll) - 1)
    ]


def brute_nll(rolls, logits_of):
    """Sum the keys' losses step by step, in float64."""
    losses = []
    for before, after in each_pair(rolls):
        chance = 1 / (1 + np.exp(-logits_of(before)))
        losses.append(-np.log(np.where(after, chance, 1 - chance)).sum())
    return np.mean(losses)


# The pieces


def test_joined_pieces_pair_no_step_with_another_piece():
    steps = join_pieces(PIECES)
    pairs = each_pair(PIECES)
    np.testing.assert_array_equal(steps.inputs, [before for before, _ in pairs])
    np.testing.assert_array_equal(steps.targets, [after for _, after in pairs])
    assert np.flatnonzero(steps.resets).tolist() == [0, 6, 7, 11, 22]
    assert steps.mask.all()


@pytest.mark.parametrize("num_rows", [1, 2, 3, 9])
def test_packed_rows_hold_every_step_once(num_rows):
    packed = pack_pieces(PIECES, num_rows)
    assert packed.mask.shape[1] == min(num_rows, len(PIECES))
    assert packed.mask.shape[0] == {1: 25, 2: 13, 3: 11, 9: 11}[num_rows]

    def rows(steps):
        both = np.concatenate([steps.inputs, steps.targets], axis=-1)
        return sorted(map(bytes, both[steps.mask]))

    assert rows(packed) == rows(join_pieces(PIECES))
    assert packed.resets.sum() == len(PIECES)
    assert not (packed.resets & ~packed.mask).any()


@pytest.mark.parametrize("cell", list(UNITS))
def test_loss_of_packed_rows_is_the_oracles_of_each_piece_by_itself(cell):
    network = make_network(Config(cells=(cell,)), cell)

    def draw(key):
        return add_noise(network.init(key, NUM_KEYS), 0.3, key)

    params = jax.jit(draw)(KEY)
    layer, readout = map(as_arrays, params)
    logits = []
    for roll in PIECES:
        carry = as_arrays(network.layers[0].init_carry())
        for step in roll[:-1].astype(float):
            carry, hidden = ORACLES[cell](layer, carry, step)
            logits.append(hidden @ readout["kernel"] + readout["bias"])
    targets = np.concatenate([roll[1:] for roll in PIECES])
    losses = np.logaddexp(0, logits) - targets * logits
    found = jax.jit(nll, static_argnums=0)(network, params, pack_pieces(PIECES, 2))
    assert found == pytest.approx(losses.sum(axis=1).mean(), rel=TOLERANCE)


def test_stretches_are_neighbouring_steps_from_everywhere():
    numbers = np.arange(30)
    stream = Steps(numbers, numbers + 100, numbers % 7 == 0, numbers >= 0)
    drawn = draw_stretches(stream, KEY, 26, 200)
    assert drawn.inputs.shape == (26, 200)
    assert (jnp.diff(drawn.inputs, axis=0) == 1).all()
    np.testing.assert_array_equal(drawn.targets, drawn.inputs + 100)
    np.testing.assert_array_equal(drawn.resets, drawn.inputs % 7 == 0)
    assert set(drawn.inputs[0].tolist()) == {0, 1, 2, 3, 4}


# Training


def test_noise_has_its_deviation_in_every_parameter():
    network = make_network(Config(), "gru_reset_before")
    params = jax.jit(network.init, static_argnums=1)(KEY, NUM_KEYS)
    assert add_noise(params, 0.0, KEY) is params

    @jax.jit
    def noise_of(params, key):
        return jax.tree.map(jnp.subtract, add_noise(params, 0.075, key), params)

    noise, other = noise_of(params, KEY), noise_of(params, jax.random.key(1))
    values = [np.ravel(leaf) for leaf in jax.tree.leaves(noise)]
    for value, fresh in zip(values, jax.tree.leaves(other), strict=True):
        assert value.std() == pytest.approx(0.075, rel=0.25)
        assert not np.array_equal(value, np.ravel(fresh))
    assert np.concatenate(values).std() == pytest.approx(0.075, rel=0.02)
    same_size = [value for value in values if value.size == NUM_KEYS]
    assert all(
        abs(np.corrcoef(value, same_size[0])[0, 1]) < 0.3 for value in same_size[1:]
    )


def test_rmsprop_and_cosine_are_their_equations():
    config = Config(optimizer="rmsprop", schedule="cosine", max_grad_norm=1.0)
    optimizer = make_optimizer_of_rate(config, 4)(0.1)
    grads = [np.array([3.0, 4.0]), np.array([0.3, -0.1]), np.array([-6.0, 8.0])]
    state, square = optimizer.init(jnp.zeros(2)), np.zeros(2)
    for count, grad in enumerate(grads):
        updates, state = optimizer.update(jnp.asarray(grad, jnp.float32), state)
        grad = grad / max(1.0, np.linalg.norm(grad))
        square = RMS_DECAY * square + (1 - RMS_DECAY) * grad**2
        rate = 0.1 * (1 + np.cos(np.pi * count / 4)) / 2
        np.testing.assert_allclose(
            updates, -rate * grad / np.sqrt(square), rtol=TOLERANCE
        )


def test_kernel_starts_as_wide_as_asked_for():
    cell = "gru_reset_before"
    deviations = {}
    network = make_network(Config(), cell)
    for deviation in (0.0, 0.7):
        layer, readout = jax.jit(init_params, static_argnums=(0, 2))(
            network, KEY, deviation
        )
        deviations[deviation] = np.std(layer.kernel)
        assert np.std(layer.recurrent_kernel) == pytest.approx(
            UNITS[cell] ** -0.5, rel=0.05
        )
        assert not readout.bias.any()
    assert deviations[0.7] == pytest.approx(0.7, rel=0.05)
    assert 0.08 < deviations[0.0] < 0.15


@pytest.mark.parametrize("collection", ["jsb_chorales", "nottingham"])
def test_each_collection_starts_as_its_settings_say(collection):
    config = Config(
        jsb_kernel_deviation=0.7,
        nottingham_kernel_deviation=1.4,
        frequency_biases=("nottingham",),
    )
    network = make_network(config, "peephole_lstm")
    stream, valid = join_pieces(PIECES), pack_pieces(PIECES, 2)
    problem = make_problem(config, network, collection, stream, valid)
    layer, readout = jax.jit(problem.init)(KEY, None)
    expected = {"jsb_chorales": 0.7, "nottingham": 1.4}[collection]
    assert np.std(layer.kernel) == pytest.approx(expected, rel=0.05)
    sounds = np.sum([after for _, after in each_pair(PIECES)], axis=0)
    chances = (sounds + 0.5) / (len(each_pair(PIECES)) + 1)
    if collection == "jsb_chorales":
        chances = np.full(NUM_KEYS, 0.5)
    np.testing.assert_allclose(jax.nn.sigmoid(readout.bias), chances, rtol=TOLERANCE)


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_adam_follows_the_schedule(schedule):
    config = Config(optimizer="adam", schedule=schedule)
    optimizer = make_optimizer_of_rate(config, 10)(0.1)
    state = optimizer.init(jnp.zeros(3))
    sizes = []
    for _ in range(10):  # under one gradient Adam's steps are as long as its rate
        updates, state = optimizer.update(jnp.full(3, 0.2), state)
        sizes.append(float(-updates[0]))
    expected = 0.1 * (1 + np.cos(np.pi * np.arange(10) / 10)) / 2
    expected = expected if schedule == "cosine" else np.full(10, 0.1)
    np.testing.assert_allclose(sizes, expected, rtol=1e-4)


def test_published_units_have_matched_parameters():
    counts = {}
    for cell in UNITS:
        arm = Arm(cell, cell, make_network(Config(), cell), None)
        counts[cell] = run.count_parameters_of(arm)
    assert counts["elman"] == {"recurrent": 18_900, "readout": 8_888}
    assert counts["gru_reset_before"]["recurrent"] == 3 * 46 * (88 + 46 + 1)
    assert counts["peephole_lstm"]["recurrent"] == 4 * 36 * (88 + 36 + 1) + 3 * 36
    assert set(Config(match="units").units.values()) == {36}


# Baselines


def test_baselines_are_those_counted_step_by_step():
    train, test = PIECES[:3], PIECES[3:]
    known, asked = baselines.count_chords(train), baselines.count_chords(test)
    pairs = each_pair(train)
    total = len(pairs)
    sounds = np.sum([after for _, after in pairs], axis=0)
    marginal = np.log((sounds + 0.5) / (total - sounds + 0.5))
    assert baselines.score(baselines.frequencies(known), asked) == pytest.approx(
        brute_nll(test, lambda before: marginal)
    )
    stays = np.sum([before & after for before, after in pairs], axis=0)
    sounded = np.sum([before for before, _ in pairs], axis=0)
    begins, silent = sounds - stays, total - sounded

    def repeat(before):
        times, of = np.where(before, stays, begins), np.where(before, sounded, silent)
        return np.log((times + 0.5) / (of - times + 0.5))

    assert baselines.score(baselines.repetition(known, asked), asked) == pytest.approx(
        brute_nll(test, repeat)
    )


def test_equal_chords_are_counted_together():
    known = baselines.count_chords(SONGS["train"])
    assert known.chords.shape == (3, NUM_KEYS)
    assert known.counts.sum() == len(each_pair(SONGS["train"]))
    np.testing.assert_allclose(known.sums.sum(axis=1), known.counts)


def test_readout_is_the_minimum_of_its_objective():
    known = baselines.count_chords(PIECES)
    ridge = 1e-3
    fit = baselines.fit_readout(known, ridge)

    def objective(kernel, bias):
        loss = brute_nll(PIECES, lambda before: before @ kernel + bias)
        return loss + ridge * np.square(kernel).sum()

    lowest = objective(fit.kernel, fit.bias)
    for _ in range(10):
        step = 0.03 * GENERATOR.standard_normal((NUM_KEYS + 1, NUM_KEYS))
        assert objective(fit.kernel + step[:-1], fit.bias + step[-1]) > lowest
        assert objective(fit.kernel - step[:-1], fit.bias - step[-1]) > lowest
    assert lowest < baselines.score(baselines.frequencies(known), known)


# What is reported


def arm_result(collection, cell, test):
    losses = {"train": test - 0.5, "valid": test + 0.1, "test": test}
    return report.ArmResult(
        collection=collection,
        cell=cell,
        label=cell,
        units=7,
        parameters={"recurrent": 10, "readout": 5},
        tuning=None,
        rate=0.01,
        losses=losses,
        best_updates=np.full(test.size, 30),
        num_updates=40,
        seconds_per_update=[],
        diverged=np.flatnonzero(np.isnan(test)).tolist(),
    )


def test_reach_and_verdicts_follow_margins():
    spread = np.linspace(-0.01, 0.01, 12)
    gru = arm_result("jsb_chorales", "gru_reset_before", 8.54 * 1.019 + spread)
    lstm = arm_result("jsb_chorales", "peephole_lstm", 8.67 * 1.021 + spread)
    elman = arm_result("jsb_chorales", "elman", 9.3 + spread[::-1])
    elman.losses["test"][4] = np.nan
    assert report.summarise_arm(gru)["reached"] is True
    assert report.summarise_arm(lstm)["reached"] is False
    assert report.summarise_arm(elman)["test_over_published_less_1"].num_seeds == 11
    said = report.compare_cells([elman, gru, lstm], KEY)
    words = {(one.first[13:], one.second[13:]): one for one in said}
    assert words["gru_reset_before", "peephole_lstm"].verdict == "equivalent"
    assert words["gru_reset_before", "elman"].verdict == "lower"
    assert words["peephole_lstm", "elman"].left_out == 1
    assert words["peephole_lstm", "elman"].margin == pytest.approx(0.02 * 8.67)
    lines = report.notes([elman, gru, lstm])
    assert "+1.9 %" in lines[0]
    assert "better: reached" in lines[0]
    assert "+2.1 %" in lines[1]
    assert "better: not reached" in lines[1]


def test_paper_trains_as_published():
    config = Config(paper=True)
    assert (config.optimizer, config.schedule) == ("rmsprop", "constant")
    assert config.weight_noise == 0.075
    assert config.learning_rates == PAPER_RATES
    np.testing.assert_allclose(np.log(PAPER_RATES), np.linspace(-12, -6, 10))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"cells": ("elman", "elman")}, ("cells", "at most once")),
        ({"collections": ()}, ("collections", "nottingham")),
        ({"collections": ("muse",)}, ("collections", "muse")),
        ({"num_steps": 0}, ("num_steps", "positive")),
        ({"tuning_share": 1.5}, ("tuning_share", "(0, 1]")),
        ({"weight_noise": float("nan")}, ("weight_noise", "nan")),
        ({"jsb_kernel_deviation": -1.0}, ("jsb_kernel_deviation", "-1.0")),
        (
            {"nottingham_kernel_deviation": float("inf")},
            ("nottingham_kernel_deviation", "inf"),
        ),
        ({"frequency_biases": ("muse",)}, ("frequency_biases", "muse")),
        ({"dropout": 1.0}, ("dropout", "[0, 1)")),
        ({"max_grad_norm": 0.0}, ("max_grad_norm", "above 0")),
        ({"timing_rounds": -1}, ("timing_rounds", "-1")),
    ],
)
def test_config_refuses(fields, words):
    with pytest.raises(ValueError) as error:
        Config(**fields)
    assert_says(error, *words)


# The command


OPTIONS = (
    "--collections jsb_chorales --cells elman --num-seeds 2 --seed-block 2 "
    "--jsb-epochs 300 --tuning-share 0.1 --num-steps 12 --batch-size 4 "
    "--learning-rates 1e-9 1e-2 --tuning-seeds 1 --num-validations 6 "
    "--timing-rounds 1 --picture-format svg"
)


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """Run the command in this process; what was compiled is not compiled again."""
    names = (
        "jax_compilation_cache_dir",
        "jax_disable_most_optimizations",
        "jax_persistent_cache_min_compile_time_secs",
    )
    before = {name: jax.config.values[name] for name in names}
    cache = tmp_path_factory.mktemp("cache")
    jax.config.update("jax_disable_most_optimizations", True)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    data = tmp_path_factory.mktemp("data") / "songs.json"
    pitches = {
        part: [
            [[int(key) + LOWEST_PITCH for key in np.flatnonzero(step)] for step in roll]
            for roll in rolls
        ]
        for part, rolls in SONGS.items()
    }
    data.write_text(json.dumps(pitches))

    def run_main(directory, *arguments):
        folders = ("--compilation-cache", str(cache), "--output-dir", str(directory))
        given = ("--data-dir", str(data))
        return main([*OPTIONS.split(), *given, *folders, *arguments])

    yield run_main
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.fixture(scope="module")
def finished(command, tmp_path_factory):
    directory = tmp_path_factory.mktemp("finished") / "out"
    assert command(directory, "--save-models") == 0
    return directory


def record_of(directory):
    return json.loads((directory / "results.json").read_text())


def test_network_remembers_what_the_last_chord_does_not_tell(finished):
    summary = record_of(finished)["summary"]
    arm = summary["arms"]["jsb_chorales_elman"]
    scores = summary["baselines"]["jsb_chorales"]
    # After C twice comes E or G, and every key goes on once: half a guess a step.
    assert scores[baselines.MEMORYLESS] > 0.5
    assert arm["nll"]["test"]["estimate"] < 0.6 * scores[baselines.MEMORYLESS]
    assert scores["frequency of each key"] > scores["repetition of the last chord"]
    assert arm["tuning"]["rate"] == 1e-2
    assert arm["learning_rate"] == 1e-2


def test_record_has_every_seed_and_the_best_of_validation(finished):
    record = record_of(finished)
    series = record["cells"]["jsb_chorales_elman"]
    assert np.shape(series["validation"]) == np.shape(series["training"]) == (2, 6)
    best = np.min(series["validation"], axis=1)
    np.testing.assert_allclose(series["valid_nll"], best, atol=1e-4)
    assert np.isfinite(series["test_nll"]).all()
    assert series["test_nll"][0] != series["test_nll"][1]
    assert record["config"]["learning_rates"] == [1e-9, 1e-2]
    names = {path.name for path in finished.iterdir()}
    assert {"summary.md", "test.svg", "jsb_chorales_updates.svg"} <= names
    assert "jsb_chorales_seconds.svg" in names
    text = (finished / "summary.md").read_text()
    assert "9.10" in text
    assert baselines.MEMORYLESS in text


def test_reported_losses_are_those_of_the_saved_models(finished):
    from gated_rnn.conversion.files import load_model

    series = record_of(finished)["cells"]["jsb_chorales_elman"]
    for seed in range(2):
        path = finished / "models" / f"jsb_chorales_elman_seed_{seed}"
        network, params = load_model(path.with_suffix(".safetensors"))[:2]
        for part, name in (("valid", "valid_nll"), ("test", "test_nll")):
            found = nll(network, params, pack_pieces(SONGS[part], 1))
            assert found == pytest.approx(series[name][seed], rel=1e-4)


def test_stopped_run_goes_on_to_the_same_record(
    command, finished, tmp_path, monkeypatch, capsys
):
    directory = tmp_path / "out"
    with monkeypatch.context() as patch:

        def ask_and_train(*arguments, **options):
            signal.raise_signal(signal.SIGINT)
            return train_arms(*arguments, **options)

        train_arms = run.train_arms
        patch.setattr(run, "train_arms", ask_and_train)
        assert command(directory) == 130
    assert "go on with --resume" in capsys.readouterr().err
    assert not (directory / "results.json").exists()
    assert command(directory, "--resume") == 0
    resumed, whole = record_of(directory), record_of(finished)
    assert resumed["cells"] == whole["cells"]
    assert resumed["summary"]["baselines"] == whole["summary"]["baselines"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--num-steps", "1000"), "num_steps"),
        (("--data-dir", "missing"), "missing"),
        (("--dropout", "2"), "dropout"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    command, tmp_path, capsys, arguments, words
):
    directory = tmp_path / "out"
    assert command(directory, *arguments) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1
    assert not directory.exists()
