"""The HiPPO network in chunks, for CUDA tensors: the operators ``torch.ops.seqmem.memory_chunks`` and its gradient.

``memory_chunks_layout.py`` has the formulas, ``memory_network.py`` the reference.
"""

from typing import Any

import torch
from torch import Tensor

from seqmem.data.masks import masked
from seqmem.ops import compiled_sequence, extension
from seqmem.ops.activations import Activation
from seqmem.ops.discretization import Discretization, alpha_of
from seqmem.ops.export import exporting
from seqmem.ops.gpu import memory_chunks_plain, support
from seqmem.ops.gpu.memory_chunks_backward import backward
from seqmem.ops.gpu.memory_chunks_by_powers import ByPowers
from seqmem.ops.gpu.memory_chunks_by_steps import ByGenerators, Dense
from seqmem.ops.gpu.memory_chunks_constants import Powers, Sizes, kept
from seqmem.ops.gpu.memory_chunks_forward import Result, forward
from seqmem.ops.gpu.memory_chunks_layout import Network, chunk_size
from seqmem.ops.gpu.memory_chunks_transitions import Transition
from seqmem.ops.precision import at_least_float32, autocast_active, full_precision

_WEIGHTS = ("weight_ux", "weight_uh", "weight_um", "bias_u", "weight_hx", "weight_hm", "bias_h")
_SETTINGS = "float? alpha, str memory_activation, str hidden_activation, bool gated, bool memory_output, ScalarType? half"
_TENSORS = "Tensor inputs, Tensor hidden, Tensor memory, Tensor? step_sizes, Tensor? generators, Tensor? step, Tensor? drive, "
_TENSORS += "Tensor? lengths, " + ", ".join(f"Tensor? {name}" for name in _WEIGHTS)


def memory_network_chunks(
    inputs: Tensor,
    hidden: Tensor,
    memory: Tensor,
    lengths: Tensor | None = None,
    *,
    step_sizes: Tensor | None = None,
    generators: Tensor | None = None,
    discretization: Discretization = "bilinear",
    step: Tensor | None = None,
    drive: Tensor | None = None,
    weight_ux: Tensor | None = None,
    weight_uh: Tensor | None = None,
    weight_um: Tensor | None = None,
    bias_u: Tensor | None = None,
    weight_hx: Tensor | None = None,
    weight_hm: Tensor | None = None,
    weight_hh: Tensor | None = None,
    bias_h: Tensor | None = None,
    memory_activation: Activation = "id",
    hidden_activation: Activation = "tanh",
    gated: bool = True,
    memory_output: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the HiPPO recurrent network over a whole sequence in chunks of steps.

    Arguments and results are those of :func:`seqmem.ops.memory_network.memory_network_sequence`, with these differences: the
    hidden state does not feed the gates, all rows share the step sizes, and these, the generators, ``step`` and ``drive`` are
    CPU tensors. What follows from these is computed once for each of them.
    """
    if weight_hh is not None or (step_sizes is not None and step_sizes.dim() > 1):
        raise ValueError("the sequence in chunks has one step size for all rows and no weight_hh")
    dtype, half = hidden.dtype, _product_type(hidden)
    given = (weight_ux, weight_uh, weight_um, bias_u, weight_hx, weight_hm, bias_h)
    weights = [None if weight is None else at_least_float32(weight) for weight in given]
    inputs, hidden = inputs.to(torch.promote_types(dtype, torch.float32)), at_least_float32(hidden)
    needs = any(part is not None and part.requires_grad for part in (inputs, hidden, memory, *weights))
    constants = [_like_inputs(value, inputs) for value in (step_sizes, generators, step, drive)]
    settings = (alpha_of(discretization), memory_activation, hidden_activation, gated, memory_output, half)
    outputs, hidden, memory, *_ = torch.ops.seqmem.memory_chunks(
        inputs, hidden, memory, *constants, lengths, *weights, *settings, needs and torch.is_grad_enabled()
    )
    return outputs.to(dtype), hidden.to(dtype), memory


def fallback_reason(
    inputs: Tensor,
    discretization: Discretization = "bilinear",
    learned_step: bool = False,
    times_need_gradient: bool = False,
    hidden_feeds_gates: bool = False,
    rows_differ: bool = False,
) -> str:
    """Return why the sequence in chunks cannot run on inputs (B, T, C), or an empty string.

    Args:
        inputs: (B, T, C), in the type of the weights.
        discretization: of the memory's equation; all are supported.
        learned_step: A and B are parameters.
        times_need_gradient: the times of the steps need a gradient.
        hidden_feeds_gates: there is a weight_hh.
        rows_differ: rows have different step sizes.
    """
    if extension.FORCED:
        return extension.REASON
    if hidden_feeds_gates:
        return "the hidden state feeds the gates through a matrix of its own, so that steps have no common product"
    if learned_step:
        return "the memory's step is learned"
    if rows_differ or times_need_gradient:
        return "rows have different step sizes, so that they have no common table"
    if exporting():
        return "an exported program takes sequences of any length"
    return support.fallback_reason()


def _product_type(hidden: Tensor) -> torch.dtype | None:
    """Return the type of the products' factors: half precision under autocast or for such weights, else None."""
    if hidden.element_size() < 4:
        return hidden.dtype
    if hidden.dtype == torch.float32 and autocast_active(hidden.device):
        half = torch.get_autocast_dtype(hidden.device.type)
        return None if half == torch.float32 else half
    return None


def _like_inputs(constant: Tensor | None, inputs: Tensor) -> Tensor | None:
    """Return a constant as a fake tensor if the inputs are fake and accept no others."""
    mode = None if torch.compiler.is_compiling() else getattr(inputs, "fake_mode", None)
    if constant is None or mode is None or mode.allow_non_fake_inputs or getattr(constant, "fake_mode", None) is not None:
        return constant
    return mode.from_tensor(constant)


def _transition(
    inputs: Tensor, hidden: Tensor, memory: Tensor, constants: Any, lengths: Tensor | None, weights: Any, settings: Any
) -> Transition:
    """Return the memory's transition for the arguments of a call."""
    step_sizes, generators, step, drive = constants
    alpha, memory_activation, hidden_activation, gated, _, half = settings
    batch, steps = inputs.shape[:2]
    memories, order = memory.shape[1:]
    net = Network(
        batch, steps, memories, order, hidden.shape[1], gated, memory_activation, hidden_activation, lengths,
        _contiguous(weights["weight_uh"]), _contiguous(weights["weight_um"]), chunk_size(memories, steps),
    )  # fmt: skip
    kernels, weight = kernels_for(inputs), _contiguous(weights["weight_hm"])
    key = (net.chunk, memory.device, memory.dtype)
    if step is not None:
        powers = kept(step, (key, _content(drive)), lambda: Powers(step, drive, net.chunk, memory))
        return ByPowers(net, kernels, weight, half, powers)
    settings_key = (key, _content(generators), alpha)
    made = kept(step_sizes, settings_key, lambda: Sizes(step_sizes, generators, alpha, net.chunk, memory))
    return (Dense if alpha is None else ByGenerators)(net, kernels, weight, half, made)


def _content(constant: Tensor) -> tuple[tuple[int, ...], bytes]:
    """Return the values of a CPU tensor as a key; its id may be that of an earlier tensor."""
    return tuple(constant.shape), constant.detach().numpy().tobytes()


def kernels_for(inputs: Tensor) -> Any:
    """Return the module of the kernels: Triton's for CUDA tensors, else plain torch operations."""
    if not inputs.is_cuda:
        return memory_chunks_plain
    from seqmem.ops.gpu import memory_chunks_launch

    return memory_chunks_launch


def _contiguous(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.contiguous()


def _run(inputs: Tensor, hidden: Tensor, memory: Tensor, *others: Any) -> tuple[Tensor, ...]:
    constants, lengths, weights, settings, save = _parsed(others)
    if inputs.shape[0] == 0 or inputs.shape[1] == 0:
        results = _shapes(inputs, hidden, memory, *others)
        return results[0], hidden.clone(), memory.clone(), *results[3:]
    with full_precision(inputs.device):
        transition = _transition(inputs, hidden, memory, constants, lengths, weights, settings)
        return tuple(forward(transition, masked(inputs, lengths), hidden, memory, weights, settings[4], save))


def _run_backward(
    grad_outputs: Tensor | None,
    grad_hidden: Tensor | None,
    grad_memory: Tensor | None,
    outputs: Tensor,
    gates: Tensor,
    memory_inputs: Tensor,
    starts: Tensor,
    inputs: Tensor,
    hidden: Tensor,
    memory: Tensor,
    *others: Any,
) -> list[Tensor]:
    constants, lengths, weights, settings, _ = _parsed(others[:-1])
    if inputs.shape[0] == 0 or inputs.shape[1] == 0:
        through = [
            torch.zeros_like(like) if grad is None else grad.clone()
            for grad, like in ((grad_hidden, hidden), (grad_memory, memory))
        ]
        return [torch.zeros_like(inputs), *through, *(_zeros(weight, inputs) for weight in weights.values())]
    with full_precision(inputs.device):
        transition = _transition(inputs, hidden, memory, constants, lengths, weights, settings)
        result = Result(outputs, hidden, memory, gates, memory_inputs, starts)
        grads = grad_outputs, grad_hidden, grad_memory
        found = backward(transition, masked(inputs, lengths), hidden.contiguous(), weights, result, grads, others[-1])
    return [inputs.new_empty(0) if part is None else part for part in (*found[:3], *found[3].values())]


def _zeros(weight: Tensor | None, like: Tensor) -> Tensor:
    return like.new_empty(0) if weight is None else torch.zeros_like(weight)


def _parsed(others: tuple[Any, ...]) -> tuple[Any, Tensor | None, dict[str, Tensor | None], Any, bool]:
    """Return the constants, the lengths, the weights by name, the settings, and whether to save."""
    constants, lengths, rest = others[:4], others[4], others[5:]
    weights = dict(zip(_WEIGHTS, rest[: len(_WEIGHTS)], strict=True))
    *settings, save = rest[len(_WEIGHTS) :]
    return constants, lengths, weights, settings, save


def _shapes(inputs: Tensor, hidden: Tensor, memory: Tensor, *others: Any) -> tuple[Tensor, ...]:
    _, _, _, (*_, gated, memory_output, _), save = _parsed(others)
    batch, steps = inputs.shape[:2]
    memories, order = memory.shape[1:]
    chunk = chunk_size(memories, steps)
    chunks = -(-steps // chunk)
    rows = (1 + gated) * hidden.shape[1]
    saved: list[tuple[int, ...]] = [(0,)] * 3
    if save and batch > 0 and steps > 0:
        saved = [(chunks, batch, chunk, rows), (batch, steps, memories), (chunks + 1, *memory.shape)]
    return (
        inputs.new_empty(batch, steps, hidden.shape[1] + (memories * order if memory_output else 0)),
        hidden.new_empty(hidden.shape),
        memory.new_empty(memory.shape),
        *(inputs.new_empty(shape) for shape in saved),
    )


def _register() -> None:
    arguments = f"{_TENSORS}, {_SETTINGS}, bool save"
    grads = "Tensor? grad_outputs, Tensor? grad_hidden, Tensor? grad_memory, "
    grads += "Tensor outputs, Tensor gates, Tensor memory_inputs, Tensor starts, "
    torch.library.define("seqmem::memory_chunks", f"({arguments}) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)")
    torch.library.define("seqmem::memory_chunks_backward", f"({grads}{arguments}, bool input_gradient) -> Tensor[]")
    for device in ("cpu", "cuda"):
        torch.library.impl("seqmem::memory_chunks", device, _run)
        torch.library.impl("seqmem::memory_chunks_backward", device, _run_backward)
    compiled_sequence.register_operator("memory_chunks", 2, _shapes)


_register()
