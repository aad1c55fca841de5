"""Wrong versions of the oracle's cells, one thing wrong in each.

In the parameters a cell reads, in a line of its step, or in a setting that the step is
called with. `tests/test_mutations.py` runs them.
"""

import functools
import inspect
import itertools

import numpy as np

from tests import cases, reference, reference_cells
from tests.cases import H

# Mutants of the parameters: params as a dict -> params


def block_names(case, params):
    """Gates of the blocks of each parameter that is made of blocks, by name."""
    blocks = {name: case.blocks.get(name, case.gates) for name in params}
    return {
        name: blocks[name]
        for name, leaf in params.items()
        if leaf is not None and leaf.shape[-1] == len(blocks[name]) * H
    }


def swap(leaf, gates, a, b):
    """Swap the blocks of two gates, where the parameter has both."""
    if a not in gates or b not in gates:
        return leaf
    order = list(range(len(gates)))
    order[gates.index(a)], order[gates.index(b)] = gates.index(b), gates.index(a)
    blocks = np.split(leaf, len(gates), axis=-1)
    return np.concatenate([blocks[index] for index in order], axis=-1)


def scale(leaf, gates, gate, factor):
    """Scale the block of one gate, where the parameter has it."""
    factors = [factor if name == gate else 1.0 for name in gates]
    return leaf * np.repeat(factors, H)


def params_mutants(cell_id):
    """All mutants of one cell's parameters, by name."""
    case = cases.CELLS[cell_id]
    params = reference.as_arrays(cases.make_problem(cell_id).params)
    names = block_names(case, params)
    mutants = {}

    def add(label, change, *arguments, of):
        assert label not in mutants
        changed = {name: change(params[name], names[name], *arguments) for name in of}
        mutants[label] = {**params, **changed}

    for a, b in itertools.combinations(case.gates, 2):
        of = [name for name, gates in names.items() if a in gates and b in gates]
        for name in of:
            add(f"gates {a} and {b} of {name} swapped", swap, a, b, of=[name])
        if len(of) > 1:
            add(f"gates {a} and {b} swapped", swap, a, b, of=of)
    for gate in case.gates:
        of = [name for name, gates in names.items() if gate in gates]
        for name in of:
            add(f"gate {gate} of {name} dropped", scale, gate, 0.0, of=[name])
        # Behind a norm the gain's sign is that of the gate, whatever the kernel's.
        signed = [name for name in of if "gain" in name or "bias" in name]
        normed = "input_gain" in params
        add(f"1 - {gate} for {gate}", scale, gate, -1.0, of=signed if normed else of)
    for name, leaf in params.items():
        if leaf is not None and leaf.ndim == 1:
            mutants[f"{name} dropped"] = {**params, name: np.zeros_like(leaf)}
            mutants[f"{name} added twice"] = {**params, name: 2.0 * leaf}
        elif leaf is not None:
            mutants[f"rows of {name} reversed"] = {**params, name: leaf[::-1]}
    recurrent = params.get("recurrent_kernel")
    if recurrent is not None and recurrent.shape[0] == H:
        blocks = np.split(recurrent, len(case.gates), axis=-1)
        transposed = np.concatenate([block.T for block in blocks], axis=-1)
        mutants["recurrent kernel transposed"] = {
            **params,
            "recurrent_kernel": transposed,
        }
    return mutants


# Mutants of the step: (what the oracle's source says, what it says instead)

NO_TANH = {
    "output without tanh": ("o * activation(new_c)", "o * new_c"),
    "candidate without tanh": ("i * activation(g)", "i * g"),
    "candidate through the sigmoid": ("i * activation(g)", "i * gate_activation(g)"),
}
OUTPUT_OF_THE_OLD_CELL = {
    "output of the old cell": ("o * activation(new_c)", "o * activation(c)"),
}
LSTM = {
    **NO_TANH,
    **OUTPUT_OF_THE_OLD_CELL,
    "forget gate 1 - i": ("new_c = f * c", "new_c = (1.0 - i) * c"),
    "forget gate plus one": ("gate_activation(f)", "gate_activation(f + 1.0)"),
    "no forget gate": ("new_c = f * c", "new_c = c"),
    "no input gate": ("+ i * activation(g)", "+ activation(g)"),
    "no output gate": ("o * activation(new_c)", "activation(new_c)"),
    "peephole": ("gate_activation(o)", "gate_activation(o + c)"),
}
UPDATE = {
    "z for 1 - z": ("(1.0 - z) * n + z * h", "z * n + (1.0 - z) * h"),
    "all of the candidate written": ("(1.0 - z) * n + z * h", "n + z * h"),
    "nothing erased": ("(1.0 - z) * n + z * h", "(1.0 - z) * n + h"),
    "candidate without tanh": ("n = activation(", "n = ("),
}
NORM = {
    "sample variance": ("np.var(x)", "np.var(x, ddof=1)"),
    "epsilon outside the root": (
        "np.sqrt(np.var(x) + epsilon)",
        "(np.std(x) + epsilon)",
    ),
    "mean not subtracted": ("(x - np.mean(x))", "x"),
}
MUT_UPDATE = {
    "z for 1 - z": ("n * z + h * (1.0 - z)", "n * (1.0 - z) + h * z"),
    "nothing erased": ("n * z + h * (1.0 - z)", "n * z + h"),
    "candidate without tanh": ("n = activation(", "n = ("),
    "no reset gate": ("(r * h) @ u_n", "h @ u_n"),
    "reset after": ("(r * h) @ u_n", "r * (h @ u_n)"),
    "reset by 1 - r": ("(r * h) @ u_n", "((1.0 - r) * h) @ u_n"),
    "reset gate without the past": ("h @ u_r", "0.0 * h @ u_r"),
}
AFTER = 'r * affine(h, u_n, params["recurrent_bias"])'
INNER_BIAS = 'affine(0.0 * h, u_n, params["recurrent_bias"])'
PREACTIVATION = 'preactivation + carry["hidden"] @ params["recurrent_kernel"]'
CLIP = "np.minimum(np.maximum(new_c, -cell_clip), cell_clip)"
OF_H = 'layer_norm(h @ params["recurrent_kernel"], params["recurrent_gain"], epsilon)'
OF_X = 'layer_norm(inputs @ params["kernel"], params["input_gain"], epsilon)'
OF_C = 'layer_norm(new_c, params["cell_gain"], epsilon)'


def each_gate(values, gain):
    """Source of layer norms of the four gates one by one."""
    pairs = f'zip(np.split({values}, 4), np.split(params["{gain}"], 4))'
    return f"np.ravel([layer_norm(v, a, epsilon) for v, a in {pairs}])"


STEPS = {
    reference_cells.lstm_step: {
        **{name: edit for name, edit in LSTM.items() if "output" not in name},
        "output activation": (
            "(output_activation or activation)(new_c)",
            "(activation if output_activation else identity)(new_c)",
        ),
        "no output gate": ("o * (output", "(output"),
        "output of the old cell": ("activation)(new_c)", "activation)(c)"),
    },
    reference_cells.gru_step: {
        **UPDATE,
        "reset by 1 - r": (AFTER, AFTER.replace("r *", "(1.0 - r) *", 1)),
        "no reset gate": (AFTER, AFTER.removeprefix("r * ")),
        "reset before": (AFTER, f"(r * h) @ u_n + {INNER_BIAS}"),
        "reset before, bias inside": (AFTER, f"(r * h) @ u_n + r * {INNER_BIAS}"),
        "recurrent bias outside the reset": (AFTER, f"r * (h @ u_n) + {INNER_BIAS}"),
    },
    reference_cells.gru_reset_before_step: {
        **UPDATE,
        "reset by 1 - r": ("(r * h) @ u_n", "((1.0 - r) * h) @ u_n"),
        "no reset gate": ("(r * h) @ u_n", "h @ u_n"),
        "reset after": ("(r * h) @ u_n", "r * (h @ u_n)"),
    },
    reference_cells.elman_step: {
        "no activation": (f"activation({PREACTIVATION})", f"({PREACTIVATION})"),
        "two activations": (
            f"activation({PREACTIVATION})",
            f"activation(activation({PREACTIVATION}))",
        ),
        "past not activated": (
            f"activation({PREACTIVATION})",
            f"activation({PREACTIVATION.replace(' +', ') +', 1)}",
        ),
    },
    reference_cells.peephole_lstm_step: {
        **NO_TANH,
        **OUTPUT_OF_THE_OLD_CELL,
        "candidate without tanh": ("i * activation(", "i * ("),
        "candidate through the sigmoid": ("i * activation(", "i * gate_activation("),
        "peephole of i dropped": ("+ p_i * c", ""),
        "peephole of f dropped": ("+ p_f * c", ""),
        "peephole of o dropped": ("+ p_o * new_c", ""),
        "peephole of i sees the hidden": ("p_i * c", "p_i * h"),
        "peephole of f sees the hidden": ("p_f * c", "p_f * h"),
        "peephole of o sees the old cell": ("p_o * new_c", "p_o * c"),
        "peephole of o sees the activated cell": (
            "p_o * new_c",
            "p_o * np.tanh(new_c)",
        ),
        "peephole of the candidate": ("h @ u_g", "h @ u_g + p_i * c"),
    },
    reference_cells.coupled_lstm_step: {
        **NO_TANH,
        **OUTPUT_OF_THE_OLD_CELL,
        "i for 1 - i": ("i = 1.0 - f", "i = f"),
        "input gate open": ("i = 1.0 - f", "i = 1.0"),
        "coupled before the sigmoid": (
            "f, o = gate_activation(f), gate_activation(o)\n    i = 1.0 - f",
            "i = 1.0 - f\n    f, o = gate_activation(f), gate_activation(o)",
        ),
    },
    reference_cells.open_lstm_step: {
        "output without tanh": ("new_h = activation(new_c)", "new_h = new_c"),
        "output of the old cell": (
            "new_h = activation(new_c)",
            "new_h = activation(c)",
        ),
        "output gate": ("new_h = activation", "new_h = f * activation"),
        "candidate without tanh": NO_TANH["candidate without tanh"],
        "candidate through the sigmoid": NO_TANH["candidate through the sigmoid"],
        "coupled": ("gate_activation(i), g", "1.0 - gate_activation(f), g"),
    },
    reference_cells.projected_lstm_step: {
        **LSTM,
        "no clip": (CLIP, "new_c"),
        "clip above only": (CLIP, "np.minimum(new_c, cell_clip)"),
        "clip below only": (CLIP, "np.maximum(new_c, -cell_clip)"),
        "clip of what is written only": (
            f"i * activation(g)\n    new_c = {CLIP}",
            f"{CLIP.replace('new_c', 'i * activation(g)')}",
        ),
        "clip of what is seen only": (
            f"new_c = {CLIP}\n    m = o * activation(new_c)",
            f"m = o * activation({CLIP})",
        ),
        "clip of the output": (
            'm @ params["projection"]',
            "m @ params['projection']\n"
            "    new_r = np.minimum(np.maximum(new_r, -cell_clip), cell_clip)",
        ),
        "activation after the projection": (
            'm = o * activation(new_c)\n    new_r = m @ params["projection"]',
            'new_r = activation((o * new_c) @ params["projection"])',
        ),
        "output gate before the activation": (
            "m = o * activation(new_c)",
            "m = activation(o * new_c)",
        ),
    },
    reference_cells.layer_norm_lstm_step: {
        **NORM,
        **{name: edit for name, edit in LSTM.items() if "output" not in name},
        "output without tanh": ("o * activation(seen)", "o * seen"),
        "no output gate": ("o * activation(seen)", "activation(seen)"),
        "h not normalised": (OF_H, 'h @ params["recurrent_kernel"]'),
        "x not normalised": (OF_X, 'inputs @ params["kernel"]'),
        "cell not normalised": (f"{OF_C} + params", "new_c + params"),
        "normalised cell handed on": ('"cell": new_c', '"cell": seen'),
        "one norm of the sum": (
            "of_h + of_x +",
            'layer_norm(h @ params["recurrent_kernel"] + inputs @ params["kernel"],'
            ' params["recurrent_gain"], epsilon) +',
        ),
        "each gate of h normalised by itself": (
            OF_H,
            each_gate('h @ params["recurrent_kernel"]', "recurrent_gain"),
        ),
        "each gate of x normalised by itself": (
            OF_X,
            each_gate('inputs @ params["kernel"]', "input_gain"),
        ),
        "cell bias outside the activation": (
            'layer_norm(new_c, params["cell_gain"], epsilon) + params["cell_bias"]\n'
            "    new_h = o * activation(seen)",
            'layer_norm(new_c, params["cell_gain"], epsilon)\n'
            '    new_h = o * (activation(seen) + params["cell_bias"])',
        ),
        "epsilon of h ignored": (OF_H, OF_H.replace("epsilon", "1e-5")),
        "epsilon of x ignored": (OF_X, OF_X.replace("epsilon", "1e-5")),
        "epsilon of the cell ignored": (OF_C, OF_C.replace("epsilon", "1e-5")),
    },
    reference_cells.layer_norm_gru_step: {
        **NORM,
        **UPDATE,
        "all gates normalised together": (
            "        of_gates = ",
            "        return np.split(layer_norm(x, gain, epsilon), 3)\n"
            "        of_gates = ",
        ),
        "each gate normalised by itself": (
            "        of_gates = ",
            "        pairs = zip(np.split(x, 3), np.split(gain, 3))\n"
            "        return [layer_norm(v, a, epsilon) for v, a in pairs]\n"
            "        of_gates = ",
        ),
        "gates not normalised": (
            "layer_norm(x[: 2 * size], gain[: 2 * size], epsilon)",
            "x[: 2 * size] * gain[: 2 * size]",
        ),
        "candidate not normalised": (
            "layer_norm(x[2 * size :], gain[2 * size :], epsilon)",
            "x[2 * size :] * gain[2 * size :]",
        ),
        "no reset gate": ("r * (h_n + d_n)", "(h_n + d_n)"),
        "reset of the bias": ("b_n + r * (h_n + d_n)", "r * (h_n + d_n + b_n)"),
        "recurrent bias outside the reset": ("r * (h_n + d_n)", "r * h_n + d_n"),
        "epsilon of the gates ignored": (
            "gain[: 2 * size], epsilon",
            "gain[: 2 * size], 1e-4",
        ),
        "epsilon of the candidate ignored": (
            "gain[2 * size :], epsilon",
            "gain[2 * size :], 1e-4",
        ),
    },
    reference_cells.mgu_step: {
        "f for 1 - f": ("(1.0 - f) * h + f * n", "f * h + (1.0 - f) * n"),
        "nothing erased": ("(1.0 - f) * h + f * n", "h + f * n"),
        "no reset": ("(f * h) @ u_n", "h @ u_n"),
        "reset after": ("(f * h) @ u_n", "f * (h @ u_n)"),
        "reset by 1 - f": ("(f * h) @ u_n", "((1.0 - f) * h) @ u_n"),
        "candidate without tanh": ("n = activation(", "n = ("),
    },
    reference_cells.janet_step: {
        "no beta": ("s - beta", "s"),
        "beta added": ("s - beta", "s + beta"),
        "default beta": ("s - beta", "s - 1.0"),
        "beta in the forget gate": (
            "gate_activation(s) *",
            "gate_activation(s - beta) *",
        ),
        "beta after the sigmoid": (
            "gate_activation(s - beta)",
            "gate_activation(s) - beta",
        ),
        "f for 1 - f": (
            "(1.0 - gate_activation(s - beta))",
            "gate_activation(s - beta)",
        ),
        "candidate without tanh": ("activation(g)", "g"),
        "output through tanh": ("}, new_c", "}, activation(new_c)"),
    },
    reference_cells.mut1_step: {
        **MUT_UPDATE,
        "z sees the past": ("x @ w_z + b_z", "x @ w_z + h @ _ + b_z"),
        "x without tanh": ("activation(x @ w_n)", "x @ w_n"),
        "bias inside the inner tanh": (
            "activation(x @ w_n) + b_n",
            "activation(x @ w_n + b_n)",
        ),
    },
    reference_cells.mut2_step: {
        **MUT_UPDATE,
        "z does not see the past": ("x_z + h @ u_z", "x_z"),
        "z sees tanh h": ("x_z + h @ u_z", "x_z + activation(h) @ u_z"),
        "x through tanh": ("u_n + x_n", "u_n + activation(x_n)"),
    },
    reference_cells.mut3_step: {
        **MUT_UPDATE,
        "z does not see the past": ("x_z + activation(h) @ u_z", "x_z"),
        "z sees h": ("x_z + activation(h) @ u_z", "x_z + h @ u_z"),
        "r sees tanh h": ("x_r + h @ u_r", "x_r + activation(h) @ u_r"),
        "tanh of the product": ("activation(h) @ u_z", "activation(h @ u_z)"),
        "x through tanh": ("u_n + x_n", "u_n + activation(x_n)"),
    },
    reference_cells.min_gru_step: {
        "z for 1 - z": (
            '(1.0 - z) * carry["hidden"] + z',
            'z * carry["hidden"] + (1.0 - z)',
        ),
        "nothing erased": ("(1.0 - z) * carry", "carry"),
        "candidate through tanh": ("activation(n)", "np.tanh(n)"),
        "output through tanh": ("}, new_h", "}, np.tanh(new_h)"),
    },
    reference_cells.min_lstm_step: {
        "gates not divided by their sum": (
            "sigmoid(-log_i_by_f), sigmoid(log_i_by_f)",
            "sigmoid(f), sigmoid(i)",
        ),
        "gates divided before the sigmoid": (
            "sigmoid(-log_i_by_f), sigmoid(log_i_by_f)",
            "sigmoid(f - i), sigmoid(i - f)",
        ),
        "only f divided": ("sigmoid(log_i_by_f)", "sigmoid(i)"),
        "only i divided": ("sigmoid(-log_i_by_f)", "sigmoid(f)"),
        "candidate through tanh": ("activation(g)", "np.tanh(g)"),
        "output through tanh": ("}, new_h", "}, np.tanh(new_h)"),
    },
}


def edit_step(step, old, new):
    """Return the oracle's step, or its layer norm, with one place of it changed."""
    function, options = step, {}
    if isinstance(step, functools.partial):
        function, options = step.func, step.keywords
    sources = map(inspect.getsource, (reference_cells.layer_norm, function))
    source = "\n".join(sources)
    assert source.count(old) == 1, f"{old!r} stands {source.count(old)} times"
    scope = dict(vars(reference_cells))
    exec(source.replace(old, new), scope)
    return functools.partial(scope[function.__name__], **options)


def step_edits(cell_id):
    """The edits of one cell's step, by name."""
    step = cases.CELLS[cell_id].step
    return STEPS[step.func if isinstance(step, functools.partial) else step]


def run_edited(cell_id, edit, reverse):
    step = edit_step(cases.CELLS[cell_id].step, *edit)
    return cases.run_oracle(cell_id, cases.make_problem(cell_id), reverse, step=step)


# Mutants of the settings with which the oracle's step is called

SETTINGS = {
    "gru_hard_sigmoid": {
        "line without levels": {"gate_activation": lambda x: x / 5 + 0.5},
        "slope of Keras 3": {"gate_activation": lambda x: np.clip(x / 6 + 0.5, 0, 1)},
        "smooth sigmoid": {"gate_activation": reference.sigmoid},
    },
    "elman_relu": {
        "tanh": {"activation": np.tanh},
        "absolute value": {"activation": np.abs},
        "softplus": {"activation": lambda x: np.logaddexp(0.0, x)},
    },
    "min_gru_positive": {
        "line on both sides": {"activation": lambda x: x + 0.5},
        "sigmoid on both sides": {"activation": reference.sigmoid},
        "no activation": {"activation": reference_cells.identity},
    },
    "projected_lstm": {"larger clip": {"cell_clip": 1.0}},
}


def run_with_settings(cell_id, settings, reverse):
    step = functools.partial(cases.CELLS[cell_id].step, **settings)
    return cases.run_oracle(cell_id, cases.make_problem(cell_id), reverse, step=step)


# Changes that are none, by cell and name of the mutant
EQUIVALENT = {
    ("elman_relu", "two activations"): "relu leaves what it has made as it is",
    ("mut1", "gate z of recurrent_kernel dropped"): "z of MUT1 does not see the past",
    ("mut1_no_bias", "gate z of recurrent_kernel dropped"): "as in mut1",
    ("mut1_no_bias", "bias inside the inner tanh"): "there is no bias",
    ("gru_no_bias", "recurrent bias outside the reset"): "there is no bias",
    ("layer_norm_gru_no_bias", "recurrent bias outside the reset"): "there is no bias",
    ("layer_norm_gru_no_bias", "reset of the bias"): "there is no bias",
}
