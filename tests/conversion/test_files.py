"""Our model files: what is loaded is what was saved, or one line says why not."""

import builtins
import dataclasses
import io
import json
import os
import pickle
import struct
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.nn import relu, softmax

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
    MaskedMean,
    MinGRU,
    PeepholeLSTM,
    Scan,
    Stack,
    initializers,
)
from gated_rnn.activations import hard_sigmoid, identity
from gated_rnn.cells.packed import PackedCell
from gated_rnn.conversion import descriptions, files
from gated_rnn.conversion.files import load_metadata, load_model, save_model
from gated_rnn.networks import Nonlinearity
from tests import cases

pytest.importorskip("safetensors")

F, H = 3, 5
LINE = r"Received an invalid value for [^\n]+: expected [^\n]+, got [^\n]+\."
PER_GATE = initializers.PerGate(
    initializers.HiddenUniform(terms=2), f=initializers.Constant(2.0)
)
BOTH_ENDS = Bidirectional(
    Stack(RNN(LSTM(H)), LastStep()),
    Stack(RNN(LSTM(H), reverse=True), LastStep(reverse=True)),
    merge="sum",
)
# Every field has a value that is not its default in one of them.
NETWORKS = {
    "stack": Stack(
        Embedding(11, 4, table_init=initializers.LecunNormal()),
        RNN(
            LSTM(H, output_activation=identity, bias_init=PER_GATE), zoneout=(0.1, 0.2)
        ),
        RNN(
            GRU(H, reset_after=False, gate_activation=hard_sigmoid), learned_carry=True
        ),
        BOTH_ENDS,
        Dense(2, kernel_init=initializers.Orthogonal(0.5), use_bias=False),
        Nonlinearity(softmax),
        dropout=0.25,
    ),
    "residual": Stack(
        RNN(GRU(F, activation=relu), True, Scan(chunk_size=4, unroll=2)),
        Stack(RNN(MinGRU(F), engine=Associative()), MaskedMean()),
        residual=True,
    ),
    "merge_product": Bidirectional(GRU(H), LSTM(H), merge="product"),
    "merge_mean": Bidirectional(RNN(GRU(H), weight_dropout=0.1), GRU(H), merge="mean"),
    "noise": RNN(
        LSTM(H, activation=relu, gate_activation=hard_sigmoid),
        input_dropout=0.1,
        recurrent_dropout=0.2,
        weight_dropout=0.3,
    ),
    "learned": RNN(PeepholeLSTM(H), learned_carry=True),
    "fused": RNN(
        LSTM(H, **initializers.KERAS),
        engine=FusedScan(
            memory_budget=2**20,
            unroll=3,
            precision="highest",
            compute_dtype=jnp.bfloat16,
        ),
    ),
    "presets": Stack(
        RNN(LSTM(H, **initializers.TORCH)),
        RNN(LSTM(H, bias_init=initializers.Chrono(100))),
        RNN(GRU(H, recurrent_init=initializers.Identity(0.9)), engine=FusedScan(9)),
    ),
    "cell_only": RNN(GRU(H, bias_init=initializers.ForgetBias(np.float32(0.5)))),
    "no_parameters": Stack(LastStep(), Nonlinearity(relu)),
}
CELLS = {f"cell_{name}": RNN(case.cell) for name, case in cases.CELLS.items()}
DTYPES = [jnp.float32, jnp.bfloat16, jnp.float16]


def draw(network, dtype=jnp.float32, leading=()):
    """Random numbers in every parameter, biases and learned carries included."""
    init = network.init
    shapes = jax.eval_shape(lambda key: init(key, F), jax.random.key(0))
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(size=(*leading, *leaf.shape)), dtype),
        shapes,
    )


def assert_same(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for ours, theirs in zip(
        jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True
    ):
        assert ours.dtype == theirs.dtype
        assert isinstance(ours, jax.Array)
        assert np.asarray(ours).tobytes() == np.asarray(theirs).tobytes()
        assert ours.shape == theirs.shape


# What was saved


@pytest.mark.parametrize("name", [*CELLS, *NETWORKS])
def test_model_is_loaded_as_it_was_saved(name, tmp_path):
    network = {**CELLS, **NETWORKS}[name]
    params = draw(network, DTYPES[len(name) % 3])
    save_model(tmp_path / "model", network, params)
    again, params_again = load_model(tmp_path / "model")
    assert again == network
    assert hash(again) == hash(network)
    assert_same(params_again, params)
    assert load_metadata(tmp_path / "model") == {}


def test_every_setting_of_every_class_is_saved():
    # A field that is left at its default in all of the above could be lost unseen.
    seen = {}
    for network in [*NETWORKS.values(), *CELLS.values()]:
        for each in objects_of(network):
            changed = seen.setdefault(type(each), set())
            for field in dataclasses.fields(each):
                if getattr(each, field.name) != field.default:
                    changed.add(field.name)
    for cls in (RNN, Stack, Bidirectional, Dense, Embedding, LastStep, LSTM, GRU, Scan):
        stated = {field.name for field in dataclasses.fields(cls)}
        assert stated - seen[cls] <= {"kernel_init", "bias_init"}
    assert {"chunk_size", "memory_budget", "compute_dtype"} <= seen[FusedScan]


def objects_of(value):
    if isinstance(value, tuple):
        for each in value:
            yield from objects_of(each)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield value
        for field in dataclasses.fields(value):
            yield from objects_of(getattr(value, field.name))


def test_loaded_model_runs_the_same_compiled_program(tmp_path):
    network = Stack(
        RNN(LSTM(H, output_activation=identity)), RNN(GRU(4), True), Dense(2)
    )
    params = draw(network)
    save_model(tmp_path / "model", network, params)
    run = jax.jit(lambda network, params, inputs: network.apply(params, inputs))
    inputs = jnp.asarray(np.random.default_rng(1).normal(size=(7, 4, F)), jnp.float32)
    expected = run(network, params, inputs)
    assert_same(run(*load_model(tmp_path / "model"), inputs), expected)
    assert run._cache_size() == 1


def test_parameters_of_all_seeds_are_saved_together(tmp_path):
    network = Stack(RNN(GRU(H)), Dense(2))
    params = draw(network, leading=(6,))
    save_model(tmp_path / "model", network, params)
    _, again = load_model(tmp_path / "model")
    assert_same(again, params)
    assert again[0].kernel.shape == (6, F, 3 * H)


def test_float64_needs_x64(tmp_path):
    network = RNN(GRU(H))
    with jax.enable_x64(True):
        params = draw(network, jnp.float64)
        save_model(tmp_path / "model", network, params)
        assert_same(load_model(tmp_path / "model")[1], params)
    with pytest.raises(ValueError, match=r"expected jax_enable_x64 for the float64"):
        load_model(tmp_path / "model")


def test_metadata_come_back_and_other_readers_find_the_arrays(tmp_path):
    from safetensors.numpy import load_file

    network = Stack(RNN(LSTM(H)), Dense(2))
    params = draw(network)
    metadata = {"losses": [1.5, 0.5], "name": "näher", "nested": {"epochs": 80}}
    save_model(tmp_path / "model", network, params, metadata=metadata)
    assert load_metadata(tmp_path / "model") == metadata
    arrays = load_file(tmp_path / "model")
    assert sorted(arrays) == [
        "0/bias", "0/kernel", "0/recurrent_kernel", "1/bias", "1/kernel",
    ]  # fmt: skip
    np.testing.assert_array_equal(arrays["0/kernel"], params[0].kernel)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True, kw_only=True)
class Leaky(PackedCell):
    """A cell of the user's own, with an activation of the user's own."""

    rate: float = 0.5
    activation: object = jnp.tanh

    gates = ("h",)
    params_type = cases.CELLS["elman"].cell.params_type
    carry_type = cases.CELLS["elman"].cell.carry_type

    def gate(self, params, projected, recurrent, carry):
        h = self.rate * carry.hidden + self.activation(projected[0] + recurrent)
        return self.carry_type(h), h


def cube(values):
    return values**3


def test_cells_and_functions_of_ones_own_are_named_by_custom_objects(tmp_path):
    network = RNN(Leaky(H, rate=0.25, activation=cube))
    params = draw(network)
    own = {"Leaky": Leaky, "cube": cube}
    save_model(tmp_path / "model", network, params, custom_objects=own)
    again, params_again = load_model(tmp_path / "model", custom_objects=own)
    assert again == network
    assert_same(params_again, params)
    with pytest.raises(ValueError, match=LINE):
        load_model(tmp_path / "model")
    with pytest.raises(
        ValueError, match=r"for network.cell: expected a class of .*Leaky"
    ):
        save_model(tmp_path / "other", network, params)
    with pytest.raises(ValueError, match=r"for network.cell.activation: .* got cube"):
        save_model(tmp_path / "other", network, params, custom_objects={"Leaky": Leaky})
    with pytest.raises(
        ValueError, match=r"for custom_objects: expected names of your own"
    ):
        save_model(tmp_path / "other", network, params, custom_objects={"GRU": Leaky})
    assert os.listdir(tmp_path) == ["model"]


# What is refused when it is saved


def test_what_does_not_fit_is_refused_and_nothing_is_written(tmp_path):
    network = Stack(RNN(LSTM(H)), Dense(2))
    params = draw(network)
    wrong = {
        "params": (network, params[:1]),
        "params ": (network, (params[0], params[1]._replace(bias=None))),
        "shape": (network, (params[0], params[1]._replace(bias=jnp.ones(3)))),
        "network.cell.activation": (RNN(LSTM(H, activation=lambda x: x)), params[0]),
        "network.cell.kernel_init": (
            RNN(LSTM(H, kernel_init=jax.nn.initializers.glorot_uniform())),
            params[0],
        ),
        "network.cell.bias_init.value": (
            RNN(LSTM(H, bias_init=initializers.ForgetBias(float("nan")))),
            params[0],
        ),
    }
    for name, (other, other_params) in wrong.items():
        with pytest.raises(ValueError, match=LINE) as error:
            save_model(tmp_path / "model", other, other_params)
        assert name.strip() in str(error.value)
    for metadata in ({"array": np.ones(3)}, {"number": float("inf")}):
        with pytest.raises(ValueError, match=LINE):
            save_model(tmp_path / "model", network, params, metadata=metadata)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("failing", ["replace", "fsync"])
def test_a_failed_save_loses_nothing(failing, tmp_path, monkeypatch):
    network = RNN(GRU(H))
    params = draw(network)
    save_model(tmp_path / "model", network, params)
    before = (tmp_path / "model").read_bytes()

    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(OSError, match="No space left"):
        save_model(tmp_path / "model", network, jax.tree.map(lambda x: 2 * x, params))
    assert os.listdir(tmp_path) == ["model"]
    assert (tmp_path / "model").read_bytes() == before


def test_missing_library_is_named(tmp_path, monkeypatch):
    real = builtins.__import__

    def without_safetensors(name, *args):
        if name.startswith("safetensors"):
            raise ImportError(name)
        return real(name, *args)

    monkeypatch.setattr(builtins, "__import__", without_safetensors)
    with pytest.raises(ImportError, match=r"pip install 'gated_rnn\[conversion\]'"):
        load_model(tmp_path / "model")


# What is refused when it is loaded


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A small model's bytes, its header and its arrays."""
    path = tmp_path_factory.mktemp("saved") / "model"
    network = Stack(Embedding(5, F), RNN(GRU(2)), Bidirectional(LSTM(2), LSTM(2)))
    save_model(path, network, draw(network), metadata={"epochs": 80})
    return path.read_bytes()


def parts_of(data):
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def join_parts(header, arrays):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + arrays


def assert_refused(data, path, *words):
    path.write_bytes(data)
    for load in (load_model, load_metadata):
        with pytest.raises(ValueError) as error:
            load(path)
        message = str(error.value)
        assert "\n" not in message
        assert len(message) < 600
        assert message.startswith("Received an invalid value for ")
        assert all(word in message for word in words), message


def test_every_flipped_bit_is_noticed(saved, tmp_path):
    rng = np.random.default_rng(0)
    for position in rng.integers(0, 8 * len(saved), 400):
        changed = bytearray(saved)
        changed[position // 8] ^= 1 << (position % 8)
        assert_refused(bytes(changed), tmp_path / "model")


def test_every_shortened_file_is_refused(saved, tmp_path):
    rng = np.random.default_rng(1)
    for length in [0, 1, 7, 8, 9, len(saved) - 1, *rng.integers(0, len(saved), 100)]:
        assert_refused(saved[:length], tmp_path / "model")
    assert_refused(saved + b"\0", tmp_path / "model")


class Bomb:
    """Unpickled, it would leave a file."""

    def __reduce__(self):
        return (os.system, ("touch exploded",))


def test_other_files_are_refused(saved, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    header, arrays = parts_of(saved)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("config.json", "{}")
    deep = b'{"__metadata__":' + b"[" * 100_000
    plain = {name: each for name, each in header.items() if name != "__metadata__"}
    others = {
        "pickle": pickle.dumps(Bomb()),
        "array": np.ones(3).dumps(),
        "zip": archive.getvalue(),
        "hdf5": b"\x89HDF\r\n\x1a\n" + bytes(500),
        "huge header": struct.pack("<Q", 2**63) + saved[8:],
        "deep header": join_parts(deep, arrays),
        "no description": join_parts(plain, arrays),
        "random": np.random.default_rng(2).bytes(2000),
        "text": b"Received\n\n\n" * 99,
    }
    for data in others.values():
        assert_refused(data, tmp_path / "model")
    assert not (tmp_path / "exploded").exists()


def resign(data, change):
    """Change the texts and arrays of a file and give it the digest that fits them."""
    header, arrays = parts_of(data)
    texts = header["__metadata__"]
    for name in ("network", "metadata"):
        texts[name] = json.loads(texts[name])
    changed = change(header, texts)
    texts = changed["__metadata__"]
    for name in ("network", "metadata"):
        if not isinstance(texts[name], str):
            texts[name] = json.dumps(texts[name])
    read = {
        name: np.frombuffer(
            arrays[slice(*each["data_offsets"])], files._DTYPES[each["dtype"]]
        ).reshape(each["shape"])
        for name, each in changed.items()
        if name != "__metadata__"
    }
    content = files._Content(texts["network"], texts["metadata"], read)
    texts["sha256"] = content.digest()
    return join_parts(changed, arrays)


def nodes_of(value, path=()):
    """Yield the path of every entry of a JSON tree."""
    entries = value.items() if isinstance(value, dict) else enumerate(value)
    for key, each in entries:
        yield (*path, key)
        if isinstance(each, dict | list):
            yield from nodes_of(each, (*path, key))


def set_node(tree, path, value):
    for key in path[:-1]:
        tree = tree[key]
    if value is None and isinstance(tree, dict):
        del tree[path[-1]]
    else:
        tree[path[-1]] = value


def deeply(levels):
    value = []
    for _ in range(levels):
        value = [value]
    return value


HOSTILE = {
    "a class that is none": {"class": "os.system"},
    "a module": {"class": "builtins.eval", "source": "1"},
    "a cell": {"class": "LSTM", "hidden_features": 2},
    "a cell without sizes": {"class": "LSTM"},
    "an initialiser": {"class": "Zeros"},
    "a function": {"function": "jax.nn.relu"},
    "a function that is none": {"function": "eval"},
    "a dtype": {"dtype": "float32"},
    "a dtype that is none": {"dtype": "object"},
    "an unknown field": {"class": "Zeros", "extra": 1},
    "a list": [1, 2, 3],
    "a dictionary": {"a": 1},
    "a negative number": -3,
    "a huge number": 10**30,
    "too large a number": 2**40,
    "a float": 2.5,
    "a string": "x\ny" * 500,
    "true": True,
    "a deep list": deeply(300),
    "a zoneout of a huge cell": {
        "class": "RNN",
        "cell": {"class": "LSTM", "hidden_features": 10**12},
        "zoneout": 0.5,
    },
}


def test_descriptions_with_nonsense_in_any_place_are_refused(saved, tmp_path):
    """Every value of the description, replaced by everything above, or left out."""
    header, _ = parts_of(saved)
    tree = json.loads(header["__metadata__"]["network"])
    (tmp_path / "model").write_bytes(saved)
    network, params = load_model(tmp_path / "model")
    refused = loaded = 0
    for number, path in enumerate(nodes_of(tree)):
        # A few for each place, all of them for some.
        chosen = list(HOSTILE.values())[number % 4 :: 4]
        for value in [None, *chosen]:

            def change(header, texts, path=path, value=value):
                set_node(texts["network"], path, value)
                return header

            (tmp_path / "model").write_bytes(resign(saved, change))
            message = ""
            try:
                again, params_again = load_model(tmp_path / "model")
            except ValueError as error:
                message = str(error)
            if message:
                assert "\n" not in message
                assert len(message) < 600
                refused += 1
                continue
            # What loads is a network of this structure with other settings.
            assert jax.tree.structure(params_again) == jax.tree.structure(params)
            assert type(again) is type(network)
            loaded += 1
    assert refused > 400
    assert loaded < refused


def test_headers_with_nonsense_are_refused(saved, tmp_path):
    def texts_with(**changes):
        return lambda header, texts: {**header, "__metadata__": {**texts, **changes}}

    def renamed(header, texts):
        return {name.replace("kernel", "kernal"): each for name, each in header.items()}

    def without_bias(header, texts):
        header["0/bias"] = header.pop("1/bias")
        return header

    def reshaped(header, texts):
        shape = header["0/table"]["shape"]
        header["0/table"]["shape"] = shape[::-1]
        return header

    def retyped(header, texts):
        each = header["0/table"]
        each["dtype"], each["shape"] = "F16", [each["shape"][0], 2 * each["shape"][1]]
        return header

    def swapped(header, texts):
        names = ("1/kernel", "1/recurrent_kernel")
        first, second = (header[name] for name in names)
        header["1/kernel"], header["1/recurrent_kernel"] = second, first
        return header

    for change in (renamed, without_bias, reshaped, retyped, swapped):
        data = resign(saved, change)
        (tmp_path / "model").write_bytes(data)
        with pytest.raises(ValueError, match=LINE):
            load_model(tmp_path / "model")
    description = json.loads(parts_of(saved)[0]["__metadata__"]["network"])
    bad = {
        "version": texts_with(gated_rnn_model="2"),
        "deep": texts_with(network="[" * 200_000),
        "long": texts_with(network=json.dumps(description) + " " * 2**18),
        "no JSON": texts_with(network="{'a': 1}"),
        "a list": texts_with(network="[]"),
        "in_features": texts_with(network={**description, "in_features": 10**30}),
        "in_features ": texts_with(network={**description, "in_features": "x"}),
        "digits": texts_with(network="1" * 200_000),
    }
    for change in bad.values():
        (tmp_path / "model").write_bytes(resign(saved, change))
        with pytest.raises(ValueError) as error:
            load_model(tmp_path / "model")
        assert "\n" not in str(error.value)
    (tmp_path / "model").write_bytes(resign(saved, texts_with(metadata="[1]")))
    with pytest.raises(ValueError, match=LINE):
        load_metadata(tmp_path / "model")


def test_older_files_lack_fields_that_came_later(saved, tmp_path):
    def without_engine(header, texts):
        for layer in texts["network"]["network"]["layers"]:
            layer.pop("engine", None)
        return header

    (tmp_path / "model").write_bytes(resign(saved, without_engine))
    network, _ = load_model(tmp_path / "model")
    assert network.layers[1] == RNN(GRU(2))


def test_registry_names_are_found_again():
    for name, function in descriptions.FUNCTIONS.items():
        described = descriptions.describe_network(Nonlinearity(function))
        found = descriptions.FUNCTIONS[described["function"]["function"]]
        assert found is function, name
