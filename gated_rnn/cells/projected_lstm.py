"""The LSTM with a projection of its outputs, LSTMP, and a clipped cell (layer 1)."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.nn import sigmoid

from gated_rnn.arithmetic import add_blocks, matmul, name_gates
from gated_rnn.cells.packed import PackedCell
from gated_rnn.initializers import (
    BlocksInitializer,
    ForgetBias,
    GlorotUniform,
    MemoryGates,
    init_gates,
)
from gated_rnn.types import (
    Activation,
    DType,
    Initializer,
    Shape,
    check_positive,
    invalid,
)

__all__ = ["ProjectedLSTM", "ProjectedLSTMCarry", "ProjectedLSTMParams"]


class ProjectedLSTMParams(NamedTuple):
    """Parameters of the projected LSTM, gates packed in the order i f g o.

    Attributes:
        kernel: W, `[F, 4H]`.
        recurrent_kernel: U, `[R, 4H]`.
        bias: b, `[4H]`, or None.
        projection: P, `[H, R]`.
    """

    kernel: jax.Array
    recurrent_kernel: jax.Array
    bias: jax.Array | None
    projection: jax.Array


class ProjectedLSTMCarry(NamedTuple):
    """What the projected LSTM hands from step to step.

    Attributes:
        hidden: h, `[*batch, R]`.
        cell: c, `[*batch, H]`.
    """

    hidden: jax.Array
    cell: jax.Array


@jax.tree_util.register_static
@dataclass(frozen=True, kw_only=True)
class ProjectedLSTM(PackedCell):
    """The LSTM whose outputs are a projection of its units.

        i = sigmoid(x W_i + h U_i + b_i)        f = sigmoid(x W_f + h U_f + b_f)
        g = tanh(x W_g + h U_g + b_g)           o = sigmoid(x W_o + h U_o + b_o)
        c' = clip(f * c + i * g)                h' = (o * tanh(c')) P

    Attributes:
        projected_features: R, the features of h; PyTorch's `proj_size`.
        projection_init: Initialiser of the projection.
        cell_clip: c' is clipped to this size; None: not at all.
        activation: What makes g of its preactivation, and the outputs of c'.
        gate_activation: What makes the gates of theirs.

    Examples:
        >>> cell = ProjectedLSTM(16, projected_features=4)
        >>> params = cell.init(jax.random.key(0), in_features=8)
        >>> carry, outputs = cell.step(params, cell.init_carry((5,)), jnp.ones((5, 8)))
        >>> outputs.shape
        (5, 4)

    References:
        H. Sak, A. Senior, F. Beaufays: Long short-term memory recurrent neural network
        architectures for large scale acoustic modeling, 2014, arXiv 1402.1128.
    """

    bias_init: Initializer | BlocksInitializer = ForgetBias(1.0)
    projected_features: int = 1
    projection_init: Initializer = GlorotUniform()
    cell_clip: float | None = None
    activation: Activation = jnp.tanh
    gate_activation: Activation = sigmoid

    gates = ("i", "f", "g", "o")
    memory = MemoryGates(keep="f", write="i")
    params_type = ProjectedLSTMParams
    carry_type = ProjectedLSTMCarry

    def __post_init__(self) -> None:
        check_positive("hidden_features", self.hidden_features)
        check_positive("projected_features", self.projected_features)
        if self.cell_clip is not None and not self.cell_clip > 0:
            raise invalid("cell_clip", "a positive number or None", self.cell_clip)

    @property
    def out_features(self) -> int:
        """R."""
        return self.projected_features

    @property
    def pointwise(self) -> bool:
        """False: the projection is a matmul."""
        return False

    def init(
        self, key: jax.Array, in_features: int, dtype: DType = jnp.float32
    ) -> ProjectedLSTMParams:
        """Draw parameters for inputs of `in_features` features."""
        packed_key, projection_key = jax.random.split(key)
        shape = (self.hidden_features, self.projected_features)
        packed = init_gates(
            self,
            packed_key,
            in_features,
            self.gates,
            dtype,
            self.memory,
            recurrent_features=self.projected_features,
        )
        projection = self.projection_init(projection_key, shape, dtype)
        return ProjectedLSTMParams(*packed, projection)

    def init_carry(
        self, batch_shape: Shape = (), dtype: DType = jnp.float32
    ) -> ProjectedLSTMCarry:
        """Return h = 0, `[*batch_shape, R]`, and c = 0, `[*batch_shape, H]`."""
        return ProjectedLSTMCarry(
            hidden=jnp.zeros((*batch_shape, self.projected_features), dtype),
            cell=jnp.zeros((*batch_shape, self.hidden_features), dtype),
        )

    def gate(
        self,
        params: ProjectedLSTMParams,
        projected: tuple[jax.Array, ...],
        recurrent: jax.Array,
        carry: ProjectedLSTMCarry,
    ) -> tuple[ProjectedLSTMCarry, jax.Array]:
        """Return the next carry and h'."""
        dtype = carry.cell.dtype
        i, f, g, o = add_blocks(projected, recurrent, dtype)
        i, f, o = map(self.gate_activation, (i, f, o))
        i, f, g, o = name_gates(i=i, f=f, g=self.activation(g), o=o)
        c = f * carry.cell + i * g
        if self.cell_clip is not None:
            c = jnp.clip(c, -self.cell_clip, self.cell_clip)
        h = matmul(o * self.activation(c), params.projection).astype(dtype)
        return ProjectedLSTMCarry(hidden=h, cell=c), h
