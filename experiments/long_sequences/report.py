"""What the runs say about the text's claims, in numbers; `tables.py` shows them.

Margins and measures are those of this file, written down before any full run.
"""

import math
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.curves import (
    epoch_windows,
    final_loss,
    num_final_epochs,
    roughness,
)
from experiments.data import published_curves
from experiments.data.published_curves import published_loss
from gated_rnn.statistics import (
    Interval,
    mean_interval,
    paired_difference,
    verdict,
)
from gated_rnn.training import Seconds

#: A difference below this share, of the final loss or of the roughness, does not
#: matter. The published final losses differ by 13 %.
EQUIVALENCE_SHARE = 0.05
#: Fewer seeds give a provisional verdict.
VERDICT_SEEDS = 10
#: The published curve turns noisy at about epoch 270 and spiky at 590: tenths show it.
NUM_WINDOWS = 10
ROUGHNESS_MEASURE = "mean absolute second difference of the log loss, epoch to epoch"
_SMOOTHEST = np.finfo(np.float32).eps  # what rounding of the losses leaves
_BETTER = {
    "lower": "holds",
    "higher": "does not hold",
    "equivalent": "equivalent",
    "inconclusive": "inconclusive",
}


class Measured(NamedTuple):
    """What was measured, by cell.

    Attributes:
        losses: `[S, N]`, before each update.
        seconds: Where the time of training went, an epoch a piece.
        rounds: Seconds an epoch took, the cells in turn; empty if not measured.
        baselines: Losses of what needs no network, one a data set.
        parameters: How many, "recurrent" and "total".
    """

    losses: dict[str, np.ndarray]
    seconds: dict[str, Seconds]
    rounds: dict[str, list[float]]
    baselines: dict[str, list[float]]
    parameters: dict[str, dict[str, int]]


def summarise(measured: Measured, key: jax.Array) -> dict[str, Any]:
    """Turn measurements into what is reported.

    Args:
        measured: The measurements.
        key: For the bootstrap.

    Returns:
        Cells, baselines, and, if both cells were trained, the claims.
    """
    losses = {
        cell: np.asarray(curves, np.float64) for cell, curves in measured.losses.items()
    }
    num_epochs = next(iter(losses.values())).shape[1]
    summary = {
        "num_epochs": num_epochs,
        "final_epochs": num_final_epochs(num_epochs),
        "cells": {
            cell: _describe_cell(measured, cell, losses[cell]) for cell in losses
        },
        "baselines": measured.baselines,
    }
    if {"lstm", "gru"} <= losses.keys():
        both = _converged(losses["lstm"]) & _converged(losses["gru"])
        lstm, gru = losses["lstm"][both], losses["gru"][both]
        summary["claims"] = {
            "paired_seeds": int(both.sum()),
            "final_loss": _compare_final_losses(lstm, gru, key),
            "roughness": _compare_roughness(lstm, gru),
            "time": _compare_times(measured.rounds),
            "parameters": {
                part: measured.parameters["gru"][part]
                / measured.parameters["lstm"][part]
                for part in ("recurrent", "total")
            },
        }
    return summary


def _describe_cell(measured: Measured, cell: str, losses: np.ndarray) -> dict[str, Any]:
    finite = _converged(losses)
    kept = losses[finite]
    per_epoch = measured.seconds[cell].pieces
    low, median, high = np.quantile(per_epoch, [0.25, 0.5, 0.75])
    return {
        "parameters": measured.parameters[cell],
        "first_loss": mean_interval(kept[:, 0]) if len(kept) else None,
        "final_loss": mean_interval(final_loss(kept)) if len(kept) else None,
        "diverged_seeds": np.flatnonzero(~finite),
        "published_loss": published_loss(cell, losses.shape[1] - 1),
        "seconds_per_epoch": {"median": median, "quartiles": (low, high)},
        "seconds_compile": measured.seconds[cell].compile,
        "seconds_start": measured.seconds[cell].start,
    }


def _converged(losses: np.ndarray) -> np.ndarray:
    """Tell of each curve `[S, N]` whether all of it has a logarithm."""
    return (np.isfinite(losses) & (losses > 0)).all(axis=1)


def _compare_final_losses(
    lstm: np.ndarray, gru: np.ndarray, key: jax.Array
) -> dict[str, Any] | None:
    """Compare the ends of the curves `[S, N]`: GRU less LSTM, seed by seed."""
    if not len(lstm):
        return None
    ends = {"lstm": final_loss(lstm), "gru": final_loss(gru)}
    difference = paired_difference(ends["gru"], ends["lstm"], key)
    margin = EQUIVALENCE_SHARE * float(ends["lstm"].mean())
    return {
        "gru_minus_lstm": difference,
        "margin": margin,
        "verdict": _judge(difference.mean, margin, lstm),
    }


def _compare_roughness(lstm: np.ndarray, gru: np.ndarray) -> dict[str, Any] | None:
    """Compare the roughness of the curves `[S, N]`, window by window and in all."""
    num_epochs = lstm.shape[1]
    windows = epoch_windows(num_epochs, NUM_WINDOWS)
    if not len(lstm) or not windows:
        return None
    margin = -math.log1p(-EQUIVALENCE_SHARE)
    whole = _rough(lstm, gru, 0, num_epochs)
    return {
        "measure": ROUGHNESS_MEASURE,
        "whole": whole,
        "windows": [_rough(lstm, gru, *window) for window in windows],
        "margin": margin,
        "verdict": _judge(whole["log_gru_over_lstm"], margin, lstm),
    }


def _rough(lstm: np.ndarray, gru: np.ndarray, start: int, stop: int) -> dict[str, Any]:
    # A curve without any roughness would have no ratio.
    rough = {
        "lstm": np.maximum(roughness(lstm[:, start:stop]), _SMOOTHEST),
        "gru": np.maximum(roughness(gru[:, start:stop]), _SMOOTHEST),
    }
    return {
        "start": start,
        "stop": stop,
        **{cell: mean_interval(values) for cell, values in rough.items()},
        "log_gru_over_lstm": mean_interval(np.log(rough["gru"] / rough["lstm"])),
    }


def _compare_times(rounds: dict[str, list[float]]) -> dict[str, Any] | None:
    """Compare an epoch's time round by round, in which the cells took turns."""
    if not all(rounds.values()):
        return None
    ratio = np.array(rounds["gru"]) / np.array(rounds["lstm"])
    return {
        "rounds": rounds,
        "log_gru_over_lstm": mean_interval(np.log(ratio)),
        "published_gru_over_lstm": published_curves.TIME_RATIO,
    }


def ratio_of_logs(interval: Interval) -> Interval:
    """Turn the interval of a log ratio into that of the ratio (a geometric mean).

    Args:
        interval: Of the mean log ratio.

    Returns:
        The same interval on the ratio's own scale.
    """
    estimate, low, high = (math.exp(value) for value in interval[:3])
    return interval._replace(estimate=estimate, low=low, high=high)


def _judge(interval: Interval, margin: float, curves: np.ndarray) -> str:
    """Say whether "the GRU's is lower" holds, as far as the run can tell."""
    num_seeds, num_epochs = curves.shape
    if num_epochs < published_curves.NUM_EPOCHS:
        return f"not reached ({num_epochs} of {published_curves.NUM_EPOCHS} epochs)"
    word = _BETTER[verdict(interval, margin)]
    if num_seeds < VERDICT_SEEDS:
        seeds = f"{num_seeds} seeds, a verdict takes {VERDICT_SEEDS}"
        return f"{word}, provisionally ({seeds})"
    return word
