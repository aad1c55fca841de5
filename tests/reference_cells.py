"""The oracle's cells: one step of one row in float64, written from the papers.

Each takes its parameters and carry as dictionaries of vectors and matrices and returns
the next carry and the outputs. What a cell lets one choose is a keyword argument, with
the paper's choice as its default. The symbols are those of the papers, except that the
gates have the names of the package's layout.
"""

import numpy as np

from tests.reference import affine, sigmoid


def relu(x):
    return np.maximum(x, 0.0)


def hard_sigmoid(x):
    """The line through (-2.5, 0) and (2.5, 1), flat outside; Keras up to version 2."""
    return np.minimum(np.maximum(x / 5.0 + 0.5, 0.0), 1.0)


def positive(x):
    """Feng et al. (2024), listing of appendix B.1: the function g."""
    return np.where(x >= 0.0, x + 0.5, sigmoid(x))


def identity(x):
    return x


def layer_norm(x, gain, epsilon):
    """Ba et al. (2016), equation 4, without its bias."""
    return (x - np.mean(x)) / np.sqrt(np.var(x) + epsilon) * gain


def lstm_step(
    params,
    carry,
    inputs,
    *,
    activation=np.tanh,
    gate_activation=sigmoid,
    output_activation=None,
):
    """Hochreiter and Schmidhuber (1997) with the forget gate of Gers et al. (2000)."""
    x, h, c = inputs, carry["hidden"], carry["cell"]
    preactivations = affine(x, params["kernel"], params["bias"])
    preactivations = preactivations + h @ params["recurrent_kernel"]
    i, f, g, o = np.split(preactivations, 4)
    i, f, o = gate_activation(i), gate_activation(f), gate_activation(o)
    new_c = f * c + i * activation(g)
    new_h = o * (output_activation or activation)(new_c)
    return {"hidden": new_h, "cell": new_c}, new_h


def gru_step(params, carry, inputs, *, activation=np.tanh, gate_activation=sigmoid):
    """Cho et al. (2014) as in cuDNN: the reset gate acts after the matmul."""
    x, h = inputs, carry["hidden"]
    x_r, x_z, x_n = np.split(affine(x, params["kernel"], params["bias"]), 3)
    u_r, u_z, u_n = np.split(params["recurrent_kernel"], 3, axis=1)
    r = gate_activation(x_r + h @ u_r)
    z = gate_activation(x_z + h @ u_z)
    n = activation(x_n + r * affine(h, u_n, params["recurrent_bias"]))
    new_h = (1.0 - z) * n + z * h
    return {"hidden": new_h}, new_h


def gru_reset_before_step(
    params, carry, inputs, *, activation=np.tanh, gate_activation=sigmoid
):
    """Cho et al. (2014) as printed: the reset gate acts on the hidden vector."""
    x, h = inputs, carry["hidden"]
    x_r, x_z, x_n = np.split(affine(x, params["kernel"], params["bias"]), 3)
    u_r, u_z, u_n = np.split(params["recurrent_kernel"], 3, axis=1)
    r = gate_activation(x_r + h @ u_r)
    z = gate_activation(x_z + h @ u_z)
    n = activation(x_n + (r * h) @ u_n)
    new_h = (1.0 - z) * n + z * h
    return {"hidden": new_h}, new_h


def elman_step(params, carry, inputs, *, activation=np.tanh):
    """Elman (1990)."""
    preactivation = affine(inputs, params["kernel"], params["bias"])
    new_h = activation(preactivation + carry["hidden"] @ params["recurrent_kernel"])
    return {"hidden": new_h}, new_h


def peephole_lstm_step(
    params, carry, inputs, *, activation=np.tanh, gate_activation=sigmoid
):
    """Gers and Schmidhuber (2000): i and f see the old cell, o the new one."""
    x, h, c = inputs, carry["hidden"], carry["cell"]
    w_i, w_f, w_g, w_o = np.split(params["kernel"], 4, axis=1)
    u_i, u_f, u_g, u_o = np.split(params["recurrent_kernel"], 4, axis=1)
    p_i, p_f, p_o = np.split(params["peephole"], 3)
    bias = params["bias"]
    b_i, b_f, b_g, b_o = np.zeros(4) if bias is None else np.split(bias, 4)
    i = gate_activation(x @ w_i + h @ u_i + p_i * c + b_i)
    f = gate_activation(x @ w_f + h @ u_f + p_f * c + b_f)
    new_c = f * c + i * activation(x @ w_g + h @ u_g + b_g)
    o = gate_activation(x @ w_o + h @ u_o + p_o * new_c + b_o)
    new_h = o * activation(new_c)
    return {"hidden": new_h, "cell": new_c}, new_h


def coupled_lstm_step(
    params, carry, inputs, *, activation=np.tanh, gate_activation=sigmoid
):
    """Greff et al. (2017), variant CIFG: the input gate is 1 - f."""
    h, c = carry["hidden"], carry["cell"]
    preactivations = affine(inputs, params["kernel"], params["bias"])
    f, g, o = np.split(preactivations + h @ params["recurrent_kernel"], 3)
    f, o = gate_activation(f), gate_activation(o)
    i = 1.0 - f
    new_c = i * activation(g) + f * c
    new_h = o * activation(new_c)
    return {"hidden": new_h, "cell": new_c}, new_h


def open_lstm_step(
    params, carry, inputs, *, activation=np.tanh, gate_activation=sigmoid
):
    """Greff et al. (2017), variant NOG: the output gate is 1."""
    h, c = carry["hidden"], carry["cell"]
    preactivations = affine(inputs, params["kernel"], params["bias"])
    i, f, g = np.split(preactivations + h @ params["recurrent_kernel"], 3)
    i, f = gate_activation(i), gate_activation(f)
    new_c = i * activation(g) + f * c
    new_h = activation(new_c)
    return {"hidden": new_h, "cell": new_c}, new_h


def projected_lstm_step(
    params,
    carry,
    inputs,
    *,
    activation=np.tanh,
    gate_activation=sigmoid,
    cell_clip=np.inf,
):
    """Sak et al. (2014), without peepholes: h is the projection r of their m."""
    r, c = carry["hidden"], carry["cell"]
    preactivations = affine(inputs, params["kernel"], params["bias"])
    i, f, g, o = np.split(preactivations + r @ params["recurrent_kernel"], 4)
    i, f, o = gate_activation(i), gate_activation(f), gate_activation(o)
    new_c = f * c + i * activation(g)
    new_c = np.minimum(np.maximum(new_c, -cell_clip), cell_clip)
    m = o * activation(new_c)
    new_r = m @ params["projection"]
    return {"hidden": new_r, "cell": new_c}, new_r


def layer_norm_lstm_step(
    params,
    carry,
    inputs,
    *,
    activation=np.tanh,
    gate_activation=sigmoid,
    epsilon=1e-5,
):
    """Ba et al. (2016), the LSTM of the supplement; one bias stands for their three."""
    h, c = carry["hidden"], carry["cell"]
    of_h = layer_norm(h @ params["recurrent_kernel"], params["recurrent_gain"], epsilon)
    of_x = layer_norm(inputs @ params["kernel"], params["input_gain"], epsilon)
    bias = params["bias"]
    i, f, g, o = np.split(of_h + of_x + (0.0 if bias is None else bias), 4)
    i, f, o = gate_activation(i), gate_activation(f), gate_activation(o)
    new_c = f * c + i * activation(g)
    seen = layer_norm(new_c, params["cell_gain"], epsilon) + params["cell_bias"]
    new_h = o * activation(seen)
    return {"hidden": new_h, "cell": new_c}, new_h


def layer_norm_gru_step(
    params,
    carry,
    inputs,
    *,
    activation=np.tanh,
    gate_activation=sigmoid,
    epsilon=1e-5,
):
    """Ba et al. (2016), the GRU of the supplement; z keeps the old h, as in our GRU."""
    h, size = carry["hidden"], len(carry["hidden"])

    def normed(x, gain):  # r and z together, n by itself
        of_gates = layer_norm(x[: 2 * size], gain[: 2 * size], epsilon)
        of_candidate = layer_norm(x[2 * size :], gain[2 * size :], epsilon)
        return [*np.split(of_gates, 2), of_candidate]

    x_r, x_z, x_n = normed(inputs @ params["kernel"], params["input_gain"])
    h_r, h_z, h_n = normed(h @ params["recurrent_kernel"], params["recurrent_gain"])
    bias, inner_bias = params["bias"], params["recurrent_bias"]
    b_r, b_z, b_n = np.zeros(3) if bias is None else np.split(bias, 3)
    d_n = 0.0 if inner_bias is None else inner_bias
    r = gate_activation(x_r + h_r + b_r)
    z = gate_activation(x_z + h_z + b_z)
    n = activation(x_n + b_n + r * (h_n + d_n))
    new_h = (1.0 - z) * n + z * h
    return {"hidden": new_h}, new_h


def mgu_step(params, carry, inputs, *, activation=np.tanh, gate_activation=sigmoid):
    """Zhou et al. (2016): one gate resets, before the matmul, and updates."""
    h = carry["hidden"]
    x_f, x_n = np.split(affine(inputs, params["kernel"], params["bias"]), 2)
    u_f, u_n = np.split(params["recurrent_kernel"], 2, axis=1)
    f = gate_activation(x_f + h @ u_f)
    n = activation(x_n + (f * h) @ u_n)
    new_h = (1.0 - f) * h + f * n
    return {"hidden": new_h}, new_h


def janet_step(
    params, carry, inputs, *, activation=np.tanh, gate_activation=sigmoid, beta=1.0
):
    """Van der Westhuizen and Lasenby (2018): c and h are one."""
    c = carry["hidden"]
    preactivations = affine(inputs, params["kernel"], params["bias"])
    s, g = np.split(preactivations + c @ params["recurrent_kernel"], 2)
    new_c = gate_activation(s) * c + (1.0 - gate_activation(s - beta)) * activation(g)
    return {"hidden": new_c}, new_c


def mut1_step(params, carry, inputs, *, activation=np.tanh, gate_activation=sigmoid):
    """Jozefowicz et al. (2015), MUT1; W_n makes their x as wide as h."""
    x, h = inputs, carry["hidden"]
    w_z, w_r, w_n = np.split(params["kernel"], 3, axis=1)
    _, u_r, u_n = np.split(params["recurrent_kernel"], 3, axis=1)
    bias = params["bias"]
    b_z, b_r, b_n = np.zeros(3) if bias is None else np.split(bias, 3)
    z = gate_activation(x @ w_z + b_z)
    r = gate_activation(x @ w_r + h @ u_r + b_r)
    n = activation((r * h) @ u_n + activation(x @ w_n) + b_n)
    new_h = n * z + h * (1.0 - z)
    return {"hidden": new_h}, new_h


def mut2_step(params, carry, inputs, *, activation=np.tanh, gate_activation=sigmoid):
    """Jozefowicz et al. (2015), MUT2; W_r makes their x as wide as h."""
    x, h = inputs, carry["hidden"]
    x_z, x_r, x_n = np.split(affine(x, params["kernel"], params["bias"]), 3)
    u_z, u_r, u_n = np.split(params["recurrent_kernel"], 3, axis=1)
    z = gate_activation(x_z + h @ u_z)
    r = gate_activation(x_r + h @ u_r)
    n = activation((r * h) @ u_n + x_n)
    new_h = n * z + h * (1.0 - z)
    return {"hidden": new_h}, new_h


def mut3_step(params, carry, inputs, *, activation=np.tanh, gate_activation=sigmoid):
    """Jozefowicz et al. (2015), MUT3."""
    x, h = inputs, carry["hidden"]
    x_z, x_r, x_n = np.split(affine(x, params["kernel"], params["bias"]), 3)
    u_z, u_r, u_n = np.split(params["recurrent_kernel"], 3, axis=1)
    z = gate_activation(x_z + activation(h) @ u_z)
    r = gate_activation(x_r + h @ u_r)
    n = activation((r * h) @ u_n + x_n)
    new_h = n * z + h * (1.0 - z)
    return {"hidden": new_h}, new_h


def min_gru_step(
    params, carry, inputs, *, activation=identity, gate_activation=sigmoid
):
    """Feng et al. (2024), minGRU; `positive` as activation is its log-space form."""
    z, n = np.split(affine(inputs, params["kernel"], params["bias"]), 2)
    z = gate_activation(z)
    new_h = (1.0 - z) * carry["hidden"] + z * activation(n)
    return {"hidden": new_h}, new_h


def min_lstm_step(params, carry, inputs, *, activation=identity):
    """Feng et al. (2024), minLSTM, with i and f divided by their sum.

    f / (f + i) = 1 / (1 + i / f), and log(i / f) is taken without i and f, both of
    which may be too small to divide.
    """
    i, f, g = np.split(affine(inputs, params["kernel"], params["bias"]), 3)
    log_i_by_f = np.logaddexp(0.0, -f) - np.logaddexp(0.0, -i)
    keep, write = sigmoid(-log_i_by_f), sigmoid(log_i_by_f)
    new_h = keep * carry["hidden"] + write * activation(g)
    return {"hidden": new_h}, new_h
