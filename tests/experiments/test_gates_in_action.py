import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.command import UsageError
from experiments.data.review_batches import Encoded
from experiments.gates_in_action import measures, report
from experiments.gates_in_action.__main__ import main
from experiments.gates_in_action.config import RESORT_FIRST, RESORT_LAST, Config
from experiments.gates_in_action.problems import (
    draw_changes,
    draw_test_prices,
    make_price_arm,
    price_baselines,
    price_error,
)
from experiments.gates_in_action.readings import (
    GATES,
    gates_of_prices,
    measure_spread,
    read_reviews,
)
from experiments.gates_in_action.stimuli import find_decisive, in_first_part, make_pairs
from experiments.reviews.baselines import Bag
from experiments.reviews.problem import judge, make_network

KEY = jax.random.key(4)
PNG = b"\x89PNG\r\n"
SMALL = (
    *("--cells", "gru", "--num-seeds", "2", "--seed-block", "2"),
    *("--num-updates", "60", "--validate-every", "20", "--num-words", "14"),
    *("--embedding-features", "6", "--hidden-features", "5", "--batch-size", "12"),
    *("--num-pairs", "6", "--price-updates", "20", "--price-steps", "15"),
    *("--price-sequences", "4", "--price-features", "3", "--learning-rates", "0.03"),
)
SHORT = "the quite fine movie"


@pytest.fixture(scope="module", autouse=True)
def _compile_quickly():
    """Leave out most of XLA's passes: on data this small they only cost time."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def write_reviews(directory):
    """Reviews that one word decides, among words that say nothing."""
    generator = np.random.default_rng(6)
    plain = ["the", "movie", "of", "a", "man", "and", "his", "dog", "in", "town"]
    for label, telling in (("neg", ["dull", "awful"]), ("pos", ["fine", "lovely"])):
        lines = []
        for _ in range(130):
            words = generator.choice(plain, generator.integers(3, 9)).tolist()
            words.insert(generator.integers(len(words)), generator.choice(telling))
            lines.append(" ".join(words))
        (directory / f"rt-polarity.{label}").write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def small_run(tmp_path_factory):
    """The record of a small run, its folder, and the arguments that made it."""
    directory = tmp_path_factory.mktemp("small")
    write_reviews(directory)
    places = ("--data-dir", str(directory), "--output-dir", str(directory / "out"))
    arguments = [*SMALL, *places]
    assert main(arguments) == 0
    record = json.loads((directory / "out" / "results.json").read_text())
    return record, directory / "out", arguments


def test_record_has_every_seed_and_statement(small_run):
    record, directory, _ = small_run
    assert (record["schema"], record["experiment"]) == (1, "gates_in_action")
    series = record["cells"]["reviews_gru"]
    assert series["seeds"] == [0, 1]
    for name in ("at_decisive", "elsewhere", "neutral_end", "decisive_start"):
        values = np.array(series[name])
        assert values.shape == (2, 2)
        assert ((values > 0) & (values < 1)).all()
        assert (values[0] != values[1]).all()
    assert np.shape(series["around"]) == (2, 2, len(measures.OFFSETS))
    assert np.shape(record["cells"]["prices_gru"]["error"]) == (2,)
    statements = record["summary"]["statements"]
    claims = {one["claim"] for one in statements}
    assert claims == {report.NEGLECTS, report.IGNORES, report.CHOOSES, report.CARRIES}
    assert all(one["found"]["num_seeds"] == 2 for one in statements)
    pictures = ("decisive_last_gru", "decisive_first_gru", "prices_gru")
    for name in (*pictures, "around_decisive_words_gru"):
        assert (directory / f"{name}.png").read_bytes().startswith(PNG)
    markdown = (directory / "summary.md").read_text()
    assert "decisive part last, reset gate there: less 0.1" in markdown
    assert "no change" in markdown


def test_judge_learns_the_words_that_decide(small_run):
    record, _, _ = small_run
    assert min(record["cells"]["reviews_gru"]["accuracy"]) > 0.8
    words = record["summary"]["decisive_words"]
    assert set(words) & {"dull", "awful", "fine", "lovely"}
    assert record["summary"]["linear_accuracy"] > 0.9


def test_resort_review_is_shown_both_ways_round(small_run):
    record, _, _ = small_run
    texts = record["summary"]["texts"]
    last, first = (texts[f"decisive {end}"] for end in ("last", "first"))
    assert sorted(last["words"]) == sorted(first["words"])
    assert last["words"][:3] == ["it (?)", "was (?)", "late (?)"]
    assert np.shape(last["gates"]["gru"]) == (2, 2, len(last["words"]))
    assert len(last["chances"]["gru"]) == 2
    assert set(RESORT_LAST.split()) == set(RESORT_FIRST.split())


def test_own_text_is_shown_without_training_again(small_run, capsys, monkeypatch):
    record, directory, arguments = small_run
    capsys.readouterr()
    assert main([*arguments, "--resume", "--text", "A FINE zebra"]) == 0
    said = capsys.readouterr().out
    assert "/60, loss" not in said
    again = json.loads((directory / "results.json").read_text())
    shown = again["summary"]["texts"]["your review"]
    assert shown["words"] == ["a", "fine", "zebra (?)"]
    assert shown["weights"][1] > 0.5
    assert (directory / "your_review_gru.png").read_bytes().startswith(PNG)
    for name, values in record["cells"]["reviews_gru"].items():
        assert again["cells"]["reviews_gru"][name] == values, name
    assert "your review" not in record["summary"]["texts"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--text", " "],
        ["--cells", "gru", "gru"],
        ["--num-pairs", "5"],
        ["--num-pairs", "200"],
        ["--num-updates", "10"],
        ["--decisive-share", "0"],
        ["--dropout", "1"],
        ["--max-grad-norm", "nan"],
        ["--learning-rates", "0.1", "0.2", "--tuning-seeds", "0"],
        ["--periods", "1", "20"],
        ["--noise-sd", "-1"],
        ["--data-dir", "MISSING"],
        ["--output-dir", "FILE"],
    ],
)
def test_bad_input_is_one_line_and_status_2_and_writes_nothing(
    arguments, tmp_path, capsys
):
    write_reviews(tmp_path)
    file = tmp_path / "file"
    file.write_text("kept")
    places = {"MISSING": str(tmp_path / "none"), "FILE": str(file)}
    arguments = [places.get(one, one) for one in arguments]
    before = sorted(tmp_path.iterdir())
    defaults = ["--data-dir", str(tmp_path), "--output-dir", str(tmp_path / "out")]
    assert main([*SMALL, *defaults, *arguments]) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.count("\n") == 1
    assert errors.startswith("experiments.gates_in_action: ")
    assert sorted(tmp_path.iterdir()) == before


def sigmoid(values):
    return 1 / (1 + np.exp(-values))


def gates_step_by_step(cell, params, vectors):
    """Run the equations in float64 over `[T, E]`; return gates `[G, T, H]`."""
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    hidden_features = params.recurrent_kernel.shape[0]
    hidden = memory = np.zeros(hidden_features)
    rows = []
    for vector in np.asarray(vectors, np.float64):
        projected = vector @ params.kernel + params.bias
        recurrent = hidden @ params.recurrent_kernel
        if cell == "lstm":
            i, f, g, o = np.split(projected + recurrent, 4)
            i, f, o = sigmoid(i), sigmoid(f), sigmoid(o)
            memory = f * memory + i * np.tanh(g)
            hidden = o * np.tanh(memory)
            rows.append((i, f, o))
        else:
            parts = zip(np.split(projected, 3), np.split(recurrent, 3), strict=True)
            (r, s), (z, t), (n, u) = parts
            r, z = sigmoid(r + s), sigmoid(z + t)
            hidden = (1 - z) * np.tanh(n + r * (u + params.recurrent_bias)) + z * hidden
            rows.append((r, z))
    return np.moveaxis(np.array(rows), 0, 1)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_reading_has_the_gates_of_the_equations_and_the_logits_gradient(cell):
    network = make_network(9, cell, embedding_features=3, hidden_features=4)
    params = network.init(KEY)
    params = jax.tree.map(lambda leaf: 2 * leaf + 0.1, params)
    tokens = np.array([[1, 2, 3, 4, 0], [8, 7, 0, 0, 0]]).T
    reviews = Encoded(jnp.asarray(tokens), jnp.array([4, 2]), jnp.array([1, 0]))
    reading = jax.jit(read_reviews, static_argnums=0)(network, reviews, params)
    table = np.asarray(params[0][0].table, np.float64)
    real = []
    for row, length in enumerate((4, 2)):
        gates = gates_step_by_step(cell, params[0][1], table[tokens[:length, row]])
        found = reading.gates[:, :length, row]
        np.testing.assert_allclose(found, gates.mean(axis=-1), rtol=2e-5)
        real.append(gates)
    assert not np.asarray(reading.gates[:, 2:, 1]).any()
    every = np.concatenate(real, axis=1)
    np.testing.assert_allclose(reading.spread.mean, every.mean(axis=(1, 2)), rtol=2e-5)
    within = every.var(axis=1).mean(axis=-1)
    total = every.reshape(len(every), -1).var(axis=-1)
    np.testing.assert_allclose(reading.spread.over_time, within / total, rtol=1e-3)
    assert len(every) == len(GATES[cell])
    logits = judge(network, params, reviews)
    np.testing.assert_allclose(reading.logits, logits, rtol=1e-5)

    def logit(vector):  # of the second word of the first review
        changed = params[0][0].table.at[2].set(vector)
        embedding = params[0][0]._replace(table=changed)
        reader = (embedding, *params[0][1:])
        return judge(network, (reader, params[1]), reviews)[0]

    expected = np.linalg.norm(jax.jit(jax.grad(logit))(params[0][0].table[2]))
    np.testing.assert_allclose(reading.gradients[1, 0], expected, rtol=1e-4)
    assert not np.asarray(reading.gradients[2:, 1]).any()


def test_spread_counts_shares_and_leaves_padding_out():
    units = np.array([[0.05, 0.95], [0.05, 0.85], [0.5, 0.5]])  # [T, H]
    gates = jnp.asarray(units)[None, :, None, :]
    spread = measure_spread(gates, jnp.array([[True], [True], [False]]))
    np.testing.assert_allclose(spread.mean, [0.475], rtol=1e-6)
    np.testing.assert_allclose(spread.near_zero, [0.5])
    np.testing.assert_allclose(spread.near_one, [0.25])
    within = 0.05**2 / 2  # of the second unit alone
    between = 0.425**2
    np.testing.assert_allclose(
        spread.over_time, [within / (within + between)], rtol=1e-5
    )


def test_gates_of_prices_are_those_of_the_first_series():
    config = Config(price_steps=6, price_features=3)
    arm = make_price_arm(config, "lstm", KEY)
    params = jax.tree.map(lambda leaf: 1.5 * leaf, arm.network.init(KEY, 1))
    changes = draw_test_prices(config, KEY)
    gates, spread = jax.jit(gates_of_prices, static_argnums=0)(
        arm.network, changes, params
    )
    expected = gates_step_by_step("lstm", params[0], changes[:-1, 0])
    np.testing.assert_allclose(gates, expected, rtol=2e-5)
    assert np.shape(spread.near_one) == (3,)


def test_forecast_is_scored_on_the_change_that_follows():
    config = Config(price_steps=9)
    changes = draw_changes(config.process, 9, 5, KEY)
    assert changes.shape == (10, 5, 1)
    arm = make_price_arm(config, "gru", KEY)
    params = jax.tree.map(jnp.zeros_like, arm.network.init(KEY, 1))
    error = price_error(arm.network, changes, params)
    baselines = price_baselines(changes)
    np.testing.assert_allclose(error, baselines["no change"], rtol=1e-5)
    direct = np.asarray(changes, np.float64)[:, :, 0]
    again = np.mean(np.diff(direct, axis=0) ** 2)
    np.testing.assert_allclose(baselines["the same change again"], again, rtol=1e-9)
    batches = [arm.problem.batch(KEY, jnp.int32(step)) for step in (0, 1, 0)]
    assert np.array_equal(batches[0], batches[2])
    assert not np.isclose(batches[0], batches[1]).any()
    held_out = draw_test_prices(config, KEY)
    assert not np.isclose(held_out[0], arm.problem.validate.args[1][0]).any()


BAG = Bag(np.array([9.0, 0.0, 3.0, -2.0, 0.5, -0.25, 0.0]), 0.0)


def encode(*rows, labels):
    tokens = np.zeros((6, len(rows)), np.int32)
    for row, ids in enumerate(rows):
        tokens[: len(ids), row] = ids
    lengths = np.array([len(ids) for ids in rows], np.int32)
    return Encoded(tokens, lengths, np.array(labels, np.int32))


def test_decisive_words_have_the_largest_weights_and_are_no_padding():
    reviews = encode([2, 4, 6], [5, 3], labels=[1, 0])
    found = find_decisive(reviews, BAG, 0.4)
    expected = np.zeros((6, 2), bool)
    expected[0, 0] = expected[1, 1] = True  # weights 3 and -2; padding has 9
    assert np.array_equal(found, expected)


def test_pairs_are_of_sure_and_of_undecided_short_reviews_both_ways_round():
    reviews = encode(
        *([2, 2, 2, 2], [2, 6], [3], [4, 6, 6], [5], [6, 1], [3, 3]),
        labels=[1, 1, 0, 1, 0, 1, 1],
    )
    # Too long: the first. Judged wrongly: the last, and so it is neither.
    pairs = make_pairs(reviews, BAG, 2)
    assert pairs.decisive.labels.tolist() == [0, 1]
    assert pairs.decisive.tokens[:3].T.tolist() == [[3, 0, 0], [2, 6, 0]]
    neutral = pairs.neutral.tokens[:3].T.tolist()
    assert sorted(neutral) == [[5, 0, 0], [6, 1, 0]]
    for row in range(2):
        first = pairs.decisive.tokens[: pairs.decisive.lengths[row], row].tolist()
        second = pairs.neutral.tokens[: pairs.neutral.lengths[row], row].tolist()
        for whole, words in (
            (pairs.decisive_first, first + second),
            (pairs.decisive_last, second + first),
        ):
            assert whole.lengths[row] == len(words)
            assert whole.tokens[: len(words), row].tolist() == words
            assert not whole.tokens[len(words) :, row].any()
    marked = in_first_part(pairs.decisive_first, pairs.decisive)
    assert marked.sum(axis=0).tolist() == pairs.decisive.lengths.tolist()
    with pytest.raises(UsageError, match="fewer --num-pairs"):
        make_pairs(reviews, BAG, 4)


def test_averages_are_over_the_marked_steps_of_all_reviews():
    values = np.arange(12.0).reshape(1, 2, 3, 2)  # [S, G, T, B]
    where = np.array([[True, False], [False, False], [True, True]])
    found = measures.mean_where(values, where)
    np.testing.assert_allclose(found, [[(0 + 4 + 5) / 3, (6 + 10 + 11) / 3]])


def test_profile_follows_decisive_words_and_stays_within_reviews():
    values = np.array([[10.0, 1.0], [20.0, 2.0], [30.0, 3.0], [40.0, 0.0]])  # [T, B]
    real = np.array([[True] * 2, [True] * 2, [True] * 2, [True, False]])
    decisive = np.zeros((4, 2), bool)
    decisive[1, 0] = decisive[2, 1] = True
    found = dict(
        zip(
            measures.OFFSETS.tolist(),
            measures.profile(values, decisive, real).tolist(),
            strict=True,
        )
    )
    assert found[0] == (20 + 3) / 2
    assert found[1] == 30  # the second review has ended
    assert found[2] == 40
    assert found[-1] == (10 + 2) / 2
    assert found[-2] == 1
    assert np.isnan(found[3])
    assert np.isnan(found[-3])


def test_share_is_zero_where_a_part_is_ignored_and_a_half_where_both_count():
    main_part, lesser = np.array([[2.0, -2.0]]), np.array([[0.5, -1.0]])
    ignored = measures.share_of_other(main_part, main_part, lesser)
    np.testing.assert_allclose(ignored, [0.0])
    alike = measures.share_of_other((main_part + lesser) / 2, main_part, lesser)
    np.testing.assert_allclose(alike, [0.5])
    both = np.array([[1.5, -2.0]])
    expected = (0.5 / 2) / (0.5 / 2 + (1 + 1) / 2)
    np.testing.assert_allclose(
        measures.share_of_other(both, main_part, lesser), expected
    )


def make_series(**changed):
    """Series of ten seeds in which every gate is near 0.5, but for what is changed."""
    noise = 0.001 * np.random.default_rng(8).normal(size=10)
    by_gate = 0.5 + np.tile(noise[:, None], (1, 2))
    plain = 0.5 + noise
    fields = {
        name: by_gate
        if name.startswith(("at_", "else", "untrained_", "decisive_", "neutral_s"))
        or name == "neutral_end"
        else plain
        for name in report.ReviewSeries._fields
    }
    fields |= {"neutral_share_first": plain, "neutral_share_last": plain}
    return report.ReviewSeries(**{**fields, **changed})


def test_statements_bear_the_text_out_where_gates_do_as_it_says():
    near = np.tile([[0.05, 0.95]], (10, 1)) + 0.001 * np.arange(10)[:, None]
    share = np.full(10, 0.04) + 0.001 * np.arange(10)
    series = make_series(
        decisive_end=near,
        neutral_end=near,
        neutral_share_first=share,
        neutral_share_last=share,
    )
    as_said = report.list_statements({"gru": series}, KEY)
    plain = report.list_statements({"gru": make_series()}, KEY)
    for statements, bears_out in ((as_said, True), (plain, False)):
        told = (report.NEGLECTS, report.IGNORES)
        of_text = [one for one in statements if one.claim in told]
        assert len(of_text) == 6
        assert all((one.found.verdict == one.expected) == bears_out for one in of_text)
    end = as_said[0].found.difference.mean.estimate
    np.testing.assert_allclose(end, near[:, 0].mean() - 0.1)
    ending = next(one for one in as_said if "update gate in the ending" in one.words)
    expected = near[:, 1].mean() - 0.9
    np.testing.assert_allclose(ending.found.difference.mean.estimate, expected)


def test_seed_that_diverged_shows_nothing():
    series = make_series(seeds=np.arange(10))
    hidden = report.without_diverged(series, np.arange(10) == 3)
    assert hidden.seeds.tolist() == list(range(10))
    assert np.isnan(hidden.at_decisive[3]).all()
    assert np.isnan(hidden.accuracy[3])
    assert np.isfinite(np.delete(hidden.accuracy, 3)).all()
    statements = report.list_statements({"gru": hidden}, KEY)
    assert {one.found.num_seeds for one in statements} == {9}
