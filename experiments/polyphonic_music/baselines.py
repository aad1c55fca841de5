"""What a network has to beat: predictors that know the last chord, or not even that.

Everything is counted on the training pieces, in float64. How much a fit is held back
is chosen on the validation pieces, as the networks' learning rates are.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.optimize
from scipy.special import expit

from experiments.polyphonic_music.problem import join_pieces, log_odds

#: Ridges of the logistic regression, the largest first; the best is chosen.
RIDGES = (1e-4, 1e-5, 1e-6)
#: Name of the strongest baseline: all that one chord says of the next, key by key.
MEMORYLESS = "logistic regression on the last chord"
_MAX_ITERATIONS = 300


class Chords(NamedTuple):
    """Pairs of neighbouring steps, equal first steps taken together.

    Attributes:
        chords: float64 `[U, K]`, each first step once.
        counts: float64 `[U]`, how often it is followed by another step.
        sums: float64 `[U, K]`, how often each key sounds in the step after.
    """

    chords: np.ndarray
    counts: np.ndarray
    sums: np.ndarray


def count_chords(rolls: Sequence[np.ndarray]) -> Chords:
    """Count what follows each chord: all that a predictor of one step can know.

    Args:
        rolls: Pieces, bool `[T_i, K]`.

    Returns:
        The counts.
    """
    steps = join_pieces(rolls)
    packed = np.packbits(steps.inputs, axis=1)
    _, first, numbers = np.unique(
        packed, axis=0, return_index=True, return_inverse=True
    )
    numbers = numbers.reshape(-1)
    sums = np.zeros((first.size, steps.inputs.shape[1]))
    np.add.at(sums, numbers, steps.targets)
    counts = np.bincount(numbers).astype(np.float64)
    return Chords(steps.inputs[first].astype(np.float64), counts, sums)


def score(logits: np.ndarray, data: Chords) -> float:
    """Compute the negative log-likelihood of independent keys, in nats per step.

    Args:
        logits: Of each key after each chord, `[U, K]`, or what broadcasts to it.
        data: What followed.

    Returns:
        The sum over the keys, averaged over all steps.
    """
    losses = data.counts[:, None] * np.logaddexp(0, logits) - data.sums * logits
    return float(losses.sum() / data.counts.sum())


def frequencies(train: Chords) -> np.ndarray:
    """Fit how often each key sounds, whatever came before.

    Args:
        train: The training pieces.

    Returns:
        Logits `[1, K]`.
    """
    return log_odds(train.sums.sum(axis=0), train.counts.sum())[None]


def repetition(train: Chords, data: Chords) -> np.ndarray:
    """Fit each key's chance to sound after itself, and after its own silence.

    Args:
        train: The training pieces.
        data: The chords to predict from.

    Returns:
        Logits `[U, K]` of what follows the chords of `data`.
    """
    sounding = train.counts @ train.chords
    after_sound = (train.chords * train.sums).sum(axis=0)
    after_silence = train.sums.sum(axis=0) - after_sound
    stays = log_odds(after_sound, sounding)
    begins = log_odds(after_silence, train.counts.sum() - sounding)
    return np.where(data.chords > 0, stays, begins)


class Readout(NamedTuple):
    """Logistic regression of the next step on the last.

    Attributes:
        kernel: float64 `[K, K]`.
        bias: float64 `[K]`.
    """

    kernel: np.ndarray
    bias: np.ndarray

    def logits(self, chords: np.ndarray) -> np.ndarray:
        """Return the logits of what follows chords `[U, K]`."""
        return chords @ self.kernel + self.bias


def fit_readout(train: Chords, ridge: float, start: Readout | None = None) -> Readout:
    """Fit a logistic regression for each key by L-BFGS.

    Args:
        train: The training pieces.
        ridge: Weight of the kernel's sum of squares beside the loss per step.
        start: Where to begin; None: with the frequencies alone.

    Returns:
        The fit.
    """
    num_keys = train.chords.shape[1]
    num_steps = train.counts.sum()

    def unpack(flat: np.ndarray) -> Readout:
        table = flat.reshape(num_keys + 1, num_keys)
        return Readout(table[:-1], table[-1])

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        readout = unpack(flat)
        logits = readout.logits(train.chords)
        loss = score(logits, train) + ridge * np.square(readout.kernel).sum()
        errors = (train.counts[:, None] * expit(logits) - train.sums) / num_steps
        slope = train.chords.T @ errors + 2 * ridge * readout.kernel
        return loss, np.concatenate([slope, errors.sum(axis=0)[None]]).ravel()

    if start is None:
        start = Readout(np.zeros((num_keys, num_keys)), frequencies(train)[0])
    found = scipy.optimize.minimize(
        objective,
        np.concatenate([start.kernel, start.bias[None]]).ravel(),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": _MAX_ITERATIONS},
    )
    return unpack(found.x)


def measure_baselines(
    train: Sequence[np.ndarray],
    valid: Sequence[np.ndarray],
    test: Sequence[np.ndarray],
) -> dict[str, float]:
    """Score what needs no memory on the test pieces.

    Args:
        train: Pieces to fit on.
        valid: Pieces to choose the ridge on.
        test: Pieces to score.

    Returns:
        The negative log-likelihood of each baseline, in nats per step.
    """
    known, choosing, asked = map(count_chords, (train, valid, test))
    fits: list[Readout] = []
    for ridge in RIDGES:
        fits.append(fit_readout(known, ridge, fits[-1] if fits else None))
    best = min(fits, key=lambda fit: score(fit.logits(choosing.chords), choosing))
    return {
        "frequency of each key": score(frequencies(known), asked),
        "repetition of the last chord": score(repetition(known, asked), asked),
        MEMORYLESS: score(best.logits(asked.chords), asked),
    }
