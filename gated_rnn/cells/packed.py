"""What cells with one packed matmul share: everything but the equation (layer 1).

`lstm.py` and `gru.py` spell all of this out and are the ones to read first; a cell of
the family states its parameters, its carry, the order of its gates and its equation.
"""

from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from gated_rnn.arithmetic import affine_blocks, matmul
from gated_rnn.initializers import (
    BlocksInitializer,
    GlorotUniform,
    MemoryGates,
    Orthogonal,
    Zeros,
    init_gates,
)
from gated_rnn.types import (
    DType,
    Initializer,
    Shape,
    check_features,
    check_kernel,
    check_positive,
)

__all__ = ["InputGatedCell", "PackedCell"]


@dataclass(frozen=True)
class PackedCell:
    """A cell with a kernel `[F, G*H]` and a recurrent kernel `[H, G*H]`.

    A subclass sets the class variables and defines `gate`.

    Attributes:
        hidden_features: H.
        kernel_init: Initialiser of each `[F, H]` block of the kernel.
        recurrent_init: Initialiser of each `[H, H]` block of the recurrent kernel.
        bias_init: Initialiser of each `[H]` block of the bias.
        use_bias: Whether there is a bias.
    """

    hidden_features: int
    _: KW_ONLY
    kernel_init: Initializer | BlocksInitializer = GlorotUniform()
    recurrent_init: Initializer | BlocksInitializer = Orthogonal()
    bias_init: Initializer | BlocksInitializer = Zeros()
    use_bias: bool = True

    gates: ClassVar[tuple[str, ...]]
    memory: ClassVar[MemoryGates | None] = None
    params_type: ClassVar[type]
    carry_type: ClassVar[type]

    def __post_init__(self) -> None:
        check_positive("hidden_features", self.hidden_features)

    @property
    def out_features(self) -> int:
        """H."""
        return self.hidden_features

    @property
    def pointwise(self) -> bool:
        """Whether the gate is elementwise."""
        return True

    def init(self, key: jax.Array, in_features: int, dtype: DType = jnp.float32) -> Any:
        """Draw parameters for inputs of `in_features` features."""
        packed = init_gates(self, key, in_features, self.gates, dtype, self.memory)
        return self.params_type(*packed)

    def init_carry(self, batch_shape: Shape = (), dtype: DType = jnp.float32) -> Any:
        """Return zeros, each field `[*batch_shape, H]`."""
        zeros = jnp.zeros((*batch_shape, self.hidden_features), dtype)
        return self.carry_type._make([zeros] * len(self.carry_type._fields))

    def project(self, params: Any, inputs: jax.Array) -> Any:
        """Return x W + b of each gate, `[*leading, H]`, for inputs `[*leading, F]`."""
        columns = len(self.gates) * self.hidden_features
        check_kernel("params.kernel", params.kernel, columns)
        check_features("inputs", inputs, params.kernel.shape[0])
        return affine_blocks(inputs, params.kernel, params.bias, len(self.gates))

    def recur(self, params: Any, carry: Any) -> Any:
        """Return h U, `[*batch, G*H]`."""
        return matmul(carry.hidden, params.recurrent_kernel)

    def gate(
        self, params: Any, projected: Any, recurrent: Any, carry: Any
    ) -> tuple[Any, jax.Array]:
        """Return the next carry and the outputs: the cell's equation."""
        raise NotImplementedError

    def step(self, params: Any, carry: Any, inputs: jax.Array) -> tuple[Any, jax.Array]:
        """Run one step: `gate` of `project` and `recur`."""
        projected = self.project(params, inputs)
        return self.gate(params, projected, self.recur(params, carry), carry)


@dataclass(frozen=True)
class InputGatedCell(PackedCell):
    """A cell whose gates see the input alone, so that h' is affine in h.

    It has no recurrent kernel; `recurrent_init` is not used.
    """

    @property
    def affine(self) -> bool:
        """True: the next carry is affine in the carry, element by element."""
        return True

    def init(self, key: jax.Array, in_features: int, dtype: DType = jnp.float32) -> Any:
        """Draw parameters for inputs of `in_features` features."""
        kernel, _, bias = init_gates(
            self, key, in_features, self.gates, dtype, self.memory
        )
        return self.params_type(kernel, bias)

    def recur(self, params: Any, carry: Any) -> tuple[()]:
        """Return nothing: the gates do not see the carry."""
        return ()
