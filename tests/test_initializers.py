"""Initialisers by what they promise: bounds, moments, orthogonality, names of gates.

A draw of n numbers is compared with its distribution. The keys are fixed, so a test
that passes once passes always; the tolerances are what n numbers allow.
"""

import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gated_rnn import (
    GRU,
    JANET,
    LSTM,
    MGU,
    MUT,
    CoupledLSTM,
    Elman,
    LayerNormGRU,
    LayerNormLSTM,
    MinGRU,
    MinLSTM,
    OpenLSTM,
    PeepholeLSTM,
    ProjectedLSTM,
)
from gated_rnn.initializers import (
    CUDNN,
    FLAX,
    KERAS,
    TORCH,
    Chrono,
    Constant,
    ForgetBias,
    GlorotUniform,
    HiddenUniform,
    Identity,
    Joint,
    LecunNormal,
    MemoryGates,
    Orthogonal,
    PerGate,
    Zeros,
    init_blocks,
    init_gates,
)
from tests import cases

pytestmark = pytest.mark.usefixtures("strict_promotion")

# Pairwise different, and large enough for moments: F * H = 1200 numbers a block.
F, H = 24, 50
GATES = ("i", "f", "g", "o")
LSTM_MEMORY = MemoryGates(keep="f", write="i")

# float32: products of 50 numbers of order one.
ORTHOGONAL = 1e-5
# Mean and variance of 1200 numbers wander by 3 to 4 %; five times that, in units of the
# standard deviation and of the variance.
MOMENTS = 0.2
# The largest of 1200 uniform numbers is below 99 % of the bound in one key of 10^5.
NEAR_BOUND = 0.99


def make_key(seed=0):
    """Return a key of the generator that takes the least time to compile."""
    return jax.random.key(seed, impl="unsafe_rbg")


def draw(init, shape=(F, H), gates=GATES, seed=0, memory=LSTM_MEMORY):
    """Return the blocks of the gates, one array each."""
    packed = init_blocks(init, make_key(seed), gates, shape, memory=memory)
    assert packed.shape == (*shape[:-1], len(gates) * shape[-1])
    assert packed.dtype == jnp.float32
    return np.split(np.asarray(packed, np.float64), len(gates), axis=-1)


def assert_uniform(values, bound):
    """Check bounds that are reached from below, and the first two moments."""
    assert np.max(np.abs(values)) <= bound * (1 + 1e-6)  # float32
    assert np.max(np.abs(values)) > NEAR_BOUND * bound
    assert_moments(values, bound**2 / 3)


def assert_moments(values, variance):
    assert abs(np.mean(values)) < MOMENTS * np.sqrt(variance)
    assert abs(np.var(values) / variance - 1) < MOMENTS


def assert_orthogonal(matrix, scale=1.0):
    """Check that the rows or the columns, whichever are fewer, are orthogonal."""
    matrix = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    expected = scale**2 * np.eye(len(matrix))
    np.testing.assert_allclose(matrix @ matrix.T, expected, atol=ORTHOGONAL * scale**2)


# One block


def test_glorot_is_uniform_up_to_the_root_of_six_over_both_fans():
    for block in draw(GlorotUniform()):
        assert_uniform(block, np.sqrt(6 / (F + H)))


def test_lecun_is_normal_with_variance_one_over_fan_in_cut_at_two_deviations():
    # Cutting at two deviations leaves 0.8796 of the deviation, which is made up for.
    cut = 2 / 0.87962566 / np.sqrt(F)
    for block in draw(LecunNormal()):
        assert_moments(block, 1 / F)
        assert 0.95 * cut < np.max(np.abs(block)) <= cut * (1 + 1e-6)
        # Within one deviation: 0.65 of a cut normal, 0.58 of a uniform distribution.
        assert np.mean(np.abs(block) < 1 / np.sqrt(F)) == pytest.approx(0.65, abs=0.04)


def test_hidden_uniform_is_bounded_by_the_root_of_the_hidden_features():
    for block in draw(HiddenUniform()):
        assert_uniform(block, 1 / np.sqrt(H))
    for block in draw(HiddenUniform(), shape=(H,)):
        assert np.max(np.abs(block)) <= 1 / np.sqrt(H)


def test_hidden_uniform_of_two_terms_is_their_sum():
    for block in draw(HiddenUniform(terms=2)):
        bound = 1 / np.sqrt(H)
        assert_moments(block, 2 * bound**2 / 3)
        assert bound < np.max(np.abs(block)) <= 2 * bound
        # A triangle: a quarter lies beyond the bound of one term.
        assert np.mean(np.abs(block) > bound) == pytest.approx(0.25, abs=0.06)


@pytest.mark.parametrize(
    ("shape", "scale"), [((H, H), 1.0), ((F, H), 0.5), ((H, F), 3.0)], ids=str
)
def test_every_block_of_orthogonal_is_orthogonal_times_scale(shape, scale):
    for block in draw(Orthogonal(scale), shape):
        assert_orthogonal(block, scale)


def test_identity_is_the_unit_matrix_times_scale():
    for block in draw(Identity(0.3), (H, H)):
        np.testing.assert_array_equal(block, np.float32(0.3) * np.eye(H))
    assert draw(Identity(), (3, 5))[0].tolist() == np.eye(3, 5).tolist()


def test_zeros_and_constant_are_what_they_say():
    assert not np.any(draw(Zeros()))
    assert np.all(np.equal(draw(Constant(0.25), (H,)), 0.25))


# All gates


def test_joint_glorot_has_the_fans_of_the_whole_matrix():
    packed = np.concatenate(draw(Joint(GlorotUniform())), axis=-1)
    assert_uniform(packed, np.sqrt(6 / (F + 4 * H)))


def test_joint_orthogonal_makes_the_whole_matrix_orthogonal_and_no_block():
    blocks = draw(Joint(Orthogonal(1.5)), (H, H))
    assert_orthogonal(np.concatenate(blocks, axis=-1), 1.5)
    for block in blocks:
        # Each has about a quarter of every row's length.
        squares = np.diag(block @ block.T)
        assert np.mean(squares) == pytest.approx(1.5**2 / 4, rel=0.1)


@pytest.mark.parametrize(
    "init",
    [
        GlorotUniform(),
        HiddenUniform(2),
        Joint(GlorotUniform()),
        LecunNormal(),
        Orthogonal(),
        PerGate(HiddenUniform(), f=GlorotUniform()),
        jax.nn.initializers.he_normal(),
    ],
    ids=lambda init: getattr(init, "__name__", str(init)),
)
def test_gates_draw_differently_and_one_key_draws_the_same_bits(init):
    blocks = draw(init)
    again, other = draw(init), draw(init, seed=1)
    np.testing.assert_array_equal(blocks, again)
    for one, two in itertools.combinations([*blocks, *other], 2):
        assert np.mean(one == two) < 0.01
        assert abs(np.corrcoef(one.ravel(), two.ravel())[0, 1]) < MOMENTS


def test_per_gate_draws_each_gate_from_its_own():
    init = PerGate(HiddenUniform(), g=Constant(2.0), o=Orthogonal(3.0))
    i, f, g, o = draw(init, (H, H))
    assert_uniform(i, 1 / np.sqrt(H))
    assert_uniform(f, 1 / np.sqrt(H))
    assert np.all(g == 2.0)
    assert_orthogonal(o, 3.0)


def test_per_gate_is_a_value_in_any_order_of_its_names():
    one = PerGate(Zeros(), f=Constant(1.0), g=Identity())
    two = PerGate(Zeros(), g=Identity(), f=Constant(1.0))
    assert one == two
    assert hash(one) == hash(two)
    assert one != PerGate(Zeros(), f=Constant(2.0), g=Identity())


def test_forget_bias_sets_the_gate_named_f_alone():
    for gates in (GATES, ("f", "n"), ("o", "g", "f")):
        for gate, block in zip(gates, draw(ForgetBias(1.5), (H,), gates), strict=True):
            assert np.all(block == (1.5 if gate == "f" else 0.0))
    assert not np.any(draw(ForgetBias(), (H,), ("r", "z", "n")))


@pytest.mark.parametrize("max_steps", [30, 2000.0])
def test_chrono_draws_memories_of_one_to_max_steps(max_steps):
    i, f, g, o = draw(Chrono(max_steps), (10 * H,))
    steps = np.exp(f)  # uniform on [1, max_steps - 1]
    low, high = 1.0, max_steps - 1.0
    assert low * (1 - 1e-6) <= np.min(steps)
    assert np.max(steps) <= high * (1 + 1e-5)
    middle, half = (high + low) / 2, (high - low) / 2
    assert_moments((steps - middle) / half, 1 / 3)
    np.testing.assert_array_equal(i, -f)
    assert not np.any([g, o])


def test_chrono_follows_the_memory_gates_it_is_given():
    n, z = draw(Chrono(30), (H,), ("n", "z"), memory=MemoryGates(keep="z", sign=-1))
    assert np.all(z < 0)
    assert not np.any(n)
    z, n = draw(Chrono(30), (H,), ("z", "n"), memory=MemoryGates(keep="z"))
    assert np.all(z > 0)
    assert not np.any(n)


# Each cell with a memory of its own: its carry's field, and how it is built.
WITH_MEMORY = {
    "lstm": (LSTM, {}),
    "peephole_lstm": (PeepholeLSTM, {}),
    "coupled_lstm": (CoupledLSTM, {}),
    "open_lstm": (OpenLSTM, {}),
    "projected_lstm": (ProjectedLSTM, {"projected_features": 3}),
    "layer_norm_lstm": (LayerNormLSTM, {}),
    "min_lstm": (MinLSTM, {}),
    "gru": (GRU, {}),
    "gru_reset_before": (GRU, {"reset_after": False}),
    "layer_norm_gru": (LayerNormGRU, {}),
    "mgu": (MGU, {}),
    "janet": (JANET, {}),
    "mut1": (MUT, {"variant": 1}),
    "mut2": (MUT, {"variant": 2}),
    "mut3": (MUT, {"variant": 3}),
    "min_gru": (MinGRU, {}),
}


@pytest.mark.parametrize("name", WITH_MEMORY)
def test_chrono_keeps_the_memory_of_every_cell_for_up_to_max_steps(name):
    # Without inputs and recurrent weights nothing is written, and a memory of 1 becomes
    # sigmoid(u) = 1 - 1 / (1 + exp u), where 1 + exp u is between 2 and max_steps.
    cell_type, settings = WITH_MEMORY[name]
    max_steps = 20.0
    cell = cell_type(
        H,
        kernel_init=Zeros(),
        recurrent_init=Zeros(),
        bias_init=Chrono(max_steps),
        **settings,
    )
    field = "cell" if "cell" in cell.init_carry()._fields else "hidden"

    params, carry = cell.init(make_key(), F), cell.init_carry()
    carry = carry._replace(**{field: jnp.ones_like(getattr(carry, field))})
    carry, _ = cell.step(params, carry, jnp.zeros(F))
    steps = 1 / (1 - np.asarray(getattr(carry, field), np.float64))
    tolerance = 1e-4  # float32, where 1 - 1 / 20 loses a digit
    assert np.all((steps > 2 - tolerance) & (steps < max_steps + tolerance))
    assert np.mean(steps) == pytest.approx(2 / 2 + max_steps / 2, rel=MOMENTS)


# Presets, against the defaults of the frameworks


def lstm_blocks(preset):
    params = LSTM(H, **preset).init(make_key(2), F)
    return [np.split(np.asarray(leaf), 4, axis=-1) for leaf in params]


def gru_params(preset):
    params = GRU(H, **preset).init(make_key(2), F)
    return jax.tree.map(np.asarray, params)


def test_defaults_are_glorot_and_orthogonal_per_gate_and_forget_bias_one():
    kernels, recurrent_kernels, biases = lstm_blocks({})
    for kernel, recurrent_kernel in zip(kernels, recurrent_kernels, strict=True):
        assert_uniform(kernel, np.sqrt(6 / (F + H)))
        assert_orthogonal(recurrent_kernel)
    assert [bias.tolist() for bias in biases] == [[v] * H for v in (0, 1, 0, 0)]
    gru = gru_params({})
    assert not np.any(gru.bias)
    assert not np.any(gru.recurrent_bias)


@pytest.mark.parametrize("preset", [KERAS, CUDNN], ids=["keras", "cudnn"])
def test_keras_draws_joint_matrices_and_a_forget_bias_of_one(preset):
    kernels, recurrent_kernels, biases = lstm_blocks(preset)
    assert_uniform(np.concatenate(kernels, axis=-1), np.sqrt(6 / (F + 4 * H)))
    assert_orthogonal(np.concatenate(recurrent_kernels, axis=-1))
    assert [bias.tolist() for bias in biases] == [[v] * H for v in (0, 1, 0, 0)]
    gru = gru_params(preset)
    assert_uniform(gru.kernel, np.sqrt(6 / (F + 3 * H)))
    assert_orthogonal(gru.recurrent_kernel)
    assert not np.any(gru.bias)
    assert not np.any(gru.recurrent_bias)


def test_torch_draws_everything_from_the_same_bound_and_adds_two_biases():
    bound = 1 / np.sqrt(H)
    kernels, recurrent_kernels, biases = lstm_blocks(TORCH)
    assert_uniform(np.array(kernels), bound)
    assert_uniform(np.array(recurrent_kernels), bound)
    for bias in biases:
        assert bound < np.max(np.abs(bias)) <= 2 * bound
    assert_moments(np.array(biases), 2 * bound**2 / 3)
    # The two biases of gate n of a GRU are not added: one is inside the reset product.
    gru = gru_params(TORCH)
    r, z, n = np.split(gru.bias, 3)
    assert_moments(np.array([r, z]), 2 * bound**2 / 3)
    for one_term in (n, gru.recurrent_bias):
        assert np.max(np.abs(one_term)) <= bound
        assert np.var(one_term) > bound**2 / 6
    assert not np.any(n == gru.recurrent_bias)


def test_flax_draws_lecun_kernels_orthogonal_blocks_and_no_bias():
    kernels, recurrent_kernels, biases = lstm_blocks(FLAX)
    for kernel, recurrent_kernel in zip(kernels, recurrent_kernels, strict=True):
        assert_moments(kernel, 1 / F)
        assert_orthogonal(recurrent_kernel)
    assert not np.any(biases)
    gru = gru_params(FLAX)
    for recurrent_kernel in np.split(gru.recurrent_kernel, 3, axis=-1):
        assert_orthogonal(recurrent_kernel)
    assert not np.any(gru.bias)
    assert not np.any(gru.recurrent_bias)


# Cells


@pytest.mark.parametrize(("cell_type", "gates"), [(LSTM, "ifgo"), (GRU, "rzn")])
def test_init_gates_packs_in_the_order_of_the_cell(cell_type, gates):
    marks = {gate: Constant(float(number)) for number, gate in enumerate(gates, 1)}
    mark = PerGate(Zeros(), **marks)
    cell = cell_type(3, kernel_init=mark, recurrent_init=mark, bias_init=mark)
    params = cell.init(make_key(), F)
    expected = np.repeat(np.arange(len(gates)) + 1.0, 3)
    for leaf in params[:3]:
        np.testing.assert_array_equal(leaf, np.broadcast_to(expected, leaf.shape))
    if cell_type is GRU:
        np.testing.assert_array_equal(params.recurrent_bias, [3.0] * 3)


def test_init_gates_draws_kernels_and_bias_independently():
    init = HiddenUniform()
    cell = LSTM(F, kernel_init=init, recurrent_init=init, bias_init=init)
    params = cell.init(make_key(), F)
    kernel, recurrent_kernel, bias = map(np.asarray, params)
    assert np.mean(kernel == recurrent_kernel) < 0.01
    assert np.mean(kernel[0] == bias) < 0.01
    assert np.mean(recurrent_kernel[0] == bias) < 0.01


def test_init_gates_gives_the_recurrent_kernel_the_rows_asked_for():
    cell = LSTM(5, use_bias=False)
    kernel, recurrent_kernel, bias = jax.eval_shape(
        lambda key: init_gates(cell, key, 3, GATES, recurrent_features=2),
        jax.random.key(0),
    )
    assert kernel.shape == (3, 20)
    assert recurrent_kernel.shape == (2, 20)
    assert bias is None


SETTINGS = {
    "forget_bias": ("bias_init", ForgetBias, 1.5),
    "chrono": ("bias_init", Chrono, 25.0),
    "constant": ("bias_init", Constant, -0.5),
    "orthogonal": ("recurrent_init", Orthogonal, 0.7),
    "identity": ("recurrent_init", Identity, 0.9),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_setting_may_be_traced_and_differ_from_seed_to_seed(name):
    field, make_init, value = SETTINGS[name]
    others = dict.fromkeys(("kernel_init", "recurrent_init", "bias_init"), Zeros())

    def init(value, key):
        cell = LSTM(3, **{**others, field: make_init(value)})
        return cell.init(key, 2)

    values, key = np.array([value, 2 * value], np.float32), make_key(4)
    together = cases.quick_jit(jax.vmap(init, in_axes=(0, None)))(values, key)
    for row in range(2):  # the same by numbers that are known when the cell is built
        alone = init(float(values[row]), key)
        actual = jax.tree.map(lambda leaf, row=row: leaf[row], together)
        cases.assert_close(actual, alone, ORTHOGONAL, "params")
    changed = [bool(np.any(leaf[0] != leaf[1])) for leaf in together]
    assert sum(changed) == 1


def test_setting_may_be_an_array_which_has_no_hash():
    value = jnp.array(1.5)
    with pytest.raises(TypeError):
        hash(value)
    cell = LSTM(3, bias_init=ForgetBias(value))
    params = cell.init(make_key(), 2)
    assert params.bias.tolist() == [0.0] * 3 + [1.5] * 3 + [0.0] * 6


# dtypes


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
@pytest.mark.parametrize(
    "init",
    [
        Chrono(30),
        Constant(0.5),
        ForgetBias(1.5),
        GlorotUniform(),
        HiddenUniform(2),
        Identity(0.3),
        Joint(Orthogonal()),
        LecunNormal(),
        Orthogonal(0.7),
        PerGate(Zeros(), f=HiddenUniform()),
        Zeros(),
    ],
    ids=str,
)
def test_dtype_is_the_one_asked_for(init, dtype):
    with jax.enable_x64(dtype == "float64"):
        shapes = jax.eval_shape(
            lambda key: init_blocks(
                init, key, GATES, (5, 7), jnp.dtype(dtype), LSTM_MEMORY
            ),
            jax.random.key(0),
        )
    assert shapes.shape == (5, 28)
    assert shapes.dtype == dtype


def test_orthogonal_is_computed_in_float32_and_rounded_once():
    key = make_key()
    exact = Orthogonal()(key, (9, 9), jnp.float32)
    rounded = Orthogonal()(key, (9, 9), jnp.bfloat16)
    np.testing.assert_array_equal(rounded, exact.astype(jnp.bfloat16))


# Errors


def test_chrono_refuses_a_cell_without_a_memory_gate():
    with pytest.raises(ValueError) as error:
        jax.eval_shape(
            lambda key: Elman(3, bias_init=Chrono(30)).init(key, 2), make_key()
        )
    cases.assert_says(error, "bias_init", "memory gate", "Chrono")


def test_presets_build_cells_that_are_hashable_values():
    for preset in (KERAS, CUDNN, TORCH, FLAX):
        for cell_type in (LSTM, GRU):
            one, two = cell_type(3, **preset), cell_type(3, **preset)
            assert one == two
            assert hash(one) == hash(two)
    assert LSTM(3, **KERAS) == LSTM(3, **CUDNN)
    assert len({LSTM(3, **preset) for preset in (KERAS, TORCH, FLAX, {})}) == 4


@pytest.mark.parametrize("max_steps", [2, 1.5, 0, -3, float("nan")])
def test_chrono_refuses_no_more_than_two_steps(max_steps):
    with pytest.raises(ValueError, match="invalid value") as error:
        Chrono(max_steps)
    cases.assert_says(error, "max_steps")


def test_orthogonal_draws_many_as_it_draws_each():
    keys = jax.random.split(jax.random.key(5), (3, 2))

    def draw(key):
        return Orthogonal(2.0)(key, (4, 7))

    together = jax.jit(jax.vmap(jax.vmap(draw)))(keys)
    apart = [[draw(keys[s, g]) for g in range(2)] for s in range(3)]
    np.testing.assert_array_equal(together, apart)


def test_orthogonal_is_that_of_jax():
    for shape in ((5, 3), (3, 5), (4, 4)):
        ours = Orthogonal()(jax.random.key(1), shape)
        theirs = jax.nn.initializers.orthogonal()(jax.random.key(1), shape)
        np.testing.assert_array_equal(ours, theirs)


def test_orthogonal_of_many_seeds_has_no_batched_decomposition_on_a_cpu():
    # Two of them at once wait for each other forever where XLA has two threads.
    cell = LSTM(5)
    keys = jax.random.split(jax.random.key(0), 3)
    program = jax.jit(jax.vmap(lambda key: cell.init(key, 2))).lower(keys).as_text()
    decompositions = re.findall(r"lapack_sgeqrf_ffi.*?\((tensor<[^>]*>)\)", program)
    assert set(decompositions) == {"tensor<5x5xf32>"}
