"""The selective scan of Mamba: a diagonal recurrence whose factors and terms depend on the inputs, contracted at each step.

Gu and Dao, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces" (2023), section 3.2 and algorithm 2.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import silu
from torch.nn.functional import softplus as softplus_of

from seqmem.data.masks import masked
from seqmem.errors import UserError
from seqmem.ops.compiled_sequence import register_scan
from seqmem.ops.diagonal_scan import diagonal_scan_parallel
from seqmem.ops.export import scan
from seqmem.ops.precision import widest


def selective_scan_reference(
    inputs: Tensor,
    delta: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    skip: Tensor | None = None,
    gate: Tensor | None = None,
    delta_bias: Tensor | None = None,
    initial: Tensor | None = None,
    lengths: Tensor | None = None,
    softplus: bool = False,
) -> tuple[Tensor, Tensor]:
    """Compute the selective scan step by step::

        d_t = delta_t + delta_bias, or softplus of it
        h_t = exp(d_t a) h_{t-1} + d_t b_t u_t
        y_t = (sum_n c_t h_t + skip u_t) SiLU(gate_t)

    All arguments are in one type, or are converted to the widest of them; half precision is computed in float32.

    Args:
        inputs: u, (B, T, D).
        delta: step sizes (B, T, D).
        a: (D, N), negative for a state that decays.
        b: (B, T, N).
        c: (B, T, N).
        skip: (D,), or None for 0.
        gate: (B, T, D), or None for outputs without a gate.
        delta_bias: (D,), or None for 0.
        initial: (B, D, N) the state before the first step; None for zero.
        lengths: (B,) int64 valid steps of each row; None if all T are valid.
        softplus: the step sizes are softplus of delta + delta_bias.

    Returns:
        y (B, T, D) in the type of ``inputs``, zero in the padding, and the state after each row's last valid step, (B, D, N),
        at least in float32.

    Raises:
        UserError: shapes that do not match, or complex numbers.
    """
    prepared = _prepared(inputs, delta, a, b, c, skip, gate, delta_bias, initial, lengths, softplus)
    state, outputs = prepared.state, []
    for step in zip(*(sequence.unbind(1) for sequence in prepared.sequences), strict=True):
        output, state = _step(prepared.a, state, *step)
        outputs.append(output)
    contracted = torch.stack(outputs, 1) if outputs else torch.zeros_like(prepared.inputs)
    return _gated(contracted, prepared).to(inputs.dtype), state


def selective_scan_blocks(
    inputs: Tensor,
    delta: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    skip: Tensor | None = None,
    gate: Tensor | None = None,
    delta_bias: Tensor | None = None,
    initial: Tensor | None = None,
    lengths: Tensor | None = None,
    softplus: bool = False,
) -> tuple[Tensor, Tensor]:
    """Compute :func:`selective_scan_reference` by a parallel scan of each block of steps, for devices with fast kernels.

    A block needs tensors of size (B, BLOCK_STEPS, D, N); gradients keep those of all blocks.
    """
    prepared = _prepared(inputs, delta, a, b, c, skip, gate, delta_bias, initial, lengths, softplus)
    state, outputs = prepared.state, []
    for u, d, b_block, c_block in zip(*(part.split(BLOCK_STEPS, 1) for part in prepared.sequences), strict=True):
        factors = torch.exp(d[..., None] * prepared.a).flatten(2)
        terms = ((d * u)[..., None] * b_block[:, :, None]).flatten(2)
        states, last = diagonal_scan_parallel(factors, terms, state.flatten(1))
        state = last.unflatten(1, a.shape)
        outputs.append((states.unflatten(2, a.shape) * c_block[:, :, None]).sum(-1))
    return _gated(torch.cat(outputs, 1), prepared).to(inputs.dtype), state


def selective_scan_exported(
    inputs: Tensor,
    delta: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    skip: Tensor | None = None,
    gate: Tensor | None = None,
    delta_bias: Tensor | None = None,
    initial: Tensor | None = None,
    lengths: Tensor | None = None,
    softplus: bool = False,
) -> tuple[Tensor, Tensor]:
    """Compute :func:`selective_scan_reference` by torch's scan operator, for exported programs of any length."""
    prepared = _prepared(inputs, delta, a, b, c, skip, gate, delta_bias, initial, lengths, softplus)

    def step(parts: list[Tensor], items: list[Tensor]) -> tuple[list[Tensor], Tensor]:
        output, after = _step(prepared.a, parts[0], items[0], items[1], items[2], items[3])
        return [after], output

    sequences = [sequence.transpose(0, 1).clone() for sequence in prepared.sequences]
    [last], outputs = scan(step, [prepared.state.clone()], sequences)
    return _gated(outputs.transpose(0, 1), prepared).to(inputs.dtype), last


def selective_scan_compiled(
    inputs: Tensor,
    delta: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    skip: Tensor | None = None,
    gate: Tensor | None = None,
    delta_bias: Tensor | None = None,
    initial: Tensor | None = None,
    lengths: Tensor | None = None,
    softplus: bool = False,
) -> tuple[Tensor, Tensor]:
    """Compute :func:`selective_scan_reference` in one call, in ``csrc/selective_scan.cpp``.

    Tensors of size (B, T, D, N) are never stored: backward keeps the states before each chunk of steps, and computes the others
    again. Gradients do not depend on the number of threads. Differentiable once.
    """
    given = (inputs, delta, a, b, c, skip, gate, delta_bias, initial)
    check_shapes(inputs, dict(zip(_NAMES, given[1:], strict=True)))
    dtype = widest(*given)
    converted = [None if tensor is None else tensor.to(dtype) for tensor in given]
    chunk = CHUNK_STEPS if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in given) else 0
    outputs, state, _ = torch.ops.seqmem.selective_scan(*converted, lengths, softplus, chunk)
    return outputs.to(inputs.dtype), state


BLOCK_STEPS = 64
"""Steps of a block of :func:`selective_scan_blocks`."""

CHUNK_STEPS = 64
"""Steps between the states that the compiled scan keeps for backward; those of a chunk stay in the processor's cache."""

_NAMES = ("delta", "a", "b", "c", "skip", "gate", "delta_bias", "initial")


class _Prepared(NamedTuple):
    """Arguments in the type of the computation, with zeros in the padding: a step size of 0 keeps the state."""

    inputs: Tensor
    delta: Tensor
    a: Tensor
    b: Tensor
    c: Tensor
    skip: Tensor | None
    gate: Tensor | None
    state: Tensor

    @property
    def sequences(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.inputs, self.delta, self.b, self.c


def _step(a: Tensor, state: Tensor, inputs: Tensor, delta: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Return sum_n c h (B, D) and the state after a step."""
    state = torch.exp(delta[..., None] * a) * state + (delta * inputs)[..., None] * b[:, None]
    return (state * c[:, None]).sum(-1), state


def _gated(contracted: Tensor, prepared: _Prepared) -> Tensor:
    outputs = contracted if prepared.skip is None else contracted + prepared.skip * prepared.inputs
    return outputs if prepared.gate is None else outputs * silu(prepared.gate)


def _prepared(
    inputs: Tensor,
    delta: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    skip: Tensor | None,
    gate: Tensor | None,
    delta_bias: Tensor | None,
    initial: Tensor | None,
    lengths: Tensor | None,
    softplus: bool,
) -> _Prepared:
    given = (delta, a, b, c, skip, gate, delta_bias, initial)
    check_shapes(inputs, dict(zip(_NAMES, given, strict=True)))
    dtype = widest(inputs, *given)
    step_sizes = masked(delta.to(dtype), lengths)
    step_sizes = step_sizes if delta_bias is None else step_sizes + delta_bias.to(dtype)
    step_sizes = softplus_of(step_sizes) if softplus else step_sizes
    state = inputs.new_zeros(inputs.shape[0], *a.shape, dtype=dtype) if initial is None else initial.to(dtype)
    return _Prepared(
        masked(inputs.to(dtype), lengths),
        masked(step_sizes, lengths),
        a.to(dtype),
        masked(b.to(dtype), lengths),
        masked(c.to(dtype), lengths),
        None if skip is None else skip.to(dtype),
        None if gate is None else masked(gate.to(dtype), lengths),
        state,
    )


def check_shapes(inputs: Tensor, given: dict[str, Tensor | None]) -> None:
    """Refuse arguments of :func:`selective_scan_reference` that are complex, or of shapes that do not match."""
    for name, tensor in {"inputs": inputs, **given}.items():
        if tensor is not None and tensor.is_complex():
            raise UserError(f"selective_scan: got {name} of {tensor.dtype}, expected real numbers")
    a = given["a"]
    if inputs.dim() != 3 or a is None or a.dim() != 2:
        found = None if a is None else tuple(a.shape)
        raise UserError(
            f"selective_scan: got inputs of shape {tuple(inputs.shape)} and a of shape {found}, expected (B, T, D) and (D, N)"
        )
    (batch, steps, channels), states = inputs.shape, a.shape[1]
    expected = {
        "delta": (batch, steps, channels),
        "a": (channels, states),
        "b": (batch, steps, states),
        "c": (batch, steps, states),
        "skip": (channels,),
        "gate": (batch, steps, channels),
        "delta_bias": (channels,),
        "initial": (batch, channels, states),
    }
    for name, tensor in given.items():
        if tensor is not None and tensor.shape != expected[name]:
            raise UserError(f"selective_scan: got {name} of shape {tuple(tensor.shape)}, expected {expected[name]}")


def _shapes(inputs: Tensor, delta: Tensor, a: Tensor, *others: Any) -> tuple[Tensor, ...]:
    (batch, steps, channels), chunk = inputs.shape, others[-1]
    chunks = -(-steps // chunk) if chunk > 0 else 0
    return (
        inputs.new_empty(batch, steps, channels),
        inputs.new_empty(batch, *a.shape),
        inputs.new_empty(batch, chunks, -(-a.shape[1] // 4) * 4, -(-channels // 16) * 16),
    )


register_scan("selective_scan", _shapes)
