"""What a resumable run asks for, and its way to a checkpoint and back (layer 5)."""

import importlib.metadata
import os
import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from gated_rnn.training.checkpoints import CheckpointError, Checkpoints, Loaded
from gated_rnn.training.saved_state import Group, from_arrays, to_arrays
from gated_rnn.training.seeds import SeedResult, SeedState

__all__ = ["Rows", "Run", "environment_of", "first_state", "restore", "save"]

_PACKAGES = ("jax", "jaxlib", "optax", "numpy")


class Run(NamedTuple):
    """What is asked for."""

    train: Callable[..., SeedResult]
    checkpoints: Checkpoints
    identity: dict[str, Any]
    hyper: Any
    environment: dict[str, Any]
    seconds: list[float]


class Rows:
    """A pytree with a row for each seed, by the seeds' ids."""

    def __init__(self, ids: np.ndarray, tree: Any):
        self._row_of = {int(i): row for row, i in enumerate(ids)}
        self._tree = tree

    def of(self, ids: np.ndarray) -> Any:
        """Return the rows of some seeds."""
        rows = np.array([self._row_of[int(i)] for i in ids], int)
        return jax.tree.map(lambda leaf: leaf[rows], self._tree)


def first_state(run: Run, ids: np.ndarray) -> Group:
    """Return the seeds before their first update."""
    result = run.train(ids, 0, hyper=run.hyper.of(ids))
    return Group(result.state, result.metrics)


def restore(run: Run, ids: np.ndarray, notice: Callable[[str], object]) -> list[Group]:
    """Return what the newest intact checkpoint has, nothing if there is none.

    Args:
        run: What is asked for; the seconds of the checkpoint are added to its own.
        ids: The seeds that are asked for.
        notice: Told what is good to know.

    Returns:
        The groups that were saved.

    Raises:
        CheckpointError: If no checkpoint can be read, or it is of another run.
    """
    loaded = run.checkpoints.load()
    if loaded is None:
        notice(f"No checkpoint in {run.checkpoints.directory}: starting.")
        return []
    for number, reason in loaded.damaged:
        notice(f"Checkpoint {number} cannot be read ({reason}): passed over.")
    about, directory = loaded.description, run.checkpoints.directory
    _compare(run.identity, about["identity"], directory)
    for name, value in run.environment.items():
        before = about["environment"].get(name)
        if before != value:
            notice(
                f"{name} was {before} and is {value}: "
                "the run may go on with other last bits."
            )
    run.seconds.extend(loaded.arrays["seconds"].tolist())
    return [
        _load_group(run, loaded, number, group, ids)
        for number, group in enumerate(about["groups"])
    ]


def _compare(
    identity: dict[str, Any], before: Mapping[str, Any], directory: Path
) -> None:
    names = sorted({*identity, *before})
    differing = [name for name in names if identity.get(name) != before.get(name)]
    if differing:
        changes = ", ".join(
            f"{name} {before.get(name)!r}, now {identity.get(name)!r}"
            for name in differing
        )
        raise CheckpointError(
            f"The checkpoints in {directory} are of another run: {changes}."
        )


def _load_group(
    run: Run, loaded: Loaded, number: int, about: Mapping[str, Any], ids: np.ndarray
) -> Group:
    group_ids = np.array(about["seed_ids"], np.int64)
    missing = sorted(set(group_ids.tolist()) - set(ids.tolist()))
    if missing:
        raise CheckpointError(
            f"The checkpoints in {run.checkpoints.directory} have the seeds {missing}, "
            "which are not asked for."
        )
    prefix = f"{number}/"
    arrays = {
        name.removeprefix(prefix): array
        for name, array in loaded.arrays.items()
        if name.startswith(prefix)
    }
    curves = {
        name.removeprefix("metrics/"): array
        for name, array in arrays.items()
        if name.startswith("metrics/")
    }
    hyper = run.hyper.of(group_ids)
    for name, wanted in to_arrays("hyper", hyper).items():
        if name not in arrays or not _same_bits(arrays[name], wanted):
            raise CheckpointError(
                f"The checkpoints in {run.checkpoints.directory} are of another run: "
                f"{name} of its seeds has other values."
            )
    template = first_state(run, group_ids).state
    tree = from_arrays("state", template[2:], arrays, run.checkpoints.directory)
    return Group(SeedState(group_ids, about["step"], *tree), curves)


def _same_bits(saved: np.ndarray, wanted: np.ndarray) -> bool:
    """Whether two arrays are equal, NaN to NaN as well."""
    wanted = wanted.astype(saved.dtype)
    return saved.shape == wanted.shape and saved.tobytes() == wanted.tobytes()


def save(run: Run, groups: list[Group]) -> None:
    """Write a checkpoint of all groups.

    Raises:
        CheckpointError: If it cannot be written.
    """
    arrays = {"seconds": np.array(run.seconds, np.float64)}
    for number, (state, curves) in enumerate(groups):
        parts = {
            **to_arrays("state", state[2:]),
            **to_arrays("hyper", run.hyper.of(state.seed_ids)),
            **{f"metrics/{name}": curve for name, curve in curves.items()},
        }
        arrays |= {f"{number}/{name}": array for name, array in parts.items()}
    description = {
        "identity": run.identity,
        "environment": run.environment,
        "groups": [
            {"seed_ids": group.state.seed_ids.tolist(), "step": group.state.step}
            for group in groups
        ],
    }
    run.checkpoints.save(arrays, description)


def environment_of(seed_block: int, vectorize: bool | None) -> dict[str, Any]:
    """Return what the last bits may depend on."""
    device = jax.local_devices()[0]
    return {
        **{name: importlib.metadata.version(name) for name in _PACKAGES},
        "machine": platform.machine(),
        "device": f"{device.platform} {device.device_kind}",
        "number of cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "seed_block": seed_block,
        "vectorize": vectorize,
    }
