"""The sLSTM of xLSTM, an LSTM with exponential gates and heads: one step, the reference sequence, and the fused one.

Beck et al., "xLSTM: Extended Long Short-Term Memory" (2024), section 2.2 and appendix A.2.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from seqmem.data.masks import masked, valid_steps
from seqmem.errors import UserError
from seqmem.ops.compiled_sequence import chunk_steps, register_sequence
from seqmem.ops.export import scan
from seqmem.ops.loop import run_steps, stacked
from seqmem.ops.precision import widest
from seqmem.ops.states import select

State = tuple[Tensor, Tensor, Tensor, Tensor]

_CHECKPOINT_STEPS = 16
"""Steps from one checkpoint of the compiled sequence to the next, kSlstmInterval of ``csrc/slstm.h``."""


def slstm_step(
    projected: Tensor, hidden: Tensor, memory: Tensor, normalizer: Tensor, stabilizer: Tensor, weight_hh: Tensor
) -> State:
    """Compute one step::

        i, f, z, o = W x + b + R y
        l = m + log sigmoid(f)
        m' = max(i, l), or i where n = 0
        c' = min(exp(l - m'), 1) c + exp(i - m') tanh(z)
        n' = min(exp(l - m'), 1) n + exp(i - m')
        y' = sigmoid(o) c' / n'

    Args:
        projected: W x + b, (B, 4H), gates i, f, z, o.
        hidden: y, (B, H).
        memory: c, (B, H).
        normalizer: n, (B, H).
        stabilizer: m, (B, H): c exp(m) and n exp(m) are the states without stabiliser.
        weight_hh: R, (K, 4H/K, H/K) of K heads, rows by gate, then unit of the head.

    Returns:
        y', c', n' and m', (B, H) each.
    """
    heads, _, size = weight_hh.shape
    recurrent = torch.einsum("bki,kgji->bgkj", hidden.unflatten(-1, (heads, size)), weight_hh.unflatten(1, (4, size)))
    i, f, z, o = (projected + recurrent.flatten(1)).chunk(4, -1)
    kept = stabilizer + logsigmoid(f)
    stabilizer = torch.where(normalizer == 0, i, torch.maximum(i, kept))
    forget, entry = torch.exp((kept - stabilizer).clamp(max=0)), torch.exp(i - stabilizer)
    memory = forget * memory + entry * torch.tanh(z)
    normalizer = forget * normalizer + entry
    return torch.sigmoid(o) * memory / normalizer, memory, normalizer, stabilizer


def slstm_reference(
    projected: Tensor,
    hidden: Tensor,
    memory: Tensor,
    normalizer: Tensor,
    stabilizer: Tensor,
    lengths: Tensor | None,
    weight_hh: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Compute a whole sequence by :func:`slstm_step`.

    All tensors are in one type, or are converted to the widest of them; half precision is computed in float32.

    Args:
        projected: W x + b, (B, T, 4H), gates i, f, z, o.
        hidden: y before the first step, (B, H).
        memory: c, (B, H).
        normalizer: n, (B, H).
        stabilizer: m, (B, H).
        lengths: (B,) int64 valid steps of each row; None if all T are valid.
        weight_hh: R, (K, 4H/K, H/K) of K heads, rows by gate, then unit of the head.

    Returns:
        outputs (B, T, H), zero in the padding, and y, c, n and m after each row's last valid step.

    Raises:
        UserError: shapes that do not match.
    """
    projected, state, weight_hh = _prepared(projected, (hidden, memory, normalizer, stabilizer), lengths, weight_hh)

    def step(item: Tensor, state: State) -> tuple[Tensor, State]:
        after = slstm_step(item, *state, weight_hh)
        return after[0], after

    outputs, after = run_steps(step, projected.unbind(1), state, lengths, projected.shape[1])
    return stacked(outputs, projected, hidden.shape[1]), *after


def slstm_sequence(
    projected: Tensor,
    hidden: Tensor,
    memory: Tensor,
    normalizer: Tensor,
    stabilizer: Tensor,
    lengths: Tensor | None,
    weight_hh: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Compute :func:`slstm_reference` in one call, in ``csrc/slstm.cpp``.

    Arguments and results are those of the reference, and so are their types. Under autocast the products are in the type of the
    computation too. Differentiable once.
    """
    check_shapes(projected, (hidden, memory, normalizer, stabilizer), weight_hh)
    dtype = widest(projected, hidden, memory, normalizer, stabilizer, weight_hh)
    projected, weight_hh = projected.to(dtype), weight_hh.to(dtype)
    state = tuple(part.to(dtype) for part in (hidden, memory, normalizer, stabilizer))
    steps = chunk_steps(projected, *state, weight_hh)
    results = torch.ops.seqmem.slstm_sequence(projected, *state, lengths, weight_hh, steps)
    return tuple(results[:5])


def slstm_exported(
    projected: Tensor,
    hidden: Tensor,
    memory: Tensor,
    normalizer: Tensor,
    stabilizer: Tensor,
    lengths: Tensor | None,
    weight_hh: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Compute :func:`slstm_reference` by torch's scan operator, for exported programs of any length."""
    projected, state, weight_hh = _prepared(projected, (hidden, memory, normalizer, stabilizer), lengths, weight_hh)
    batch, steps = projected.shape[:2]
    valid = projected.new_ones(steps, batch, dtype=torch.bool) if lengths is None else valid_steps(lengths, steps).T

    def step(parts: list[Tensor], items: list[Tensor]) -> tuple[list[Tensor], Tensor]:
        after = slstm_step(items[0], parts[0], parts[1], parts[2], parts[3], weight_hh)
        kept = [select(items[1], new, old) for new, old in zip(after, parts, strict=True)]
        return kept, kept[0].clone()

    sequences = [projected.transpose(0, 1).clone(), valid.clone()]
    [*after], outputs = scan(step, [part.clone() for part in state], sequences)
    return masked(outputs.transpose(0, 1), lengths), after[0], after[1], after[2], after[3]


def _prepared(projected: Tensor, state: State, lengths: Tensor | None, weight_hh: Tensor) -> tuple[Tensor, State, Tensor]:
    """Return arguments of :func:`slstm_reference` in the type of the computation, with zeros in the padding."""
    check_shapes(projected, state, weight_hh)
    dtype = widest(projected, *state, weight_hh)
    hidden, memory, normalizer, stabilizer = (part.to(dtype) for part in state)
    return masked(projected.to(dtype), lengths), (hidden, memory, normalizer, stabilizer), weight_hh.to(dtype)


def check_shapes(projected: Tensor, state: State, weight_hh: Tensor) -> None:
    """Refuse arguments of :func:`slstm_reference` whose shapes do not match."""
    if projected.dim() != 3 or weight_hh.dim() != 3 or weight_hh.shape[1] != 4 * weight_hh.shape[2]:
        raise UserError(
            f"slstm: got projected of shape {tuple(projected.shape)} and weight_hh of shape {tuple(weight_hh.shape)}, "
            "expected (B, T, 4H) and (K, 4H/K, H/K)"
        )
    size = weight_hh.shape[0] * weight_hh.shape[2]
    expected = {"projected": (*projected.shape[:2], 4 * size)}
    expected |= dict.fromkeys(("hidden", "memory", "normalizer", "stabilizer"), (projected.shape[0], size))
    for (name, shape), tensor in zip(expected.items(), (projected, *state), strict=True):
        if tensor.shape != shape:
            raise UserError(f"slstm: got {name} of shape {tuple(tensor.shape)}, expected {shape}")


def _shapes(projected: Tensor, hidden: Tensor, *others: Any) -> tuple[Tensor, ...]:
    *state, _, weight_hh, steps_of_chunk = others
    batch, steps = projected.shape[:2]
    heads, units = weight_hh.shape[0], -(-weight_hh.shape[2] // 16) * 16
    saved_steps = steps if steps_of_chunk > 0 else 0
    return (
        projected.new_empty(batch, steps, hidden.shape[1]),
        *(part.new_empty(part.shape) for part in (hidden, *state)),
        projected.new_empty(saved_steps, heads, batch, 4 * units),
        projected.new_empty(-(-saved_steps // _CHECKPOINT_STEPS), heads, batch, 2 * units),
    )


def _gradient_shapes(*given: Any) -> list[Tensor]:
    projected, *state, _, weight_hh, _, input_gradient = given[8:]
    first = projected.new_empty(projected.shape if input_gradient else 0)
    return [first, *(tensor.new_empty(tensor.shape) for tensor in (*state, weight_hh))]


register_sequence("slstm_sequence", 4, _shapes, gradient_shapes=_gradient_shapes, keeps_inputs=False)
