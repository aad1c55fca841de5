"""Every setting of the experiment, each a flag of the command, with its reason."""

import dataclasses
from pathlib import Path
from typing import NamedTuple

from experiments.benchmarks.cases import Sizes
from experiments.benchmarks.measure import Limits
from experiments.run_config import RunConfig
from gated_rnn.types import check_positive, invalid

#: By the name on the command line: the size, and whose it is.
TEXT_SIZES = {
    "long": (Sizes(40, 2000, 1, 16), "Muccino, a tenth of his 20,000 steps"),
    "bitcoin": (Sizes(64, 60, 1, 50), "Singhal, first layer"),
    "traffic": (Sizes(256, 12, 1, 64), "Fu and others, first layer"),
    "reviews": (Sizes(32, 100, 64, 128), "of the kind of Bansal's, who gives none"),
    "large": (Sizes(64, 32, 256, 512), "matmuls alone count"),
}
#: With --paper: sizes as published. Of reviews, those of the one matched pair whose
#: seconds are known: 34 to 36 and 28 to 31 an epoch (J. Krohn, LiveLessons).
PAPER_SIZES = {
    "long": (Sizes(40, 20_000, 1, 16), "Muccino"),
    "reviews": (Sizes(128, 100, 64, 256), "IMDb, J. Krohn"),
}


class Point(NamedTuple):
    """A size at which cells take turns.

    Attributes:
        name: Of a text's size, or what of the centre is changed, as "B8".
        note: Whose size it is.
        sizes: B, T, F, H.
        arms: Names of `programs.ARMS`.
    """

    name: str
    note: str
    sizes: Sizes
    arms: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(RunConfig):
    """What GRU, LSTM and plain network cost: time, memory, operations, bytes.

    The texts, which docs/experiments.md lists, say that a GRU trains 3.84 % faster
    (Muccino), takes "much less time" (a forum's answer), is "significantly faster"
    (Singhal), 20 to 30 % faster, 2.4 hours for 3.2, answers faster in real time and
    suits small devices (Bansal).

    At each size every arm is compiled, and then all are timed in turn, each round in an
    order of its own. Writes results.json, pictures and summary.md. Nothing is trained
    to an end: what a network learns is for the other experiments.

    Attributes:
        texts: Sizes of the texts, at which all arms are measured: LSTM, GRU, plain
            network, GRU with the LSTM's parameters, and GRU with 4/3 of the units,
            whose gates are as many columns as the LSTM's.
        centre: B, T, F and H from which the grid departs, GRU and LSTM alone.
        batch_sizes: B of the grid.
        lengths: T of the grid.
        units: H of the grid.
        stream_steps: Steps that a compiled loop makes at batch 1, for the latency of a
            step without the cost of a call from Python.
        num_rounds: Rounds at each size; a verdict takes ten.
        min_sample_ms: What a sample lasts at least; it has as many calls as that takes.
        point_seconds: After so long the rounds of a program end, if there are five.
        paper: The published sizes: 20,000 steps, and 256 units on IMDb.
    """

    texts: tuple[str, ...] = tuple(TEXT_SIZES)
    centre: tuple[int, int, int, int] = (32, 64, 64, 64)
    batch_sizes: tuple[int, ...] = (1, 8, 32, 128)
    lengths: tuple[int, ...] = (16, 256)
    units: tuple[int, ...] = (16, 256)
    stream_steps: int = 256
    num_rounds: int = 15
    min_sample_ms: float = 30.0
    point_seconds: float = 20.0
    paper: bool = False
    output_dir: Path = Path("outputs/cost")

    _MAY_DIFFER = RunConfig._MAY_DIFFER | {
        *("texts", "batch_sizes", "lengths", "units"),
    }

    def __post_init__(self) -> None:
        """Refuse what cannot be measured."""
        super().__post_init__()
        for name in self.texts:
            if name not in TEXT_SIZES:
                expected = f"names of {', '.join(TEXT_SIZES)}"
                raise invalid("texts", expected, repr(name))
        for size in self.centre:
            check_positive("centre", size)
        for name in ("texts", "batch_sizes", "lengths", "units"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise invalid(name, "each at most once", values)
        for name in ("batch_sizes", "lengths", "units"):
            for size in getattr(self, name):
                check_positive(name, size)
        if not self.points:
            raise invalid("texts", "at least one size, here or in the grid", "none")
        for name in ("stream_steps", "num_rounds"):
            check_positive(name, getattr(self, name))
        for name in ("min_sample_ms", "point_seconds"):
            if not getattr(self, name) > 0:
                raise invalid(name, "a number above 0", getattr(self, name))

    @property
    def limits(self) -> Limits:
        """How much is measured."""
        return Limits(self.num_rounds, self.min_sample_ms / 1e3, self.point_seconds)

    @property
    def points(self) -> tuple[Point, ...]:
        """The sizes of the texts, then those of the grid, each once."""
        known = {**TEXT_SIZES, **PAPER_SIZES} if self.paper else TEXT_SIZES
        every = ("lstm", "gru", "elman", "gru_matched", "gru_wide")
        points = [
            Point(name, known[name][1], known[name][0], every) for name in self.texts
        ]
        centre = Sizes(*self.centre)
        grid = {
            "B": ("batch_size", self.batch_sizes),
            "T": ("num_steps", self.lengths),
            "H": ("hidden_features", self.units),
        }
        seen = set()
        for letter, (field, values) in grid.items():
            for value in values:
                sizes = centre._replace(**{field: value})
                if sizes not in seen:
                    seen.add(sizes)
                    name = f"{letter} {value}"
                    points.append(Point(name, "grid", sizes, ("lstm", "gru")))
        return tuple(points)
