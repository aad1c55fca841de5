"""The command on reviews that a word decides, and its parts on hand-made numbers."""

import dataclasses
import json
import math
import signal
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from experiments import training
from experiments.data import review_batches
from experiments.data.review_batches import Encoded
from experiments.data.reviews import Reviews, load_reviews
from experiments.reviews import problem as problem_module
from experiments.reviews.__main__ import main
from experiments.reviews.baselines import (
    choose_naive_bayes,
    fit_naive_bayes,
    majority_accuracy,
)
from experiments.reviews.config import PAPER, Config
from experiments.reviews.corpus import (
    count_chosen,
    draw_reviews,
    hide_unknown,
    make_corpus,
    take_batch,
)
from experiments.reviews.outcomes import (
    Outcome,
    epochs_to,
    error_of_test_part,
    length_groups,
    log_reviews_to,
)
from experiments.reviews.problem import Score, judge, judge_many, make_network, units_of
from experiments.reviews.report import Results, compare_all
from gated_rnn.conversion.files import load_model
from tests.cases import assert_says

KEY = jax.random.key(2)
PNG = b"\x89PNG\r\n"
WORDS = ["film", "plot", "never", "was", "bright", "it's", "scene", "music", "and"]
NUM_REVIEWS = 60  # of each label
SMALL = (
    "--num-seeds 2 --seed-block 2 --tuning-seeds 1 --learning-rates 0.003 0.03 "
    "--learning-rate 0.03 --arms lstm gru --amounts 0.25 1 --num-epochs 6 6 "
    "--num-words 6 --embedding-features 4 --hidden-features 5 --batch-size 8 "
    "--num-characters 12 --character-features 3 --character-epochs 1 "
    "--character-arms gru "
    "--timing-rounds 2 --dropout 0.1"
)


def write_reviews(folder):
    """Reviews of four to eight words; of the first four one is of the label's own."""
    generator = np.random.default_rng(5)
    for name, own in (("neg", "awful"), ("pos", "lovely")):
        lines = []
        for number in range(NUM_REVIEWS):
            size = int(generator.integers(4, 9))
            words = list(generator.choice(WORDS, size))
            words[int(generator.integers(4))] = own
            lines.append(" ".join([*words[:-1], f"{words[-1]} no{number}{own[0]}"]))
        (folder / f"rt-polarity.{name}").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_reviews(tmp_path_factory.mktemp("reviews"))


@pytest.fixture(scope="module")
def command(folder, tmp_path_factory):
    """Run the command in this process; what was compiled is not compiled again."""
    names = (
        "jax_compilation_cache_dir",
        "jax_disable_most_optimizations",
        "jax_persistent_cache_min_compile_time_secs",
    )
    before = {name: jax.config.values[name] for name in names}
    jax.config.update("jax_disable_most_optimizations", True)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    cache = str(tmp_path_factory.mktemp("cache"))

    def run(directory, *arguments):
        places = ("--data-dir", str(folder), "--output-dir", str(directory))
        return main([*SMALL.split(), *places, "--compilation-cache", cache, *arguments])

    yield run
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.fixture(scope="module")
def finished(command, tmp_path_factory):
    directory = tmp_path_factory.mktemp("finished") / "out"
    assert command(directory, "--save-models") == 0
    return directory


@pytest.fixture(scope="module")
def record(finished):
    return json.loads((finished / "results.json").read_text())


# The command


def test_record_keeps_every_seed_of_every_arm(record):
    names = set(record["cells"])
    plain = {f"words_{arm}_{at}" for arm in ("lstm", "gru") for at in (25, 100)}
    assert names == {
        *plain,
        *(f"{name}_tuned" for name in plain),
        "characters_gru_100",
    }
    for series in record["cells"].values():
        assert series["seeds"] == [0, 1]
        curves = np.array(series["validation_accuracy"])
        assert curves.shape == np.shape(series["train_loss"])
        assert curves.shape[0] == 2
        for name in ("test_accuracy", "test_loss", "last_train_accuracy"):
            assert np.shape(series[name]) == (2,)
            assert np.isfinite(series[name]).all()
    summary = record["summary"]
    assert summary["parts"]["words"]["num_test"] == 24
    assert summary["parts"]["words"]["num_train"] == 84
    assert summary["results"]["words_gru_25"]["num_reviews"] == 20
    assert "initialisation" in summary["seeds_vary"]
    assert {"accuracy", "gap", "interaction", "length", "time"} <= set(
        summary["comparisons"]
    )
    assert len(summary["seconds_per_update"]["gru"]) == 2


def test_arms_learn_which_word_decides(record):
    for arm in ("lstm", "gru"):
        series = record["cells"][f"words_{arm}_100"]
        losses = np.array(series["train_loss"])
        assert (losses[:, -1] < 0.5 * losses[:, 0]).all()
        assert min(series["test_accuracy"]) > 0.9
    summary = record["summary"]
    assert summary["baselines"]["words"]["majority"] == 0.5
    assert min(summary["baselines"]["words"]["naive_bayes"]["100"]["seeds"]) > 0.9


def test_pictures_and_summary_are_written(finished):
    for name in ("accuracy_by_amount", "validation_curves"):
        assert (finished / f"{name}.png").read_bytes().startswith(PNG)
    text = (finished / "summary.md").read_text()
    assert "naive Bayes" in text
    assert "GRU - LSTM" in text
    assert "2.4 h" in text


def test_recorded_accuracy_is_that_of_the_saved_network_on_the_test_part(
    record, finished, folder
):
    reviews = load_reviews("polarity", folder).reviews
    parts = review_batches.split_reviews(reviews, 0, valid_share=0.1, test_share=0.2)
    seen = Counter(
        word for text in parts.train.texts for word in review_batches.words(text)
    )
    vocabulary = review_batches.make_vocabulary(parts.train, min_count=2)
    assert set(vocabulary.tokens[2:]) == {word for word in seen if seen[word] > 1}
    for seed in (0, 1):
        path = finished / "models" / f"words_gru_100_seed_{seed}.safetensors"
        network, params = load_model(path)
        judge_alone = jax.jit(network.apply)
        right = []
        for text, label in zip(parts.test.texts, parts.test.labels, strict=True):
            # One review after the other, without any padding.
            ids = vocabulary.encode(review_batches.words(text))[:6]
            _, logit = judge_alone(params, ids[:, None])
            right.append((float(logit[0, 0]) > 0) == (label == 1))
        recorded = record["cells"]["words_gru_100"]["test_accuracy"][seed]
        assert recorded == round(float(np.mean(right)), 5)


def test_tuned_arm_is_the_plain_one_where_its_rate_is_chosen(record):
    for amount in ("25", "100"):
        for arm in ("lstm", "gru"):
            tuning = record["summary"]["tuning"][amount][arm]
            assert tuning["rate"] == tuning["rates"][int(np.argmin(tuning["values"]))]
            plain, tuned = (
                record["cells"][f"words_{arm}_{amount}{suffix}"]
                for suffix in ("", "_tuned")
            )
            assert (plain == tuned) == (tuning["rate"] == 0.03)


def test_stopped_run_goes_on_to_the_same_record(
    command, record, tmp_path, monkeypatch, capsys
):
    show_progress = training.show_progress

    def show(console, label, num_updates):
        if label == "WORDS_GRU_100_TUNING":
            signal.raise_signal(signal.SIGTERM)
        return show_progress(console, label, num_updates)

    out, fewer = tmp_path / "out", ("--arms", "gru", "--no-characters")
    with monkeypatch.context() as patched:
        patched.setattr(training, "show_progress", show)
        assert command(out, *fewer) == 130
    assert "go on with --resume" in capsys.readouterr().err
    assert not (out / "results.json").exists()
    assert command(out, "--resume", *fewer) == 0
    again = json.loads((out / "results.json").read_text())
    assert len(again["cells"]) == 4
    for name, series in again["cells"].items():
        assert series == record["cells"][name]
    for name in ("words_gru_25", "words_gru_100_tuned"):
        expected = record["summary"]["results"][name]
        assert again["summary"]["results"][name] == expected


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("--num-words 0", "num_words"),
        ("--amounts 0.5 0.1 --num-epochs 1 1", "amounts"),
        ("--amounts 0.5 --num-epochs 1 1", "num_epochs"),
        ("--amounts 0.5 1.5 --num-epochs 1 1", "amounts"),
        ("--arms gru gru", "arms"),
        ("--dropout 1", "dropout"),
        ("--learning-rate nan", "learning_rate"),
        ("--test-share 0", "test_share"),
        ("--target-accuracy 1", "target_accuracy"),
        ("--timing-rounds -1", "timing_rounds"),
        ("--collection letters", "collection"),
        ("--paper --hidden-features 8", "hidden_features"),
        ("--data-dir MISSING", "No"),
    ],
)
def test_bad_input_is_one_line_and_status_2_and_writes_nothing(
    arguments, says, tmp_path, capsys
):
    arguments = arguments.replace("MISSING", str(tmp_path / "missing")).split()
    out = tmp_path / "out"
    assert main([*arguments, "--output-dir", str(out)]) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.count("\n") == 1
    assert errors.startswith("experiments.reviews: ")
    assert says.lower() in errors.lower()
    assert not out.exists()


def test_help_names_every_setting_and_explains_it(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for field in dataclasses.fields(Config):
        prefix = "--no-" if field.default is True else "--"
        flag = prefix + field.name.replace("_", "-")
        explanation = text.split(f" {flag} ", 1)[1]
        explanation = explanation.split(" --", 1)[0].split("(default", 1)[0]
        assert len(explanation.split()) > 4, field.name


def test_paper_is_the_published_size():
    config = Config(paper=True)
    for name, value in PAPER.items():
        assert getattr(config, name) == value != getattr(Config(), name)


def test_matched_arms_have_the_parameters_of_the_lstm():
    config = Config()
    wanted = 4 * (32 * 32 + 32 * 32 + 32)
    for name, count in (
        ("gru_matched", lambda h: 3 * (32 * h + h * h + h) + h),
        ("elman_matched", lambda h: 32 * h + h * h + h),
    ):
        units = units_of(config, config.words, name)
        assert units > 32
        errors = [abs(count(units + more) - wanted) for more in (-1, 0, 1)]
        assert errors[1] == min(errors)
    assert units_of(config, config.words, "gru") == 32


# What seeds draw


@pytest.fixture(scope="module")
def corpus(folder):
    collected = load_reviews("polarity", folder)
    return make_corpus(collected, "words", num_steps=6, split_seed=3)


OPTIONS = ("num_epochs", "vocabulary_size", "min_count")
draw_compiled = jax.jit(draw_reviews, static_argnames=OPTIONS)


def draw(corpus, amount, key=KEY, num_epochs=3):
    counts = count_chosen(corpus.train.labels, amount)
    values = (num_epochs, len(corpus.vocabulary.tokens), 2)
    options = dict(zip(OPTIONS, values, strict=True))
    return jax.device_get(draw_compiled(corpus.train, counts, key, **options))


def test_amounts_of_one_seed_are_nested_and_balanced(corpus):
    labels = corpus.train.labels
    some, more, other = (
        draw(corpus, 0.2),
        draw(corpus, 0.5),
        draw(corpus, 0.2, jax.random.key(9)),
    )
    for one, amount in ((some, 0.2), (more, 0.5), (other, 0.2)):
        expected = np.round(np.bincount(labels) * amount)
        np.testing.assert_array_equal(np.bincount(labels[one.chosen]), expected)
        assert one.num_chosen == expected.sum()
    assert (more.chosen | ~some.chosen).all()
    assert (some.chosen != other.chosen).any()


def test_every_epoch_has_every_chosen_review_once_in_an_order_of_its_own(corpus):
    one = draw(corpus, 0.5)
    orders = one.order[:, : one.num_chosen]
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.flatnonzero(one.chosen))
    assert (orders[0] != orders[1]).any()
    assert (orders[1] != orders[2]).any()
    longer = draw(corpus, 0.5, num_epochs=5)
    np.testing.assert_array_equal(longer.order[:3], one.order)


def test_known_are_the_tokens_that_come_twice_among_the_chosen(corpus):
    one = draw(corpus, 0.2)
    tokens, lengths, _ = corpus.train
    seen = Counter(
        token
        for row in np.flatnonzero(one.chosen)
        for token in tokens[: lengths[row], row].tolist()
    )
    expected = {token for token, count in seen.items() if count >= 2}
    assert set(np.flatnonzero(one.known)) == expected
    assert len(expected) < len(corpus.vocabulary.tokens)
    assert 0 not in expected  # padding is no token


def test_batches_go_through_the_epochs_and_hide_what_is_not_known(corpus):
    one = draw(corpus, 0.2)  # 16 reviews
    size, unknown = 6, corpus.vocabulary.unknown_id
    batches = [
        take_batch(corpus.train, unknown, size, jnp.int32(step), one)
        for step in range(5)
    ]
    rows = one.order[:2, : one.num_chosen].ravel()[: 5 * size]
    expected = corpus.train.tokens[:, rows]
    expected = np.where(one.known[expected], expected, unknown)
    tokens = np.concatenate([batch.tokens for batch in batches], axis=1)
    np.testing.assert_array_equal(tokens, expected)
    labels = np.concatenate([batch.labels for batch in batches])
    np.testing.assert_array_equal(labels, corpus.train.labels[rows])
    lengths = np.concatenate([batch.lengths for batch in batches])
    np.testing.assert_array_equal(lengths, corpus.train.lengths[rows])


def test_vocabulary_has_seen_the_training_part_alone(folder):
    collected = load_reviews("polarity", folder)
    options = {"num_steps": 9, "split_seed": 3, "min_count": 1}
    found = make_corpus(collected, "words", **options)
    # Every review has a word of its own, its last.
    assert len(found.vocabulary.tokens) == 2 + len(WORDS) + 2 + found.train.labels.size
    for part, is_known in ((found.train, True), (found.valid, False)):
        last = part.tokens[part.lengths - 1, np.arange(part.labels.size)]
        assert ((last != found.vocabulary.unknown_id) == is_known).all()
    test = Reviews(("bright no1a", "lovely"), np.array([0, 1], np.int32))
    found = make_corpus(collected._replace(test=test), "words", **options)
    assert found.test.labels.tolist() == [0, 1]
    assert found.train.labels.size + found.valid.labels.size == 2 * NUM_REVIEWS


# The network


@pytest.fixture(scope="module")
def network():
    return make_network(9, "gru", embedding_features=3, hidden_features=4, dropout=0.4)


def some_reviews(num_reviews, num_steps=7):
    rng = np.random.default_rng(num_reviews)
    lengths = rng.integers(1, num_steps + 1, num_reviews).astype(np.int32)
    tokens = rng.integers(0, 9, (num_steps, num_reviews)).astype(np.int32)
    return Encoded(tokens, lengths, rng.integers(0, 2, num_reviews).astype(np.int32))


read = jax.jit(judge)


def test_padding_changes_no_judgement(network):
    params = network.init(KEY)
    reviews = some_reviews(5)
    reviews.lengths[:] = (7, 2, 2, 5, 5)
    logits = np.asarray(read(network, params, reviews))
    for rows in ([1, 2], [3, 4]):
        length = reviews.lengths[rows[0]]
        alone = jnp.asarray(reviews.tokens[:length, rows])
        _, expected = jax.jit(network.apply)(params, alone)
        expected = expected[:, 0]
        np.testing.assert_allclose(logits[rows], expected, rtol=2e-5, atol=1e-6)


def test_judging_some_at_a_time_changes_nothing(network, monkeypatch):
    monkeypatch.setattr(problem_module, "JUDGED_AT_ONCE", 3)
    params = network.init(KEY)
    reviews = Encoded(*map(jnp.asarray, some_reviews(8)))
    pieces = jax.jit(judge_many)(network, params, reviews)
    whole = read(network, params, reviews)
    np.testing.assert_allclose(pieces, whole, rtol=2e-5, atol=1e-6)


def test_dropout_is_drawn_only_with_a_key(network):
    params = network.init(KEY)
    reviews = some_reviews(5)
    keys = jax.random.split(KEY)
    drawn = [read(network, params, reviews, key) for key in keys]
    assert (drawn[0] != drawn[1]).any()
    assert (drawn[0] != read(network, params, reviews)).any()


# Baselines


def encoded(*reviews):
    """Reviews `(label, tokens)`, padded with token 4, which is a real one elsewhere."""
    longest = max(len(tokens) for _, tokens in reviews)
    rows = [tokens + [4] * (longest - len(tokens)) for _, tokens in reviews]
    return Encoded(
        np.array(rows, np.int32).T,
        np.array([len(tokens) for _, tokens in reviews], np.int32),
        np.array([label for label, _ in reviews], np.int32),
    )


def test_naive_bayes_is_the_one_computed_by_hand():
    train = encoded((1, [2, 2, 3]), (0, [3, 4]), (1, [3]))
    bag = fit_naive_bayes(train, 5, smoothing=1.0)
    # Label 1: counts 0 0 2 2 0, of 4; label 0: 0 0 0 1 1, of 2; each plus one.
    expected = [
        math.log(one / 9) - math.log(other / 7)
        for one, other in zip((1, 1, 3, 3, 1), (1, 1, 1, 2, 2), strict=True)
    ]
    np.testing.assert_allclose(bag.weights, expected, rtol=1e-12)
    assert bag.bias == pytest.approx(math.log(2))
    judged = bag.judge(encoded((1, [2, 4]), (0, [4, 4, 4])))
    by_hand = [
        expected[2] + expected[4] + math.log(2),
        3 * expected[4] + math.log(2),
    ]
    np.testing.assert_allclose(judged, by_hand, rtol=1e-12)
    assert bag.accuracy(encoded((1, [2, 4]), (1, [4, 4, 4]))) == 0.5


def test_smoothing_is_the_best_one_on_validation_data():
    rng = np.random.default_rng(1)

    def draw_some(count):
        return encoded(
            *(
                (label, rng.choice([2, 3], 3, p=odds).tolist())
                for label, odds in ((0, (0.55, 0.45)), (1, (0.45, 0.55)))
                for _ in range(count)
            )
        )

    train, valid = draw_some(6), draw_some(200)
    best = choose_naive_bayes(train, valid, 5).accuracy(valid)
    others = [fit_naive_bayes(train, 5, a).accuracy(valid) for a in (0.1, 1.0, 10.0)]
    assert best >= max(others)


def test_majority_is_that_of_the_training_part():
    train = encoded((0, [2]), (0, [3]), (1, [2]))
    test = encoded((1, [2]), (1, [3]), (0, [2]), (1, [4]))
    assert majority_accuracy(train, test) == 0.25


def test_tokens_that_a_seed_does_not_know_are_unknown():
    reviews = encoded((1, [2, 3, 4]))
    known = np.array([False, False, True, False, True])
    assert hide_unknown(reviews, 1, known).tokens[:, 0].tolist() == [2, 1, 4]


# What is read off


NUM_TEST = 1000


def outcome(arm, amount, accuracy, *, gap=0.1, num_test=NUM_TEST, validation=None):
    """An outcome whose seeds have about the accuracy, on test reviews of lengths."""
    rng = np.random.default_rng(int(1000 * amount) + len(arm))
    accuracy = np.asarray(accuracy, np.float64)
    right = np.arange(num_test) < np.round(num_test * accuracy)[:, None]
    right = rng.permuted(right, axis=1)
    num_seeds = len(accuracy)
    ends = right.mean(axis=1)
    score = Score(right, np.ones(num_seeds), ends, ends, ends + gap, ends)
    if validation is None:
        validation = np.linspace(0.5, 0.8, 7)[None].repeat(num_seeds, axis=0)
    return Outcome(
        arm,
        amount,
        int(1000 * amount),
        1e-3,
        np.arange(1, validation.shape[1] + 1) / 2,
        validation,
        np.ones_like(validation),
        np.zeros(num_seeds, bool),
        score,
    )


def test_epochs_are_counted_to_the_first_validation_that_reaches():
    curves = np.array([[0.5, 0.7, 0.6], [0.4, 0.5, 0.9], [0.5, 0.6, 0.65]])
    one = outcome("gru", 1.0, [0.7] * 3, validation=curves)
    assert epochs_to(one, 0.7).tolist() == [1.0, 1.5, np.inf]
    lost = one._replace(diverged=np.array([True, False, False]))
    np.testing.assert_array_equal(epochs_to(lost, 0.7), [np.nan, 1.5, np.inf])


def test_reviews_to_a_target_lie_on_the_line_over_the_log_of_the_amount():
    accuracy = np.array(
        [[0.5, 0.6, 0.8], [0.75, 0.6, 0.9], [0.6, 0.6, 0.65], [0.5, 0.9, 0.6]]
    )
    found = log_reviews_to([64, 256, 1024], accuracy, 0.7)
    np.testing.assert_allclose(found, [9.0, 6.0, np.inf, 7.0])


def test_lengths_fall_into_thirds_or_beside_a_hundred():
    lengths = np.array([1, 2, 3, 4, 5, 6, 7, 8, 9])
    groups = length_groups(lengths, "words")
    assert {name: int(group.sum()) for name, group in groups.items()} == {
        "1 to 3": 3,
        "4 to 6": 3,
        "7 to 9": 3,
    }
    long = length_groups(np.array([100, 101, 30, 120]), "characters")
    assert list(long) == ["1 to 100", "101 to 120"]
    assert long["101 to 120"].tolist() == [False, True, False, True]
    assert list(length_groups(np.array([5, 5, 5]), "words")) == ["1 to 5"]


def test_error_of_the_test_part_is_that_of_a_mean_over_reviews():
    one, two = outcome("gru", 1.0, [0.6, 0.7]), outcome("lstm", 1.0, [0.6, 0.5])
    per_review = one.score.right.mean(axis=0) - two.score.right.mean(axis=0)
    expected = np.sqrt(((per_review - per_review.mean()) ** 2).sum() / 999 / 1000)
    assert error_of_test_part(one, two) == pytest.approx(expected)


def results(little, lots, **options):
    """GRU and LSTM on a tenth and on all, by accuracies `[S]`; lengths 1 and 9."""
    rng = np.random.default_rng(0)
    plain = {
        (arm, amount): outcome(
            arm, amount, base + 0.002 * rng.standard_normal(12), **options
        )
        for amount, pair in ((0.1, little), (1.0, lots))
        for arm, base in zip(("gru", "lstm"), pair, strict=True)
    }
    bags = {amount: np.full(12, 0.77) for amount in (0.1, 1.0)}
    groups = {
        "1 to 1": np.arange(NUM_TEST) < NUM_TEST // 2,
        "2 to 9": np.arange(NUM_TEST) >= NUM_TEST // 2,
    }
    return Results(plain, {}, bags, 0.5, groups)


def verdicts(found, target=0.7):
    comparisons = compare_all(found, None, {}, target, KEY)
    return {
        name: {one.measure: one.verdict for one in rows}
        for name, rows in comparisons.items()
    }


def test_advantage_on_little_data_alone_is_an_interaction():
    said = verdicts(results((0.70, 0.62), (0.75, 0.75)))
    assert said["accuracy"] == {
        "accuracy, 10%": "higher",
        "accuracy, 100%": "equivalent",
    }
    assert said["interaction"]["GRU less LSTM in accuracy"] == "higher"
    assert said["baseline"]["accuracy, 10%"] == "lower"
    assert "tuned" not in said
    assert "time" not in said


def test_same_advantage_everywhere_is_no_interaction():
    said = verdicts(results((0.70, 0.65), (0.75, 0.70)))
    assert set(said["accuracy"].values()) == {"higher"}
    assert said["interaction"]["GRU less LSTM in accuracy"] == "equivalent"


def test_need_is_compared_in_epochs_and_in_reviews():
    found = results((0.68, 0.60), (0.76, 0.76))
    slow = np.linspace(0.5, 0.71, 7)[None].repeat(12, axis=0)
    late = found.plain["lstm", 1.0]._replace(validation=slow)
    found.plain["lstm", 1.0] = late
    rows = compare_all(found, None, {}, 0.7, KEY)["need"]
    assert [one.verdict for one in rows] == ["lower", "lower"]
    # 0.5 + 0.05 n reaches 0.7 at n = 4, epoch 2.5; the slow curve at its end, 3.5.
    assert rows[0].difference.mean.estimate == pytest.approx(-1.0)


def test_gap_and_time_are_compared_with_their_margins():
    found = results((0.7, 0.7), (0.75, 0.75))
    wide = found.plain["lstm", 0.1]
    wide = wide._replace(
        score=wide.score._replace(train_accuracy=wide.score.last_accuracy + 0.2)
    )
    found.plain["lstm", 0.1] = wide
    rounds = {"gru": [0.75 + 0.001 * n for n in range(10)], "lstm": [1.0] * 10}
    comparisons = compare_all(found, None, rounds, 0.7, KEY)
    gaps = {one.measure: one for one in comparisons["gap"]}
    little = gaps["train less test accuracy at the end, 10%"]
    assert little.verdict == "lower"
    assert little.difference.mean.estimate == pytest.approx(-0.1)
    assert gaps["train less test accuracy at the end, 100%"].verdict == "equivalent"
    (time,) = comparisons["time"]
    assert time.verdict == "lower"
    assert time.difference.mean.estimate == pytest.approx(math.log2(0.7545), abs=1e-3)


def test_length_interaction_sees_a_gru_that_fails_on_long_reviews():
    found = results((0.7, 0.7), (0.8, 0.8))
    bad = found.plain["gru", 1.0]
    right = bad.score.right & (np.arange(NUM_TEST) < NUM_TEST // 2)
    found.plain["gru", 1.0] = bad._replace(score=bad.score._replace(right=right))
    rows = {
        one.measure: one for one in compare_all(found, None, {}, 0.7, KEY)["length"]
    }
    assert rows["accuracy, 2 to 9 words"].verdict == "lower"
    assert rows["GRU less LSTM in accuracy, words"].verdict == "higher"


def test_diverged_seed_is_left_out_and_counted():
    found = results((0.7, 0.7), (0.75, 0.75))
    lost = np.arange(12) == 3
    found.plain["gru", 1.0] = found.plain["gru", 1.0]._replace(diverged=lost)
    rows = compare_all(found, None, {}, 0.7, KEY)["accuracy"]
    assert [(one.num_seeds, one.left_out) for one in rows] == [(12, 0), (11, 1)]


def test_unknown_arm_is_refused():
    with pytest.raises(ValueError, match="cell") as error:
        make_network(9, "transformer", embedding_features=2, hidden_features=2)
    assert_says(error, "cell", "'transformer'")
