import numpy as np
import pytest

from experiments.data.scaling import MinMaxScaler, StandardScaler, fit_scaler
from tests.cases import assert_says

GENERATOR = np.random.default_rng(3)
TRAIN = GENERATOR.normal(7.0, 3.0, (50, 2)) * (1.0, 1e6)
ALL = np.concatenate([TRAIN, TRAIN * 4 + 1])


@pytest.mark.parametrize("scaling", ["min_max", "standard", "none"])
def test_inverse_undoes_transform_outside_the_training_range_too(scaling):
    scaler = fit_scaler(scaling, TRAIN)
    np.testing.assert_allclose(scaler.inverse(scaler.transform(ALL)), ALL, rtol=1e-12)
    assert scaler.transform(ALL).dtype == np.float64


def test_min_max_maps_each_feature_of_the_training_part_onto_0_to_1():
    scaled = MinMaxScaler.fit(TRAIN).transform(ALL)
    np.testing.assert_allclose(scaled[:50].min(axis=0), 0, atol=1e-15)
    np.testing.assert_allclose(scaled[:50].max(axis=0), 1, atol=1e-15)
    assert (scaled[50:].max(axis=0) > 1).all()  # the rest is not squeezed in
    low, high = TRAIN.min(axis=0), TRAIN.max(axis=0)
    np.testing.assert_allclose(scaled, (ALL - low) / (high - low), rtol=1e-12)


def test_standard_gives_each_feature_mean_0_and_deviation_1():
    scaled = StandardScaler.fit(TRAIN).transform(TRAIN)
    np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose((scaled**2).mean(axis=0), 1, rtol=1e-12)


@pytest.mark.parametrize("scaling", ["min_max", "standard"])
def test_constant_training_values_become_0_and_come_back(scaling):
    scaler = fit_scaler(scaling, np.full(4, 5.0))
    np.testing.assert_array_equal(scaler.transform(np.array([5.0, 7.0])), [0.0, 2.0])
    np.testing.assert_array_equal(scaler.inverse(np.array([0.0, 2.0])), [5.0, 7.0])


@pytest.mark.parametrize("scaling", ["min_max", "standard", "none"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_training_values_must_be_finite_and_there(scaling, bad):
    with pytest.raises(ValueError) as error:
        fit_scaler(scaling, np.array([1.0, bad]))
    assert_says(error, "train", "finite")
    with pytest.raises(ValueError) as error:
        fit_scaler(scaling, np.empty(0))
    assert_says(error, "train", "at least one")


def test_unknown_scaling_names_the_known_ones():
    with pytest.raises(ValueError) as error:
        fit_scaler("robust", TRAIN)
    assert_says(error, "scaling", "min_max", "standard", "robust")
