"""Two processes that talk over the loopback: the bits of one, in every one of them."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gated_rnn.training import Problem, train_seeds
from gated_rnn.training.processes import gather_seeds, gather_state, share_seeds
from tests import cases
from tests.training import test_seeds
from tests.training.test_seeds import NUM_UPDATES, SEED_BLOCK

REPOSITORY = Path(__file__).parents[2]
NUM_PROCESSES = 2
SECONDS = 240  # after which a process that waits for another one is given up

# Before the first array is made, so nothing is imported before.
PROCESS = """
import sys
import jax
jax.distributed.initialize(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
from tests.training import test_processes
test_processes.print_runs()
"""

SIXTEEN = tuple(range(16))
# Orders and numbers that give the processes unequal shares, one block, or no own seed.
RUNS = {
    "sixteen": SIXTEEN,
    "backwards": SIXTEEN[::-1],
    "five": (9, 2, 15, 0, 7),
    "three": (4, 11, 3),
    "one": (6,),
}
CUT = 3  # updates, after which the first run is gathered and goes on


def run_share(seed_ids, state=None, **options):
    """Train this process' share of the GRU's seeds, as a user would."""
    share = share_seeds(
        seed_ids,
        seed_block=SEED_BLOCK,
        hyper=test_seeds.make_hyper(seed_ids),
        state=state,
    )
    result = test_seeds.run_echo(
        share.seed_ids,
        hyper=share.hyper,
        state=share.state,
        devices=jax.local_devices(),
        vectorize=False,
        **options,
    )
    return share, result


def print_runs():
    """Print what this process has of every run; for one of several processes."""
    shares, digests = {}, {}
    for name, seed_ids in RUNS.items():
        share, result = run_share(seed_ids)
        shares[name] = share.seed_ids.tolist()
        whole = gather_seeds(result, len(seed_ids))
        digests[name] = test_seeds.digests(whole)
    # On the way, the state of all; from it, other shares.
    states = []
    run_share(
        SIXTEEN,
        num_updates=CUT,
        on_piece=lambda piece: states.append(gather_state(piece.take_state(), 16)),
    )
    _, result = run_share(SIXTEEN, state=states[-1])
    went_on = gather_seeds(result, 16)
    print(  # noqa: T201 (the test reads it)
        json.dumps(
            {
                "processes": jax.process_count(),
                "shares": shares,
                "digests": digests,
                "went_on": test_seeds.digests(went_on._replace(metrics={})),
                "metrics": {
                    name: curve.shape for name, curve in went_on.metrics.items()
                },
                "step": went_on.state.step,
            }
        )
    )


def find_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def run_processes(program, arguments=("", "")):
    """Run a program in two processes; return what each printed.

    Its arguments are the address, the number of processes, the process' own number, and
    one of `arguments`.
    """
    address = f"127.0.0.1:{find_port()}"
    command = [sys.executable, "-W", "error", "-c", program, address]
    started = [
        subprocess.Popen(
            [*command, str(NUM_PROCESSES), str(number), str(argument)],
            cwd=REPOSITORY,
            env={**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number, argument in enumerate(arguments)
    ]
    try:
        said = [process.communicate(timeout=SECONDS) for process in started]
    finally:
        for process in started:
            process.kill()
    for process, (_, errors) in zip(started, said, strict=True):
        assert process.returncode == 0, errors
    return [output for output, _ in said]


@pytest.fixture(scope="module")
def printed():
    """What each process printed."""
    return [json.loads(said.splitlines()[-1]) for said in run_processes(PROCESS)]


@pytest.fixture(scope="module")
def alone():
    """All seeds in this process."""
    return test_seeds.run_echo(SIXTEEN, vectorize=False)


def test_gathered_seeds_have_the_bits_of_one_process(printed, alone):
    expected = test_seeds.digests(alone)
    assert len(set(expected.values())) == len(SIXTEEN)
    for process in printed:
        assert process["processes"] == NUM_PROCESSES
        for name, seed_ids in RUNS.items():
            actual = process["digests"][name]
            assert list(actual) == [str(seed_id) for seed_id in seed_ids], name
            assert actual == {i: expected[i] for i in actual}, name


def test_processes_share_the_work(printed):
    first, second = (process["shares"] for process in printed)
    assert first["sixteen"] == list(range(8))
    assert second["sixteen"] == list(range(8, 16))
    assert second["backwards"] == list(range(8))[::-1]
    # One block of four, and one that is filled up with seeds of the first.
    assert first["five"] == [9, 2, 15, 0]
    assert second["five"] == [7, 9, 2, 15]
    assert first["three"] == second["three"] == [4, 11, 3]
    assert first["one"] == second["one"] == [6]


def test_run_gathered_on_the_way_goes_on_to_the_bits_of_one_process(printed, alone):
    expected = test_seeds.digests(alone._replace(metrics={}))
    for process in printed:
        assert process["went_on"] == expected
        assert process["step"] == NUM_UPDATES
        assert process["metrics"]["loss"] == [16, NUM_UPDATES - CUT]


# One process


LINE = Problem(
    init=lambda key, hyper: hyper,
    loss=lambda params, batch, key: (params * batch, {}),
    batch=lambda key, step: 2.0,
)


def run_line(share):
    return train_seeds(
        LINE,
        jax.random.key(0),
        share.seed_ids,
        2,
        optimizer=optax.sgd(0.1),
        hyper=share.hyper,
        state=share.state,
        seed_block=2,
    )


def test_share_of_one_process_is_everything():
    hyper = np.array([1.0, 2.0, 3.0], np.float32)
    share = share_seeds([5, 1, 8], seed_block=2, hyper=hyper)
    assert share.seed_ids.tolist() == [5, 1, 8]
    np.testing.assert_array_equal(share.hyper, hyper)
    assert share.state is None
    result = run_line(share)
    whole = gather_seeds(result, 3)
    assert test_seeds.digests(whole) == test_seeds.digests(result)
    state = gather_state(result.state, 3)
    again = share_seeds([5, 1, 8], seed_block=2, hyper=hyper, state=state)
    assert jax.tree.structure(again.state) == jax.tree.structure(result.state)
    assert again.state.step == 2
    np.testing.assert_array_equal(run_line(again).params, result.params)


@pytest.mark.parametrize(
    ("name", "words", "call"),
    [
        ("seed_ids", "distinct", lambda result: share_seeds([1, 1], seed_block=2)),
        ("seed_block", "got 0", lambda result: share_seeds([1, 2], seed_block=0)),
        (
            "state",
            "[5, 1]",
            lambda result: share_seeds([1, 5], seed_block=2, state=result.state),
        ),
        ("num_seeds", "2, got 3", lambda result: gather_seeds(result, 3)),
        ("num_seeds", "2, got 1", lambda result: gather_state(result.state, 1)),
    ],
)
def test_wrong_arguments_are_refused(name, words, call):
    hyper = jnp.array([1.0, 2.0])
    result = run_line(share_seeds([5, 1], seed_block=2, hyper=hyper))
    with pytest.raises(ValueError) as error:
        call(result)
    cases.assert_says(error, name, words)
    assert "\n" not in str(error.value)
