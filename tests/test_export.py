"""gated_rnn.export and docs/deployment.md: programs that run without the package.

What is exported is compared with `unroll` of the whole, and run where the package
cannot be imported, over steps and chunks with the carry handed on.
"""

import pathlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from gated_rnn import (
    GRU,
    LSTM,
    RNN,
    Associative,
    Bidirectional,
    Dense,
    Embedding,
    FusedScan,
    LastStep,
    MinGRU,
    Scan,
    Stack,
)
from gated_rnn.export import (
    PLATFORMS,
    export_chunk,
    export_init_carry,
    export_step,
    name_leaves,
)
from tests import cases

pytestmark = pytest.mark.usefixtures("strict_promotion")

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "deployment.md"
T, B, F, VOCABULARY = 11, 4, 3, 9
FLOAT32 = 1e-6  # relative; both sides compute the same in float32
BFLOAT16 = 2e-2  # 8 bits, rounded after each step
# A process compiles every program for every size: most of XLA's passes cost time here.
FAST = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
# Steps, 0 for a single one and n for a chunk, that make up T.
PIECES = (0, 4, 0, 1, 4)
BATCH_SIZES = (1, 3, 4)


def shake(params, seed=1):
    """Give every parameter, biases and learned carries included, other values."""
    rng = np.random.default_rng(seed)

    def move(leaf):
        noise = 0.3 * rng.normal(size=leaf.shape)
        return jnp.asarray(np.asarray(leaf, np.float64) + noise, leaf.dtype)

    return jax.tree.map(move, params)


def make(net, in_features=F, dtype=jnp.float32):
    init = cases.quick_jit(net.init, static_argnums=(1, 2))
    return shake(init(jax.random.key(0), in_features, dtype))


def draw_inputs(batch_size=B, dtype=jnp.float32):
    rng = np.random.default_rng(batch_size)
    return jnp.asarray(rng.normal(size=(T, batch_size, F)), dtype)


def draw_flags(seed):
    return np.random.default_rng(seed).random((T, B)) < 0.4


def cut(inputs):
    """Cut a sequence into steps and chunks."""
    pieces, begin = [], 0
    for length in PIECES:
        pieces.append(inputs[begin : begin + length] if length else inputs[begin])
        begin += length or 1
    assert begin == len(inputs)
    return pieces


def join(outputs):
    """Put the outputs of `cut` pieces together."""
    return np.concatenate(
        [
            np.asarray(each if length else each[None])
            for length, each in zip(PIECES, outputs, strict=True)
        ]
    )


def load(program):
    """Return what a reader calls: the program, from its bytes."""
    again = export.deserialize(program.serialize())
    return cases.quick_jit(again.call)


def run_whole(net, params, inputs, **flags):
    return cases.quick_jit(net.apply)(params, inputs, **flags)


def begin_of(net, params, **options):
    return load(export_init_carry(net, params, F, **options))


# Without the package

# -I leaves out the working directory and the environment; the finder, an installation.
BLOCK = """
import importlib.abc, sys

class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("gated_rnn", "flax", "optax", "tests"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Blocker())
try:
    import gated_rnn
except ModuleNotFoundError:
    pass
else:
    raise SystemExit("the package can be imported")
"""

DRIVE = """
import numpy as np

stored = dict(np.load(pathlib.Path(directory, "streams.npz")))
results = {}
for case in sorted({name.split("/")[0] for name in stored if "/" in name}):
    stream = [stored[f"{case}/{i}"] for i in range(NUM_PIECES)]
    for i, outputs in enumerate(follow(stream)):
        results[f"{case}/{i}"] = np.asarray(outputs)
np.savez(pathlib.Path(directory, "results.npz"), **results)
"""

# The same with the parameters handed in, each program's first argument.
HAND_IN = """
params = dict(np.load(pathlib.Path(directory, "params.npz")))
step, chunk = (lambda c, x, f=f: f(params, c, x) for f in (step, chunk))
"""


def run_without_package(directory, page_code, hand_in=""):
    """Run the page's consumer over stored streams in a process without the package."""
    drive = DRIVE.replace("NUM_PIECES", str(len(PIECES)))
    head = f"directory = {str(directory)!r}\n"
    program = "".join(
        [BLOCK, head, page_code, "\nimport numpy as np\n", hand_in, drive]
    )
    done = subprocess.run(
        [sys.executable, "-I", "-W", "error", "-c", program],
        cwd=directory,
        env={"JAX_PLATFORMS": "cpu", **FAST},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return dict(np.load(directory / "results.npz"))


@pytest.fixture(scope="module")
def page():
    """The two programs of the page: the one that exports, and the one that reads."""
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


def test_page_streams_in_a_process_without_the_package(page, tmp_path):
    exporting, reading = page
    exporting = exporting.replace(
        "\nprograms =", "\nparams = shake(params)\nprograms ="
    )
    names = {"directory": tmp_path, "shake": shake}
    exec(compile(exporting, str(PAGE), "exec"), names)
    wholes = {str(size): draw_inputs(size) for size in BATCH_SIZES}
    streams = {
        f"{case}/{i}": np.asarray(piece)
        for case, whole in wholes.items()
        for i, piece in enumerate(cut(whole))
    }
    np.savez(tmp_path / "streams.npz", **streams)
    results = run_without_package(tmp_path, reading)
    for case, whole in wholes.items():
        _, expected = run_whole(names["net"], names["params"], whole)
        actual = join([results[f"{case}/{i}"] for i in range(len(PIECES))])
        assert actual.dtype == np.float32
        cases.assert_close(actual, expected, FLOAT32, case)


def test_cell_with_parameters_handed_in_streams_without_the_package(page, tmp_path):
    cell = LSTM(5)
    params, other = make(cell), shake(make(cell), seed=3)
    shapes = jax.eval_shape(lambda: params)
    options = {"in_features": F, "bake_params": False}
    programs = {
        "begin": export_init_carry(cell, shapes, F),
        "step": export_step(cell, shapes, **options),
        "chunk": export_chunk(cell, shapes, **options),
    }
    for name, program in programs.items():
        (tmp_path / f"{name}.jaxexport").write_bytes(program.serialize())
    whole = draw_inputs()
    pieces = {f"whole/{i}": np.asarray(x) for i, x in enumerate(cut(whole))}
    np.savez(tmp_path / "streams.npz", **pieces)
    for each in (params, other):
        np.savez(tmp_path / "params.npz", **name_leaves(each))
        results = run_without_package(tmp_path, page[1], HAND_IN)
        _, expected = cases.unroll_quickly(cell, each, whole)
        actual = join([results[f"whole/{i}"] for i in range(len(PIECES))])
        cases.assert_close(actual, expected, FLOAT32)


# What a program is


def test_program_holds_every_platform_and_no_class():
    net = Stack(RNN(LSTM(5), zoneout=0.1), Dense(2))
    params = make(net)
    carry = name_leaves(net.init_carry((B,)))
    assert list(carry) == [
        *("time", "layers.0.time", "layers.0.cell.hidden", "layers.0.cell.cell")
    ]
    begin = export_init_carry(net, params, F)
    step, chunk = export_step(net, params, F), export_chunk(net, params, F)
    for program, arguments in [
        (begin, (0,)),
        (step, (carry, 0)),
        (chunk, (carry, 0)),
    ]:
        assert program.platforms == PLATFORMS
        assert program.in_tree == jax.tree.structure((arguments, {}))
        again = export.deserialize(program.serialize())
        assert str(again.in_avals) == str(program.in_avals)  # symbols are new
    assert step.out_tree == jax.tree.structure((carry, 0))
    assert str(step.in_avals[-1].shape) == "(batch_size, 3)"
    assert str(chunk.in_avals[-1].shape) == "(num_steps, batch_size, 3)"


def test_initial_carry_is_that_of_the_network():
    net = Stack(RNN(LSTM(5), learned_carry=True), RNN(GRU(4)))
    begin = begin_of(net, make(net))
    for batch_size in BATCH_SIZES:
        actual = begin(draw_inputs(batch_size)[0])
        expected = name_leaves(net.init_carry((batch_size,)))
        assert actual.keys() == expected.keys()
        for name, leaf in expected.items():
            assert actual[name].dtype == leaf.dtype
            np.testing.assert_array_equal(actual[name], leaf)


def test_masks_and_resets_are_inputs_of_the_program():
    net = Stack(RNN(GRU(5), learned_carry=True), Dense(2))
    params, inputs = make(net), draw_inputs()
    mask, resets = draw_flags(1), draw_flags(2)
    expected_carry, expected = run_whole(net, params, inputs, mask=mask, resets=resets)
    begin = begin_of(net, params)
    chunk = load(export_chunk(net, params, F, masks=True, resets=True))
    carry = begin(inputs[0])
    outputs = []
    for piece in (slice(0, 6), slice(6, T)):
        flags = {"mask": mask[piece], "resets": resets[piece]}
        carry, some = chunk(carry, inputs[piece], **flags)
        outputs.append(some)
    cases.assert_close(np.concatenate(outputs), expected, FLOAT32)
    cases.assert_close(carry, name_leaves(expected_carry), FLOAT32)
    step = load(export_step(net, params, F, resets=True))
    carry = begin(inputs[0])
    _, expected = run_whole(net, params, inputs, resets=resets)
    for t in range(T):
        carry, outputs = step(carry, inputs[t], reset=resets[t])
        cases.assert_close(outputs, expected[t], FLOAT32)


def test_tokens_are_read():
    net = Stack(Embedding(VOCABULARY, F), RNN(GRU(5)), Dense(VOCABULARY))
    params = make(net, None)
    tokens = np.random.default_rng(3).integers(VOCABULARY, size=(T, B), dtype=np.int32)
    _, expected = run_whole(net, params, tokens)
    carry = load(export_init_carry(net, params))(tokens[0])
    carry, first = load(export_step(net, params))(carry, tokens[0])
    _, rest = load(export_chunk(net, params))(carry, tokens[1:])
    cases.assert_close(np.concatenate([first[None], rest]), expected, FLOAT32)


def test_parameters_of_bfloat16_may_have_a_carry_of_float32():
    cell = LSTM(5)
    params, inputs = make(cell, dtype=jnp.bfloat16), draw_inputs()
    begin = begin_of(cell, params, dtype=jnp.float32)
    chunk = load(export_chunk(cell, params, F, dtype=jnp.float32))
    carry, outputs = chunk(begin(inputs[0]), inputs)
    assert {leaf.dtype for leaf in jax.tree.leaves((carry, outputs))} == {
        jnp.dtype(jnp.float32)
    }
    expected = cases.unroll_quickly(cell, params, inputs, cell.init_carry((B,)))
    cases.assert_close((carry, outputs), (name_leaves(expected[0]), expected[1]), 1e-5)
    same = export_chunk(cell, params, F)
    assert {aval.dtype for aval in (*same.in_avals, *same.out_avals)} == {
        jnp.dtype(jnp.bfloat16)
    }
    narrow = draw_inputs(dtype=jnp.bfloat16)
    _, outputs = load(same)(begin_of(cell, params)(narrow[0]), narrow)
    cases.assert_close(outputs, cases.unroll_quickly(cell, params, narrow)[1], BFLOAT16)


@pytest.mark.parametrize(
    "layer",
    [
        RNN(LSTM(5), engine=Scan(chunk_size=3)),
        RNN(LSTM(5), engine=FusedScan(memory_budget=2**20)),
        RNN(MinGRU(5), engine=Associative()),
        Stack(Bidirectional(LSTM(5), GRU(4)), LastStep(), Dense(2)),
    ],
    ids=["chunks", "budget", "associative", "last_step"],
)
def test_length_and_batch_can_be_fixed_where_they_must_be_known(layer):
    params, inputs = make(layer), draw_inputs()
    begin = begin_of(layer, params, batch_size=B)
    chunk = load(export_chunk(layer, params, F, T, batch_size=B))
    carry, outputs = chunk(begin(inputs[0]), inputs)
    expected_carry, expected = run_whole(layer, params, inputs)
    cases.assert_close(outputs, expected, FLOAT32)
    cases.assert_close(carry, name_leaves(expected_carry), FLOAT32)
    with pytest.raises(ValueError, match="mismatch"):
        chunk(begin(inputs[0]), inputs[1:])


def test_backward_layer_sees_one_chunk_of_any_length():
    layer = Bidirectional(LSTM(5), GRU(4))
    params, inputs = make(layer), draw_inputs()
    chunk = load(export_chunk(layer, params, F))
    carry = begin_of(layer, params)(inputs[0])
    for num_steps in (T, 4):
        _, outputs = chunk(carry, inputs[:num_steps])
        _, expected = run_whole(layer, params, inputs[:num_steps])
        cases.assert_close(outputs, expected, FLOAT32)


def test_matmul_precision_is_that_of_the_export():
    cell = GRU(5)
    params = make(cell)
    assert "HIGHEST" not in export_step(cell, params, F).mlir_module()
    with jax.default_matmul_precision("highest"):
        assert "HIGHEST" in export_step(cell, params, F).mlir_module()


# Errors

CELL = GRU(5)
PARAMS = jax.eval_shape(lambda: CELL.init(jax.random.key(0), F))
TOKENS = Embedding(VOCABULARY, F)
TOKENS_PARAMS = jax.eval_shape(lambda: TOKENS.init(jax.random.key(0)))


@pytest.mark.parametrize("exporter", [export_step, export_chunk, export_init_carry])
@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("network", {"network": GRU}, ["RNN(cell)", "GRU"]),
        ("network", {"network": None}, ["RNN(cell)", "None"]),
        ("in_features", {"in_features": None}, ["positive integer", "None"]),
        ("in_features", {"in_features": 0}, ["positive integer", "0"]),
        (
            "in_features",
            {"network": TOKENS, "params": TOKENS_PARAMS},
            ["tokens", str(F)],
        ),
        ("batch_size", {"batch_size": 0}, ["positive integer", "0"]),
        ("dtype", {"dtype": jnp.int32}, ["floating-point", "int32"]),
        ("platforms", {"platforms": ("cpu", "gpu")}, ["cuda", "'gpu'"]),
        ("platforms", {"platforms": ("cpu", "cpu")}, ["different"]),
        ("platforms", {"platforms": ()}, ["at least one"]),
        ("platforms", {"platforms": "cpu"}, ["different", "'cpu'"]),
    ],
)
def test_wrong_option_is_one_sentence(exporter, name, options, words):
    arguments = {"network": CELL, "params": PARAMS, "in_features": F, **options}
    with pytest.raises(ValueError) as error:
        exporter(**arguments)
    cases.assert_says(error, name, *words)


@pytest.mark.parametrize("num_steps", [0, -1, 2.0, True])
def test_wrong_number_of_steps_is_one_sentence(num_steps):
    with pytest.raises(ValueError) as error:
        export_chunk(CELL, PARAMS, F, num_steps)
    cases.assert_says(error, "num_steps", "positive integer", repr(num_steps))


@pytest.mark.parametrize(
    "layer",
    [
        RNN(LSTM(5), engine=FusedScan(chunk_size=3)),
        RNN(LSTM(5), engine=FusedScan(memory_budget=2**20)),
        RNN(LSTM(5), engine=Scan(unroll=2)),
        RNN(MinGRU(5), engine=Associative()),
    ],
    ids=["chunk_size", "memory_budget", "unroll", "associative"],
)
def test_length_that_must_be_known_is_asked_for(layer):
    with pytest.raises(ValueError) as error:
        export_chunk(layer, make(layer), F)
    cases.assert_says(error, "num_steps", "a number", "None")


def test_inputs_that_do_not_fit_the_parameters_are_named():
    with pytest.raises(ValueError) as error:
        export_step(CELL, PARAMS, F + 1, bake_params=False)
    cases.assert_says(error, "inputs", str(F), str(F + 1))


def test_backward_layer_has_no_step():
    layer = Bidirectional(LSTM(5), GRU(4))
    with pytest.raises(ValueError) as error:
        export_step(layer, make(layer), F)
    cases.assert_says(error, "layer", "forward")
