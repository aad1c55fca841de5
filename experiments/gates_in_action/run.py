"""Train judges and forecasters, read with them, and report what their gates did."""

import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from experiments.arms import Arm, diverged, score_seeds, train_arms, tune_arms
from experiments.command import UsageError
from experiments.data.review_batches import Encoded, words
from experiments.data.reviews import Collected, load_reviews
from experiments.gates_in_action import pictures, report, tables
from experiments.gates_in_action.config import RESORT_FIRST, RESORT_LAST, Config
from experiments.gates_in_action.measures import halves
from experiments.gates_in_action.problems import (
    draw_test_prices,
    make_price_arm,
    make_review_arm,
    price_baselines,
    price_error,
)
from experiments.gates_in_action.readings import (
    gates_of_prices,
    gates_of_words,
    read_reviews,
)
from experiments.gates_in_action.stimuli import (
    Pairs,
    find_decisive,
    in_first_part,
    make_pairs,
)
from experiments.reporting import write_results
from experiments.reviews.baselines import Bag, choose_naive_bayes, is_real
from experiments.reviews.corpus import Corpus, make_corpus
from experiments.reviews.problem import as_arrays
from experiments.training import only_seed, running, stop_if_asked
from gated_rnn.training import SeedResult, make_optimizer

EXPERIMENT = "gates_in_action"
TITLE = "Gates in action"
SEEDS_VARY = (
    "initial parameters, the reviews of each update, and the price series of each; the "
    "parts of the reviews, the pairs and the test series are the same"
)
#: The seed whose gates are drawn; a picture proves nothing, so that none is chosen.
SHOWN_SEED = 0
_SPLIT_SEED = 0
_MIN_COUNT = 2  # a rarer word is unknown; so unknown words are trained too

Partial = jax.tree_util.Partial


class _Keys(NamedTuple):
    """Roots of all that is random in the experiment."""

    reviews: jax.Array
    prices: jax.Array
    series: jax.Array
    untrained: jax.Array
    statistics: jax.Array


class Stimuli(NamedTuple):
    """What the networks are shown beside the test part.

    Attributes:
        bag: The linear classifier that says what is decisive.
        decisive: bool `[T, B]`, the decisive words of the test part.
        pairs: Decisive and neutral reviews.
    """

    bag: Bag
    decisive: np.ndarray
    pairs: Pairs


def run(config: Config, console: Console) -> None:
    """Run the experiment and write its files.

    Args:
        config: The settings.
        console: Where progress and the tables go.

    Raises:
        UsageError: If the reviews cannot be used, the output directory not be written,
            or its run not be gone on with; nothing is trained then.
        Stopped: If a signal asked for it; all is saved.
    """
    collected = load_reviews("polarity", config.data_dir)
    corpus, stimuli = prepare(config, collected)
    with running(config, console):
        for one in collected.reports:
            console.print(str(one), highlight=False)
        _run(config, console, corpus, stimuli, collected)


def prepare(config: Config, collected: Collected) -> tuple[Corpus, Stimuli]:
    """Cut the reviews into parts, and choose what networks are shown.

    Args:
        config: The settings.
        collected: From `load_reviews`.

    Returns:
        The corpus, and the stimuli: of the test part, by a classifier of the others.

    Raises:
        UsageError: If there are too few reviews.
    """
    try:
        corpus = make_corpus(
            collected,
            "words",
            num_steps=config.num_words,
            split_seed=_SPLIT_SEED,
            min_count=_MIN_COUNT,
        )
    except ValueError as error:
        raise UsageError(f"There are too few reviews. {error}") from error
    size = len(corpus.vocabulary.tokens)
    bag = choose_naive_bayes(corpus.train, corpus.valid, size)
    decisive = find_decisive(corpus.test, bag, config.decisive_share)
    return corpus, Stimuli(
        bag, decisive, make_pairs(corpus.test, bag, config.num_pairs)
    )


def _run(
    config: Config,
    console: Console,
    corpus: Corpus,
    stimuli: Stimuli,
    collected: Collected,
) -> None:
    began = time.perf_counter()
    keys = _Keys(*jax.random.split(jax.random.key(config.seed), 5))
    arms = {
        "reviews": {
            cell: make_review_arm(config, corpus, cell) for cell in config.cells
        },
        "prices": {
            cell: make_price_arm(config, cell, keys.series) for cell in config.cells
        },
    }
    updates = {"reviews": config.num_updates, "prices": config.price_updates}
    results, rates = {}, {}
    for task, of_task in arms.items():
        trained, rates[task] = _train(
            config, console, list(of_task.values()), getattr(keys, task), updates[task]
        )
        results[task] = {cell: trained[arm.name] for cell, arm in of_task.items()}

    measured = {}
    for cell, arm in arms["reviews"].items():
        stop_if_asked(config.num_updates)
        measured[cell] = measure_reviews(
            corpus, stimuli, arm, results["reviews"][cell], keys.untrained
        )
    test = draw_test_prices(config, keys.series)
    prices = {}
    for cell, arm in arms["prices"].items():
        stop_if_asked(config.price_updates)
        prices[cell] = measure_prices(
            arm, results["prices"][cell], test, keys.untrained
        )

    shown = (
        {"your review": config.text}
        if config.text
        else {
            "decisive last": RESORT_LAST,
            "decisive first": RESORT_FIRST,
        }
    )
    texts = {
        name: show_text(text, corpus, stimuli, arms["reviews"], results["reviews"])
        for name, text in shown.items()
    }
    summary = report.summarise(measured, prices, keys.statistics)
    summary |= {
        "seeds_vary": SEEDS_VARY,
        "reviews": collected.reports,
        "test_reviews": len(corpus.test.labels),
        "decisive_words": _commonest(corpus, stimuli),
        "linear_accuracy": stimuli.bag.accuracy(corpus.test),
        "price_baselines": price_baselines(test),
        "learning_rates": rates,
        "texts": {name: text.for_record() for name, text in texts.items()},
    }
    write_results(
        config,
        console,
        experiment=EXPERIMENT,
        title=TITLE,
        cells={
            f"{task}_{cell}": series._asdict()
            for task, of_task in (("reviews", measured), ("prices", prices))
            for cell, series in of_task.items()
        },
        summary=summary,
        tables=tables.list_tables(summary, measured, prices),
        notes=tables.list_notes(summary, texts),
        pictures=pictures.list_pictures(
            measured, texts, _gates_of_first_series(arms, results, test), test
        ),
        seconds=time.perf_counter() - began,
        scale=f"{config.num_seeds} seeds, {config.num_updates} and "
        f"{config.price_updates} updates",
    )


def _train(
    config: Config, console: Console, arms: list[Arm], key: jax.Array, num_updates: int
) -> tuple[dict[str, SeedResult], dict[str, float]]:
    """Train two arms, each with its best rate if there are several."""
    options = {
        "optimizer": lambda rate: make_optimizer(rate, config.max_grad_norm),
        "validate_every": config.validate_every,
        "updates_per_piece": config.validate_every,
    }
    rates = dict.fromkeys((arm.name for arm in arms), config.learning_rates[0])
    if len(config.learning_rates) > 1:
        tuning = tune_arms(config, console, arms, key, num_updates, **options)
        rates = {name: found.rate for name, found in tuning.items()}
    results = train_arms(
        config, console, arms, key, num_updates, rates=rates, **options
    )
    return results, rates


def measure_reviews(
    corpus: Corpus, stimuli: Stimuli, arm: Arm, result: SeedResult, key: jax.Array
) -> report.ReviewSeries:
    """Read the test part and the pairs with every seed's network.

    Args:
        corpus: The reviews.
        stimuli: What is decisive.
        arm: What was trained.
        result: Of the training.
        key: Of networks that nobody trained, for comparison.

    Returns:
        One number a seed of each measure; NaN for a seed that diverged.
    """

    def read(reviews: Encoded, of: SeedResult = result) -> Any:
        score = Partial(read_reviews, arm.network, as_arrays(reviews))
        return score_seeds(of, score)

    pairs = stimuli.pairs
    series = report.make_review_series(
        report.Readings(
            test=read(corpus.test),
            untrained=read(corpus.test, _untrained(arm, result, key)),
            decisive=read(pairs.decisive),
            neutral=read(pairs.neutral),
            decisive_first=read(pairs.decisive_first),
            decisive_last=read(pairs.decisive_last),
        ),
        report.Places(
            labels=corpus.test.labels,
            real=is_real(corpus.test),
            decisive=stimuli.decisive,
            halves=halves(corpus.test.lengths, len(corpus.test.tokens)),
            pair_labels=pairs.decisive.labels,
            real_pairs=is_real(pairs.decisive_first),
            first_of_decisive=in_first_part(pairs.decisive_first, pairs.decisive),
            first_of_neutral=in_first_part(pairs.decisive_last, pairs.neutral),
        ),
    )
    return report.without_diverged(series, diverged(result))


def measure_prices(
    arm: Arm, result: SeedResult, test: jax.Array, key: jax.Array
) -> report.PriceSeries:
    """Score every seed's forecasts, and measure what values its gates take.

    Args:
        arm: What was trained.
        result: Of the training.
        test: `[T + 1, N, 1]`.
        key: Of networks that nobody trained.

    Returns:
        One number a seed of each measure; NaN for a seed that diverged.
    """
    gates = Partial(gates_of_prices, arm.network, test)
    series = report.PriceSeries(
        seeds=result.seed_ids,
        error=score_seeds(result, Partial(price_error, arm.network, test)),
        trained=score_seeds(result, gates)[1],
        untrained=score_seeds(_untrained(arm, result, key), gates)[1],
    )
    return report.without_diverged(series, diverged(result))


def show_text(
    text: str,
    corpus: Corpus,
    stimuli: Stimuli,
    arms: Mapping[str, Arm],
    results: Mapping[str, SeedResult],
) -> report.ShownText:
    """Read one text with every seed's networks.

    Args:
        text: The text.
        corpus: Its vocabulary is used; a word that is not in it is marked.
        stimuli: Weighs its words.
        arms: Of the reviews.
        results: Of their training.

    Returns:
        The gates of one seed and the chances that all give.
    """
    tokens = words(text) or [""]
    ids = corpus.vocabulary.encode(tokens)
    known = ids != corpus.vocabulary.unknown_id
    column = jnp.asarray(ids)[:, None]
    mask = jnp.ones(column.shape, bool)
    one = Encoded(column, jnp.array([len(ids)]), jnp.array([0]))
    gates, chances, means = {}, {}, {}
    for cell, arm in arms.items():
        params = jax.tree.map(jnp.asarray, only_seed(results[cell], SHOWN_SEED))
        found = jax.jit(gates_of_words, static_argnums=0)(
            arm.network, params, column, mask
        )[1]
        gates[cell] = np.asarray(found)[:, :, 0]
        reading = score_seeds(results[cell], Partial(read_reviews, arm.network, one))
        chances[cell] = 1 / (1 + np.exp(-np.asarray(reading.logits, np.float64)[:, 0]))
        means[cell] = np.asarray(reading.gates, np.float64)[..., 0]
    return report.ShownText(
        words=[
            word if is_known else f"{word} (?)"
            for word, is_known in zip(tokens, known, strict=True)
        ],
        weights=stimuli.bag.weights[ids],
        gates=gates,
        means=means,
        chances=chances,
    )


def _untrained(arm: Arm, result: SeedResult, key: jax.Array) -> SeedResult:
    """Put networks that nobody trained in the place of those that were."""

    def draw(seed_id: jax.Array) -> Any:
        return arm.problem.init(jax.random.fold_in(key, seed_id), None)

    ids = jnp.asarray(result.seed_ids, jnp.uint32)
    return result._replace(
        params=jax.jit(lambda x: jax.lax.map(draw, x))(ids), best=None
    )


def _gates_of_first_series(
    arms: Mapping[str, Mapping[str, Arm]],
    results: Mapping[str, Mapping[str, SeedResult]],
    test: jax.Array,
) -> dict[str, np.ndarray]:
    found = {}
    for cell, arm in arms["prices"].items():
        params = jax.tree.map(
            jnp.asarray, only_seed(results["prices"][cell], SHOWN_SEED)
        )
        gates = jax.jit(gates_of_prices, static_argnums=0)(arm.network, test, params)[0]
        found[cell] = np.asarray(gates)
    return found


def _commonest(corpus: Corpus, stimuli: Stimuli) -> list[str]:
    """Name the decisive words that come most often in the test part."""
    tokens = corpus.test.tokens[stimuli.decisive]
    counts = np.bincount(tokens)
    rows = np.argsort(-counts, kind="stable")[:20]
    return [corpus.vocabulary.tokens[row] for row in rows if counts[row]]
