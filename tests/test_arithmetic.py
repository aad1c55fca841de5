import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gated_rnn.arithmetic import TRANSPOSE_FROM, matmul
from tests.cases import FLOAT32, FLOAT64, assert_close

ROWS, COLUMNS, MODELS = 5, 3, 2
# On both sides of where the gradient by the kernel transposes the inputs first.
WIDTHS = (TRANSPOSE_FROM - 1, TRANSPOSE_FROM + 1)


def draw(rng, *shape):
    return rng.normal(size=shape) / np.sqrt(TRANSPOSE_FROM)


@pytest.mark.parametrize("width", WIDTHS)
def test_derivatives_of_matmul_are_those_of_the_product(width, x64):
    rng = np.random.default_rng(width)
    inputs, kernel = draw(rng, 2, ROWS, width), draw(rng, width, COLUMNS)
    inputs_dot, kernel_dot = draw(rng, 2, ROWS, width), draw(rng, width, COLUMNS)
    outputs_bar = draw(rng, 2, ROWS, COLUMNS)

    _, outputs_dot = jax.jvp(matmul, (inputs, kernel), (inputs_dot, kernel_dot))
    expected_dot = inputs_dot @ kernel + inputs @ kernel_dot
    assert_close(outputs_dot, expected_dot, FLOAT64, "tangent")

    _, pull_back = jax.vjp(matmul, inputs, kernel)
    expected_bars = (
        outputs_bar @ kernel.T,
        np.einsum("tbk,tbn->kn", inputs, outputs_bar),
    )
    assert_close(jax.jit(pull_back)(outputs_bar), expected_bars, FLOAT64, "cotangents")


@pytest.mark.parametrize("width", WIDTHS)
def test_kernel_gradient_of_many_models_is_each_models_own(width):
    rng = np.random.default_rng(width)
    inputs = draw(rng, MODELS, ROWS, width).astype(np.float32)
    kernels = draw(rng, MODELS, width, COLUMNS).astype(np.float32)

    def loss(kernel, inputs):
        return jnp.sum(jnp.sin(matmul(inputs, kernel)))

    grads = jax.jit(jax.vmap(jax.grad(loss)))(kernels, inputs)
    slopes = np.cos(np.einsum("mbk,mkn->mbn", inputs, kernels))
    assert_close(grads, np.einsum("mbk,mbn->mkn", inputs, slopes), FLOAT32, "grads")


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_kernel_gradient_lowers_for_every_platform(width, platform):
    def grad(inputs, kernel):
        return jax.grad(lambda kernel: jnp.sum(matmul(inputs, kernel)))(kernel)

    shapes = jnp.ones((ROWS, width)), jnp.ones((width, COLUMNS))
    lowered = jax.export.export(jax.jit(grad), platforms=[platform])(*shapes)
    # The barrier is for XLA on a CPU; elsewhere the matmul transposes as it reads.
    transposes_first = width >= TRANSPOSE_FROM and platform == "cpu"
    assert ("optimization_barrier" in lowered.mlir_module()) == transposes_first
