"""Train every cell on every amount of text, test once, and report what came out."""

import functools
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
from rich.console import Console

from experiments.arms import (
    Arm,
    OptimizerOfRate,
    Tuning,
    score_seeds,
    time_arms,
    train_arms,
    tune_arms,
)
from experiments.command import UsageError
from experiments.language_model import ngrams, report
from experiments.language_model.config import Config
from experiments.language_model.problem import (
    CELLS,
    Corpus,
    arrange_streams,
    bits_of_streams,
    count_units,
    make_network,
    make_problem,
    read_corpus,
    write_text,
)
from experiments.reporting import write_results
from experiments.training import only_seed, running, stop_if_asked
from gated_rnn.networks import count_parameters
from gated_rnn.training import SeedResult, make_optimizer

EXPERIMENT = "language_model"
TITLE = "Characters: GRU and LSTM against the amount of text"
SEEDS_VARY = "initial parameters and windows drawn; the text is one"
#: The seed whose text is shown; a sample proves nothing, so that none is chosen.
SAMPLE_SEED = 0
#: Of each arm in a round of timing; fewer than there are between two validations.
TIMED_UPDATES = 10


class _Keys(NamedTuple):
    """Roots of all that is random in the experiment."""

    training: jax.Array
    sampling: jax.Array
    statistics: jax.Array


def run(config: Config, console: Console) -> None:
    """Run the experiment and write its files.

    Args:
        config: The settings.
        console: Where progress and the tables go.

    Raises:
        UsageError: If the text cannot be used, the output directory not be written, or
            its run not be gone on with; nothing is trained then.
        Stopped: If a signal asked for it; all is saved.
    """
    corpus = read_corpus(config)
    baselines = measure_ngrams(config, corpus)
    with running(config, console):
        console.print(str(corpus.report), highlight=False)
        _run(config, console, corpus, baselines)


def measure_ngrams(config: Config, corpus: Corpus) -> list[dict[str, Any]]:
    """Fit n-grams on each amount of text, choose on validation, score on the test.

    Args:
        config: The longest n-gram.
        corpus: The text.

    Returns:
        For each amount and each baseline of `report.NGRAMS` its order, strength and
        bits a character.

    Raises:
        UsageError: If the longest n-gram is too long.
    """
    num_tokens = len(corpus.vocabulary.tokens)
    longest = ngrams.longest_order(num_tokens)
    if config.max_order > longest:
        raise UsageError(
            f"N-grams of {num_tokens} characters can be counted up to {longest}: give "
            f"--max-order {longest}."
        )
    found = []
    for size in corpus.sizes:
        valid, test = (
            ngrams.match(corpus.train[:size], part, config.max_order, num_tokens)
            for part in (corpus.valid, corpus.test)
        )
        row = {}
        for name, orders in report.ngram_orders(config.max_order).items():
            choice = ngrams.choose(valid, orders)
            bits = ngrams.bits_per_character(test, choice.order, choice.strength)
            row[name] = {**choice._asdict(), "valid": choice.bits, "test": bits}
        found.append(row)
    return found


def _run(
    config: Config,
    console: Console,
    corpus: Corpus,
    baselines: list[dict[str, Any]],
) -> None:
    began = time.perf_counter()
    keys = _Keys(*jax.random.split(jax.random.key(config.seed), 3))
    num_tokens = len(corpus.vocabulary.tokens)
    networks = {cell: make_network(config, cell, num_tokens) for cell in CELLS}
    arms = {
        (cell, size): Arm(
            f"{cell}_{size}",
            f"{CELLS[cell]}, {size:,} characters",
            networks[cell],
            make_problem(config, networks[cell], corpus, size),
        )
        for cell in CELLS
        for size in corpus.sizes
    }
    options = {
        "optimizer": _optimizer_of_norm(config.max_grad_norm),
        "validate_every": config.validate_every,
        "updates_per_piece": config.validate_every,
    }
    tuning = tune_arms(
        config,
        console,
        list(arms.values()),
        keys.training,
        config.num_updates,
        **options,
    )
    tuned = train_arms(
        config,
        console,
        list(arms.values()),
        keys.training,
        config.num_updates,
        rates={name: found.rate for name, found in tuning.items()},
        **options,
    )
    shared = _train_shared(config, console, arms, tuning, tuned, keys, options)

    measured = {}
    for kind, results in (("tuned", tuned), ("shared", shared)):
        for (cell, size), arm in arms.items():
            if arm.name in results:
                stop_if_asked(config.num_updates)
                measured[kind, cell, size] = _measure(
                    config, corpus, networks[cell], results[arm.name]
                )
    rounds = time_arms(
        config,
        [arms[cell, corpus.sizes[-1]] for cell in CELLS],
        keys.training,
        TIMED_UPDATES,
        config.timing_rounds,
        rates={name: found.rate for name, found in tuning.items()},
        **options,
    )
    summary = report.summarise(
        measured,
        rounds={cell: rounds[arms[cell, corpus.sizes[-1]].name] for cell in CELLS},
        sizes=corpus.sizes,
        baselines=baselines,
        validate_every=config.validate_every,
        key=keys.statistics,
    )
    summary |= {
        "seeds_vary": SEEDS_VARY,
        "text": corpus.report,
        "characters": dict(zip(config.amounts, corpus.sizes, strict=True)),
        "test_characters": corpus.test.size - 1,
        "valid_characters": corpus.valid.size - 1,
        "unknown_characters": corpus.num_unknown,
        "vocabulary": num_tokens,
        "tuning": tuning,
        "networks": {
            cell: {
                "units": count_units(config, cell),
                "parameters": _count(network),
                "recurrent_parameters": _count_recurrent(network),
            }
            for cell, network in networks.items()
        },
        "samples": _write_samples(config, corpus, networks, tuned, keys.sampling),
    }
    write_results(
        config,
        console,
        experiment=EXPERIMENT,
        title=TITLE,
        cells={
            f"{cell}_{size}_{kind}": series._asdict()
            for (kind, cell, size), series in measured.items()
        },
        summary=summary,
        tables=report.list_tables(summary),
        notes=report.list_notes(summary),
        pictures=report.list_pictures(measured, summary, config.validate_every),
        seconds=time.perf_counter() - began,
        scale=f"{config.num_seeds} seeds, {config.num_updates} updates of "
        f"{config.batch_size} windows of {config.num_steps} characters",
    )


@functools.cache  # the same function again: nothing is compiled twice
def _optimizer_of_norm(max_grad_norm: float) -> OptimizerOfRate:
    return lambda rate: make_optimizer(rate, max_grad_norm)


def _train_shared(
    config: Config,
    console: Console,
    arms: Mapping[tuple[str, int], Arm],
    tuning: Mapping[str, Tuning],
    tuned: Mapping[str, SeedResult],
    keys: _Keys,
    options: Mapping[str, Any],
) -> dict[str, SeedResult]:
    """Train the cells of equal units at the shared rate, where tuning chose another."""
    rate = config.shared_learning_rate
    equal = [arm for (cell, _), arm in arms.items() if cell in ("lstm", "gru")]
    again = [
        arm._replace(name=f"{arm.name}_shared")
        for arm in equal
        if tuning[arm.name].rate != rate
    ]
    results = train_arms(
        config,
        console,
        again,
        keys.training,
        config.num_updates,
        rates={arm.name: rate for arm in again},
        **options,
    )
    return {
        arm.name: results.get(f"{arm.name}_shared", tuned[arm.name]) for arm in equal
    }


def _measure(
    config: Config, corpus: Corpus, network: Any, result: SeedResult
) -> report.Series:
    """Test every seed with its best parameters; gather its curves."""
    streams = arrange_streams(corpus.test, config.num_streams)
    score = jax.tree_util.Partial(bits_of_streams, network, *streams)
    return report.make_series(result, score_seeds(result, score), config.validate_every)


def _count(network: Any) -> int:
    return count_parameters(jax.eval_shape(network.init, jax.random.key(0)))


def _count_recurrent(network: Any) -> int:
    params = jax.eval_shape(network.init, jax.random.key(0))
    return count_parameters(params[1:-1])


def _write_samples(
    config: Config,
    corpus: Corpus,
    networks: Mapping[str, Any],
    tuned: Mapping[str, SeedResult],
    key: jax.Array,
) -> dict[str, str]:
    """Let one seed of each cell write, trained on the least text and on all of it."""
    if not config.sample_characters:
        return {}
    sizes = dict.fromkeys((corpus.sizes[0], corpus.sizes[-1]))
    return {
        f"{CELLS[cell]}, {size:,} characters": write_text(
            config,
            networks[cell],
            jax.tree.map(
                jax.numpy.asarray, only_seed(tuned[f"{cell}_{size}"], SAMPLE_SEED)
            ),
            corpus.vocabulary,
            key,
        )
        for size in sizes
        for cell in ("lstm", "gru")
    }
