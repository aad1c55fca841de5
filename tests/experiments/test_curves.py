import itertools
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.baselines import linear_loss, mean_loss
from experiments.curves import epoch_windows, final_loss, roughness
from experiments.data.published_curves import NUM_EPOCHS, TIME_RATIO, published_loss
from experiments.plots import plot_curves
from experiments.tables import Table, show_number, to_markdown
from gated_rnn.losses import mean_squared_error

RNG = np.random.default_rng(5)
FALLING = 3.0 * 0.95 ** np.arange(40.0)


def test_final_loss_is_not_decided_by_a_last_spike():
    curves = np.tile(np.linspace(2.0, 1.0, 1000), (2, 1))
    curves[1, -1] = 50.0
    ends = final_loss(curves)
    assert abs(ends[1] - ends[0]) < 0.01
    assert abs(ends[0] - 1.0) < 0.01


def test_final_loss_of_a_short_run_is_its_last():
    np.testing.assert_array_equal(final_loss(FALLING[None, :5]), FALLING[4])


def test_roughness_is_the_mean_absolute_second_difference_of_the_log():
    curve = [2.0, 4.0, 1.0, 1.0]
    expected = (np.log(8.0) + np.log(4.0)) / 2  # of log2: 1 2 0 0, so -3 and +2
    np.testing.assert_allclose(roughness(np.array([curve])), [expected])


def test_roughness_ignores_scale_and_smooth_fall_and_sees_noise():
    noisy = FALLING * np.exp(0.05 * RNG.standard_normal((3, 40)))
    assert roughness(FALLING[None])[0] < 1e-12
    assert (roughness(noisy) > 0.05).all()
    np.testing.assert_allclose(roughness(7.0 * noisy), roughness(noisy))


@pytest.mark.parametrize("num_epochs", [3, 5, 11, 20, 47, 1000])
def test_windows_cover_all_epochs_and_are_long_enough(num_epochs):
    windows = epoch_windows(num_epochs, 10)
    assert windows[0][0] == 0
    assert windows[-1][1] == num_epochs
    assert all(stop - start >= 3 for start, stop in windows)
    pairs = itertools.pairwise(windows)
    assert all(before[1] == after[0] for before, after in pairs)
    assert len(windows) <= 10


def test_published_curves_cross_between_400_and_500():
    for epoch in (50, 400):
        assert published_loss("lstm", epoch).high < published_loss("gru", epoch).low
    assert published_loss("gru", 500).high < published_loss("lstm", 500).low
    assert published_loss("gru", NUM_EPOCHS + 1) is None
    assert pytest.approx(0.9616) == TIME_RATIO


def test_published_loss_includes_the_reading_error_and_spikes():
    assert published_loss("lstm", 0) == pytest.approx((4.52, 4.58))
    assert published_loss("lstm", 600) == pytest.approx((1.47, 1.83))
    assert published_loss("gru", 150) == pytest.approx((1.935, 1.995))


def test_linear_baseline_equals_least_squares():
    inputs = RNG.normal(2.0, 1.0, (30, 4, 3))
    targets = inputs @ RNG.normal(size=(3, 2)) + RNG.normal(1.0, 0.5, (30, 4, 2))
    rows = np.column_stack([inputs.reshape(-1, 3), np.ones(120)])
    _, squares, *_ = np.linalg.lstsq(rows, targets.reshape(-1, 2), rcond=None)
    loss = linear_loss(jnp.float32(inputs), jnp.float32(targets), mean_squared_error)
    np.testing.assert_allclose(loss, squares.sum() / 240, rtol=1e-4)


def test_mean_baseline_is_the_variance_of_the_targets():
    targets = RNG.normal(1.0, [0.5, 2.0], (50, 4, 2))
    loss = mean_loss(jnp.float32(targets), mean_squared_error)
    np.testing.assert_allclose(loss, targets.var(axis=(0, 1)).mean(), rtol=1e-5)


@pytest.mark.parametrize("num_seeds", [1, 4])
def test_picture_is_a_png_and_needs_no_display(num_seeds, tmp_path, monkeypatch):
    # Another test's library may have imported it.
    monkeypatch.delitem(sys.modules, "matplotlib.pyplot", raising=False)
    curves = FALLING * np.exp(0.05 * RNG.standard_normal((num_seeds, 40)))
    broken = curves.copy()
    broken[0, 20:] = np.nan
    path = plot_curves(
        tmp_path / "curves.png",
        {"LSTM": curves, "GRU": broken},
        title="a title",
        x_label="epoch",
        y_label="loss",
        levels={"mean": 3.0},
    )
    assert path.read_bytes().startswith(b"\x89PNG\r\n")
    assert list(tmp_path.iterdir()) == [path]
    assert "matplotlib.pyplot" not in sys.modules


def test_markdown_escapes_what_would_end_a_cell():
    text = to_markdown(Table("t", ("a", "b"), [("x|y", "1")]))
    assert "x\\|y" in text


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.1, "0.100"), (12.345, "12.3"), (-2.0, "-2.00"), (None, "none")],
)
def test_number_is_shown_in_three_digits(value, shown):
    assert show_number(value) == shown
