"""What is measured: a cell, a size, a mode and a variant; and the tables of them."""

import re
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from gated_rnn.types import invalid

Cell = Literal["lstm", "gru"]
Mode = Literal["forward", "gradient", "train"]
Suite = Literal["shapes", "lengths", "resets", "seeds", "latency"]
DType = Literal["float32", "bfloat16"]

CELLS = ("lstm", "gru")
MODES = ("forward", "gradient", "train")
SUITES = ("shapes", "lengths", "resets", "seeds", "latency")
STEP = "step"  # the mode of the suite "latency", in which the carry is handed on
#: So many steps of a case of mode "step" are compared; one is timed.
NUM_CHECKED_STEPS = 3


class Sizes(NamedTuple):
    """The four sizes of a problem, B, T, F and H."""

    batch_size: int
    num_steps: int
    in_features: int
    hidden_features: int

    @property
    def label(self) -> str:
        """BxTxFxH, as on the command line."""
        return "x".join(str(size) for size in self)


class Case(NamedTuple):
    """One thing that every implementation is asked to do.

    Attributes:
        cell: "lstm" or "gru".
        mode: "forward": the outputs; "gradient": mean(outputs ** 2) and its gradient
            with respect to the parameters; "train": that, clipping and Adam; "step":
            one time step, the carry handed on.
        sizes: B, T, F, H.
        variant: "plain"; "lengths", sequences padded at the end; or "resets", segment
            starts at a tenth of the steps.
        num_seeds: Sets of parameters, all on one batch.
        dtype: Of parameters and inputs.
    """

    cell: str
    mode: str
    sizes: Sizes
    variant: str = "plain"
    num_seeds: int = 1
    dtype: str = "float32"

    @property
    def label(self) -> str:
        """What distinguishes the case, in words."""
        words = [self.cell.upper(), self.sizes.label, self.mode]
        if self.variant != "plain":
            words.append(self.variant)
        if self.num_seeds > 1:
            words.append(f"{self.num_seeds} seeds")
        if self.dtype != "float32":
            words.append(self.dtype)
        return " ".join(words)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "Case":
        """Make a case from the JSON of its `_asdict`."""
        return cls(**{**fields, "sizes": Sizes(*fields["sizes"])})


LONG = Sizes(40, 20_000, 1, 16)
#: The issue's targets speak of these five, each with both cells.
TARGETS = (
    Sizes(40, 2000, 1, 16),
    Sizes(64, 60, 1, 50),
    Sizes(32, 80, 128, 128),
    Sizes(256, 12, 1, 64),
    Sizes(64, 128, 256, 512),
)
LARGE = Sizes(16, 1024, 768, 768)
SMALL = (Sizes(40, 200, 1, 16), Sizes(64, 60, 1, 50), Sizes(256, 12, 1, 64))

SHAPE_SETS = {
    "small": SMALL,
    "targets": TARGETS,
    "standard": (*TARGETS, LONG),
    "all": (*TARGETS, LONG, LARGE),
}
VARIANT_SIZES = (Sizes(32, 80, 128, 128),)
SEEDS_SIZES = (Sizes(64, 60, 1, 50), Sizes(256, 12, 1, 64))
NUM_SEEDS = (1, 8, 64)
LATENCY_SIZES = (Sizes(1, NUM_CHECKED_STEPS, 32, 64),)

_SIZES = re.compile(r"([1-9]\d*)x([1-9]\d*)x([1-9]\d*)x([1-9]\d*)")


def parse_shapes(names: Sequence[str]) -> tuple[Sizes, ...]:
    """Read sizes from a command line.

    Args:
        names: Names of `SHAPE_SETS`, or sizes as BxTxFxH.

    Returns:
        The sizes, each once, in the order named.

    Raises:
        ValueError: If a name is neither.

    Examples:
        >>> [sizes.label for sizes in parse_shapes(["64x60x1x50", "small"])]
        ['64x60x1x50', '40x200x1x16', '256x12x1x64']
    """
    found: dict[Sizes, None] = {}
    for name in names:
        match = _SIZES.fullmatch(name)
        if match:
            found[Sizes(*map(int, match.groups()))] = None
        elif name in SHAPE_SETS:
            found.update(dict.fromkeys(SHAPE_SETS[name]))
        else:
            expected = f"BxTxFxH, such as 64x60x1x50, or {', '.join(SHAPE_SETS)}"
            raise invalid("shapes", expected, repr(name))
    return tuple(found)


def make_cases(
    *,
    suites: Sequence[str],
    cells: Sequence[str],
    modes: Sequence[str],
    shapes: Sequence[Sizes] = (),
    dtypes: Sequence[str] = ("float32",),
    default_shapes: Sequence[Sizes] = SHAPE_SETS["standard"],
) -> dict[str, list[Case]]:
    """List the cases of each suite.

    "lengths", "resets" and "seeds" have one mode, the gradient if it is among the
    modes; "latency" has its own.

    Args:
        suites: Which suites.
        cells: Which cells.
        modes: Which modes of the suite "shapes".
        shapes: Sizes for every suite; none: those of each suite.
        dtypes: Which dtypes of the suite "shapes".
        default_shapes: Sizes of the suite "shapes" where none are given.

    Returns:
        For each suite its cases.
    """
    mode = "gradient" if "gradient" in modes else modes[0]

    def list_cases(suite: str) -> list[Case]:
        if suite == "shapes":
            return [
                Case(cell, each, sizes, dtype=dtype)
                for dtype in dtypes
                for sizes in shapes or default_shapes
                for cell in cells
                for each in modes
            ]
        if suite == "seeds":
            return [
                Case(cell, mode, sizes, num_seeds=number)
                for sizes in shapes or SEEDS_SIZES
                for number in NUM_SEEDS
                for cell in cells
            ]
        if suite == "latency":
            alone = (
                sizes._replace(batch_size=1, num_steps=NUM_CHECKED_STEPS)
                for sizes in shapes or LATENCY_SIZES
            )
            return [
                Case(cell, STEP, sizes)
                for sizes in dict.fromkeys(alone)
                for cell in cells
            ]
        return [
            Case(cell, mode, sizes, variant=suite)
            for sizes in shapes or VARIANT_SIZES
            for cell in cells
        ]

    return {suite: list_cases(suite) for suite in suites}
