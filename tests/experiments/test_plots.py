"""What pictures show, read from matplotlib's own figures."""

import itertools

import numpy as np
import pytest

from experiments import plots
from gated_rnn.statistics import mean_interval

RNG = np.random.default_rng(2)
LOW, HIGH = mean_interval([1.0, 2.0, 3.0]), mean_interval([5.0, 7.0])
ALONE = mean_interval([4.0])  # has no interval


@pytest.fixture
def figures(monkeypatch):
    """The figures that are saved, in order."""
    seen, save = [], plots._save
    monkeypatch.setattr(
        plots, "_save", lambda figure, path: seen.append(figure) or save(figure, path)
    )
    return seen


def draw_intervals(path, groups, **options):
    return plots.plot_intervals(path, groups, title="t", y_label="loss", **options)


def test_intervals_stand_at_their_group_side_by_side(tmp_path, figures):
    groups = {"T 10": {"LSTM": LOW, "GRU": HIGH}, "T 20": {"GRU": ALONE}}
    path = draw_intervals(tmp_path / "a.png", groups, levels={"chance": 9.0})
    assert path.read_bytes().startswith(b"\x89PNG")
    (axes,) = figures[0].axes
    lstm, gru = axes.containers
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["T 10", "T 20"]
    points = {bar.get_label(): bar.lines[0].get_xydata() for bar in (lstm, gru)}
    np.testing.assert_allclose(points["LSTM"], [[-0.15, 2.0]])
    np.testing.assert_allclose(points["GRU"], [[0.15, 6.0], [1.15, 4.0]])
    (segment,) = lstm.lines[2][0].get_segments()
    np.testing.assert_allclose(segment[:, 1], [LOW.low, LOW.high])
    wide, none = gru.lines[2][0].get_segments()
    np.testing.assert_allclose(wide[:, 1], [HIGH.low, HIGH.high])
    np.testing.assert_allclose(none[:, 1], [4.0, 4.0])
    (legend,) = figures[0].legends
    assert sorted(text.get_text() for text in legend.get_texts()) == [
        *("GRU", "LSTM", "chance")
    ]
    assert legend.get_window_extent().y1 < axes.get_window_extent().y0


@pytest.mark.parametrize("count", [3, 14])
def test_no_group_covers_the_next(count, tmp_path, figures):
    groups = {f"recurrent\nkernel {n}": {"LSTM": LOW} for n in range(count)}
    draw_intervals(tmp_path / "a.png", groups)
    (axes,) = figures[0].axes
    ticks = axes.get_xticklabels()
    turned = {tick.get_rotation() for tick in ticks}
    assert turned == ({0.0} if count == 3 else {40.0})
    if count == 3:
        for before, after in itertools.pairwise(t.get_window_extent() for t in ticks):
            assert before.x1 < after.x0


@pytest.mark.parametrize("count", [7, len(plots.STYLES)])
def test_every_curve_is_drawn_in_a_style_of_its_own(count, tmp_path, figures):
    curves = {f"cell {n}": RNG.normal(n, 0.1, (2, 20)) for n in range(count)}
    levels = {f"level {n}": float(n) for n in range(8)}
    options = {"title": "t", "x_label": "epoch", "y_label": "loss"}
    plots.plot_curves(tmp_path / "a.svg", curves, levels=levels, **options)
    (axes,) = figures[0].axes
    drawn = axes.lines[:count]
    assert [line.get_label().split(" (")[0] for line in drawn] == list(curves)
    looks = {(line.get_color(), str(line._dash_pattern)) for line in drawn}
    assert len(looks) == count
    assert len({line.get_marker() for line in drawn}) == count
    assert [line.get_label() for line in axes.lines[count:]] == list(levels)
    for line, values in zip(drawn, curves.values(), strict=True):
        np.testing.assert_allclose(line.get_ydata(), np.median(values, axis=0))


def test_more_than_can_be_told_apart_is_refused(tmp_path):
    count = len(plots.STYLES) + 1
    expected = "labels: expected at most"
    curves = {str(n): np.ones((1, 3)) for n in range(count)}
    options = {"title": "t", "x_label": "epoch", "y_label": "loss"}
    with pytest.raises(ValueError, match=expected):
        plots.plot_curves(tmp_path / "a.png", curves, **options)
    with pytest.raises(ValueError, match=expected):
        draw_intervals(tmp_path / "a.png", {"g": dict.fromkeys(curves, LOW)})
    assert list(tmp_path.iterdir()) == []


def test_curves_have_places_of_their_own_on_a_logarithmic_axis(tmp_path, figures):
    curves = {"a": np.array([[1.0, 2.0, 40.0]]), "b": np.array([[3.0, np.nan]])}
    x = {"a": np.array([10, 100, 1000]), "b": np.array([20, 2000])}
    options = {"title": "t", "x_label": "lag", "y_label": "size"}
    plots.plot_curves(tmp_path / "a.png", curves, x=x, log_x=True, **options)
    (axes,) = figures[0].axes
    assert axes.get_xscale() == axes.get_yscale() == "log"
    assert axes.get_xlim() == (10, 2000)
    np.testing.assert_array_equal(axes.lines[0].get_xdata(), x["a"])


def test_heat_maps_show_rows_and_columns_as_they_are(tmp_path, figures):
    maps = {"update": RNG.random((3, 5)), "reset": RNG.random((2, 5))}
    words = ["the", "view", "was", "not", "good"]
    path = plots.plot_heat_maps(
        tmp_path / "a.svg", maps, title="t", x_labels=words, y_label="unit"
    )
    assert b"<svg" in path.read_bytes()
    first, second, colours = figures[0].axes
    for axes, values in ((first, maps["update"]), (second, maps["reset"])):
        (image,) = axes.images
        np.testing.assert_array_equal(image.get_array(), values)
        assert image.get_clim() == (0.0, 1.0)
    assert [axes.get_title(loc="left") for axes in (first, second)] == list(maps)
    assert [tick.get_text() for tick in second.get_xticklabels()] == words
    assert colours.get_ylim() == (0.0, 1.0)


def test_heat_maps_of_a_long_series_are_wide_and_take_other_limits(tmp_path, figures):
    values = RNG.normal(size=(4, 120))
    plots.plot_heat_maps(
        tmp_path / "a.png", {"cell": values}, title="t", limits=(-1.0, 1.0)
    )
    assert figures[0].get_size_inches()[0] == pytest.approx(120 * 0.12)
    assert figures[0].axes[0].images[0].get_clim() == (-1.0, 1.0)


def test_lines_that_no_seed_makes_stand_beside_the_mean_over_days(tmp_path, figures):
    days = np.arange("2020-07-01", "2020-07-06", dtype="datetime64[D]")
    seeds = np.array([[1.0, 2.0, 3.0, 4.0, 5.0], [3.0, 2.0, 3.0, 4.0, 5.0], [8.0] * 5])
    truth, before = np.array([1.0, 9.0, 4.0, 2.0, 6.0]), np.array([2.0, 1, 9, 4, 2])
    options = {"title": "t", "x_label": "day", "y_label": "close", "middle": "mean"}
    plots.plot_curves(
        tmp_path / "a.png",
        {"GRU": seeds},
        x=days,
        lines={"truth": truth, "persistence": before},
        **options,
    )
    (axes,) = figures[0].axes
    gru, *others = axes.lines
    np.testing.assert_allclose(gru.get_ydata(), seeds.mean(axis=0))
    assert gru.get_label() == "GRU (mean, range of 3 seeds)"
    assert [line.get_label() for line in others] == ["truth", "persistence"]
    for line, values in zip(others, (truth, before), strict=True):
        np.testing.assert_array_equal(line.get_ydata(), values)
        np.testing.assert_array_equal(line.get_xdata(), days)
    assert others[0].get_linestyle() != others[1].get_linestyle()
    assert axes.get_xlim()[1] - axes.get_xlim()[0] == 4.0  # days


def test_no_date_covers_the_next(tmp_path, figures):
    days = np.arange("2020-07-11", "2020-09-09", dtype="datetime64[D]")
    options = {"title": "t", "x_label": "day", "y_label": "close"}
    plots.plot_curves(
        tmp_path / "a.png", {"GRU": RNG.normal(size=(2, days.size))}, x=days, **options
    )
    (axes,) = figures[0].axes
    boxes = [
        tick.get_window_extent()
        for tick in axes.get_xticklabels()
        if tick.get_text() and tick.get_visible()
    ]
    assert len(boxes) > 3
    for before, after in itertools.pairwise(boxes):
        assert before.x1 < after.x0


def test_lines_need_one_axis_for_all(tmp_path):
    with pytest.raises(ValueError, match="one array for all"):
        plots.plot_curves(
            tmp_path / "a.png",
            {"GRU": np.ones((2, 3))},
            x={"GRU": np.arange(3)},
            lines={"truth": np.ones(3)},
            **{"title": "t", "x_label": "day", "y_label": "close"},
        )
