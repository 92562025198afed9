"""Whole sequences in one call: all steps of a recurrence forward, and all of them back, in ``csrc/sequence_run.cpp``.

What each call computes is the step-by-step loop of the cell of the same name (``seqmem.cells``), which remains its reference.
"""

from typing import Any

import torch
from torch import Tensor

from seqmem.ops import extension
from seqmem.ops.discretization import Discretization, alpha_of

# Rows of (step, batch) that the way back holds at a time: enough for the products that give the weights' gradients, few enough
# to stay in cache.
_CHUNK_ROWS = 800


def fallback_reason(inputs: Tensor, discretization: Discretization = "bilinear", half_products: bool = True) -> str:
    """Why the calls of this module do not take these inputs, so that the cell goes step by step; empty if they do.

    Under autocast to bfloat16 the products of float32 weights are in bfloat16, with float32 sums, states and outputs.

    Args:
        inputs: (B, T, C).
        discretization: of a memory whose step changes from one time to the next.
        half_products: the call has products in bfloat16, and needs them under autocast.
    """
    if extension.REASON:
        extension.warn_once()
        return extension.REASON
    if not inputs.is_cpu:
        return f"the compiled sequences run on the CPU only, the inputs are on {inputs.device}"
    if alpha_of(discretization) is None:
        return f"there is no compiled sequence for the discretization '{discretization}'"
    kinds = (torch.float32, torch.float64)
    if inputs.dtype != torch.float64 and torch.is_autocast_enabled("cpu"):
        half = torch.get_autocast_dtype("cpu")
        if not half_products:
            return ""
        if half != torch.bfloat16 or torch.ops.seqmem.bfloat16_products() == "":
            return f"this processor has no compiled sequences with products in {half}"
        kinds = (torch.float32, torch.bfloat16)
    return "" if inputs.dtype in kinds else f"there are no compiled sequences of {inputs.dtype}"


def memory_sequence(
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
    memory_activation: str = "id",
    hidden_activation: str = "tanh",
    gated: bool = True,
    memory_output: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """The HiPPO recurrent network (HiPPO, section 3.1) over a whole sequence; see :class:`seqmem.cells.memory.MemoryCell`.

    The memory's step is given by generators and step sizes, at O(N) a step, or by one matrix for all times.

    Args:
        inputs: (B, T, C), float32 or float64 as all others; under autocast bfloat16 too.
        hidden: (B, H) before the first step.
        memory: (B, M, N) before the first step.
        lengths: (B,) int64 valid steps of each row; None if all T are valid.
        step_sizes: (T,), or (T, B) where rows stand at different times; float64. An infinite one starts the memory with u e_0.
        generators: (6, N) float64, see :func:`seqmem.ops.generators`; given with ``step_sizes``.
        discretization: forward, backward, bilinear, or alpha of the general bilinear transform; goes with ``step_sizes``.
        step: A_d (N, N) float64 of c = A_d c + B_d u; given instead of step sizes and generators.
        drive: B_d (N,) float64; given with ``step``.
        weight_ux: (M, C); this and each of the following is None where it is switched off.
        weight_uh: (M, H).
        weight_um: (M, N).
        bias_u: (M,).
        weight_hx: (R, C), R = 2H with gate (rows of the candidate, then of the gate), H without.
        weight_hm: (R, M N).
        weight_hh: (R, H).
        bias_h: (R,).
        memory_activation: id, tanh, relu or sigmoid, of what is written to the memory.
        hidden_activation: the same, of the candidate.
        gated: whether the hidden state has a gate.
        memory_output: output [h, vec(m)] instead of h.

    Returns:
        outputs (B, T, H) or (B, T, H + M N), zero where padded, and the hidden state and memory after each row's last valid
        step. Differentiable once in the first three and the weights.

    Raises:
        ValueError: shapes or types that do not fit together.
    """
    inputs = inputs.to(hidden.dtype)
    weights = (weight_ux, weight_uh, weight_um, bias_u, weight_hx, weight_hm, weight_hh, bias_h)
    outputs, hidden, memory, *_ = torch.ops.seqmem.memory_sequence(
        inputs,
        hidden,
        memory,
        step_sizes,
        generators,
        step,
        drive,
        lengths,
        *weights,
        alpha_of(discretization),
        memory_activation,
        hidden_activation,
        gated,
        memory_output,
        _half(hidden),
        chunk_steps(inputs, hidden, memory, *weights),
    )
    return outputs, hidden, memory


def lstm_sequence(
    inputs: Tensor,
    hidden: Tensor,
    memory: Tensor,
    lengths: Tensor | None,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None = None,
    bias_hh: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """One layer of torch.nn.LSTM over a whole sequence.

    Args:
        inputs: (B, T, C), float32 or float64 as all others; under autocast bfloat16 too.
        hidden: (B, H) before the first step.
        memory: (B, H) cell state before the first step.
        lengths: (B,) int64 valid steps of each row; None if all T are valid.
        weight_ih: (4H, C), rows i, f, g, o.
        weight_hh: (4H, H).
        bias_ih: (4H,); None, as the next, for none.
        bias_hh: (4H,).

    Returns:
        outputs (B, T, H), zero where padded, and hidden and cell state after each row's last valid step. Differentiable once.

    Raises:
        ValueError: shapes or types that do not fit together.
    """
    inputs = inputs.to(hidden.dtype)
    weights = (weight_ih, weight_hh, bias_ih, bias_hh)
    steps = chunk_steps(inputs, hidden, memory, *weights)
    outputs, hidden, memory, _ = torch.ops.seqmem.lstm_sequence(inputs, hidden, memory, lengths, *weights, _half(hidden), steps)
    return outputs, hidden, memory


def gru_sequence(
    inputs: Tensor,
    hidden: Tensor,
    lengths: Tensor | None,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None = None,
    bias_hh: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """One layer of torch.nn.GRU over a whole sequence.

    Args:
        inputs: (B, T, C), float32 or float64 as all others; under autocast bfloat16 too.
        hidden: (B, H) before the first step.
        lengths: (B,) int64 valid steps of each row; None if all T are valid.
        weight_ih: (3H, C), rows r, z, n.
        weight_hh: (3H, H).
        bias_ih: (3H,); None, as the next, for none.
        bias_hh: (3H,).

    Returns:
        outputs (B, T, H), zero where padded, and the hidden state after each row's last valid step. Differentiable once.

    Raises:
        ValueError: shapes or types that do not fit together.
    """
    inputs = inputs.to(hidden.dtype)
    weights = (weight_ih, weight_hh, bias_ih, bias_hh)
    steps = chunk_steps(inputs, hidden, *weights)
    outputs, hidden, _ = torch.ops.seqmem.gru_sequence(inputs, hidden, lengths, *weights, _half(hidden), steps)
    return outputs, hidden


def _half(hidden: Tensor) -> bool:
    return hidden.dtype == torch.float32 and torch.is_autocast_enabled("cpu")


def chunk_steps(inputs: Tensor, *others: Tensor | None) -> int:
    """Steps that go back at a time, with a checkpoint before them; 0 if no gradient will be asked for."""
    if not torch.is_grad_enabled() or not any(tensor is not None and tensor.requires_grad for tensor in (inputs, *others)):
        return 0
    return max(1, min(inputs.shape[1], -(-_CHUNK_ROWS // max(1, inputs.shape[0]))))


# What is not learned.
_GIVEN = ("step_sizes", "generators", "step", "drive", "lengths", "draws", "slope")


def register(name: str, states: int, outputs: int = 1) -> None:
    """Tie an operator to its gradient.

    Args:
        name: of the operator. It takes the inputs, the states before the first step, all other tensors, then what is no tensor,
            ``chunk_steps`` last; it returns the outputs, the states after the last step, and what the gradient needs.
        states: how many tensors a state has.
        outputs: how many outputs there are; the gradient reads them.
    """
    operator = getattr(torch.ops.seqmem, f"{name}_backward").default
    arguments = [(argument.name, "Tensor" in str(argument.type)) for argument in _schema(name).arguments]
    tensors = [name for name, is_tensor in arguments if is_tensor]
    differentiable = [name for name in tensors if name not in _GIVEN]

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        given = dict(zip((name for name, _ in arguments), inputs, strict=True))
        kept = output[outputs + states :]
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*kept)
        ctx.settings = {name: given[name] for name, is_tensor in arguments if not is_tensor}
        ctx.save_for_backward(*(given[name] for name in tensors), *output[:outputs], *kept)

    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        given = dict(zip(tensors, ctx.saved_tensors, strict=False)) | ctx.settings
        results: dict[str, Tensor | None] = {name: None for name, _ in arguments}
        flows = grads[: outputs + states]
        if any(flow is not None for flow in flows):
            values = operator(*flows, *ctx.saved_tensors[len(tensors) :], *given.values(), ctx.needs_input_grad[0])
            results |= dict(zip(differentiable, values, strict=True))
        return tuple(None if given[name] is None else result for name, result in results.items())

    torch.library.register_autograd(f"seqmem::{name}", backward, setup_context=setup_context)
    torch.library.register_autograd(f"seqmem::{name}_backward", _refuse)


def _schema(name: str) -> torch.FunctionSchema:
    return getattr(torch.ops.seqmem, name).default._schema


def _refuse(ctx: Any, *grads: Any) -> None:
    raise NotImplementedError(
        "a sequence in one call is differentiable once; with SEQMEM_REFERENCE=1 it goes step by step, to any order"
    )


def _memory_shapes(inputs: Tensor, hidden: Tensor, memory: Tensor, *others: Any) -> tuple[Tensor, ...]:
    *_, gated, memory_output, _, chunk_steps = others
    batch, steps = inputs.shape[:2]
    kept = steps if chunk_steps > 0 else 0
    chunks = -(-kept // max(1, chunk_steps))
    rows = 2 if gated else 1
    width = hidden.shape[1] + (memory.shape[1] * memory.shape[2] if memory_output else 0)
    return (
        inputs.new_empty(batch, steps, width),
        hidden.new_empty(hidden.shape),
        memory.new_empty(memory.shape),
        inputs.new_empty(kept, batch, rows, _padded(hidden)),
        inputs.new_empty(kept, batch, memory.shape[1]),
        inputs.new_empty(chunks, *memory.shape),
    )


def _lstm_shapes(inputs: Tensor, hidden: Tensor, memory: Tensor, *others: Any) -> tuple[Tensor, ...]:
    return (
        *_gru_shapes(inputs, hidden, *others, rows=5)[:2],
        memory.new_empty(memory.shape),
        _gru_shapes(inputs, hidden, *others, rows=5)[2],
    )


def _gru_shapes(inputs: Tensor, hidden: Tensor, *others: Any, rows: int = 4) -> tuple[Tensor, ...]:
    batch, steps = inputs.shape[:2]
    kept = steps if others[-1] > 0 else 0
    return (
        inputs.new_empty(batch, steps, hidden.shape[1]),
        hidden.new_empty(hidden.shape),
        inputs.new_empty(kept, batch, rows, _padded(hidden)),
    )


def _padded(hidden: Tensor) -> int:
    return -(-hidden.shape[1] // 16) * 16


def _gradient_shapes(name: str) -> Any:
    arguments = [argument.name for argument in _schema(f"{name}_backward").arguments]
    wanted = ("inputs", "hidden", "memory")

    def shapes(*values: Any) -> list[Tensor]:
        given = dict(zip(arguments, values, strict=True))
        none = given["inputs"].new_empty(0)
        sources = {name: value for name, value in given.items() if name in wanted or name.startswith(("weight_", "bias_"))}
        if not given["input_gradient"]:
            sources["inputs"] = None
        return [none if value is None else value.new_empty(value.shape) for value in sources.values()]

    return shapes


if not extension.REASON:
    for _name, _states, _shapes in (
        ("memory_sequence", 2, _memory_shapes),
        ("lstm_sequence", 2, _lstm_shapes),
        ("gru_sequence", 1, _gru_shapes),
    ):
        extension.register_shapes(f"seqmem::{_name}", _shapes)
        extension.register_shapes(f"seqmem::{_name}_backward", _gradient_shapes(_name))
        register(_name, _states)
