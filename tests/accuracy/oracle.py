"""The oracle's gradients: the NumPy steps of the oracle, run and derived in reverse.

`Traced` is an array that notes what was computed from it. The step functions of
`tests/reference_cells.py` run on it as they are, so what is derived is the oracle, in
float64, without JAX and without a line of the package. A leading axis of lanes lets
many rows run at once; a step sees its row alone, as it does in `tests/reference.py`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from tests.reference import Arrays, Step


class Run(NamedTuple):
    """A run over D draws and the gradient of its weighted sum, all in float64.

    Attributes:
        outputs: `[D, T, B, features]`.
        carry: The final carry by field, `[D, B, features]`.
        params: Gradient by field, `[D, ...]`.
        inputs: Gradient `[D, T, B, F]`.
        initial_carry: Gradient by field, `[D, B, features]`.
    """

    outputs: np.ndarray
    carry: Arrays
    params: Arrays
    inputs: np.ndarray
    initial_carry: Arrays


class Tape:
    """All arrays of a computation in the order in which they were made."""

    def __init__(self) -> None:
        self.made: list[Traced] = []

    def backward(self, seeds: list[tuple["Traced", np.ndarray]]) -> None:
        """Leave in every array's `gradient` that of the sum of <seed, array>."""
        for array, seed in seeds:
            array.receive(seed)
        for array in reversed(self.made):
            if array.gradient is not None and array.pull is not None:
                array.pull(array.gradient)
        self.made.clear()  # the arrays and the tape hold each other


class Traced(np.lib.mixins.NDArrayOperatorsMixin):
    """An array of lanes, `[N, ...]`, that looks like the array of one lane."""

    def __init__(
        self,
        tape: Tape,
        value: np.ndarray,
        pull: Callable[[np.ndarray], None] | None = None,
    ) -> None:
        self.tape = tape
        self.value = value
        self.pull = pull
        self.gradient: np.ndarray | None = None
        tape.made.append(self)

    def __len__(self) -> int:
        return self.value.shape[1]

    def __getitem__(self, key: slice) -> "Traced":
        return self.cut((slice(None), key))

    def cut(self, key: tuple[slice, ...]) -> "Traced":
        """Return a part; its gradient goes to that part of this array's."""

        def pull(gradient: np.ndarray) -> None:
            if self.gradient is None:
                self.gradient = np.zeros_like(self.value)
            self.gradient[key] += gradient

        return Traced(self.tape, self.value[key], pull)

    def receive(self, gradient: np.ndarray) -> None:
        """Add to the gradient, summed over what was broadcast."""
        if gradient.shape != self.value.shape:
            stretched = [
                axis
                for axis, size in enumerate(self.value.shape)
                if size != gradient.shape[axis]
            ]
            gradient = gradient.sum(axis=tuple(stretched), keepdims=True)
        if self.gradient is None:
            self.gradient = np.zeros_like(self.value)
        self.gradient += gradient

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any) -> Any:
        values = [x.value if isinstance(x, Traced) else x for x in inputs]
        if ufunc is np.greater_equal:
            return ufunc(*values)
        if ufunc is np.matmul:
            return _multiply_matrix(*inputs)
        slopes = SLOPES.get(ufunc)
        if slopes is None or method != "__call__":
            return NotImplemented
        result = ufunc(*values)

        def pull(gradient: np.ndarray) -> None:
            for x, slope in zip(inputs, slopes(result, *values), strict=True):
                if isinstance(x, Traced):
                    x.receive(gradient * slope)

        return Traced(self.tape, result, pull)

    def __array_function__(
        self, function: Any, types: Any, args: Any, kwargs: Any
    ) -> Any:
        if function not in FUNCTIONS:
            return NotImplemented
        return FUNCTIONS[function](*args, **kwargs)


def _slope_of_tanh(result: np.ndarray, x: np.ndarray) -> tuple[np.ndarray]:
    # 1 - tanh(x)^2 without the cancellation at large |x|.
    decayed = np.exp(-2.0 * np.abs(x))
    return (4.0 * decayed / np.square(1.0 + decayed),)


#: Derivatives by each operand: (result, *operands) -> one array or number each.
SLOPES: dict[Any, Callable[..., tuple[Any, ...]]] = {
    np.add: lambda y, a, b: (1.0, 1.0),
    np.subtract: lambda y, a, b: (1.0, -1.0),
    np.multiply: lambda y, a, b: (b, a),
    np.true_divide: lambda y, a, b: (1.0 / b, -y / b),
    np.negative: lambda y, a: (-1.0,),
    np.exp: lambda y, a: (y,),
    np.tanh: _slope_of_tanh,
    np.sqrt: lambda y, a: (0.5 / y,),
    np.maximum: lambda y, a, b: (a >= b, a < b),
    np.minimum: lambda y, a, b: (a <= b, a > b),
    np.logaddexp: lambda y, a, b: (np.exp(a - y), np.exp(b - y)),
}


def _multiply_matrix(vector: Traced, matrix: Traced) -> Traced:
    def pull(gradient: np.ndarray) -> None:
        vector.receive((matrix.value @ gradient[:, :, None])[:, :, 0])
        matrix.receive(vector.value[:, :, None] * gradient[:, None, :])

    value = (vector.value[:, None, :] @ matrix.value)[:, 0, :]
    return Traced(vector.tape, value, pull)


def _split(x: Traced, num_parts: int, axis: int = 0) -> list[Traced]:
    size = x.value.shape[1 + axis] // num_parts
    before = (slice(None),) * (1 + axis)
    return [x.cut((*before, slice(i * size, (i + 1) * size))) for i in range(num_parts)]


def _where(condition: np.ndarray, true: Traced, false: Traced) -> Traced:
    def pull(gradient: np.ndarray) -> None:
        true.receive(gradient * condition)
        false.receive(gradient * ~condition)

    return Traced(true.tape, np.where(condition, true.value, false.value), pull)


def _mean(x: Traced) -> Traced:
    def pull(gradient: np.ndarray) -> None:
        x.receive(np.broadcast_to(gradient / len(x), x.value.shape))

    return Traced(x.tape, x.value.mean(axis=1, keepdims=True), pull)


def _var(x: Traced) -> Traced:
    centred = x.value - x.value.mean(axis=1, keepdims=True)

    def pull(gradient: np.ndarray) -> None:
        x.receive(gradient * 2.0 * centred / len(x))

    return Traced(x.tape, x.value.var(axis=1, keepdims=True), pull)


FUNCTIONS = {np.split: _split, np.where: _where, np.mean: _mean, np.var: _var}


def differentiate(
    step: Step,
    params: Arrays,
    inputs: np.ndarray,
    carry: Arrays,
    carry_weights: Arrays,
    output_weights: np.ndarray,
) -> Run:
    """Run a cell of the oracle over D draws and derive its weighted sum.

        sum of output_weights * outputs + sum of carry_weights * final carry

    Args:
        step: The oracle's step.
        params: By field, `[D, ...]` or None.
        inputs: `[D, T, B, F]`.
        carry: By field, `[D, B, features]`.
        carry_weights: As `carry`.
        output_weights: `[D, T, B, features]`.
    """
    tape = Tape()
    num_draws, num_steps, num_rows, _ = inputs.shape

    def to_lanes(array: np.ndarray) -> Traced:  # [D, B, ...] -> [D * B, ...]
        return Traced(tape, array.reshape(-1, *array.shape[2:]).astype(np.float64))

    def to_rows(lanes: np.ndarray) -> np.ndarray:
        return lanes.reshape(num_draws, num_rows, *lanes.shape[1:])

    shared = {
        name: None
        if value is None
        else to_lanes(np.repeat(value[:, None], num_rows, 1))
        for name, value in params.items()
    }
    first = {name: to_lanes(value) for name, value in carry.items()}
    steps = [to_lanes(inputs[:, t]) for t in range(num_steps)]
    now, outputs = first, []
    for x in steps:
        now, some = step(shared, now, x)
        outputs.append(some)
    seeds = [
        (some, to_lanes(output_weights[:, t]).value) for t, some in enumerate(outputs)
    ]
    seeds += [
        (now[name], to_lanes(weights).value) for name, weights in carry_weights.items()
    ]
    tape.backward(seeds)

    def gradient(array: Traced) -> np.ndarray:
        made = array.gradient
        return to_rows(np.zeros_like(array.value) if made is None else made)

    return Run(
        outputs=np.stack([to_rows(some.value) for some in outputs], axis=1),
        carry={name: to_rows(value.value) for name, value in now.items()},
        params={
            name: gradient(value).sum(axis=1)
            for name, value in shared.items()
            if value is not None
        },
        inputs=np.stack([gradient(x) for x in steps], axis=1),
        initial_carry={name: gradient(value) for name, value in first.items()},
    )
