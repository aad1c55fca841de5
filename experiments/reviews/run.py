"""Train every arm on words and on characters, judge the test part, and report."""

import functools
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from rich.console import Console

from experiments.arms import Arm, Tuning, diverged, time_arms, train_arms, tune_arms
from experiments.cells import count_cell_parameters, make_cell
from experiments.data.reviews import Collected, load_reviews
from experiments.plots import plot_curves, plot_intervals
from experiments.reporting import write_results
from experiments.reviews.baselines import choose_naive_bayes, majority_accuracy
from experiments.reviews.config import MATCHED, Config, Form
from experiments.reviews.corpus import (
    Draw,
    hide_unknown,
    make_corpus,
    take_reviews,
)
from experiments.reviews.outcomes import (
    Outcome,
    describe,
    error_of_test_part,
    length_groups,
    series,
)
from experiments.reviews.problem import (
    cell_of,
    count_updates,
    draw_of_seeds,
    make_arm,
    on_amount,
    percent,
    score_arm,
    units_of,
)
from experiments.reviews.report import Results, compare_all
from experiments.reviews.tables import LABELS, report_notes, report_tables
from experiments.training import running
from gated_rnn.networks import count_parameters
from gated_rnn.statistics import mean_interval
from gated_rnn.training import SeedResult, make_optimizer

EXPERIMENT = "reviews"
TITLE = "LSTM, GRU and plain network on reviews"
SEEDS_VARY = (
    "initialisation, order of the reviews, dropout, and which reviews a smaller amount "
    "of data has; the validation and test parts are the same for all seeds"
)
#: An update on words takes milliseconds: so many are a quarter of a second.
UPDATES_PER_PIECE = 50
TIMED_UPDATES = 20  # of each arm in a round
#: Training reviews on which the train-test gap is measured, at most.
JUDGED_TRAINING_REVIEWS = 1000


class _Keys(NamedTuple):
    """Roots of all that is random in the experiment but the parts, drawn by `seed`."""

    words: jax.Array
    characters: jax.Array
    statistics: jax.Array


def run(config: Config, console: Console) -> None:
    """Run the experiment and write its files.

    Args:
        config: The settings.
        console: Where progress and the tables go.

    Raises:
        UsageError: If the reviews cannot be read, the output directory not be written,
            or its run not be gone on with; nothing is trained then.
        Stopped: If a signal asked for it; all is saved.
    """
    collected = load_reviews(config.collection, config.data_dir)
    for report in collected.reports:
        console.print(str(report), highlight=False)
    with running(config, console):
        _run(config, console, collected)


def _run(config: Config, console: Console, collected: Collected) -> None:
    began = time.perf_counter()
    keys = _Keys(*jax.random.split(jax.random.key(config.seed), 3))
    words = _Reader(config, console, collected, config.words, keys.words)
    plain = words.train_all()
    tunings, tuned = words.tune_all(plain)
    results = words.results(plain, tuned)
    letters, letters_results = None, None
    if config.characters:
        letters = _Reader(config, console, collected, config.letters, keys.characters)
        letters_results = letters.results(letters.train_all(), {})
    rounds = words.time_all()
    comparisons = compare_all(
        results, letters_results, rounds, config.target_accuracy, keys.statistics
    )
    forms = {"words": (words, results)}
    if letters is not None:
        forms["characters"] = (letters, letters_results)
    summary = _summarise(config, forms, tunings, rounds, comparisons)
    summary["reports"] = collected.reports
    write_results(
        config,
        console,
        experiment=EXPERIMENT,
        title=TITLE,
        cells={
            name: series(outcome, of.groups)
            for unit, (_, of) in forms.items()
            for name, outcome in _named(unit, of).items()
        },
        summary=summary,
        tables=report_tables(summary, comparisons),
        notes=report_notes(config, summary),
        pictures={
            "accuracy_by_amount": functools.partial(_draw_amounts, results),
            "validation_curves": functools.partial(
                _draw_curves, results, config.target_accuracy
            ),
        },
        seconds=time.perf_counter() - began,
        scale=f"{config.num_seeds} seeds, {words.corpus.train.labels.size:,} training "
        f"reviews of {config.collection}",
    )


class _Reader:
    """Trains what reads the reviews in one form."""

    def __init__(self, config, console, collected, form: Form, key: jax.Array):
        self.config, self.form = config, form
        self._console, self._key = console, key
        self.corpus = make_corpus(
            collected,
            form.unit,
            num_steps=form.num_steps,
            split_seed=config.seed,
            valid_share=config.valid_share,
            test_share=config.test_share,
            min_count=config.min_count,
            max_vocabulary=config.max_vocabulary,
            keep=config.keep,
        )
        self.arms = {
            name: make_arm(config, form, self.corpus, name) for name in form.arms
        }
        self._draws = {
            amount: draw_of_seeds(
                on_amount(next(iter(self.arms.values())), self.corpus, amount),
                key,
                config.num_seeds,
            )
            for amount in form.amounts
        }
        self._options = {
            "optimizer": _optimizer_of(config),
            "updates_per_piece": UPDATES_PER_PIECE,
            "validate_every": self._validate_every(),
        }

    def train_all(self) -> dict[tuple[str, float], Outcome]:
        """Train every arm on every amount with the rate of the form."""
        rates = dict.fromkeys(self.arms, self.form.learning_rate)
        return {
            (name, amount): outcome
            for amount in self.form.amounts
            for name, outcome in self._train(amount, rates, "").items()
        }

    def tune_all(
        self, plain: Mapping[tuple[str, float], Outcome]
    ) -> tuple[dict[float, dict[str, Tuning]], dict[tuple[str, float], Outcome]]:
        """Tune all but matched arms on the smallest and largest amount; train them so.

        Where the best rate is that of the form, the runs are those already made.
        """
        tunings, tuned = {}, {}
        for amount in self.config.tuned_amounts:
            arms = {
                name: arm
                for name, arm in self._arms_on(amount, "").items()
                if not name.endswith(MATCHED)
            }
            found = tune_arms(
                self.config,
                self._console,
                list(arms.values()),
                self._key,
                self._num_updates(amount),
                **self._options,
            )
            tunings[amount] = {name: found[arm.name] for name, arm in arms.items()}
            rates = {name: one.rate for name, one in tunings[amount].items()}
            others = {
                name: rate
                for name, rate in rates.items()
                if rate != self.form.learning_rate
            }
            outcomes = self._train(amount, others, "_tuned")
            for name in arms:
                tuned[name, amount] = outcomes.get(name, plain[name, amount])
        return tunings, tuned

    def results(self, plain, tuned) -> Results:
        """Put baselines and groups of test reviews beside what was trained."""
        corpus = self.corpus
        return Results(
            plain,
            tuned,
            {amount: self._score_bags(draw) for amount, draw in self._draws.items()},
            majority_accuracy(corpus.train, corpus.test),
            length_groups(corpus.test.lengths, self.form.unit),
        )

    def time_all(self) -> dict[str, list[float]]:
        """Measure the seconds of an update on the whole training part, in turn."""
        if not self.config.timing_rounds:
            return {}
        amount = self.form.amounts[-1]
        arms = self._arms_on(amount, "")
        # None of these updates is validated: that is not what is compared.
        count = max(1, min(TIMED_UPDATES, self._options["validate_every"] - 1))
        rounds = time_arms(
            self.config,
            list(arms.values()),
            self._key,
            count,
            self.config.timing_rounds,
            rates={arm.name: self.form.learning_rate for arm in arms.values()},
            **self._options,
        )
        return {name: rounds[arm.name] for name, arm in arms.items()}

    def _arms_on(self, amount: float, suffix: str) -> dict[str, Arm]:
        arms = {
            name: on_amount(arm, self.corpus, amount) for name, arm in self.arms.items()
        }
        return {
            name: arm._replace(name=arm.name + suffix) for name, arm in arms.items()
        }

    def _train(
        self, amount: float, rates: Mapping[str, float], suffix: str
    ) -> dict[str, Outcome]:
        arms = self._arms_on(amount, suffix)
        results = train_arms(
            self.config,
            self._console,
            [arms[name] for name in rates],
            self._key,
            self._num_updates(amount),
            rates={arms[name].name: rate for name, rate in rates.items()},
            **self._options,
        )
        return {
            name: self._judge(name, arms[name], amount, rate, results[arms[name].name])
            for name, rate in rates.items()
        }

    def _judge(
        self, name: str, arm: Arm, amount: float, rate: float, result: SeedResult
    ) -> Outcome:
        draws = self._draws[amount]
        num_reviews = int(draws.num_chosen[0])
        smallest = int(self._draws[self.form.amounts[0]].num_chosen[0])
        judged = min(JUDGED_TRAINING_REVIEWS, smallest)
        every = self._options["validate_every"]
        steps = np.arange(every, result.metrics["loss"].shape[1] + 1, every)
        losses = result.metrics["loss"][:, : steps[-1]]
        return Outcome(
            name,
            amount,
            num_reviews,
            rate,
            epochs=steps * self.config.batch_size / num_reviews,
            validation=1.0 - result.metrics["validation"][:, steps - 1],
            train_loss=losses.reshape(len(losses), len(steps), every).mean(axis=2),
            diverged=diverged(result),
            score=score_arm(arm, self.corpus, draws, result, judged),
        )

    def _score_bags(self, draw: Draw) -> np.ndarray:
        corpus, scores = self.corpus, []
        unknown, size = corpus.vocabulary.unknown_id, len(corpus.vocabulary.tokens)
        for chosen, known in zip(draw.chosen, draw.known, strict=True):
            own = take_reviews(corpus.train, np.flatnonzero(chosen))
            train, valid, test = (
                type(part)(*map(np.asarray, hide_unknown(part, unknown, known)))
                for part in (own, corpus.valid, corpus.test)
            )
            bag = choose_naive_bayes(train, valid, size)
            scores.append(bag.accuracy(test))
        return np.array(scores)

    def _num_updates(self, amount: float) -> int:
        epochs = dict(zip(self.form.amounts, self.form.num_epochs, strict=True))
        return count_updates(self.config, self.corpus, amount, epochs[amount])

    def _validate_every(self) -> int:
        whole = count_updates(self.config, self.corpus, 1.0, 1)
        every = max(1, whole // self.config.validations_per_epoch)
        return min([every, *map(self._num_updates, self.form.amounts)])


def _optimizer_of(config: Config) -> Any:
    def optimizer(learning_rate: Any) -> Any:
        max_norm = config.max_grad_norm
        return make_optimizer(
            learning_rate, max_norm if math.isfinite(max_norm) else None
        )

    return optimizer


def _named(unit: str, results: Results) -> dict[str, Outcome]:
    """Name every outcome as the record does."""
    named = {}
    for suffix, outcomes in (("", results.plain), ("_tuned", results.tuned)):
        for (arm, amount), outcome in outcomes.items():
            named[f"{unit}_{arm}_{percent(amount)}{suffix}"] = outcome
    return named


def _summarise(config, forms, tunings, rounds, comparisons) -> dict[str, Any]:
    described, parts, units, baselines, errors = {}, {}, {}, {}, {}
    for unit, (reader, results) in forms.items():
        for name, outcome in _named(unit, results).items():
            described[name] = describe(outcome, config.target_accuracy)
        parts[unit] = _describe_parts(reader, results)
        units[unit] = {
            name: _describe_arm(config, reader, name) for name in reader.arms
        }
        baselines[unit] = {
            "majority": results.majority,
            "naive_bayes": {
                percent(amount): {"seeds": bag, "mean": mean_interval(bag)}
                for amount, bag in results.bags.items()
            },
        }
        last = reader.form.amounts[-1]
        if {"gru", "lstm"} <= reader.arms.keys():
            pair = (results.plain[arm, last] for arm in ("gru", "lstm"))
            errors[unit] = error_of_test_part(*pair)
    return {
        "seeds_vary": SEEDS_VARY,
        "parts": parts,
        "arms": units,
        "results": described,
        "baselines": baselines,
        "tuning": {percent(amount): found for amount, found in tunings.items()},
        "comparisons": comparisons,
        "error_of_test_part": errors,
        "seconds_per_update": rounds,
    }


def _describe_parts(reader: _Reader, results: Results) -> dict[str, Any]:
    corpus = reader.corpus
    return {
        "num_train": corpus.train.labels.size,
        "num_valid": corpus.valid.labels.size,
        "num_test": corpus.test.labels.size,
        "vocabulary": len(corpus.vocabulary.tokens),
        "mean_length": float(corpus.train.lengths.mean()),
        "test_reviews_by_length": {
            name: int(group.sum()) for name, group in results.groups.items()
        },
    }


def _describe_arm(config: Config, reader: _Reader, name: Any) -> dict[str, Any]:
    units = units_of(config, reader.form, name)
    network = reader.arms[name].network
    params = jax.eval_shape(network.init, jax.random.key(0))
    cell = make_cell(cell_of(name), units)
    return {
        "label": reader.arms[name].label,
        "units": units,
        "recurrent_parameters": count_cell_parameters(
            cell, reader.form.embedding_features
        ),
        "parameters": count_parameters(params),
    }


def _draw_amounts(results: Results, path: Path) -> None:
    sizes = {amount: one.num_reviews for (_, amount), one in results.plain.items()}
    groups = {}
    for amount, size in sizes.items():
        scores = {
            LABELS[arm]: one.accuracy
            for (arm, at), one in results.plain.items()
            if at == amount
        }
        scores["naive Bayes"] = results.bags[amount]
        groups[f"{size:,} ({amount:.0%})"] = {
            label: mean_interval(values[np.isfinite(values)])
            for label, values in scores.items()
            if np.isfinite(values).any()
        }
    plot_intervals(
        path,
        groups,
        title="Test accuracy, mean and 95 % interval over seeds",
        y_label="test accuracy",
        levels={"commoner label": results.majority},
    )


def _draw_curves(results: Results, target: float, path: Path) -> None:
    last = max(amount for _, amount in results.plain)
    whole = {arm: one for (arm, at), one in results.plain.items() if at == last}
    plot_curves(
        path,
        {LABELS[arm]: one.validation for arm, one in whole.items()},
        title="The whole training part, word by word",
        x_label="epoch",
        y_label="validation accuracy",
        x={LABELS[arm]: one.epochs for arm, one in whole.items()},
        levels={
            "target": target,
            "naive Bayes, test": float(results.bags[last].mean()),
        },
    )
