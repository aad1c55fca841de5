"""Long lags: the small command, what is chosen, and the statistics of shares."""

import json
import math

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache
from scipy import optimize

from experiments import training
from experiments.cells import count_cell_parameters, make_cell
from experiments.long_lags import report
from experiments.long_lags.__main__ import main
from experiments.long_lags.config import PAPER, Config
from experiments.long_lags.report import Setting, share_difference, share_interval
from experiments.long_lags.run import IDS_OF_A_LENGTH, compared_runs, tuning_runs
from experiments.tasks import Score
from gated_rnn.training import StopReason
from gated_rnn.training.guarded import Status
from tests.cases import assert_says

KEY = jax.random.key(2)
PNG = b"\x89PNG\r\n"
OPTIONS = (
    "--tasks selective_recall --cells gru --lengths 10 13 --hidden-features 8 "
    "--num-updates 120 --validate-every 20 --num-validation 64 --num-test 96 "
    "--num-symbols 2 --num-recalled 1 --learning-rates 0.0001 0.03 --tuning-seeds 1 "
    "--num-seeds 2 --seed-block 2 --save-seconds 0"
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
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_disable_most_optimizations", True)

    def run(directory, *arguments):
        folders = ("--compilation-cache", str(cache), "--output-dir", str(directory))
        return main([*OPTIONS.split(), *folders, *arguments])

    yield run
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.fixture(scope="module")
def finished(command, tmp_path_factory):
    directory = tmp_path_factory.mktemp("long_lags") / "out"
    assert command(directory) == 0
    return directory


@pytest.fixture(scope="module")
def record(finished):
    return json.loads((finished / "results.json").read_text())


def test_command_writes_every_seed_of_every_length(finished, record):
    assert record["experiment"] == "long_lags"
    series = record["cells"]["selective_recall_gru"]
    assert series["seeds"] == [0, 1, IDS_OF_A_LENGTH, IDS_OF_A_LENGTH + 1]
    assert series["length"] == [0, 0, 1, 1]
    assert np.shape(series["loss"]) == np.shape(series["validation"]) == (4, 20)
    losses = np.array(series["loss"], float)
    last = [row[np.isfinite(row)][-1] for row in losses]
    assert (last < 0.9 * losses[:, 0]).all()  # it can be learnt, and is
    assert np.isfinite(series["test_loss"]).all()
    assert series["test_wrong"] == series["test_far"]
    assert (finished / "share_solved.png").read_bytes().startswith(PNG)
    text = (finished / "summary.md").read_text()
    assert "| 10: GRU |" in text
    assert "Of rates and seeds" in text


def test_seed_that_solves_its_task_stops_there(record):
    settings = record["summary"]["settings"]
    assert [(one["cell"], one["length"]) for one in settings] == [
        *(("gru", 10), ("gru", 13)),
    ]
    series = record["cells"]["selective_recall_gru"]
    rows = (series[name] for name in ("ended_by", "ended_at", "validation"))
    for why, step, wrong in zip(*rows, strict=True):
        seen = [value for value in wrong if value is not None]
        if why == "TARGET_REACHED":
            assert step % 20 == 0
            assert len(seen) == step / 20
            assert min(seen) == seen[-1] <= 0.01 < min(seen[:-1], default=1.0)
        else:
            assert (why, step) == ("RUNNING", -1)
            assert min(seen) > 0.01
    solved = np.array(series["ended_by"]) == "TARGET_REACHED"
    assert solved.any()
    for number, one in enumerate(settings):
        assert one["solved"]["estimate"] == solved[2 * number : 2 * number + 2].mean()


def test_rate_that_learns_is_chosen_and_counted(record):
    settings = record["summary"]["settings"]
    for one in settings:
        assert one["tuning"]["rates"] == [0.0001, 0.03]
        assert one["learning_rate"] == one["tuning"]["rate"] == 0.03
        assert one["tuning"]["at_edge"]
        assert one["tuning"]["cost"][0] > 1.2  # not solved, and a fifth wrong
        assert not any(one["tuning"]["solved"][0])
    shares = record["summary"]["rates_and_seeds"]["shares"]
    solved = [one["tuning"]["solved"] for one in settings]
    assert shares["gru"]["all"]["estimate"] == np.mean(solved)
    assert shares["gru"]["all"]["num_seeds"] == 4


def test_resumed_run_has_the_results_of_one_left_alone(
    command, finished, record, tmp_path, monkeypatch
):
    def stop_after_first(*arguments, **options):
        result = train(*arguments, **options)
        if arguments[2] == "selective_recall_gru_tuning":
            raise KeyboardInterrupt
        return result

    train = training.train
    directory = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr("experiments.long_lags.run.train", stop_after_first)
        assert command(directory) == 130
    assert not (directory / "results.json").exists()
    assert command(directory, "--resume") == 0
    again = json.loads((directory / "results.json").read_text())
    assert again["cells"] == record["cells"]
    assert again["summary"]["settings"] == record["summary"]["settings"]
    assert again["summary"]["together"] == record["summary"]["together"]


@pytest.mark.parametrize(
    "arguments",
    [
        "--tasks juggling",
        "--tasks adding adding",
        "--cells",
        "--lengths 9",
        "--lengths 20 10",
        "--num-updates 10 --validate-every 11",
        "--tuning-seeds 0",
        "--learning-rates 0",
        "--max-grad-norm 0",
        "--num-copied 0",
        "--paper --batch-size 7",
    ],
)
def test_bad_input_is_one_line_and_status_2_and_writes_nothing(
    arguments, tmp_path, capsys
):
    assert main([*arguments.split(), "--output-dir", str(tmp_path / "out")]) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.count("\n") == 1
    assert errors.startswith("experiments.long_lags: ")
    assert list(tmp_path.iterdir()) == []


def test_paper_sets_the_published_sizes_and_matching_the_parameters():
    config = Config(paper=True)
    assert {name: getattr(config, name) for name in PAPER} == PAPER
    assert config.task("copy").baseline(100) == 10 * math.log(8) / 120
    lstm = count_cell_parameters(make_cell("lstm", 32), 10)
    for cell in ("elman_matched", "gru_matched"):
        units = Config().units(cell, 10)
        counted = count_cell_parameters(make_cell(cell.split("_")[0], units), 10)
        assert abs(counted / lstm - 1) < 0.03
        assert units > 32
    assert Config().units("gru", 10) == Config().units("lstm", 10) == 32


def test_runs_are_told_apart_by_length_rate_and_seed():
    config = Config(lengths=(10, 20), learning_rates=(0.1, 0.2), num_seeds=3)
    rows = tuning_runs(config)
    found = list(zip(rows.length, rows.rate, strict=True))
    assert found == [
        *((0, 0.1), (0, 0.1), (0, 0.2), (0, 0.2)),
        *((1, 0.1), (1, 0.1), (1, 0.2), (1, 0.2)),
    ]
    compared = compared_runs(config, [0.2, 0.1])
    assert compared.rate.tolist() == [0.2] * 3 + [0.1] * 3
    ids = [*rows.ids, *compared.ids]
    assert len(set(ids)) == len(ids) == 14


class FakeResult:
    """What `describe_tuning` reads of a result."""

    def __init__(self, reasons, steps, values):
        self.status = Status(np.array(reasons), np.array(steps))
        self.best = type("Best", (), {"value": np.array(values)})


def test_cost_of_a_rate_is_time_or_else_what_is_wrong():
    reached, running = StopReason.TARGET_REACHED, StopReason.RUNNING
    config = Config(
        lengths=(10, 20),
        learning_rates=(0.1, 0.2, 0.3),
        tuning_seeds=2,
        num_updates=100,
        validate_every=10,
    )
    result = FakeResult(
        [reached, running, reached, reached, StopReason.LOSS_NOT_FINITE, reached]
        + [running] * 6,
        [40, -1, 90, 100, 7, 10] + [-1] * 6,
        [0.01, 0.3, 0.0, 0.01, 0.2, 0.0, 0.5, 0.6, 0.8, 0.9, np.inf, 0.4],
    )
    first, second = report.describe_tuning(config, tuning_runs(config), result)
    np.testing.assert_allclose(first["cost"], [(0.4 + 1.3) / 2, 0.95, (2.0 + 0.1) / 2])
    assert (first["rate"], first["at_edge"], first["diverged"]) == (0.1, True, 1)
    np.testing.assert_allclose(second["cost"], [1.55, 1.85, 1.7])
    np.testing.assert_array_equal(
        first["solved"], [[True, False], [True, True], [False, True]]
    )


def test_share_interval_is_where_the_score_test_no_longer_rejects():
    flags = np.array([True] * 3 + [False] * 9)
    share, low, high, *_ = share_interval(flags)
    assert share == 0.25

    def excess(chance):
        return abs(share - chance) / math.sqrt(chance * (1 - chance) / 12) - 1.959964

    np.testing.assert_allclose(low, optimize.brentq(excess, 1e-6, 0.2), rtol=1e-5)
    np.testing.assert_allclose(high, optimize.brentq(excess, 0.3, 1 - 1e-6), rtol=1e-5)
    assert share_interval(np.zeros(7, bool)).low == 0.0


def test_share_difference_is_that_of_the_published_example():
    # Newcombe (1998), Table II, column a: 56 of 70 and 48 of 80, method 10.
    first = np.arange(70) < 56
    second = np.arange(80) < 48
    middle, low, high, *_ = share_difference(first, second)
    np.testing.assert_allclose([middle, low, high], [0.2, 0.0524, 0.3339], atol=5e-5)


def make_setting(cell, solved, updates, loss, *, task="adding", length=20, lost=()):
    flags = np.array(solved, bool)
    diverged = np.isin(np.arange(flags.size), lost)
    score = Score(np.array(loss), np.array(loss) / 2, np.array(loss))
    tuning = {"solved": [[True, False], [flags[0], flags[1]]]}
    return Setting(
        *(task, length, cell, 32, 99, 0.01, tuning),
        *(flags, np.array(updates), diverged, score, 0.5),
    )


def test_comparisons_censor_times_and_leave_out_what_diverged():
    config = Config(cells=("gru", "lstm"), num_updates=1000)
    count = 10
    times = np.linspace(100, 190, count)
    settings = [
        make_setting("gru", [True] * count, times, np.full(count, 0.005)),
        make_setting(
            *("lstm", [True] * 4 + [False] * 6),
            *(np.append(2 * times[:4], [1000.0] * 6), np.full(count, 0.4)),
            lost=[9],
        ),
    ]
    settings += [
        make_setting(
            cell, [False] * count, [1000.0] * count, np.full(count, 0.5), length=40
        )
        for cell in ("gru", "lstm")
    ]
    summary = report.summarise(config, settings, KEY)
    found = {one.measure: one for one in summary["by_setting"]}
    assert list(found) == [
        "adding 20, log of updates to solve",
        "adding 20, loss over that without memory",
        "adding 40, loss over that without memory",
    ]
    time = found["adding 20, log of updates to solve"]
    expected = np.append(np.full(4, -np.log(2)), np.log(times[4:] / 1000))
    np.testing.assert_allclose(time.difference.mean.estimate, expected.mean())
    assert time.verdict == "lower"
    loss = found["adding 20, loss over that without memory"]
    assert (loss.num_seeds, loss.left_out) == (9, 1)
    np.testing.assert_allclose(loss.difference.mean.estimate, 0.01 - 0.8, rtol=1e-6)
    share = summary["shares"][0]
    assert (share["length"], share["verdict"]) == (20, "higher")
    np.testing.assert_allclose(share["difference"].estimate, 0.6)
    assert summary["shares"][1]["verdict"] == "inconclusive"  # 0 of 10 and 0 of 10
    together = {one.measure: one for one in summary["together"]}
    np.testing.assert_allclose(
        together["share solved"].difference.mean.estimate, 0.6 / 2
    )
    shown = summary["settings"]
    assert [one["median_updates"] for one in shown] == [145.0, None, None, None]
    assert shown[1]["diverged_seeds"] == 1
    rates = summary["rates_and_seeds"]
    assert rates["shares"]["gru"]["all"].num_seeds == 8
    assert rates["shares"]["gru"]["by_rate"][0].estimate == 0.5
    assert rates["shares"]["gru"]["by_rate"][1].estimate == 0.5


def test_settings_that_cannot_be_name_the_field():
    with pytest.raises(ValueError) as error:
        Config(lengths=(30, 30))
    assert_says(error, "lengths", "ascending", "(30, 30)")
