"""Files of Keras: what is in them is read, what is wrong with them is said."""

import builtins
import functools
import io
import json
import pickle
import struct
import subprocess
import sys
import zipfile

import jax
import numpy as np
import pytest

from gated_rnn import GRU, LSTM, RNN, Bidirectional, Dense, Embedding, LastStep, Stack
from gated_rnn.activations import hard_sigmoid
from gated_rnn.conversion import keras_files
from gated_rnn.conversion.keras import from_keras
from gated_rnn.networks import Nonlinearity
from tests import cases

keras = pytest.importorskip("keras")
h5py = pytest.importorskip("h5py")
layers = keras.layers
pytestmark = [
    # Keras' own `get_weights` calls what NumPy 2 has deprecated.
    pytest.mark.filterwarnings("ignore:__array__ implementation"),
    pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file"),
]

T, B, H = 6, 4, 5
FLOAT32 = 1e-5  # relative; a few steps of rounding
NUM_MUTATIONS = 500  # of each kind of file
ZEROS = {"kernel_initializer": "zeros", "recurrent_initializer": "zeros"}


def randomise(model, seed=0):
    rng = np.random.default_rng(seed)
    weights = [0.7 * rng.normal(size=weight.shape) for weight in model.get_weights()]
    model.set_weights([weight.astype(np.float32) for weight in weights])
    return model


def steps():
    return [
        layers.Embedding(11, 4, mask_zero=True, embeddings_initializer="zeros"),
        layers.GRU(H, return_sequences=True, reset_after=False, **ZEROS),
        layers.Dropout(0.2),
        layers.Bidirectional(layers.LSTM(3, **ZEROS)),
        layers.Dropout(0.2),
        layers.Dense(6, activation="relu", kernel_initializer="zeros"),
        layers.Dense(2, kernel_initializer="zeros"),
    ]


@functools.cache
def sequential():
    inputs = keras.Input((None,), dtype="int32")
    return randomise(keras.Sequential([inputs, *steps()]))


@functools.cache
def functional():
    x = inputs = keras.Input((None,), dtype="int32")
    for step in steps():
        x = step(x)
    return randomise(keras.Model(inputs, x), seed=1)


MODELS = {"sequential": sequential, "functional": functional}


def assert_same_tree(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for ours, theirs in zip(
        jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


# What is read


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("suffix", [".keras", ".weights.h5", ".h5"])
def test_file_holds_what_the_weights_of_the_model_are(name, suffix, tmp_path):
    model, path = MODELS[name](), tmp_path / f"model{suffix}"
    model.save_weights(path) if suffix == ".weights.h5" else model.save(path)
    config = model.get_config() if suffix == ".weights.h5" else None
    network, params = from_keras(path, config)
    expected, expected_params = from_keras(model.get_weights(), model.get_config())
    assert network == expected
    assert_same_tree(params, expected_params)
    assert isinstance(network.layers[0], Embedding)
    assert network.layers[1].layers[0] == RNN(GRU(H, reset_after=False))


def test_functional_model_computes_what_keras_does(tmp_path):
    model = functional()
    model.save(tmp_path / "model.keras")
    network, params = from_keras(tmp_path / "model.keras")
    tokens = np.random.default_rng(3).integers(1, 11, (B, T)).astype(np.int32)
    tokens[1, -2:], tokens[2, :2] = 0, 0
    expected = cases.quick_jit(lambda x: model(x))(tokens)
    run = cases.quick_jit(lambda p, x: network.apply(p, x, mask=x != 0)[1])
    cases.assert_close(run(params, tokens.T), expected, FLOAT32)


def test_layers_of_one_class_are_told_apart_by_their_numbers(tmp_path):
    model = randomise(
        keras.Sequential(
            [keras.Input((None, H))]
            + [layers.GRU(H, return_sequences=True, **ZEROS) for _ in range(12)]
        )
    )
    model.save(tmp_path / "model.keras")
    network, params = from_keras(tmp_path / "model.keras")
    assert network == Stack(*12 * [RNN(GRU(H))])
    _, expected = from_keras(model.get_weights(), model.get_config())
    assert_same_tree(params, expected)


def test_bfloat16_and_weights_without_biases_are_read(tmp_path):
    model = keras.Sequential(
        [
            keras.Input((None, 3)),
            layers.LSTM(H, use_bias=False, dtype="bfloat16", **ZEROS),
            layers.Dense(2, use_bias=False, dtype="bfloat16"),
        ]
    )
    weights = [
        np.ones(w.shape, "float32") * (i + 1) for i, w in enumerate(model.weights)
    ]
    model.set_weights(weights)
    model.save(tmp_path / "model.keras")
    network, params = from_keras(tmp_path / "model.keras")
    assert network == Stack(
        RNN(LSTM(H, use_bias=False)), LastStep(), Dense(2, use_bias=False)
    )
    assert params[0].kernel.dtype == jax.numpy.bfloat16
    assert float(params[2].kernel[0, 0]) == 3


def rewrite(data, **parts):
    """Return an archive with some parts replaced."""
    written = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(written, "w") as new:
        for name in old.namelist():
            part = parts.pop(name.replace(".", "_"), old.read(name))
            if part is not None:
                new.writestr(name, part)
    assert not parts
    return written.getvalue()


def test_hard_sigmoid_is_that_of_the_version_that_saved_the_file(tmp_path):
    path = tmp_path / "model.keras"
    keras.Sequential(
        [keras.Input((None, 3)), layers.GRU(H, recurrent_activation="hard_sigmoid")]
    ).save(path)
    network, _ = from_keras(path)
    assert network.layers[0].cell.gate_activation is jax.nn.hard_sigmoid
    metadata = json.dumps({"keras_version": "2.15.0"})
    path.write_bytes(rewrite(path.read_bytes(), metadata_json=metadata))
    network, _ = from_keras(path)
    assert network.layers[0].cell.gate_activation is hard_sigmoid
    network, _ = from_keras(path, keras_version=3)
    assert network.layers[0].cell.gate_activation is jax.nn.hard_sigmoid


def test_first_names_of_the_format_are_known(tmp_path):
    path = tmp_path / "model.weights.h5"
    model = sequential()
    model.save_weights(path)
    with h5py.File(path, "r+") as file:
        file.move("layers", "_layer_checkpoint_dependencies")
    _, params = from_keras(path, model.get_config())
    _, expected = from_keras(model.get_weights(), model.get_config())
    assert_same_tree(params, expected)


def test_old_files_of_keras_2_are_read(tmp_path):
    """A CuDNNLSTM as Keras 2.2 saved it, with the configuration of that time."""
    rng = np.random.default_rng(0)
    shapes = {"kernel:0": (3, 20), "recurrent_kernel:0": (5, 20), "bias:0": (40,)}
    weights = {f"rnn/{name}": rng.normal(size=shapes[name]) for name in shapes}
    config = [
        {
            "class_name": "CuDNNLSTM",
            "config": {"name": "rnn", "return_sequences": True},
        },
        {
            "class_name": "Dense",
            "config": {"name": "out", "activation": "hard_sigmoid"},
        },
    ]
    dense = {"out/kernel:0": rng.normal(size=(5, 2)), "out/bias:0": np.ones(2)}
    path = tmp_path / "model.h5"
    with h5py.File(path, "w") as file:
        model = {"class_name": "Sequential", "config": config}
        file.attrs["model_config"] = json.dumps(model).encode()
        file.attrs["keras_version"] = b"2.2.4"
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = [b"rnn", b"out"]
        for name, arrays in (("rnn", weights), ("out", dense)):
            inner = group.create_group(name)
            inner.attrs["weight_names"] = [each.encode() for each in arrays]
            for each, array in arrays.items():
                inner.create_dataset(each, data=array.astype(np.float32))
    network, params = from_keras(path)
    assert network == Stack(RNN(LSTM(5)), Dense(2), Nonlinearity(hard_sigmoid))
    arrays = [each.astype(np.float32) for each in weights.values()]
    _, expected = from_keras(arrays)
    assert_same_tree(params[0], expected)


# What is refused


def assert_refused(path, *words, config=None):
    with pytest.raises(ValueError) as error:
        from_keras(path, config)
    message = str(error.value)
    assert message.startswith("Received an invalid value for ")
    assert "\n" not in message
    assert len(message) < 800
    assert all(word in message for word in words), message


def small():
    return keras.Sequential(
        [
            keras.Input((None, 3)),
            layers.Bidirectional(layers.GRU(2, **ZEROS)),
            layers.Dense(2, kernel_initializer="zeros"),
        ]
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Bytes of .keras, .weights.h5 and .h5 files of a small model, and its config."""
    folder, model = tmp_path_factory.mktemp("saved"), randomise(small())
    model.save(folder / "model.keras")
    model.save_weights(folder / "model.weights.h5")
    model.save(folder / "model.h5")
    names = ("model.keras", "model.weights.h5", "model.h5")
    return [(folder / name).read_bytes() for name in names], model.get_config()


def test_what_is_no_chain_is_refused(tmp_path):
    inputs = keras.Input((None, 3))
    first = layers.GRU(H, return_sequences=True, **ZEROS)
    second = layers.GRU(H, return_sequences=True, **ZEROS)
    other, state = keras.Input((H,)), layers.GRU(H, **ZEROS)(inputs)
    started = first(inputs, initial_state=state)
    models = {
        "a fork": keras.Model(inputs, [first(inputs), second(inputs)]),
        "two inputs": keras.Model([inputs, other], second(inputs, initial_state=other)),
        "inputs of layer": keras.Model(inputs, started),
        "Add": keras.Model(inputs, layers.Add()([second(inputs), second(inputs)])),
        "Sequential": keras.Sequential(
            [keras.Input((None, 3)), keras.Sequential([layers.Dense(2)])]
        ),
    }
    for words, model in models.items():
        model.save(tmp_path / "model.keras")
        assert_refused(tmp_path / "model.keras", words)
    shared = layers.Dense(3)
    model = keras.Model(inputs, shared(shared(inputs)))
    model.save(tmp_path / "model.keras")
    assert_refused(tmp_path / "model.keras", "inputs of layer")


def test_weights_file_needs_the_config(saved, tmp_path):
    (_, weights, whole), config = saved
    path = tmp_path / "model.weights.h5"
    path.write_bytes(weights)
    assert_refused(path, "get_config()")
    from_keras(path, config)
    assert_refused(path, config={"layers": [*config["layers"][:-1]] * 2})
    path.write_bytes(whole)
    assert_refused(path, config=config)  # its name says what is in it


def test_other_files_and_swapped_parts_are_refused(saved, tmp_path):
    (archive, weights, _), config = saved
    path = tmp_path / "model.keras"
    others = {
        "pickle": pickle.dumps(["a list"]),
        "array": np.ones(3).dumps(),
        "nothing": b"",
        "text": b"PK\x03\x04\n\n",
        "hdf5 magic": b"\x89HDF\r\n\x1a\n" + bytes(3000),
        "zip": zipped({"a.txt": b"1"}),
        "not the config": rewrite(archive, config_json=b"[]"),
        "no config": rewrite(archive, config_json=None),
        "no weights": rewrite(archive, model_weights_h5=None),
        "weights that are text": rewrite(archive, model_weights_h5=b"weights"),
        "weights that are an archive": rewrite(archive, model_weights_h5=archive),
        "config that is a pickle": rewrite(archive, config_json=pickle.dumps(config)),
        "deep": rewrite(archive, config_json=b'{"config":' * 100_000),
        "deep lists": rewrite(archive, config_json=b"[" * 100_000),
        "long": rewrite(archive, config_json=b" " * (2**24 + 1)),
        "digits": rewrite(archive, config_json=b"1" * 100_000),
        "not UTF-8": rewrite(archive, config_json=b"\xff\xfe"),
        "metadata": rewrite(archive, metadata_json=b"{"),
    }
    for data in others.values():
        path.write_bytes(data)
        assert_refused(path)
    path.write_bytes(rewrite(archive, metadata_json=b"[1]"))
    from_keras(path)
    path.write_bytes(weights)
    from_keras(path, config)  # the content counts, not the name


def zipped(parts, **options):
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", **options) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    return written.getvalue()


def test_hostile_archives_are_refused(saved, tmp_path):
    (archive, *_), _ = saved
    with zipfile.ZipFile(io.BytesIO(archive)) as file:
        parts = {name: file.read(name) for name in file.namelist()}
    path = tmp_path / "model.keras"
    deflated = {"compression": zipfile.ZIP_DEFLATED}
    path.write_bytes(zipped(parts, **deflated))
    from_keras(path)
    bomb = {**parts, "model.weights.h5": bytes(50_000_000)}
    hostile = {
        "unpacked": zipped(bomb, **deflated),
        "compression": zipped(parts, compression=zipfile.ZIP_LZMA),
        "leads out": zipped({**parts, "../outside": b"1"}),
        "leads out ": zipped({**parts, "/outside": b"1"}),
        "leads out  ": zipped({**parts, "assets\\..\\outside": b"1"}),
    }
    for words, data in hostile.items():
        path.write_bytes(data)
        assert_refused(path, words.strip())
    twice = io.BytesIO(archive)
    with (
        zipfile.ZipFile(twice, "a") as file,
        pytest.warns(UserWarning, match="Duplicate name"),
    ):
        file.writestr("config.json", b"{}")
    path.write_bytes(twice.getvalue())
    assert_refused(path, "two parts")
    # Headers that state another size than there is.
    size = len(parts["model.weights.h5"])
    for wrong in (size - 8, size + 8, 2**31):
        lied = archive.replace(struct.pack("<I", size), struct.pack("<I", wrong))
        assert lied != archive
        path.write_bytes(lied)
        assert_refused(path)
    encrypted = bytearray(archive)
    for start in find_all(archive, b"PK\x01\x02"):
        encrypted[start + 8] |= 1
    path.write_bytes(bytes(encrypted))
    assert_refused(path, "encrypted")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["model.keras"]


def find_all(data, word):
    start = data.find(word)
    while start >= 0:
        yield start
        start = data.find(word, start + 1)


def test_hostile_hdf5_is_refused(saved, tmp_path):
    (_, weights, _), config = saved
    path, place = tmp_path / "model.weights.h5", "layers/dense/vars/0"
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["kernel"] = np.ones((4, 2), np.float32)

    def change(file, how):
        del file[place]
        how(file)

    def link(file):
        file[place] = h5py.ExternalLink(str(secret), "kernel")

    def soft(file):
        file[place] = h5py.SoftLink("/layers/dense/vars/1")

    def external(file):
        file.create_dataset(place, (4, 2), np.float32, external=[("/etc/hosts", 0, 32)])

    def virtual(file):
        layout = h5py.VirtualLayout((4, 2), np.float32)
        layout[:] = h5py.VirtualSource(str(secret), "kernel", (4, 2))
        file.create_virtual_dataset(place, layout)

    def filtered(file):
        file.create_dataset(
            place, data=np.zeros((4, 2), np.float32), compression="gzip"
        )

    def huge(file):
        file.create_dataset(place, (10**6, 10**6), np.float32)

    def chunked(file):
        file.create_dataset(place, (10**6, 10**6), np.float32, chunks=(10, 10))

    def objects(file):
        file.create_dataset(place, data=["a", "b"], dtype=h5py.string_dtype())

    def integers(file):
        file[place] = np.ones((4, 2), np.int32)

    def group(file):
        file.create_group(place)

    def shape(file):
        file[place] = np.ones((2, 4), np.float32)

    def names(file):
        file["layers/dense/vars/x"] = np.ones((4, 2), np.float32)

    def more(file):
        for index in (0, 2, 3):
            file[f"layers/dense/vars/{index}"] = np.ones((4, 2), np.float32)

    def circle(file):
        del file["layers/dense"]
        file["layers/dense"] = file["layers"]

    hostile = (
        link, soft, external, virtual, filtered, huge, chunked, objects, integers,
        group, shape, names, more, circle, lambda file: None,
    )  # fmt: skip
    for how in hostile:
        path.write_bytes(weights)
        with h5py.File(path, "r+") as file:
            change(file, how)
        assert_refused(path, config=config)


def test_missing_library_is_named(saved, tmp_path, monkeypatch):
    (archive, *_), _ = saved
    (tmp_path / "model.keras").write_bytes(archive)
    real = builtins.__import__

    def without_h5py(name, *args):
        if name == "h5py":
            raise ImportError(name)
        return real(name, *args)

    monkeypatch.setattr(builtins, "__import__", without_h5py)
    with pytest.raises(ImportError, match=r"pip install 'gated_rnn\[conversion\]'"):
        from_keras(tmp_path / "model.keras")


# Mutations

# HDF5 is C: what it does to a file that is not what it says is seen from outside.
FUZZ = """
import collections, functools, io, json, pathlib, resource, sys, zipfile
import numpy as np
resource.setrlimit(resource.RLIMIT_AS, (8 * 2**30,) * 2)
import jax
from gated_rnn.conversion import keras
keras.shapes_of = functools.cache(keras.shapes_of)  # the same for most of them
folder, config, number = sys.argv[1:]
rng = np.random.default_rng(0)

def mutate(data, kind):
    changed = bytearray(data)
    where, other = (int(rng.integers(0, len(data))) for _ in range(2))
    if kind == "bits":
        for position in rng.integers(0, 8 * len(data), rng.integers(1, 20)):
            changed[position // 8] ^= 1 << (position % 8)
    elif kind == "bytes":
        changed[where : where + 8] = rng.bytes(8)
    elif kind == "cut":
        del changed[where:]
    elif kind == "zeros":
        changed[where : where + 64] = bytes(64)
    else:
        changed[where : where + 32] = data[other : other + 32]
    return bytes(changed)

def replace_weights(archive, weights):  # with the checksum that fits them
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            part = weights if name == "model.weights.h5" else old.read(name)
            new.writestr(name, part)
    return out.getvalue()

counted = {}
for path in sorted(pathlib.Path(folder).glob("model*")):
    counts, target = collections.Counter(), path.with_name("changed" + path.name[5:])
    options = (json.loads(config),) if path.name == "model.weights.h5" else ()
    network, params = keras.from_keras(path, *options)
    structure, whole = jax.tree.structure(params), path.read_bytes()
    inner = path.name == "model.inner.keras"
    data = zipfile.ZipFile(path).read("model.weights.h5") if inner else whole
    for index in range(int(number)):
        kind = ("bits", "bytes", "cut", "zeros", "move")[index % 5]
        changed = mutate(data, kind)
        target.write_bytes(replace_weights(whole, changed) if inner else changed)
        print(path.name, index, kind, file=sys.stderr, flush=True)
        try:
            again, params_again = keras.from_keras(target, *options)
        except ValueError as error:
            assert "\\n" not in str(error), error
            assert len(str(error)) < 800, error
            counts["refused"] += 1
            continue
        assert again == network, (again, network)
        assert jax.tree.structure(params_again) == structure
        counts["loaded"] += 1
    counted[path.name] = [counts["refused"], counts["loaded"]]
print(json.dumps(counted))
"""


def test_changed_files_are_refused_or_load_with_the_same_structure(saved, tmp_path):
    (archive, weights, whole), config = saved
    files = {
        "keras": archive,
        "inner.keras": archive,
        "weights.h5": weights,
        "h5": whole,
    }
    for name, data in files.items():
        (tmp_path / f"model.{name}").write_bytes(data)
    arguments = (tmp_path, json.dumps(config), NUM_MUTATIONS)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", FUZZ, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    counted = json.loads(done.stdout)
    assert len(counted) == len(files)
    for refused, loaded in counted.values():
        assert refused + loaded == NUM_MUTATIONS
        assert refused >= NUM_MUTATIONS // 5  # what is cut short, at least


def test_damaged_strings_of_old_files_are_refused(saved, tmp_path):
    (*_, whole), _ = saved
    path, heap = tmp_path / "model.h5", whole.index(b"GCOL")
    path.write_bytes(whole)
    from_keras(path)
    for entry in (bytes(16), b"\1\0" + bytes(6) + b"\xff" * 8, b"\xff" * 16):
        path.write_bytes(whole[: heap + 16] + entry + whole[heap + 32 :])
        assert_refused(path, "heap")  # at the first of them HDF5 2.0 runs for ever
    for length in (9, 100, 2000, heap + 8, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert_refused(path)


def test_every_entry_of_a_config_may_be_nonsense(saved, tmp_path):
    """Refused in one line, or a network that Keras could have meant."""
    (archive, *_), _ = saved
    with zipfile.ZipFile(io.BytesIO(archive)) as file:
        config = json.loads(file.read("config.json"))
        weights = file.read("model.weights.h5")
    path = tmp_path / "model.keras"
    path.write_bytes(archive)
    _, expected = from_keras(path)
    nonsense = [
        None,
        True,
        -1,
        10**30,
        0.5,
        "x\ny" * 500,
        [],
        [1],
        {},
        {"a": 1},
        "LSTM",
    ]
    model_file = keras_files.KerasFile("model.keras", config, 3, weights)
    refused = 0
    for number, place in enumerate(places_of(config)):
        for value in nonsense[number % 6 :: 6]:
            changed = json.loads(json.dumps(config))
            set_place(changed, place, value)
            message = ""
            try:
                _, params = read(model_file._replace(config=changed))
            except ValueError as error:
                message = str(error)
            if message:
                refused += 1
                assert "\n" not in message
                assert len(message) < 800
                continue
            leaves = zip(
                jax.tree.leaves(params), jax.tree.leaves(expected), strict=True
            )
            assert {ours.shape == theirs.shape for ours, theirs in leaves} == {True}
    assert refused > 50


def read(file):
    """Run `from_keras` on what was read from a file, without the file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gated_rnn.conversion.keras.read_file", lambda path: file)
        return from_keras(file.path)


def places_of(value, path=()):
    entries = value.items() if isinstance(value, dict) else enumerate(value)
    for key, each in entries:
        yield (*path, key)
        if isinstance(each, dict | list):
            yield from places_of(each, (*path, key))


def set_place(tree, place, value):
    for key in place[:-1]:
        tree = tree[key]
    tree[place[-1]] = value


def test_both_directions_are_read_from_their_own_places(saved, tmp_path):
    (archive, *_), _ = saved
    path = tmp_path / "model.keras"
    path.write_bytes(archive)
    network, params = from_keras(path)
    ends = network.layers[0]
    assert isinstance(ends, Bidirectional)
    forward, backward = params[0]
    assert np.abs(forward[0].kernel - backward[0].kernel).min() > 0
