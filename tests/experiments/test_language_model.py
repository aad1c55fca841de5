import collections
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.language_model import ngrams, report
from experiments.language_model import run as run_module
from experiments.language_model.__main__ import main
from experiments.language_model.config import PAPER, Config
from experiments.language_model.problem import (
    arrange_streams,
    bits_of_streams,
    count_units,
    make_network,
    make_problem,
    read_corpus,
)
from gated_rnn.networks import count_parameters
from gated_rnn.training import Stopped

PNG = b"\x89PNG\r\n"
NUM_CHARACTERS = 6000
SMALL = (
    *("--num-seeds", "2", "--seed-block", "2", "--num-updates", "40"),
    *("--num-steps", "12", "--batch-size", "6", "--hidden-features", "10"),
    *("--embedding-features", "5", "--num-layers", "1", "--validate-every", "10"),
    *("--learning-rates", "0.002", "0.03", "--tuning-seeds", "1", "--max-order", "4"),
    *("--valid-characters", "200", "--num-streams", "4", "--amounts", "0.1", "1"),
    *("--sample-characters", "25", "--prompt", "ab", "--timing-rounds", "3"),
)


def write_book(path, *, end="a"):
    """Words that a reader can tell from their first letter, in random order."""
    generator = np.random.default_rng(5)
    words = ["abcde ", "bcdea ", "cabd ", "dddce ", "ebad\n"]
    text = "".join(generator.choice(words, NUM_CHARACTERS // 4))
    path.write_text(text[: NUM_CHARACTERS - 12] + 12 * end)
    return path


@pytest.fixture(scope="module", autouse=True)
def _compile_quickly():
    """Leave out most of XLA's passes: on data this small they only cost time."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def small_run(tmp_path_factory):
    """The record of a small run, its folder, and the arguments that made it."""
    directory = tmp_path_factory.mktemp("small")
    arguments = [
        *SMALL,
        *("--data-dir", str(write_book(directory / "book.txt"))),
        *("--output-dir", str(directory / "out")),
    ]
    assert main(arguments) == 0
    record = json.loads((directory / "out" / "results.json").read_text())
    return record, directory / "out", arguments


def test_record_has_every_arm_amount_and_seed(small_run):
    record, directory, _ = small_run
    assert (record["schema"], record["experiment"]) == (1, "language_model")
    sizes = [540, 5400]
    assert list(record["summary"]["characters"].values()) == sizes
    names = [f"{cell}_{size}_tuned" for cell in ARMS for size in sizes]
    names += [f"{cell}_{size}_shared" for cell in ARMS[:2] for size in sizes]
    assert sorted(record["cells"]) == sorted(names)
    for series in record["cells"].values():
        assert series["seeds"] == [0, 1]
        assert np.shape(series["valid"]) == np.shape(series["train"]) == (2, 4)
        test = np.array(series["test"])
        assert np.isfinite(test).all()
        assert len(set(test)) == 2
    for name in ("bits_by_amount.png", "learning_curves.png"):
        assert (directory / name).read_bytes().startswith(PNG)
    markdown = (directory / "summary.md").read_text()
    assert "Written by seed 0 of GRU, 5,400 characters" in markdown
    assert "trigram" in markdown
    assert "of the LSTM's time (3 rounds in turn)" in markdown
    assert np.shape(record["summary"]["seconds"]["rounds"]["gru"]) == (3,)


ARMS = ("lstm", "gru", "gru_matched")


def test_networks_learn_what_a_unigram_cannot(small_run):
    record, _, _ = small_run
    unigram = record["summary"]["ngrams"]["5400"]["unigram"]["test"]
    for cell in ARMS:
        assert max(record["cells"][f"{cell}_5400_tuned"]["test"]) < unigram - 0.3


def test_summary_compares_seed_by_seed(small_run):
    record, _, _ = small_run
    cells, summary = record["cells"], record["summary"]
    assert len(summary["bits"]) == len(summary["updates"]) == 6
    test = {name: np.array(series["test"]) for name, series in cells.items()}
    last = test["gru_5400_tuned"] - test["lstm_5400_tuned"]
    first = test["gru_540_tuned"] - test["lstm_540_tuned"]
    found = summary["bits"][1]["difference"]["mean"]["estimate"]
    np.testing.assert_allclose(found, last.mean(), rtol=1e-9)
    found = summary["interaction"][0]["difference"]["mean"]["estimate"]
    np.testing.assert_allclose(found, (first - last).mean(), rtol=1e-9)
    matched = test["gru_matched_540_tuned"] - test["lstm_540_tuned"]
    found = summary["bits"][2]["difference"]["mean"]["estimate"]
    np.testing.assert_allclose(found, matched.mean(), rtol=1e-9)
    assert summary["bits"][0]["verdict"].endswith("provisionally (2 seeds of 10)")


def test_shared_rate_is_trained_where_tuning_chose_another(small_run):
    record, _, _ = small_run
    rate = record["config"]["shared_learning_rate"]
    for size in (540, 5400):
        own = record["cells"][f"gru_{size}_tuned"]["valid"]
        shared = record["cells"][f"gru_{size}_shared"]["valid"]
        same = record["summary"]["tuning"][f"gru_{size}"]["rate"] == rate
        assert (own == shared) == same
    # 0.002 learns next to nothing in 40 updates.
    assert record["summary"]["tuning"]["gru_5400"]["rate"] == 0.03


def test_text_that_was_written_is_of_the_vocabulary(small_run):
    record, _, _ = small_run
    samples = record["summary"]["samples"]
    assert len(samples) == 4
    assert all(len(text) == 25 for text in samples.values())
    assert set("".join(samples.values())) <= set("abcde \n\ufffd")


def test_run_that_was_stopped_goes_on_to_the_same_record(
    small_run, tmp_path, monkeypatch, capsys
):
    record, _, arguments = small_run
    arguments = [*arguments[:-1], str(tmp_path / "again")]
    with monkeypatch.context() as patched:
        patched.setattr(run_module, "_train_shared", _stop)
        assert main(arguments) == 130
    assert not (tmp_path / "again" / "results.json").exists()
    assert main([*arguments, "--resume"]) == 0
    again = json.loads((tmp_path / "again" / "results.json").read_text())
    for name, series in record["cells"].items():
        for curve in ("seeds", "train", "valid", "best_update", "test"):
            assert again["cells"][name][curve] == series[curve], (name, curve)
    assert again["summary"]["samples"] == record["summary"]["samples"]
    capsys.readouterr()


def _stop(*_):
    raise Stopped(40)


@pytest.mark.parametrize(
    "arguments",
    [
        "--amounts 0.5 0.1",
        "--amounts 0",
        "--amounts 1.5",
        "--num-updates 0",
        "--validate-every 41",
        "--temperature -1",
        "--temperature nan",
        "--sample-characters -1",
        "--timing-rounds -1",
        "--test-share 0",
        "--valid-share 0.6 --test-share 0.5",
        "--shared-learning-rate 0",
        "--tuning-seeds 0",
        "--num-streams 300",
        "--amounts 0.001 1",
        "--max-order 30",
        "--data-dir MISSING",
        "--data-dir EMPTY",
        "--output-dir BOOK",
        "--no-such-flag",
    ],
)
def test_bad_input_is_one_line_and_status_2_and_writes_nothing(
    arguments, tmp_path, capsys
):
    book = write_book(tmp_path / "book.txt")
    empty = tmp_path / "empty.txt"
    empty.write_text("")
    places = {"MISSING": tmp_path / "none", "EMPTY": empty, "BOOK": book}
    for name, path in places.items():
        arguments = arguments.replace(name, str(path))
    before = sorted(tmp_path.iterdir())
    defaults = ["--data-dir", str(book), "--output-dir", str(tmp_path / "out")]
    assert main([*SMALL, *defaults, *arguments.split()]) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.count("\n") == 1
    assert errors.startswith("experiments.language_model: ")
    assert sorted(tmp_path.iterdir()) == before


def test_paper_is_the_size_of_the_published_code():
    config = Config(paper=True)
    assert (config.hidden_features, config.num_layers) == (128, 2)
    assert (config.num_steps, config.batch_size) == (50, 50)
    assert config.num_updates == PAPER["num_updates"] == 20_000


def small_config(tmp_path, **settings):
    book = write_book(tmp_path / "book.txt")
    sizes = {"hidden_features": 10, "embedding_features": 5, "num_steps": 12}
    some = {"data_dir": book, "amounts": (0.1, 1.0), "num_streams": 4, **sizes}
    return Config(**{**some, **settings})


def test_windows_are_of_the_first_characters_alone(tmp_path):
    config = small_config(tmp_path)
    corpus = read_corpus(config)
    marked = corpus._replace(train=np.arange(corpus.train.size, dtype=np.int32))
    network = make_network(config, "gru", len(corpus.vocabulary.tokens))
    problem = make_problem(config, network, marked, size=40)
    batches = [
        np.asarray(problem.batch(jax.random.key(3), jnp.int32(step)))
        for step in range(60)
    ]
    assert batches[0].shape == (13, 16)
    assert np.array_equal(np.diff(batches[0], axis=0), np.ones((12, 16)))
    seen = np.unique(batches)
    assert (seen.min(), seen.max()) == (0, 39)
    assert not np.array_equal(batches[0], batches[1])


def test_test_part_reaches_neither_training_nor_validation(tmp_path):
    one = read_corpus(small_config(tmp_path))
    write_book(tmp_path / "book.txt", end="e")
    other = read_corpus(Config(data_dir=tmp_path / "book.txt", amounts=(0.1, 1.0)))
    assert np.array_equal(one.train, other.train)
    assert one.vocabulary == other.vocabulary
    size = min(one.valid.size, other.valid.size)
    assert np.array_equal(one.valid[:size], other.valid[:size])
    assert not np.array_equal(one.test[-9:], other.test[-9:])


def test_streams_are_scored_with_one_carry_from_the_first_character_on(tmp_path):
    config = small_config(tmp_path)
    network = make_network(config, "lstm", 7)
    params = network.init(jax.random.key(1))
    params = jax.tree.map(lambda leaf: 3 * leaf, params)
    ids = np.random.default_rng(0).integers(0, 7, 31)
    inputs, targets = arrange_streams(ids, 3)
    assert inputs.shape == targets.shape == (10, 3)
    step = jax.jit(network.step)
    bits = []
    for start in (0, 10, 20):
        carry = network.init_carry()
        for place in range(start, start + 10):
            carry, logits = step(params, carry, jnp.asarray(ids[place]))
            chances = np.exp(np.asarray(logits, np.float64))
            bits.append(-math.log2(chances[ids[place + 1]] / chances.sum()))
    found = jax.jit(bits_of_streams)(network, inputs, targets, params)
    np.testing.assert_allclose(found, np.mean(bits), rtol=1e-5)


@pytest.mark.parametrize("num_layers", [1, 2])
def test_matched_gru_has_the_parameters_of_the_lstm(tmp_path, num_layers):
    config = small_config(tmp_path, hidden_features=40, num_layers=num_layers)
    counts = {}
    for cell in ARMS:
        network = make_network(config, cell, 11)
        params = jax.eval_shape(network.init, jax.random.key(0))
        counts[cell] = count_parameters(params[1:-1])
    assert abs(counts["gru_matched"] / counts["lstm"] - 1) < 0.03
    assert counts["gru"] < 0.77 * counts["lstm"]
    assert count_units(config, "gru") == [40] * num_layers


def test_ngram_bits_are_those_of_a_direct_count():
    generator = np.random.default_rng(2)
    train, text = generator.integers(0, 5, 90), generator.integers(0, 5, 40)
    matches = ngrams.match(train, text, 3, num_tokens=6)
    for order, strength in ((1, 0.5), (2, 3.0), (3, 2.0)):
        expected = [
            -math.log2(
                chance(train.tolist(), text[:t].tolist(), text[t], order, strength)
            )
            for t in range(1, 40)
        ]
        found = ngrams.bits_per_character(matches, order, strength)
        np.testing.assert_allclose(found, np.mean(expected), rtol=1e-12)


def chance(train, past, token, order, strength):
    """Give a token's probability by slicing and counting."""
    if order == 0:
        return 1 / 6
    shorter = chance(train, past, token, order - 1, strength)
    length = order - 1
    if length > len(past):
        return shorter
    context = past[len(past) - length :]
    followers = collections.Counter(
        train[at + length]
        for at in range(len(train) - length)
        if train[at : at + length] == context
    )
    return (followers[token] + strength * shorter) / (followers.total() + strength)


def test_ngram_probabilities_of_all_tokens_sum_to_one():
    train = np.random.default_rng(3).integers(0, 4, 60)
    past = [train[7], train[8]]
    for order in (1, 2, 3):
        total = 0.0
        for token in range(5):
            # The last token alone: what is before it is scored in both texts.
            text = np.array([*past, token])
            both = ngrams.match(train, text, order, num_tokens=5)
            last = both._replace(hits=both.hits[:, -1:], contexts=both.contexts[:, -1:])
            total += 2.0 ** -ngrams.bits_per_character(last, order, 0.7)
        np.testing.assert_allclose(total, 1.0, rtol=1e-12)


def test_ngram_is_chosen_by_validation():
    train = np.tile([0, 1, 2, 0, 2, 1], 50)  # two characters tell the next one
    matches = ngrams.match(train, train[:61], 3, num_tokens=3)
    choice = ngrams.choose(matches, range(1, 4))
    assert (choice.order, choice.strength) == (3, min(ngrams.STRENGTHS))
    assert ngrams.choose(matches, [1]).order == 1
    assert choice.bits < 0.1 < ngrams.choose(matches, [2]).bits


def test_level_is_met_between_two_validations_or_not_at_all():
    valid = np.array([[5.0, 3.0, 2.0], [4.0, 4.0, 4.0], [1.0, 6.0, 1.0]])
    found = report.updates_to(valid, 3.5, 20)
    np.testing.assert_allclose(found, [20 + 20 * 0.75, np.nan, 20])
