"""docs/migrating_from_{pytorch,flax}.md: their code runs, and both sides agree."""

import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.conversion import comparing

DOCS = pathlib.Path(__file__).parents[2] / "docs"
B, T, F = 3, 7, 8


def run_page(name, **names):
    """Run the code of a page as one module, and return its names."""
    path = DOCS / name
    for block in re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL):
        exec(compile(block, str(path), "exec"), names)
    return names


# PyTorch


@pytest.fixture(scope="module")
def torch_page(tmp_path_factory):
    torch = pytest.importorskip("torch")
    pytest.importorskip("safetensors")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return run_page("migrating_from_pytorch.md", folder=tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def inputs():
    return comparing.draw(0, np.zeros((T, B, F)))


def test_pytorch_page_models_agree(torch_page, inputs):
    torch = torch_page["torch"]
    batch_first = torch.from_numpy(inputs.swapaxes(0, 1).copy())
    with torch.no_grad():
        expected = torch_page["model"](batch_first).numpy().swapaxes(0, 1)
        back = torch_page["trained"](batch_first).numpy().swapaxes(0, 1)
    ours = torch_page["apply"](torch_page["params"], inputs)
    comparing.assert_close(ours, expected)
    comparing.assert_close(back, expected)


def test_pytorch_page_file_holds_the_same_numbers(torch_page):
    from_file = torch_page["encoder_params"]
    comparing.assert_same(from_file, torch_page["params"][:-1])


def test_pytorch_page_carry_is_pytorchs(torch_page, inputs):
    torch, model = torch_page["torch"], torch_page["model"]
    h, c = comparing.draw(1, np.zeros((2, 4, B, 16)))
    batch_first = torch.from_numpy(inputs.swapaxes(0, 1).copy())
    with torch.no_grad():
        hidden, ends = model.encoder(batch_first, (torch.tensor(h), torch.tensor(c)))
        expected = model.readout(hidden).numpy().swapaxes(0, 1)
    carry = torch_page["carry_from_torch"](jnp.asarray(h), jnp.asarray(c))
    network, params = torch_page["network"], torch_page["params"]
    end, outputs = jax.jit(network.apply)(params, jnp.asarray(inputs), carry)
    comparing.assert_close(outputs, expected)
    cells = comparing.split_carry(network, end)
    for field, theirs in zip(("hidden", "cell"), ends, strict=True):
        ours = np.stack([getattr(cell, field) for cell in cells])
        comparing.assert_close(ours, theirs.numpy())


def test_pytorch_page_mask_is_packing(torch_page, inputs):
    torch, model = torch_page["torch"], torch_page["model"]
    lengths = [4, T, 1]
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        torch.from_numpy(inputs), lengths, enforce_sorted=False
    )
    with torch.no_grad():
        hidden, _ = model.encoder(packed)
        hidden, _ = torch.nn.utils.rnn.pad_packed_sequence(hidden, total_length=T)
        expected = model.readout(hidden).numpy()
    ours = torch_page["apply_padded"](
        torch_page["params"], inputs, jnp.asarray(lengths)
    )
    for row, length in enumerate(lengths):
        comparing.assert_close(ours[:length, row], expected[:length, row])
        assert not np.any(ours[length:, row])


# Flax


@pytest.fixture(scope="module")
def flax_page():
    pytest.importorskip("flax")
    return run_page("migrating_from_flax.md")


def test_linen_page_models_agree(flax_page):
    expected = np.swapaxes(flax_page["logits"], 0, 1)
    comparing.assert_close(flax_page["same_logits"], expected)


def test_linen_page_module_agrees(flax_page):
    network, params = flax_page["tagger_network"], flax_page["tagger_params"]
    inputs = jnp.swapaxes(flax_page["inputs"], 0, 1)
    _, ours = jax.jit(network.apply)(params, inputs)
    expected = jax.jit(flax_page["tagger"].apply)(
        flax_page["tagger_variables"], flax_page["inputs"]
    )
    comparing.assert_close(np.swapaxes(ours, 0, 1), expected)
    comparing.assert_same(flax_page["tagger_logits"], expected)


def test_nnx_page_model_agrees(flax_page):
    network, params = flax_page["nnx_network"], flax_page["nnx_params"]
    inputs = jnp.swapaxes(flax_page["inputs"], 0, 1)
    _, ours = jax.jit(network.apply)(params, inputs)
    expected = flax_page["nnx_model"](flax_page["inputs"])
    comparing.assert_close(np.swapaxes(ours, 0, 1), expected)


def test_linen_page_carry_is_linens(flax_page):
    assert flax_page["layer"].cell == flax_page["LSTM"](16)
    ours = flax_page["our_carry"]
    expected = (flax_page["next_c"], flax_page["next_h"], flax_page["outputs"])
    comparing.assert_close((ours.cell, ours.hidden, flax_page["our_outputs"]), expected)
