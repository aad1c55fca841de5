"""PyTorch: `nn.LSTM` or `nn.GRU`, time-major, on the kind of device that JAX uses."""

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

from experiments.benchmarks.cases import NUM_CHECKED_STEPS, STEP, Case
from experiments.benchmarks.data import STANDARD, Batch, Data, name_gradients
from experiments.benchmarks.model import (
    NUM_CHECKED_UPDATES,
    SETTINGS,
    Facts,
    Program,
    Results,
)

LAYERS = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}
CELLS = {"lstm": torch.nn.LSTMCell, "gru": torch.nn.GRUCell}
_BIAS_SHARE = 0.25  # of b in the first of PyTorch's two biases
_NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


#: Before anybody sets another number.
DEFAULT_THREADS = torch.get_num_threads()


@dataclasses.dataclass(frozen=True)
class Torch:
    """PyTorch as an implementation; what it computes is our standard form.

    Attributes:
        num_threads: Of a call on a CPU; None: PyTorch's own choice.
    """

    num_threads: int | None = None

    def refuses(self, case: Case) -> str | None:
        """Say why a case cannot be asked of it, or None."""
        if case.variant == "resets":
            return "no resets"
        if self.num_threads is not None and _device().type != "cpu":
            return "threads matter on a CPU only"
        if jax.default_backend() != _device().type.replace("cuda", "gpu"):
            return f"this PyTorch has no {jax.default_backend()}"
        return None

    def facts(self, case: Case) -> Facts:
        """Say what distinguishes it from ours: two biases for one."""
        note = "packs the sequences" if case.variant == "lengths" else ""
        return Facts(note=note, same_updates=False)

    def build(self, case: Case, data: Data) -> Program:
        """Prepare a case; nothing is compiled."""
        program = self._prepare(case, data)

        def run() -> None:
            num_threads = self.num_threads or DEFAULT_THREADS
            if torch.get_num_threads() != num_threads:
                torch.set_num_threads(num_threads)
            program.run()

        return program._replace(run=run)

    def _prepare(self, case: Case, data: Data) -> Program:
        modules = [_make_module(case, params) for params in data.params]
        batch = _to_device(case, data.batch)
        if case.mode == STEP:
            return _make_step(modules[0], batch.inputs)
        if case.mode == "forward":
            return _make_forward(modules, batch)
        if case.mode == "gradient":
            return _make_gradient(modules, batch, data)
        return _make_train(modules, batch)

    def derive(self, case: Case, data: Data) -> Results:
        """Compute outputs and gradients of the one seed, those of the inputs too."""
        module = _make_module(case, data.params[0])
        batch = _to_device(case, data.batch)
        inputs = batch.inputs.clone().requires_grad_()
        outputs = _apply(module, batch._replace(inputs=inputs))
        wanted = [inputs, *module.parameters()]
        of_inputs, *gradient = torch.autograd.grad(_mean_square(outputs), wanted)
        return {
            "outputs": _to_numpy(outputs),
            "gradient of inputs": _to_numpy(of_inputs),
            **name_gradients(_pull_back(data.params[0], gradient), STANDARD),
        }


def _make_module(case: Case, params: Any) -> torch.nn.Module:
    make = CELLS if case.mode == STEP else LAYERS
    module = make[case.cell](case.sizes.in_features, case.sizes.hidden_features)
    suffix = "" if case.mode == STEP else "_l0"
    converted = jax.device_get(convert(params))
    with torch.no_grad():
        for name, value in zip(_NAMES, converted, strict=True):
            getattr(module, f"{name}{suffix}").copy_(torch.tensor(value))
    return module.to(_device(), _dtype(case))


def convert(params: Any) -> list[jax.Array]:
    """Transpose our matrices and share our biases between PyTorch's two.

    Args:
        params: `LSTMParams` or `GRUParams`.

    Returns:
        The parameters in PyTorch's order.
    """
    share = _BIAS_SHARE * params.bias
    rest = params.bias - share
    if hasattr(params, "recurrent_bias"):
        columns = params.recurrent_kernel.shape[0]
        share = jnp.concatenate(
            [share[: 2 * columns], params.bias[2 * columns :]], axis=0
        )
        rest = jnp.concatenate([rest[: 2 * columns], params.recurrent_bias], axis=0)
    return [params.kernel.T, params.recurrent_kernel.T, share, rest]


def _pull_back(params: Any, gradient: Any) -> Any:
    """Bring gradients into our layout, by the transpose of the conversion."""
    _, transpose = jax.vjp(convert, jax.tree.map(jnp.asarray, params))
    return transpose([jnp.asarray(_to_numpy(part)) for part in gradient])[0]


def _apply(module: torch.nn.Module, batch: Batch) -> torch.Tensor:
    if batch.lengths is None:
        return module(batch.inputs)[0]
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        batch.inputs, batch.lengths, enforce_sorted=False
    )
    outputs, _ = torch.nn.utils.rnn.pad_packed_sequence(
        module(packed)[0], total_length=batch.inputs.shape[0]
    )
    return outputs


def _make_forward(modules: list[torch.nn.Module], batch: Batch) -> Program:
    def compute() -> list[torch.Tensor]:
        with torch.inference_mode():
            return [_finish(_apply(module, batch)) for module in modules]

    def results() -> Results:
        return {"outputs": np.stack([_to_numpy(each) for each in compute()])}

    return _program(compute, results)


def _make_gradient(modules: list[torch.nn.Module], batch: Batch, data: Data) -> Program:
    parameters = [list(module.parameters()) for module in modules]

    def compute() -> list[Any]:
        found = []
        for module, wanted in zip(modules, parameters, strict=True):
            loss = _mean_square(_apply(module, batch))
            found.append(_finish((loss.detach(), torch.autograd.grad(loss, wanted))))
        return found

    def results() -> Results:
        found = compute()
        back = [
            name_gradients(_pull_back(params, gradient), STANDARD)
            for params, (_, gradient) in zip(data.params, found, strict=True)
        ]
        stacked = {name: np.stack([each[name] for each in back]) for name in back[0]}
        return {"loss": np.stack([_to_numpy(loss) for loss, _ in found]), **stacked}

    return _program(compute, results)


def _make_train(modules: list[torch.nn.Module], batch: Batch) -> Program:
    modules = [copy.deepcopy(module) for module in modules]
    optimizers = [
        torch.optim.Adam(module.parameters(), SETTINGS.learning_rate)
        for module in modules
    ]

    def compute() -> list[torch.Tensor]:
        losses = []
        for module, optimizer in zip(modules, optimizers, strict=True):
            optimizer.zero_grad()
            loss = _mean_square(_apply(module, batch))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(module.parameters(), SETTINGS.max_grad_norm)
            optimizer.step()
            losses.append(_finish(loss.detach()))
        return losses

    def results() -> Results:
        losses = [
            np.stack([_to_numpy(loss) for loss in compute()])
            for _ in range(NUM_CHECKED_UPDATES)
        ]
        return {"losses": np.stack(losses, axis=-1)}

    return _program(compute, results)


def _make_step(module: torch.nn.Module, inputs: torch.Tensor) -> Program:
    carry = None
    steps = list(inputs[:NUM_CHECKED_STEPS])

    def step(carry: Any, inputs: torch.Tensor) -> tuple[Any, torch.Tensor]:
        with torch.inference_mode():
            carry = _finish(module(inputs, carry))
        return carry, carry[0] if isinstance(carry, tuple) else carry

    def run() -> None:
        nonlocal carry
        carry, _ = step(carry, steps[0])

    def results() -> Results:
        carry, collected = None, []
        for step_inputs in steps:
            carry, outputs = step(carry, step_inputs)
            collected.append(_to_numpy(outputs))
        return {"outputs": np.stack(collected)}

    return Program(run, results)


def _program(compute: Callable[[], Any], results: Callable[[], Results]) -> Program:
    def run() -> None:
        compute()

    return Program(run, results)


def _mean_square(outputs: torch.Tensor) -> torch.Tensor:
    return outputs.float().square().mean()


def _finish(result: Any) -> Any:
    """Wait for the device, as `jax.block_until_ready` does."""
    if _device().type == "cuda":
        torch.cuda.synchronize()
    return result


def _device() -> torch.device:
    on_gpu = jax.default_backend() == "gpu" and torch.cuda.is_available()
    return torch.device("cuda" if on_gpu else "cpu")


def _dtype(case: Case) -> torch.dtype:
    return getattr(torch, case.dtype)


def _to_device(case: Case, batch: Batch) -> Batch:
    inputs = torch.tensor(batch.inputs).to(_device(), _dtype(case))
    # Packing reads the lengths on the host.
    lengths = None if batch.lengths is None else torch.tensor(batch.lengths).long()
    return Batch(inputs, lengths)


def _to_numpy(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().float().cpu().numpy()


IMPLEMENTATION = Torch()
