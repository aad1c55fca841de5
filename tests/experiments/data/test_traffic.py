import numpy as np
import pytest

from experiments.data import traffic
from tests.cases import assert_says
from tests.experiments.data.mangling import MANGLINGS, outcome, refusal, written

HEADER = "5 Minutes,Lane 1 Flow (Veh/5 Minutes),# Lane Points,% Observed"
STEPS_PER_DAY = 288
GENERATOR = np.random.default_rng(4)


def times_of(*days):
    steps = np.arange(STEPS_PER_DAY) * np.timedelta64(5, "m")
    return np.concatenate([np.datetime64(day, "s") + steps for day in days])


def flows_of(times):
    return GENERATOR.poisson(60, times.size).astype(float)


def content_of(times, flows, header=HEADER, form="%d/%m/%Y %-H:%M"):
    stamps = [time.item().strftime(form) for time in times]
    rows = [f"{s},{flow:g},1,100" for s, flow in zip(stamps, flows, strict=True)]
    return "\ufeff" + "\n".join([header, *rows]) + "\n"


# Two Fridays and a Monday: a weekend and four days between are not there.
TIMES = times_of("2016-01-08", "2016-01-11", "2016-01-15")
FLOWS = flows_of(TIMES)
TEST_TIMES = times_of("2016-03-04")
TEST_FLOWS = flows_of(TEST_TIMES)


def read(tmp_path, content, name="train.csv", **options):
    return traffic.read_flow(written(tmp_path / name, content), **options)


@pytest.fixture
def folder(tmp_path):
    written(tmp_path / "train.csv", content_of(TIMES, FLOWS))
    written(tmp_path / "test.csv", content_of(TEST_TIMES, TEST_FLOWS))
    return tmp_path


@pytest.mark.parametrize(
    "form", ["%d/%m/%Y %-H:%M", "%m/%d/%Y %H:%M", "%Y-%m-%d %H:%M:%S", "%s"]
)
def test_flow_is_read_in_every_form_of_date(form, tmp_path):
    if form == "%s":
        content = content_of(TIMES, FLOWS, form="@")
        for time in TIMES.astype(int):
            content = content.replace("@", str(time), 1)
    else:
        content = content_of(TIMES, FLOWS, form=form)
    flow = read(tmp_path, content)
    np.testing.assert_array_equal(flow.times, TIMES)
    np.testing.assert_array_equal(flow.flows, FLOWS)
    assert flow.step_minutes == 5
    np.testing.assert_array_equal(flow.segments, np.repeat([0, 1, 2], STEPS_PER_DAY))
    assert flow.report.dropped == ()
    assert "2 gaps" in str(flow.report)


def test_rows_in_any_order_with_holes_and_repeats(tmp_path):
    lines = content_of(TIMES, FLOWS).splitlines()
    rows = lines[1:]
    rows[10] = rows[10].rsplit(",", 3)[0] + ",,1,100"
    rows[20] = rows[20].rsplit(",", 3)[0] + ",-4,1,100"
    again = rows[30].rsplit(",", 3)[0] + ",999,1,100"
    del rows[40]
    order = np.random.default_rng(0).permutation(len(rows))
    shuffled = [lines[0], *(rows[at] for at in order), again]
    flow = read(tmp_path, "\r\n".join(shuffled))
    kept = np.setdiff1d(np.arange(TIMES.size), [10, 20, 40])
    expected = FLOWS.copy()
    expected[30] = 999
    np.testing.assert_array_equal(flow.times, TIMES[kept])
    np.testing.assert_array_equal(flow.flows, expected[kept])
    assert flow.segments[-1] == 5
    reasons = {drop.reason: drop.number for drop in flow.report.dropped}
    assert reasons == {
        "without a flow": 1,
        "with a negative flow": 1,
        "with a time that comes again": 1,
    }


def test_lane_is_named_where_there_are_several(tmp_path):
    header = "5 Minutes\tLane 1 Flow (Veh/5 Minutes)\tLane 2 Flow (Veh/5 Minutes)\tx"
    content = content_of(TIMES, FLOWS, header).replace(",", "\t")
    refusal(lambda: read(tmp_path, content), "several flows", "Lane 2 Flow")
    flow = read(tmp_path, content, column="Lane 2 Flow (Veh/5 Minutes)")
    assert (flow.flows == 1).all()
    refusal(lambda: read(tmp_path, content, column="Lane 3"), "no column 'Lane 3'")


def test_hourly_flow_has_steps_of_an_hour(tmp_path):
    header = "Hour,Flow (Veh/Hour),# Lane Points,% Observed"
    flow = read(tmp_path, content_of(TIMES[::12], FLOWS[::12], header))
    assert flow.step_minutes == 60


def test_published_protocol_joins_the_days(folder):
    train, test = traffic.load_flows(folder)
    data = traffic.make_dataset(train, test, valid_share=0)
    assert data.train.inputs.shape == (3 * STEPS_PER_DAY - 12, 12)
    assert data.valid.inputs.shape == (0, 12)
    assert data.test.inputs.shape == (STEPS_PER_DAY - 12, 12)
    low, high = FLOWS.min(), FLOWS.max()
    assert data.scaler == (low, high)
    for row in (0, 280, 851):
        past = (FLOWS[row : row + 12] - low) / (high - low)
        np.testing.assert_allclose(data.train.inputs[row], past)
        target = (FLOWS[row + 12] - low) / (high - low)
        np.testing.assert_allclose(data.train.targets[row], target)
    tested = (TEST_FLOWS[12:] - low) / (high - low)
    np.testing.assert_allclose(data.test.targets, tested)


def test_without_gaps_no_window_goes_over_a_weekend(folder):
    train, test = traffic.load_flows(folder)
    data = traffic.make_dataset(train, test, valid_share=0, across_gaps=False)
    per_day = STEPS_PER_DAY - 12
    assert data.train.positions.size == 3 * per_day
    span = TIMES[data.train.positions] - TIMES[data.train.positions - 12]
    assert (span == np.timedelta64(60, "m")).all()


def test_validation_is_the_last_part_in_time_and_not_scaled_by(folder):
    train, test = traffic.load_flows(folder)
    data = traffic.make_dataset(train, test, valid_share=0.1)
    num_train = TIMES.size - TIMES.size // 10
    assert data.train.positions[-1] == num_train - 1
    assert list(data.valid.positions) == list(range(num_train, TIMES.size))
    assert data.scaler == (FLOWS[:num_train].min(), FLOWS[:num_train].max())


def test_parts_that_do_not_fit_are_refused(folder):
    train, test = traffic.load_flows(folder)
    with pytest.raises(ValueError) as error:
        traffic.make_dataset(test, train)
    assert_says(error, "test", "begins after 2016-03-04")
    with pytest.raises(ValueError) as error:
        traffic.make_dataset(train, test._replace(step_minutes=60.0))
    assert_says(error, "test", "5 minutes", "60")
    short = test._replace(times=test.times[:12], flows=test.flows[:12])
    with pytest.raises(ValueError) as error:
        traffic.make_dataset(train, short)
    assert_says(error, "test", "more than 12 steps")


def test_one_file_is_no_folder_of_two(folder):
    refusal(lambda: traffic.load_flows(folder / "train.csv"), "is one file", "folder")


@pytest.mark.parametrize("way", MANGLINGS)
def test_mangled_file_is_read_with_a_report_or_refused_in_one_line(way, tmp_path):
    content = MANGLINGS[way](content_of(TIMES, FLOWS).encode())
    flow = outcome(lambda: read(tmp_path, content))
    if isinstance(flow, str):
        assert "train.csv" in flow
        return
    assert way in {"cut short", "garbage in the middle", "lost quotation mark"}
    at = np.searchsorted(TIMES, flow.times)
    np.testing.assert_array_equal(flow.flows, FLOWS[at])
    assert flow.report.kept == flow.flows.size >= TIMES.size // 2


def test_wrong_columns_and_text_throughout_are_refused(tmp_path):
    wrong = content_of(TIMES, FLOWS, "5 Minutes,Speed,# Lane Points,% Observed")
    refusal(lambda: read(tmp_path, wrong), "no header", "Flow")
    words = content_of(TIMES, FLOWS).replace(",1,100", "cars,1,100")
    refusal(lambda: read(tmp_path, words), "not a file of traffic flow", "with text")
