"""PyTorch's modules next to ours, both ways; files and entries that are spoilt."""

import io
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gated_rnn import (
    GRU,
    LSTM,
    RNN,
    Bidirectional,
    Dense,
    Elman,
    LayerNormLSTM,
    ProjectedLSTM,
    Stack,
)
from gated_rnn.conversion import from_torch, to_torch
from tests.conversion import comparing
from tests.conversion.comparing import F, H, R

torch = pytest.importorskip("torch")
nn = torch.nn

torch.set_num_threads(1)

# PyTorch says so of every projection on a CPU.
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported")


class OneStep(nn.Module):
    """A cell of PyTorch in a loop over time."""

    def __init__(self, cell):
        super().__init__()
        self.cell = cell

    def forward(self, inputs, carry):
        pair = isinstance(self.cell, nn.LSTMCell)
        carry = tuple(part[0] for part in carry) if pair else carry[0]
        outputs = []
        for step_inputs in inputs:
            carry = self.cell(step_inputs, carry)
            outputs.append(carry[0] if pair else carry)
        carry = tuple(part[None] for part in carry) if pair else carry[None]
        return torch.stack(outputs), carry


MODULES = {
    "lstm": lambda: nn.LSTM(F, H),
    "lstm_2_layers_both_directions": lambda: nn.LSTM(F, H, 2, bidirectional=True),
    "lstm_no_bias": lambda: nn.LSTM(F, H, 2, bias=False),
    "projected_lstm": lambda: nn.LSTM(F, R, 2, proj_size=H, bidirectional=True),
    "projected_lstm_no_bias": lambda: nn.LSTM(F, R, proj_size=H, bias=False),
    "gru": lambda: nn.GRU(F, H),
    "gru_2_layers_both_directions": lambda: nn.GRU(F, H, 2, bidirectional=True),
    "gru_no_bias": lambda: nn.GRU(F, H, 2, bias=False),
    "rnn_tanh": lambda: nn.RNN(F, H, 2, nonlinearity="tanh"),
    "rnn_relu": lambda: nn.RNN(F, H, nonlinearity="relu", bidirectional=True),
    "lstm_cell": lambda: nn.LSTMCell(F, H),
    "lstm_cell_no_bias": lambda: nn.LSTMCell(F, H, bias=False),
    "gru_cell": lambda: nn.GRUCell(F, H),
    "rnn_cell_relu": lambda: nn.RNNCell(F, H, nonlinearity="relu"),
}
# What makes each module's equal here, and how `to_torch` is called for it.
NETWORKS = {
    "lstm": RNN(LSTM(H)),
    "lstm_2_layers_both_directions": Stack(
        Bidirectional(LSTM(H), LSTM(H)), Bidirectional(LSTM(H), LSTM(H))
    ),
    "lstm_no_bias": Stack(*[RNN(LSTM(H, use_bias=False))] * 2),
    "projected_lstm": Stack(
        *[Bidirectional(*[ProjectedLSTM(R, projected_features=H)] * 2)] * 2
    ),
    "projected_lstm_no_bias": RNN(
        ProjectedLSTM(R, projected_features=H, use_bias=False)
    ),
    "gru": RNN(GRU(H)),
    "gru_2_layers_both_directions": Stack(
        Bidirectional(GRU(H), GRU(H)), Bidirectional(GRU(H), GRU(H))
    ),
    "gru_no_bias": Stack(*[RNN(GRU(H, use_bias=False))] * 2),
    "rnn_tanh": Stack(RNN(Elman(H)), RNN(Elman(H))),
    "rnn_relu": Bidirectional(*[Elman(H, activation=jax.nn.relu)] * 2),
    "lstm_cell": RNN(LSTM(H)),
    "lstm_cell_no_bias": RNN(LSTM(H, use_bias=False)),
    "gru_cell": RNN(GRU(H)),
    "rnn_cell_relu": RNN(Elman(H, activation=jax.nn.relu)),
}

each_module = pytest.mark.parametrize("name", MODULES)


def arguments_of(name):
    """Return what the state_dict of a module does not say."""
    if not name.startswith("rnn"):
        return {}
    return {"nonlinearity": "relu" if "relu" in name else "tanh"}


def make_module(name, seed=1):
    """Return a module all of whose parameters are random, biases included."""
    module = MODULES[name]()
    shapes = {key: value.numpy() for key, value in module.state_dict().items()}
    load(module, comparing.draw(seed, shapes))
    return module


def load(module, state_dict):
    tensors = {name: torch.from_numpy(array) for name, array in state_dict.items()}
    module.load_state_dict(tensors, strict=True)


def run_theirs(module, inputs, carries, cotangents):
    """Return what `comparing.run_ours` does."""
    if hasattr(module, "weight_ih"):
        module = OneStep(module)
    pair = hasattr(carries[0], "cell")

    def stack(trees):
        fields = zip(*trees, strict=True)
        parts = tuple(torch.from_numpy(np.stack(field)) for field in fields)
        return parts if pair else parts[0]

    inputs = torch.from_numpy(inputs).requires_grad_()
    outputs, final = module(inputs, stack(carries))
    results = [outputs, *final] if pair else [outputs, final]
    weights = stack(cotangents[1])
    weights = [
        torch.from_numpy(np.array(cotangents[0])),
        *(weights if pair else [weights]),
    ]
    (gradient,) = torch.autograd.grad(results, inputs, weights)
    finals = [part.detach().numpy() for part in results[1:]]
    split = [
        type(carry)(*(part[number] for part in finals))
        for number, carry in enumerate(carries)
    ]
    return outputs.detach().numpy(), split, gradient.numpy()


def assert_modules_agree(network, params, module):
    inputs = comparing.draw_inputs()
    carries = comparing.draw_carries(network)
    weights = comparing.draw_cotangents(network, carries, network.out_features)
    ours = comparing.run_ours(network, params, inputs, carries, weights)
    theirs = run_theirs(module, inputs, carries, weights)
    comparing.assert_close(ours, theirs)


@each_module
def test_their_module_runs_the_same_here(name):
    module = make_module(name)
    network, params = from_torch(module.state_dict(), **arguments_of(name))
    assert network == NETWORKS[name]
    assert_modules_agree(network, params, module)


@each_module
def test_our_network_runs_the_same_there(name):
    network = NETWORKS[name]
    params = comparing.draw_params(network, seed=2)
    module = make_module(name)
    load(module, to_torch(network, params, as_cell="cell" in name))
    assert_modules_agree(network, params, module)


@each_module
def test_our_network_comes_back_bit_by_bit(name):
    params = comparing.draw_params(NETWORKS[name], seed=3)
    state_dict = to_torch(NETWORKS[name], params, as_cell="cell" in name)
    network, back = from_torch(state_dict, **arguments_of(name))
    assert network == NETWORKS[name]
    comparing.assert_same(back, params)


def test_linear_layer_is_a_readout():
    module = nn.Linear(F, H)
    network, params = from_torch(module.state_dict())
    assert network == Dense(H)
    inputs = comparing.draw_inputs()
    _, outputs = network.apply(params, inputs)
    comparing.assert_close(outputs, module(torch.from_numpy(inputs)).detach().numpy())
    load(module, to_torch(network, params))
    back = nn.Linear(F, H, bias=False)
    load(back, to_torch(Dense(H, use_bias=False), params._replace(bias=None)))


# Sources


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.ModuleDict({"lstm": nn.LSTM(F, H), "gru": nn.GRU(F, H)})
        self.head = nn.Linear(H, 2)


def test_prefix_picks_a_module_out_of_a_larger_one():
    model = Tagger()
    for prefix, module, cell in [
        ("encoder.lstm.", model.encoder["lstm"], LSTM(H)),
        ("encoder.gru.", model.encoder["gru"], GRU(H)),
    ]:
        network, params = from_torch(model.state_dict(), prefix=prefix)
        assert network == RNN(cell)
        comparing.assert_same(params, from_torch(module.state_dict())[1])
        names = to_torch(network, params, prefix=prefix)
        assert all(name.startswith(prefix) for name in names)
        model.load_state_dict(
            {name: torch.from_numpy(array) for name, array in names.items()},
            strict=False,
        )
    assert from_torch(model.state_dict(), prefix="head.")[0] == Dense(2)


def test_missing_prefix_is_told_with_those_that_are_there():
    expected = r"such as 'encoder\.lstm\.', 'encoder\.gru\.'"
    with pytest.raises(ValueError, match=expected):
        from_torch(Tagger().state_dict())
    with pytest.raises(ValueError, match=r"begin with 'decoder\.'"):
        from_torch(Tagger().state_dict(), prefix="decoder.")


def test_nonlinearity_must_be_said_and_only_for_rnn():
    with pytest.raises(ValueError, match=r"nonlinearity: expected 'tanh' or 'relu'"):
        from_torch(make_module("rnn_tanh").state_dict())
    with pytest.raises(ValueError, match=r"nonlinearity: expected None but for nn.RNN"):
        from_torch(make_module("lstm").state_dict(), nonlinearity="tanh")


def test_dropout_stands_between_the_layers():
    state_dict = make_module("gru_2_layers_both_directions").state_dict()
    assert from_torch(state_dict, dropout=0.3)[0].dropout == 0.3


def test_tensors_with_gradients_and_of_other_dtypes_are_taken():
    module = make_module("gru")
    parameters = dict(module.named_parameters())
    comparing.assert_same(from_torch(parameters)[1], from_torch(module.state_dict())[1])
    half = module.to(torch.bfloat16).state_dict()
    _, params = from_torch(half)
    assert params.kernel.dtype == jnp.bfloat16
    expected = half["weight_ih_l0"].float().numpy().T
    np.testing.assert_array_equal(params.kernel.astype(jnp.float32), expected)
    # Two biases are added after the cast, and round once.
    _, params = from_torch(half, dtype=jnp.float32)
    total = half["bias_ih_l0"].float() + half["bias_hh_l0"].float()
    np.testing.assert_array_equal(params.bias[: 2 * H], total[: 2 * H])


def test_double_stays_double_where_it_is_enabled():
    state_dict = make_module("lstm").double().state_dict()
    assert from_torch(state_dict)[1].kernel.dtype == jnp.float32
    with jax.enable_x64(True):
        assert from_torch(state_dict)[1].kernel.dtype == jnp.float64


def test_values_that_are_not_finite_are_taken():
    state_dict = make_module("lstm").state_dict()
    state_dict["weight_ih_l0"][0, 0] = torch.nan
    assert np.isnan(from_torch(state_dict)[1].kernel[0, 0])


# What PyTorch has no module for

REFUSED = {
    "layer_norm": (RNN(LayerNormLSTM(H)), "cell: expected LSTM or GRU or Elman"),
    "reset_before": (RNN(GRU(H, reset_after=False)), "GRU.reset_after: expected True"),
    "activation": (RNN(LSTM(H, activation=jax.nn.relu)), "LSTM.activation: expected"),
    "unknown_activation": (RNN(GRU(H, activation=jnp.sin)), "expected one of tanh"),
    "output_activation": (
        RNN(LSTM(H, output_activation=jax.nn.relu)),
        "LSTM.output_activation: expected tanh",
    ),
    "cell_clip": (
        RNN(ProjectedLSTM(R, projected_features=H, cell_clip=1.0)),
        "cell_clip: expected None",
    ),
    "unequal_directions": (Bidirectional(LSTM(H), GRU(H)), "expected one cell"),
    "unequal_layers": (Stack(RNN(GRU(H)), RNN(GRU(R))), "expected one cell"),
    "one_and_two_directions": (
        Stack(RNN(GRU(H)), Bidirectional(GRU(H), GRU(H))),
        "got one and two directions",
    ),
    "merge": (Bidirectional(GRU(H), GRU(H), merge="sum"), "expected merge='concat'"),
    "backward": (RNN(GRU(H), reverse=True), "a layer that runs forward"),
    "zoneout": (RNN(GRU(H), zoneout=0.1), "without noise inside, got zoneout=0.1"),
    "learned_carry": (RNN(GRU(H), learned_carry=True), "learned_carry=True"),
    "residual": (Stack(RNN(GRU(F)), RNN(GRU(F)), residual=True), "residual=True"),
    "readout": (Stack(RNN(GRU(H)), Dense(2)), "expected recurrent layers, got Dense"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_network_that_pytorch_lacks_is_refused(name):
    network, expected = REFUSED[name]
    with pytest.raises(ValueError) as caught:
        to_torch(network, comparing.draw_params(network))
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_parameters_that_do_not_fit_are_refused():
    params = comparing.draw_params(RNN(LSTM(H)))
    for network in (RNN(LSTM(R)), RNN(GRU(H)), Bidirectional(LSTM(H), LSTM(H))):
        with pytest.raises(ValueError, match="Received an invalid value for params"):
            to_torch(network, params)
    stack = Stack(RNN(LSTM(H)), RNN(LSTM(H)))
    with pytest.raises(ValueError, match=r"the inputs of layer 1: expected 3 features"):
        to_torch(stack, (params, params))
    with pytest.raises(ValueError, match="those of 2 layers, got 1"):
        to_torch(stack, (params,))


# Spoilt sources


@pytest.mark.parametrize(
    "name",
    ["lstm_2_layers_both_directions", "projected_lstm", "gru_2_layers_both_directions"],
)
def test_spoilt_entries_are_refused_in_one_line(name):
    module = make_module(name)
    state_dict = {key: value.numpy() for key, value in module.state_dict().items()}
    comparing.assert_every_spoilt_source_is_refused(from_torch, state_dict)


@pytest.fixture
def saved():
    """Return the bytes of a safetensors file."""
    save = pytest.importorskip("safetensors.torch").save
    module = make_module("lstm_2_layers_both_directions")
    return save(module.state_dict(), metadata={"format": "pt"})


def test_file_of_safetensors_is_read(tmp_path, saved):
    path = tmp_path / "model.safetensors"
    path.write_bytes(saved)
    expected = from_torch(make_module("lstm_2_layers_both_directions").state_dict())
    for source in (path, str(path)):
        network, params = from_torch(source)
        assert network == expected[0]
        comparing.assert_same(params, expected[1])


def test_file_of_bfloat16_and_of_other_arrays_is_read(tmp_path):
    save_file = pytest.importorskip("safetensors.torch").save_file
    state_dict = {f"rnn.{k}": v for k, v in make_module("gru").state_dict().items()}
    state_dict = {name: value.bfloat16() for name, value in state_dict.items()}
    path = tmp_path / "model.safetensors"
    save_file(state_dict | {"steps": torch.tensor([3])}, path)
    _, params = from_torch(path, prefix="rnn.")
    comparing.assert_same(params, from_torch(state_dict, prefix="rnn.")[1])
    with pytest.raises(ValueError, match=r"weight_hh: expected an array of float16"):
        from_torch({"weight_ih": torch.zeros(4, 1), "weight_hh": torch.tensor([[3]])})


def test_file_cut_short_is_refused(tmp_path, saved):
    path = tmp_path / "model.safetensors"
    rng = np.random.default_rng(1)
    for _ in range(comparing.NUM_MUTATIONS):
        end = rng.integers(len(saved))
        path.write_bytes(saved[:end])
        comparing.assert_refused_in_one_line(from_torch, path, f"cut at {end}")


def test_flipped_bit_changes_numbers_or_is_refused(tmp_path, saved):
    path = tmp_path / "model.safetensors"
    path.write_bytes(saved)
    network, expected = from_torch(path)
    header = 8 + int.from_bytes(saved[:8], "little")
    rng = np.random.default_rng(2)
    refused = 0
    for number in range(comparing.NUM_MUTATIONS):
        at = rng.integers(header if number % 2 else len(saved))
        spoilt = bytearray(saved)
        spoilt[at] ^= 1 << rng.integers(8)
        path.write_bytes(spoilt)
        try:
            other, params = from_torch(path)
        except ValueError:
            assert at < header
            comparing.assert_refused_in_one_line(from_torch, path, f"flipped at {at}")
            refused += 1
            continue
        assert other == network
        assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, expected)
    assert comparing.NUM_MUTATIONS / 3 < refused < comparing.NUM_MUTATIONS


class Harmful:
    """What runs code when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("suffix", ["safetensors", "pt", "pth", "bin"])
def test_pickle_is_refused_whatever_its_name(tmp_path, suffix):
    marker = tmp_path / "marker"
    path = tmp_path / f"model.{suffix}"
    harmful = [
        pickle.dumps(Harmful(marker), protocol)
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
    ]
    archive = io.BytesIO()
    torch.save(make_module("lstm").state_dict(), archive)
    for data in [*harmful, archive.getvalue()]:
        path.write_bytes(data)
        comparing.assert_refused_in_one_line(from_torch, path, "a pickle")
    assert not marker.exists()
    path.write_bytes(archive.getvalue())
    with pytest.raises(ValueError, match=r"safetensors\.torch\.save_file"):
        from_torch(path)


def test_absent_file_and_other_sources_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError):
        from_torch(tmp_path / "absent.safetensors")
    with pytest.raises(ValueError, match="expected entries, got none"):
        from_torch({})
