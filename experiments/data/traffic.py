"""Traffic flow of a road detector (PeMS): the past hour to the next five minutes.

The data and protocol of a public reimplementation of Fu, Zhang and Li (2016), and any
other file that PeMS exports. Layer: experiments (data).
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.data.downloads import find_file, github_file
from experiments.data.reading import Table, read_table, unusable
from experiments.data.reports import Report, Tally
from experiments.data.scaling import Scaling, fit_scaler
from experiments.data.splits import check_share
from experiments.data.timed_values import read_timed_values
from experiments.data.windows import SeriesData, Windows, sliding_windows
from gated_rnn.types import invalid

_REPOSITORY = "xiaochus/TrafficFlowPrediction"
_COMMIT = "dec8243eb4ebe728d44d1ac73f38c2d3aaa9fd81"
#: One lane, vehicles in five minutes: 27 weekdays of January and February 2016, and 15
#: of March.
PUBLISHED_TRAIN = github_file(
    "traffic_pems",
    _REPOSITORY,
    _COMMIT,
    "data/train.csv",
    "cf46f219b4595fa214d99d42a85ccd5e7137499efaa54e4705eaf25653b09f14",
)
PUBLISHED_TEST = github_file(
    "traffic_pems",
    _REPOSITORY,
    _COMMIT,
    "data/test.csv",
    "c3abee88094bb733e04c74812ae6b749ac5f21f6ccedf53120b5e3d8df2fc7ba",
)
#: Steps of five minutes in the past hour.
WINDOW_STEPS = 12

_TIME = r"\d+_minutes?|hour|date|time|timestamp|datetime"
_FLOW = r"(lane_\d+_)?flow(_.*)?"


class Flow(NamedTuple):
    """Counts of vehicles in the order of time.

    Attributes:
        times: datetime64[s] `[N]`, local time of the detector, when a step begins.
        flows: float64 `[N]`, vehicles a step.
        segments: int64 `[N]`, equal where steps follow each other without a gap.
        step_minutes: Length of a step: the commonest difference between two times.
        report: What was read and what was left out.
    """

    times: np.ndarray
    flows: np.ndarray
    segments: np.ndarray
    step_minutes: float
    report: Report


def load_flows(data_dir: Path | None = None) -> tuple[Flow, Flow]:
    """Find and read the published training and test files, or others of their names.

    Args:
        data_dir: A folder with `train.csv` and `test.csv`, or None.

    Returns:
        The training and the test flow.

    Raises:
        UsageError: If a file is missing or cannot be used.
    """
    if data_dir is not None and data_dir.is_file():
        raise unusable(data_dir, "is one file", "Give a folder: train.csv, test.csv")
    train, test = (
        read_flow(find_file(file, data_dir))
        for file in (PUBLISHED_TRAIN, PUBLISHED_TEST)
    )
    return train, test


def read_flow(path: Path, *, column: str | None = None) -> Flow:
    """Read a flow that PeMS exported, comma- or tab-separated.

    Rows are put in the order of time. Those without a flow, with a negative one or that
    cannot be read are left out, which makes a gap; of rows with the same time the last
    in the file counts. What PeMS imputed (observed 0 %) stays.

    Args:
        path: The file.
        column: Header of the flow, where the file has several lanes; or None.

    Returns:
        The flow.

    Raises:
        UsageError: If the file is not one of flows, or has several and none is named.
    """
    table = read_table(path, {"5 Minutes (or date)": _TIME, "Flow": _FLOW})
    tally = Tally(path, "a file of traffic flow")
    seconds, flows = read_timed_values(
        table,
        tally,
        time_at=table.find(_TIME)[0],
        value_at=_flow_column(path, table, column),
        noun="flow",
        refuse=lambda flow: None if flow >= 0 else "with a negative flow",
    )
    if not seconds.size:
        tally.finish(0)  # raises
    steps = np.diff(seconds)
    lengths, counts = np.unique(steps, return_counts=True)
    step = int(lengths[counts.argmax()]) if steps.size else 0
    segments = np.append(0, np.cumsum(steps != step))
    times = seconds.astype("datetime64[s]")
    report = tally.finish(
        seconds.size,
        f"{times[0]} to {times[-1]} in steps of {step / 60:g} minutes",
        f"{segments[-1]:,} gaps" if segments[-1] else "",
    )
    return Flow(times, flows, segments, step / 60, report)


def make_dataset(
    train: Flow,
    test: Flow,
    *,
    window: int = WINDOW_STEPS,
    valid_share: float = 0.05,
    scaling: Scaling = "min_max",
    across_gaps: bool = True,
) -> SeriesData:
    """Cut both flows into windows, scaled by the training part.

    The reimplementation validates on a random twentieth of the training windows, which
    overlap with those trained on; here it is the last twentieth in time. With
    `valid_share` 0 the training windows and the scaling are the published ones.

    Args:
        train: Flow whose last part validates.
        test: Later flow; its first window lies within it.
        window: Steps in a window.
        valid_share: Share of the training flow to validate on, in [0, 1).
        scaling: Fitted on the training part alone.
        across_gaps: As published, the days are joined although the weekends between
            them are left out. Without it a window has no gap.

    Returns:
        Scaled windows; the `positions` of `test` are those in the test flow.

    Raises:
        ValueError: If there are too few steps for one window, the test does not come
            after the training, or the two have steps of different lengths.
    """
    check_share("valid_share", valid_share)
    if test.times[0] <= train.times[-1]:
        expected = f"a flow that begins after {train.times[-1]}"
        raise invalid("test", expected, str(test.times[0]))
    if test.step_minutes != train.step_minutes:
        expected = f"steps of {train.step_minutes:g} minutes"
        raise invalid("test", expected, f"{test.step_minutes:g}")
    num_train = train.flows.size - int(train.flows.size * valid_share)
    scaler = fit_scaler(scaling, train.flows[:num_train])

    def cut(flow: Flow, start: int, stop: int | None) -> Windows:
        return sliding_windows(
            scaler.transform(flow.flows),
            window,
            start=start,
            stop=stop,
            segments=None if across_gaps else flow.segments,
        )

    parts = (cut(train, 0, num_train), cut(train, num_train, None), cut(test, 0, None))
    for name, part in zip(("train", "test"), parts[::2], strict=True):
        if not part.positions.size:
            raise invalid(name, f"a flow of more than {window} steps", "a shorter one")
    return SeriesData(*parts, scaler=scaler)


def _flow_column(path: Path, table: Table, column: str | None) -> int:
    if column is not None:
        names = [name.strip() for name in table.columns]
        if column.strip() in names:
            return names.index(column.strip())
        raise unusable(path, f"has no column {column!r}", f"Name one of {names}")
    found = table.find(_FLOW)
    if len(found) > 1:
        names = [table.columns[at] for at in found]
        raise unusable(path, f"has several flows: {names}", "Name one as column")
    return found[0]
