import dataclasses
import json
import math
import random
from pathlib import Path

import numpy as np
import pytest

from experiments.benchmarks import page
from experiments.benchmarks.cases import (
    NUM_CHECKED_STEPS,
    TARGETS,
    Case,
    Sizes,
    make_cases,
    parse_shapes,
)
from experiments.benchmarks.data import make_data
from experiments.benchmarks.measure import (
    MIN_ROUNDS,
    Limits,
    take_rounds,
    time_rounds,
)
from experiments.benchmarks.memory import measure_peak
from experiments.benchmarks.model import Facts, Program, ProgramMemory
from experiments.benchmarks.parity import largest_error, relative_error
from experiments.benchmarks.roofline import Machine, count_work, limit_seconds
from experiments.benchmarks.rows import Row, Samples, make_row, read_rows
from experiments.benchmarks.summary import bootstrap_mean, compare, target_means
from experiments.command import UsageError
from experiments.record import to_json

# Records of two small runs and the page of both; written again by
#   python -m experiments.benchmarks.page tests/experiments/benchmarks \
#       --output tests/experiments/benchmarks/page.md
STORED = Path(__file__).parent / "benchmarks"
ROOT = Path(__file__).parents[2]
B, T, F, H = SIZES = Sizes(3, 5, 2, 4)  # pairwise different


# Cases


@pytest.mark.parametrize("name", ["5x3x2", "5x3x2x0", "5x3x2x-1", "huge", "5X3X2X4"])
def test_shape_that_is_none_is_refused(name):
    with pytest.raises(ValueError, match="Received an invalid value for shapes"):
        parse_shapes(["small", name])


def test_cases_are_all_different_and_cover_what_is_asked_for():
    suites = make_cases(
        suites=("shapes", "lengths", "resets", "seeds", "latency"),
        cells=("lstm", "gru"),
        modes=("forward", "gradient", "train"),
    )
    for cases in suites.values():
        assert len(set(cases)) == len(cases)
    assert {Case("gru", "gradient", sizes) for sizes in TARGETS} <= set(
        suites["shapes"]
    )
    assert {case.num_seeds for case in suites["seeds"]} == {1, 8, 64}
    assert {case.variant for case in suites["lengths"]} == {"lengths"}
    assert {(case.mode, case.sizes.batch_size) for case in suites["latency"]} == {
        ("step", 1)
    }
    assert all(case.sizes.num_steps == NUM_CHECKED_STEPS for case in suites["latency"])


def test_shapes_that_are_given_are_those_of_every_suite():
    suites = make_cases(
        suites=("shapes", "resets", "seeds"),
        cells=("gru",),
        modes=("forward",),
        shapes=[SIZES],
    )
    for cases in suites.values():
        assert {(case.sizes, case.mode) for case in cases} == {(SIZES, "forward")}


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_data_have_no_zeros_and_are_the_same_when_drawn_again(cell):
    case = Case(cell, "train", SIZES, num_seeds=2)
    data, again = make_data(case), make_data(case)
    for params, same in zip(data.params, again.params, strict=True):
        for leaf, other in zip(params, same, strict=True):
            assert np.all(leaf != 0)
            np.testing.assert_array_equal(leaf, other)
    assert np.all(data.params[0].bias != data.params[1].bias)
    assert data.batch.inputs.shape == (T, B, F)


def test_variants_have_a_whole_sequence_shorter_ones_and_resets():
    sizes = Sizes(30, 20, 1, 2)
    lengths = make_data(Case("gru", "forward", sizes, "lengths")).batch.lengths
    assert lengths.max() == 20
    assert 1 <= lengths.min() < 20
    resets = make_data(Case("gru", "forward", sizes, "resets")).batch.resets
    assert resets.shape == (20, 30)
    assert 0 < resets.mean() < 0.5


# Rounds


class Clock:
    """A clock that only work moves."""

    def __init__(self):
        self.now = 0.0
        self.log = []

    def __call__(self):
        return self.now

    def work(self, name, seconds):
        def run():
            self.log.append(name)
            self.now += seconds

        return run


def test_every_run_is_sampled_once_a_round_in_changing_orders():
    clock = Clock()
    samplers = {name: clock.work(name, 1.0) for name in "abcd"}
    samplers = {
        name: lambda run=run, name=name: run() or ord(name)
        for name, run in samplers.items()
    }
    limits = Limits(num_rounds=20, min_seconds=1, max_seconds=1000)
    samples = take_rounds(samplers, limits, np.random.default_rng(0), clock)
    rounds = ["".join(clock.log[i : i + 4]) for i in range(0, len(clock.log), 4)]
    assert len(rounds) == 20
    assert all(sorted(each) == list("abcd") for each in rounds)
    assert len(set(rounds)) > 10
    assert {each[0] for each in rounds} == set("abcd")
    assert samples == {name: [ord(name)] * 20 for name in "abcd"}


def test_orders_are_those_of_the_generator():
    def log_of(seed):
        clock = Clock()
        runs = {name: clock.work(name, 1.0) for name in "abcd"}
        limits = Limits(num_rounds=4, min_seconds=1, max_seconds=1000)
        time_rounds(runs, limits, np.random.default_rng(seed), clock)
        return clock.log

    assert log_of(3) == log_of(3)
    assert log_of(3) != log_of(4)


def test_sample_has_the_calls_that_fill_it_and_is_seconds_a_call():
    clock = Clock()
    runs = {"short": clock.work("short", 0.001), "long": clock.work("long", 0.5)}
    limits = Limits(num_rounds=3, min_seconds=0.01, max_seconds=1000)
    samples = time_rounds(runs, limits, np.random.default_rng(0), clock)
    assert samples["short"].calls == 10
    assert samples["long"].calls == 1
    np.testing.assert_allclose(samples["short"].seconds, [0.001] * 3)
    np.testing.assert_allclose(samples["long"].seconds, [0.5] * 3)


def test_short_calls_are_warmed_up_before_a_sample_and_long_ones_are_not():
    clock = Clock()
    limits = Limits(num_rounds=7, min_seconds=0.01, max_seconds=1000)
    for name, seconds in (("short", 0.02), ("long", 0.5)):
        time_rounds(
            {name: clock.work(name, seconds)}, limits, np.random.default_rng(0), clock
        )
    planning = 2
    assert clock.log.count("short") == planning + 2 * 7
    assert clock.log.count("long") == planning + 7


def test_slow_case_ends_early_after_the_least_number_of_rounds():
    clock = Clock()
    limits = Limits(num_rounds=50, min_seconds=0.01, max_seconds=1)
    samples = time_rounds(
        {"slow": clock.work("slow", 3.0)}, limits, np.random.default_rng(0), clock
    )
    assert len(samples["slow"].seconds) == MIN_ROUNDS


# What a case asks for


@pytest.mark.parametrize(
    ("cell", "mode", "flops", "numbers"),
    [
        # N = 15 steps, G H = 16, P = 16 (2 + 4 + 1) = 112
        ("lstm", "forward", 2 * 15 * 16 * 6, 30 + 112 + 60),
        ("lstm", "gradient", 2 * 15 * 16 * 16, 60 + 336 + 240),
        ("lstm", "train", 2 * 15 * 16 * 16, 60 + 336 + 240 + 784),
        ("lstm", "step", 2 * 3 * 16 * 6, 6 + 112 + 12 + 48),
        # G H = 12, P = 12 (2 + 4 + 1) + 4 = 88
        ("gru", "forward", 2 * 15 * 12 * 6, 30 + 88 + 60),
        ("gru", "gradient", 2 * 15 * 12 * 16, 60 + 264 + 120),
    ],
)
def test_work_is_what_a_count_by_hand_gives(cell, mode, flops, numbers):
    work = count_work(Case(cell, mode, SIZES))
    assert work == (flops, 4 * numbers)
    half = count_work(Case(cell, mode, SIZES, dtype="bfloat16"))
    assert half == (flops, 2 * numbers)


def test_work_of_seeds_shares_the_inputs_and_of_lengths_counts_real_steps():
    two = count_work(Case("lstm", "gradient", SIZES, num_seeds=2))
    assert two == (2 * 2 * 15 * 16 * 16, 4 * (60 + 2 * (336 + 240)))
    padded = count_work(Case("lstm", "forward", SIZES, "lengths"), num_real_steps=11)
    assert padded == (2 * 11 * 16 * 6, 4 * (22 + 112 + 44))


def test_limit_is_the_larger_of_computing_and_moving():
    work = count_work(Case("lstm", "forward", SIZES))
    for flops, bandwidth in ((10.0, 1e9), (1e9, 10.0)):
        machine = Machine({"float32": flops}, bandwidth)
        slower = max(work.flops / flops, work.bytes / bandwidth)
        assert limit_seconds(work, machine, "float32") == slower > 10


# Agreement


def test_relative_error_sees_shapes_and_what_is_not_finite():
    values = np.array([1.0, -4.0, 2.0])
    assert relative_error(values, values) == 0
    assert relative_error(np.array([1.0, -4.0, 3.0]), values) == 0.25
    assert relative_error(values[:2], values) == math.inf
    assert relative_error(values * np.nan, values) == math.inf


def test_largest_error_names_its_array_and_wants_all_of_them():
    expected = {"outputs": np.ones(3), "loss": np.ones(1)}
    found = {"outputs": np.ones(3), "loss": np.array([1.5])}
    assert largest_error(found, expected) == (0.5, "loss")
    with pytest.raises(KeyError, match="loss"):
        largest_error({"outputs": np.ones(3)}, expected)


# Rows


def timed(name, seconds, case=None, suite="shapes"):
    case = Case("gru", "gradient", SIZES) if case is None else case
    work = count_work(case)
    return make_row(suite, case, name).add_samples(Samples(seconds, 2), work, 1e-3)


def test_row_survives_json():
    row = timed("linen", [0.5, 0.25, 0.75]).add_facts(Facts(note="a note"))
    program = Program(print, dict, 1.5, ProgramMemory(10, 20, 30, 40))
    row = row.add_program(program)
    again = Row.from_json(json.loads(json.dumps(to_json(row))))
    assert again == row
    assert again.case == Case("gru", "gradient", SIZES)
    assert (again.status, again.seconds_median, again.calls) == ("timed", 0.5, 2)
    assert (again.temporary_bytes, again.alias_bytes) == (10, 40)
    assert again.reset_after is True
    assert again.roofline_multiple == 500


def test_row_of_an_unknown_field_is_refused():
    fields = to_json(make_row("shapes", Case("gru", "forward", SIZES), "nnx"))
    with pytest.raises(TypeError, match="colour"):
        Row.from_json({**fields, "colour": "black"})


def test_row_that_was_not_timed_says_so():
    row = make_row("shapes", Case("lstm", "forward", SIZES), "nnx", reason="why")
    assert (row.status, row.reason, row.samples) == ("skipped", "why", [])


def test_every_field_of_a_row_is_described():
    for field in dataclasses.fields(Row):
        assert f"        {field.name}: " in Row.__doc__


# Comparisons


def test_ours_is_compared_with_the_fastest_of_each_kind():
    rows = [
        timed("scan", [2.0, 2.0]),
        timed("linen", [4.0, 4.0]),
        timed("nnx", [5.0, 5.0]),
        timed("torch", [1.0, 1.0]),
        make_row("shapes", Case("gru", "gradient", SIZES), "haiku"),
    ]
    random.Random(0).shuffle(rows)
    found = {each.against: each for each in compare(rows)}
    assert (found["jax"].peer, found["jax"].ratio.estimate) == ("linen", 0.5)
    assert (found["all"].peer, found["all"].ratio.estimate) == ("torch", 2.0)


def test_ratio_has_an_interval_of_rounds_drawn_together():
    seconds = np.array([1.0, 3.0, 2.0, 9.0, 4.0])
    together = bootstrap_mean([(seconds, 2 * seconds)])
    np.testing.assert_allclose(together, 0.5)
    apart = bootstrap_mean([(seconds, 2 * seconds[::-1])])
    assert apart.low < 0.4
    assert apart.high > 0.6


def test_target_is_the_geometric_mean_over_all_ten_cases():
    rows = []
    for number, sizes in enumerate(TARGETS):
        for cell in ("lstm", "gru"):
            case = Case(cell, "gradient", sizes)
            factor = 4.0 if number == 0 else 1.0
            rows += [timed("scan", [factor] * 3, case), timed("nnx", [2.0] * 3, case)]
    rows.append(timed("scan", [9.0] * 3))
    for mean in target_means(rows):
        assert mean.complete
        np.testing.assert_allclose(mean.ratio.estimate, 0.5 * 4 ** (2 / 10))
        assert mean.largest == 2.0
    incomplete = target_means(rows[2:])
    assert {mean.num_cases for mean in incomplete} == {9}
    assert not any(mean.complete for mean in incomplete)


# Memory


def test_peak_is_what_a_call_adds():
    size = 64 * 2**20

    def call():
        np.ones(size, np.uint8)

    peak = measure_peak(call)
    if peak is None:
        pytest.skip("this system does not tell")
    # The system counts the pages of a thread in batches.
    assert 0.95 * size < peak < 1.5 * size


# The page


def test_page_of_stored_records_is_the_stored_page():
    assert page.make_page(STORED) == (STORED / "page.md").read_text()


def test_committed_page_is_that_of_the_committed_records():
    committed = ROOT / "docs" / "benchmarks.md"
    if not committed.is_file():
        pytest.skip("no benchmark has been committed")
    records = ROOT / "docs" / "results" / "benchmarks"
    assert page.make_page(records) == committed.read_text()


def test_stored_rows_are_those_of_the_schema():
    record = json.loads((STORED / "peers" / "results.json").read_text())
    assert record["schema"] == 1
    rows = read_rows(record)
    assert {row.status for row in rows} == {"timed", "skipped"}
    assert json.loads(json.dumps(to_json(rows))) == [
        fields for cell in record["cells"].values() for fields in cell["rows"]
    ]


def test_page_names_who_was_left_out_and_how_to_repeat_it():
    text = (STORED / "page.md").read_text()
    for words in ("runs on NVIDIA GPUs only", "against_peers --memory", "(not all)"):
        assert words in text
    # The command of each record, without what it need not say.
    assert (
        "Made by `python -m experiments.benchmarks.seeds --cells gru"
        " --shapes 64x60x1x50 --num-seeds 1 8 --seed-blocks 2 --sweep-seeds 8"
        " --num-compared 4 --peers linen torch1 cudnn --num-rounds 3 --memory`."
    ) in text


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "There is no results.json"),
        ("{", "is no record"),
        ('{"schema": 1, "experiment": "long_sequences"}', "no record of a benchmark"),
    ],
    ids=["missing", "broken", "of another experiment"],
)
def test_page_of_no_record_is_refused_and_not_written(content, says, tmp_path, capsys):
    if content is not None:
        (tmp_path / "results.json").write_text(content)
    output = tmp_path / "page.md"
    assert page.main([str(tmp_path), "--output", str(output)]) == 2
    errors = capsys.readouterr().err
    assert says in errors
    assert errors.count("\n") == 1
    assert not output.exists()
    with pytest.raises(UsageError):
        page.make_page(tmp_path)
