"""docs/checkpoints.md: its Python runs, and what it says of the results is so."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

PAGE = Path(__file__).parents[2] / "docs" / "checkpoints.md"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) == 4
    said = []
    names = {"directory": tmp_path_factory.mktemp("page"), "print": said.append}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    return {**names, "said": said}


def test_run_goes_on_with_more_seeds_and_updates(page):
    first, longer = page["result"], page["longer"]
    assert first.metrics["loss"].shape == (4, 20)
    assert longer.metrics["loss"].shape == (6, 30)
    np.testing.assert_array_equal(
        longer.metrics["loss"][:4, :20], first.metrics["loss"]
    )
    assert len(page["said"]) == 1  # that there is no checkpoint yet
    assert (longer.metrics["loss"][:, -1] < longer.metrics["loss"][:, 0]).all()


def test_one_seed_is_a_model_like_any_other(page):
    assert page["network_again"] == page["network"]
    for again, leaf in zip(
        jax.tree.leaves(page["params_again"]),
        jax.tree.leaves(page["longer"].params),
        strict=True,
    ):
        np.testing.assert_array_equal(again, leaf[5], strict=True)
    inputs = jnp.ones((3, 2, 2))
    _, outputs = page["network_again"].apply(page["params_again"], inputs)
    assert outputs.shape == (3, 2, 1)


def test_metrics_file_has_each_number_once(page):
    assert len(page["lines"]) == len(page["losses"]) == 6 * 30
    curves = page["longer"].metrics["loss"]
    for (seed, step), value in page["losses"].items():
        assert value == curves[seed, step]


def test_checkpoint_holds_what_the_page_says(page):
    groups = page["groups"]
    assert sorted(i for group in groups for i in group["seed_ids"]) == list(range(6))
    assert {group["step"] for group in groups} == {30}
    named = re.findall(r'such as "(.*?)", "(.*?)"', PAGE.read_text())
    assert set(named[0]) <= set(page["names"])
    description = page["loaded"].description
    assert {"identity", "environment", "groups"} <= description.keys()
    assert {"key", "units", "learning_rate"} == description["identity"].keys()


def test_size_of_a_checkpoint_is_what_the_page_says(page):
    newest = max(
        (page["directory"] / "checkpoints").iterdir(), key=lambda p: int(p.name)
    )
    num_params = sum(leaf[0].size for leaf in jax.tree.leaves(page["longer"].params))
    num_metrics = sum(curve[0, 0].size for curve in page["longer"].metrics.values())
    expected = 4 * 6 * (3 * num_params + num_metrics * 30)
    overhead = (newest / "arrays").stat().st_size - expected
    assert 0 < overhead < 5000  # names, shapes, identity, environment
