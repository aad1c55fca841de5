"""docs/saving.md: its code runs, and says of the file what is in it."""

import re

import jax
import numpy as np
import pytest

from gated_rnn import LSTM, RNN, Dense, Stack
from tests.conversion.test_migrating import DOCS, run_page

pytest.importorskip("safetensors")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return run_page("saving.md", folder=tmp_path_factory.mktemp("page"))


def test_page_loads_what_it_saved(page):
    saved = page["load_model"](page["folder"] / "model.safetensors")
    assert saved[0] == Stack(RNN(LSTM(16)), Dense(1), dropout=0.2)
    assert page["metadata"] == {"epochs": 80, "loss": 0.25}
    assert page["again"] == page["network"]
    for ours, theirs in zip(
        jax.tree.leaves(page["params_again"]),
        jax.tree.leaves(page["params"]),
        strict=True,
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_table_of_arrays_is_right(page):
    rows = re.findall(r"\| `(\S+)` \| (\(.*?\)) \|", (DOCS / "saving.md").read_text())
    assert {name: str(shape) for name, shape in page["shapes"].items()} == dict(rows)
