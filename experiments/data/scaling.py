"""Scalers, fitted on the training part of a series and on nothing else.

A scaler is its numbers: a NamedTuple that can be compared, recorded and undone.
NumPy, float64. Layer: experiments (data).
"""

from typing import Literal, NamedTuple, Self

import numpy as np

from gated_rnn.types import invalid

Scaling = Literal["min_max", "standard", "none"]


class MinMaxScaler(NamedTuple):
    """Map the range of the training values onto [0, 1]; others may fall outside.

    Attributes:
        low: Smallest training value, float64 `[*features]`, in the series' unit.
        high: Largest one.
    """

    low: np.ndarray
    high: np.ndarray

    @classmethod
    def fit(cls, train: np.ndarray) -> Self:
        """Measure the training part.

        Args:
            train: Finite numbers `[N, *features]`, N at least 1.

        Returns:
            The scaler.

        Raises:
            ValueError: If there is no value, or one is not finite.

        Examples:
            >>> scaler = MinMaxScaler.fit(np.array([2.0, 6.0, 4.0]))
            >>> scaler.transform(np.array([2.0, 3.0, 10.0]))
            array([0.  , 0.25, 2.  ])
        """
        train = _checked(train)
        return cls(train.min(axis=0), train.max(axis=0))

    def transform(self, values: np.ndarray) -> np.ndarray:
        """Compute (values - low) / (high - low).

        Args:
            values: `[..., *features]`, in the series' unit.

        Returns:
            float64 of the same shape. Training values that are all equal become 0.
        """
        return (np.asarray(values, np.float64) - self.low) / self._width()

    def inverse(self, values: np.ndarray) -> np.ndarray:
        """Undo `transform`.

        Args:
            values: `[..., *features]`, scaled.

        Returns:
            float64 of the same shape, in the series' unit.
        """
        return np.asarray(values, np.float64) * self._width() + self.low

    def _width(self) -> np.ndarray:
        width = self.high - self.low
        return np.where(width > 0, width, 1.0)


class StandardScaler(NamedTuple):
    """Give the training values mean 0 and standard deviation 1.

    Attributes:
        mean: Mean of the training values, float64 `[*features]`, in the series' unit.
        sd: Their standard deviation, that of a population (divisor N).
    """

    mean: np.ndarray
    sd: np.ndarray

    @classmethod
    def fit(cls, train: np.ndarray) -> Self:
        """Measure the training part.

        Args:
            train: Finite numbers `[N, *features]`, N at least 1.

        Returns:
            The scaler.

        Raises:
            ValueError: If there is no value, or one is not finite.

        Examples:
            >>> scaler = StandardScaler.fit(np.array([2.0, 6.0, 4.0, 4.0]))
            >>> float(scaler.mean), round(float(scaler.sd), 4)
            (4.0, 1.4142)
        """
        train = _checked(train)
        return cls(train.mean(axis=0), train.std(axis=0))

    def transform(self, values: np.ndarray) -> np.ndarray:
        """Compute (values - mean) / sd.

        Args:
            values: `[..., *features]`, in the series' unit.

        Returns:
            float64 of the same shape. Training values that are all equal become 0.
        """
        return (np.asarray(values, np.float64) - self.mean) / self._width()

    def inverse(self, values: np.ndarray) -> np.ndarray:
        """Undo `transform`.

        Args:
            values: `[..., *features]`, scaled.

        Returns:
            float64 of the same shape, in the series' unit.
        """
        return np.asarray(values, np.float64) * self._width() + self.mean

    def _width(self) -> np.ndarray:
        return np.where(self.sd > 0, self.sd, 1.0)


class NoScaler(NamedTuple):
    """Leave values as they are, in float64."""

    @classmethod
    def fit(cls, train: np.ndarray) -> Self:
        """Check the training part as the other scalers do; measure nothing."""
        _checked(train)
        return cls()

    def transform(self, values: np.ndarray) -> np.ndarray:
        """Return the values in float64."""
        return np.asarray(values, np.float64)

    def inverse(self, values: np.ndarray) -> np.ndarray:
        """Return the values in float64."""
        return np.asarray(values, np.float64)


Scaler = MinMaxScaler | StandardScaler | NoScaler
_SCALERS = {"min_max": MinMaxScaler, "standard": StandardScaler, "none": NoScaler}


def fit_scaler(scaling: Scaling, train: np.ndarray) -> Scaler:
    """Fit the scaler of a name.

    Args:
        scaling: "min_max", "standard" or "none".
        train: The training part alone, `[N, *features]`.

    Returns:
        The scaler.

    Raises:
        ValueError: If there is no such scaler, or the values cannot be measured.
    """
    if scaling not in _SCALERS:
        raise invalid("scaling", f"one of {sorted(_SCALERS)}", repr(scaling))
    return _SCALERS[scaling].fit(train)


def _checked(train: np.ndarray) -> np.ndarray:
    train = np.asarray(train, np.float64)
    if train.ndim == 0 or train.shape[0] == 0:
        raise invalid("train", "at least one value", f"shape {train.shape}")
    if not np.isfinite(train).all():
        raise invalid("train", "finite numbers", "one that is not")
    return train
