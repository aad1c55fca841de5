"""docs/flax.md: every block runs, and what the page says of them holds."""

import pathlib
import re

import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from gated_rnn import LSTMParams

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "flax.md"


@pytest.fixture(scope="module")
def page():
    names = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
        exec(compile(block, str(PAGE), "exec"), names)
    return names


def test_shapes_are_those_of_the_comments(page):
    assert page["logits"].shape == (4, 20, 5)
    assert page["kernel"].shape == (3, 4 * 64)
    assert page["action_logits"].shape == (4, 4)
    assert page["recurrent_kernel"].shape == (16, 64)
    assert page["outputs"].shape == (5, 4, 20, 8)
    assert page["first_kernel"].shape == (3, 4 * 32)


def test_nnx_example_learns(page):
    assert page["losses"][-1] < 0.6 * page["losses"][0]


def test_flaxs_loop_and_ours_compute_the_same(page):
    assert np.max(np.abs(page["difference"])) < 1e-6


def test_three_forms_of_parameters_are_equal(page):
    params = page["params"]
    assert isinstance(params, LSTMParams)
    forms = [page["same"]._asdict()]
    forms += [page[name]["params"]["cell"] for name in ("layer_variables", "again")]
    for form in forms:
        for name, leaf in params._asdict().items():
            np.testing.assert_array_equal(form[name], leaf)


def test_specs_arrive(page):
    assert page["found"]["kernel"] == P(None, "model")
    assert page["cell"].params.kernel.get_metadata("out_sharding") == (None, "model")


def test_noise_is_drawn_where_it_is_asked_for(page):
    assert np.any(page["noisy"] != page["quiet"])
