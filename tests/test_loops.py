"""What a step of the default engine costs, counted in the programs that XLA compiles.

Time is that of the two loops: a matmul more, or a pass more over the batch, is seen
here and not in a benchmark.
"""

import functools
import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import pytest

from gated_rnn import unroll
from gated_rnn.engines import plan
from tests import cases
from tests.cases import B, F, T


class Loop(NamedTuple):
    """What the body of a loop may have: matmuls, exactly, and instructions at most."""

    matmuls: int
    instructions: int


class Loops(NamedTuple):
    """Of a run, and of its gradient."""

    forward: Loop
    backward: Loop


# Instructions are those of jax 0.10.2 and 0.12.0, the larger: a matmul, a pass over the
# batch that is one fusion, a copy. To need fewer is welcome, to need more is a finding.
LSTM = Loops(Loop(1, 6), Loop(1, 7))
GRU = Loops(Loop(1, 4), Loop(1, 7))
ELMAN = Loops(Loop(1, 4), Loop(1, 4))
# No recurrent kernel: no matmul.
OF_THE_INPUTS = Loops(Loop(0, 3), Loop(0, 5))
# The candidate is a matmul of r * h, which waits for r: two in turn. Backward, both are
# transposed, and the gate is derived again step by step, so the second runs again.
RESET_BEFORE = Loops(Loop(2, 6), Loop(3, 17))
# The layer norm of h U is derived where it stands: h U runs again.
LAYER_NORM_GRU = Loops(Loop(1, 8), Loop(2, 26))
LOOPS = {
    "lstm": LSTM,
    "lstm_no_bias": LSTM,
    "lstm_no_output_activation": LSTM,
    "gru": GRU,
    "gru_no_bias": GRU,
    "gru_reset_before": RESET_BEFORE,
    "gru_hard_sigmoid": Loops(Loop(2, 6), Loop(3, 15)),
    "elman": ELMAN,
    "elman_relu": ELMAN,
    "peephole_lstm": Loops(Loop(1, 6), Loop(1, 10)),
    "coupled_lstm": LSTM,
    "open_lstm": LSTM,
    # The recurrent matmul and the projection after it; backward, the last matmul of a
    # step is transposed only: nothing needs its value.
    "projected_lstm": Loops(Loop(2, 11), Loop(2, 19)),
    "layer_norm_lstm": Loops(Loop(1, 10), Loop(2, 30)),
    "layer_norm_gru": LAYER_NORM_GRU,
    "layer_norm_gru_no_bias": LAYER_NORM_GRU,
    "mgu": Loops(Loop(2, 7), Loop(3, 16)),
    "janet": Loops(Loop(1, 4), Loop(1, 5)),
    "mut1": Loops(Loop(2, 6), Loop(3, 16)),
    "mut1_no_bias": Loops(Loop(2, 6), Loop(3, 16)),
    # Like reset before, with one recurrent matmul more.
    "mut2": Loops(Loop(3, 7), Loop(4, 21)),
    "mut3": Loops(Loop(3, 8), Loop(4, 21)),
    "min_gru": OF_THE_INPUTS,
    "min_gru_positive": OF_THE_INPUTS,
    "min_lstm": OF_THE_INPUTS,
    "min_lstm_no_bias": OF_THE_INPUTS,
}
# They name, cut and reinterpret buffers and do nothing.
FREE = {"parameter", "get-tuple-element", "tuple", "constant", "bitcast"}


class Instruction(NamedTuple):
    """A line of HLO: `name = shape opcode(operands), attributes`."""

    name: str
    shape: str
    opcode: str
    line: str

    @property
    def calls(self):
        return re.findall(r"(?:calls|to_apply)=%?([\w.-]+)", self.line)

    @property
    def body(self):
        return re.search(r"body=%?([\w.-]+)", self.line)[1]


INSTRUCTION = re.compile(r"\s+(?:ROOT )?%?([\w.-]+) = (\(.*?\)|\S+) ([\w-]+)\(.*")


def read_program(text):
    """Return the instructions of every computation of an HLO module."""
    computations, current = {}, None
    for line in text.splitlines():
        if start := re.match(r"(?:ENTRY )?%?([\w.-]+) \(.*\{$", line):
            current = computations.setdefault(start[1], [])
        elif line.startswith("}"):
            current = None
        elif current is not None:
            found = INSTRUCTION.match(line)
            assert found, line
            current.append(Instruction(*found.groups(), line))
    return computations


@functools.cache
def compile_gradient(cell_id, keep_from=plan.KEEP_RECURRENT_FROM):
    """Return the program of a run and its gradient, and the shapes of the parameters.

    What costs much to compute again is kept from so many features on.

    Nothing runs; the sizes are pairwise different, so that a shape tells what it is.
    """
    cell = cases.CELLS[cell_id].cell
    params = jax.eval_shape(lambda key: cell.init(key, F), jax.random.key(0))
    inputs = jax.ShapeDtypeStruct((T, B, F), jnp.float32)

    def loss(params, inputs):
        return unroll(cell, params, inputs)[1].sum()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "KEEP_RECURRENT_FROM", keep_from)
        program = jax.jit(jax.value_and_grad(loss)).trace(params, inputs)
    text = program.lower(lowering_platforms=("cpu",)).compile().as_text()
    shapes = {f"f32[{','.join(map(str, p.shape))}]" for p in jax.tree.leaves(params)}
    return read_program(text), shapes


def loops_of(program):
    """Return the bodies of the loops in the order in which they run."""
    whiles = [
        line for lines in program.values() for line in lines if "body=" in line[3]
    ]
    return [program[instruction.body] for instruction in whiles]


def everything_in(program, body):
    """Yield the instructions of a body and of what it calls."""
    for instruction in body:
        yield instruction
        for name in instruction.calls:
            yield from everything_in(program, program[name])


def count(program, body):
    """Count what a step costs; the loop's own counter is free."""
    instructions = [
        instruction
        for instruction in body
        if instruction.opcode not in FREE
        and not (instruction.opcode == "copy" and instruction.shape.startswith("s32[]"))
    ]
    opcodes = [instruction.opcode for instruction in everything_in(program, body)]
    # A matmul that XLA hands to a library would go by another name.
    assert not {"custom-call", "call"} & set(opcodes)
    return Loop(opcodes.count("dot"), len(instructions))


def test_table_has_every_cell():
    assert list(LOOPS) == list(cases.CELLS)


@cases.each_cell
def test_step_has_as_many_matmuls_and_passes_as_the_equation_asks_for(cell_id):
    program, _ = compile_gradient(cell_id)
    loops = loops_of(program)
    assert len(loops) == 2
    for body, most in zip(loops, LOOPS[cell_id], strict=True):
        matmuls, instructions = count(program, body)
        assert matmuls == most.matmuls
        assert instructions <= most.instructions


@pytest.mark.parametrize(
    "cell_id", [cell_id for cell_id in LOOPS if cases.CELLS[cell_id].cell.pointwise]
)
def test_elementwise_gate_has_at_most_one_matmul_a_step(cell_id):
    has_kernel = hasattr(cases.make_problem(cell_id).params, "recurrent_kernel")
    matmuls = [loop.matmuls for loop in LOOPS[cell_id]]
    assert matmuls == [has_kernel, has_kernel]


@cases.each_cell
def test_no_gradient_of_a_parameter_is_summed_in_a_loop(cell_id):
    program, shapes = compile_gradient(cell_id)
    seen = set()
    for body in loops_of(program):
        lines = {instruction.name: instruction for instruction in body}
        (results,) = (line for line in body if "ROOT" in line.line)
        names = re.findall(r"%?([\w.-]+)[,)]", results.line.split(" tuple(")[1])
        for index, name in enumerate(names):
            if name not in lines or lines[name].shape.split("{")[0] not in shapes:
                continue
            # What goes round as it came is read only.
            seen.add(lines[name].shape.split("{")[0])
            assert lines[name].opcode == "get-tuple-element"
            assert f"index={index}" in lines[name].line
    assert seen or not hasattr(cases.make_problem(cell_id).params, "recurrent_kernel")


# Instructions of the forward loop where the activations are kept: each is a pass. Of
# JANET two are made of one array, and take no place.
KEEPING = {
    "lstm": 16,
    "lstm_no_bias": 16,
    "lstm_no_output_activation": 16,
    "gru": 13,
    "gru_no_bias": 13,
    "elman": 8,
    "elman_relu": 5,
    "peephole_lstm": 16,
    "coupled_lstm": 14,
    "open_lstm": 14,
    "janet": 12,
}
each_keeping_cell = pytest.mark.parametrize("cell_id", KEEPING)


@each_keeping_cell
def test_kept_activations_cost_a_pass_each_in_the_forward_loop_alone(cell_id):
    program, _ = compile_gradient(cell_id, keep_from=1)
    forward, backward = loops_of(program)
    matmuls, instructions = count(program, forward)
    assert (matmuls, count(program, backward).matmuls) == (1, 1)
    assert instructions <= KEEPING[cell_id]
    assert count(program, backward).instructions <= LOOPS[cell_id].backward.instructions


def copies_of_whole_sequences(program):
    """Return the copies in loops of arrays that hold more than a step."""
    copies = [
        instruction.shape
        for body in loops_of(program)
        for instruction in everything_in(program, body)
        if instruction.opcode == "copy"
    ]
    return [shape for shape in copies if str(T) in re.findall(r"\d+", shape)]


@each_keeping_cell
def test_no_loop_copies_the_arrays_that_it_writes_into(cell_id):
    program, _ = compile_gradient(cell_id, keep_from=1)
    assert not copies_of_whole_sequences(program)


SEEDS = 3
RUNS = {
    "mask": lambda run, inputs: run(inputs, mask=inputs[..., 0] > 0),
    "resets": lambda run, inputs: run(inputs, resets=inputs[..., 0] > 0),
    "reverse": lambda run, inputs: run(inputs, reverse=True),
    "last": lambda run, inputs: run(inputs, collect=False),
}


@pytest.mark.parametrize("vmapped", [False, True], ids=["alone", "vmapped"])
@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("cell_id", ["lstm", "gru"])
def test_no_loop_of_any_run_copies_the_arrays_that_it_writes_into(
    cell_id, run, vmapped, monkeypatch
):
    monkeypatch.setattr(plan, "KEEP_RECURRENT_FROM", 1)
    cell = cases.CELLS[cell_id].cell

    def loss(key, inputs):
        def of(params):
            results = RUNS[run](functools.partial(unroll, cell, params), inputs)
            return sum(leaf.sum() for leaf in jax.tree.leaves(results))

        return jax.value_and_grad(of)(cell.init(key, F))

    keys = jax.random.split(jax.random.key(0), SEEDS)
    losses = jax.vmap(loss, in_axes=(0, None)) if vmapped else loss
    inputs = jnp.ones((T, B, F))
    lowered = jax.jit(losses).lower(keys if vmapped else keys[0], inputs)
    program = read_program(lowered.compile().as_text())
    assert not copies_of_whole_sequences(program)
