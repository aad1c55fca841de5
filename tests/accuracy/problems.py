"""The row classes of the accuracy contract, and the problems drawn in each."""

import dataclasses
import zlib
from typing import Any, NamedTuple

import jax
import numpy as np

from tests.cases import CELLS, CellCase
from tests.reference import Arrays


@dataclasses.dataclass(frozen=True)
class RowClass:
    """Sizes and weights; a matrix of standard deviation s / sqrt(its rows).

    Attributes:
        text: What it is, for the page.
        num_steps: T.
        batch_size: B.
        in_features: F.
        hidden_features: H; a projection has half as many.
        chunk_size: Steps per chunk of the engines that run in chunks; None: these
            engines do not run here.
        kernel: Standard deviation s of what multiplies the inputs.
        recurrent: That of what multiplies the hidden, peepholes included.
        bias: Standard deviation of the biases.
        gain: Factor of the gains of layer norms.
        saturation: Factor of kernel, bias and gain of the inputs for the gates alone;
            candidates keep theirs.
    """

    text: str
    num_steps: int
    batch_size: int
    in_features: int
    hidden_features: int
    chunk_size: int | None
    kernel: float
    recurrent: float
    bias: float
    gain: float
    saturation: float = 1.0


#: Blocks of the packed kernels that are no gates.
CANDIDATES = frozenset("gnh")
#: Parameters of what the inputs do to each gate.
SATURATED = ("kernel", "bias", "input_gain")
_SHORT = {"num_steps": 20, "batch_size": 3, "in_features": 4, "hidden_features": 5}

ROW_CLASSES = {
    "ordinary": RowClass(
        "weights as initialised",
        **_SHORT,
        chunk_size=None,
        kernel=1.0,
        recurrent=1.0,
        bias=0.5,
        gain=1.0,
    ),
    "large weights": RowClass(
        "kernels and recurrent kernels 4 times as large",
        **_SHORT,
        chunk_size=None,
        kernel=4.0,
        recurrent=4.0,
        bias=1.0,
        gain=2.0,
    ),
    "saturated gates": RowClass(
        "kernels and biases of gates 20 times as large: most gates are 0 or 1",
        **_SHORT,
        chunk_size=None,
        kernel=1.0,
        recurrent=1.0,
        bias=0.5,
        gain=1.0,
        saturation=20.0,
    ),
    "long": RowClass(
        "1024 steps; biases of 3, so that some units remember hundreds of them",
        num_steps=1024,
        batch_size=2,
        in_features=4,
        hidden_features=5,
        chunk_size=128,
        kernel=1.0,
        recurrent=0.5,
        bias=3.0,
        gain=0.5,
    ),
    "wide": RowClass(
        "96 hidden and 48 input features, weights as initialised",
        num_steps=20,
        batch_size=4,
        in_features=48,
        hidden_features=96,
        chunk_size=None,
        kernel=1.0,
        recurrent=1.0,
        bias=0.5,
        gain=1.0,
    ),
}


class Draws(NamedTuple):
    """D problems with float32's digits, as float64; fields are `NamedTuple`s.

    Attributes:
        params: Leaves `[D, ...]`.
        inputs: `[D, T, B, F]`.
        carry: Leaves `[D, B, features]`.
        carry_weights: As `carry`: weights of the sum that is derived.
        output_weights: `[D, T, B, features]`.
    """

    params: Any
    inputs: np.ndarray
    carry: Any
    carry_weights: Any
    output_weights: np.ndarray


def resize(case: CellCase, row_class: RowClass) -> Any:
    """Return the cell of a case with the width of a row class."""
    sizes = {"hidden_features": row_class.hidden_features}
    if hasattr(case.cell, "projected_features"):
        sizes["projected_features"] = max(row_class.hidden_features // 2, 2)
    return dataclasses.replace(case.cell, **sizes)


def draw(cell_id: str, row_class: str, num_draws: int, seed: int) -> Draws:
    """Draw problems; the same arguments draw the same numbers."""
    like = ROW_CLASSES[row_class]
    cell = resize(CELLS[cell_id], like)
    text = f"{cell_id} {row_class} {seed}"
    rng = np.random.default_rng(zlib.crc32(text.encode()))
    batch = (num_draws, like.batch_size)

    def normal(*shape: int) -> np.ndarray:
        # What every dtype is given: problems that float32 holds exactly.
        return rng.normal(size=shape).astype(np.float32).astype(np.float64)

    factors = [
        1.0 if gate in CANDIDATES else like.saturation for gate in CELLS[cell_id].gates
    ]

    def parameter(name: str, shape: Any) -> np.ndarray:
        drawn = normal(num_draws, *shape.shape)
        if name.endswith("gain"):
            drawn = like.gain * (1.0 + 0.3 * drawn)
        elif name.endswith("bias"):
            drawn = like.bias * drawn
        else:
            scale = like.kernel if name == "kernel" else like.recurrent
            drawn = scale * drawn / np.sqrt(shape.shape[0] if shape.ndim > 1 else 1)
        if name in SATURATED:
            drawn = drawn * np.repeat(factors, shape.shape[-1] // len(factors))
        return drawn.astype(np.float32).astype(np.float64)

    shapes = jax.eval_shape(
        lambda key: cell.init(key, like.in_features), jax.random.key(0)
    )
    params = type(shapes)(
        **{
            name: None if shape is None else parameter(name, shape)
            for name, shape in shapes._asdict().items()
        }
    )
    zeros = jax.eval_shape(cell.init_carry)
    return Draws(
        params=params,
        inputs=normal(num_draws, like.num_steps, like.batch_size, like.in_features),
        carry=jax.tree.map(lambda leaf: normal(*batch, *leaf.shape), zeros),
        carry_weights=jax.tree.map(lambda leaf: normal(*batch, *leaf.shape), zeros),
        output_weights=normal(
            num_draws, like.num_steps, like.batch_size, cell.out_features
        ),
    )


def by_field(fields: Any) -> Arrays:
    """Return a NamedTuple as what the oracle reads."""
    return fields._asdict()
