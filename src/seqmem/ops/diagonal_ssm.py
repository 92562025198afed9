"""Diagonal state space models, one for each channel, of S4D: reference, blocks of steps in torch, and the compiled operator.

Every channel h has M modes: s_t = a s_{t-1} + b x_t, elementwise, and y_t = Re(sum_m c_m s_t,m) + skip x_t. Complex numbers are
trailing pairs of real ones. The blocks and the compiled operator store no states (B, T, H, M). The reference keeps them for
gradients.
"""

from typing import Any

import torch
from torch import Tensor

from seqmem.data.masks import masked, reversed_steps, valid_steps
from seqmem.errors import UserError
from seqmem.ops.compiled_sequence import register_sequence
from seqmem.ops.export import scan
from seqmem.ops.pairs import product
from seqmem.ops.precision import widest

_BLOCK = 64

_CHUNK = 64
"""Steps between the states that forward keeps for backward: few enough to stay in the first-level cache."""


def diagonal_ssm_reference(
    inputs: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    skip: Tensor | None = None,
    initial: Tensor | None = None,
    lengths: Tensor | None = None,
    reverse: bool = False,
) -> tuple[Tensor, Tensor]:
    """Compute s_t = a s_{t-1} + b x_t and y_t = Re(sum_m c_m s_t,m) + skip x_t step by step.

    Args:
        inputs: x (B, T, H). All arguments are in one type, or are converted to the widest of them; half precision is computed
            in float32.
        a: (H, M, 2), real and imaginary parts, or (H, M) for real modes.
        b: of the shape of ``a``.
        c: of the shape of ``a``.
        skip: (H,); None for zero.
        initial: (B, H, M, 2) or (B, H, M), the state before the first step; None for zero.
        lengths: (B,) int64 valid steps of each row; None if all T are valid.
        reverse: s_t = a s_{t+1} + b x_t, from each row's last valid step backward in time.

    Returns:
        y (B, T, H), zero in the padding and in the type of the inputs, and the state after each row's last step, in the shape
        of ``initial``, at least in float32.

    Raises:
        UserError: shapes that do not match.
    """
    x, a, b, c, skip, state = _prepared(inputs, a, b, c, skip, initial, lengths, reverse)
    a, b, c, state = (torch.view_as_complex(part) if a.dim() == 3 else part for part in (a, b, c, state))
    valid = None if lengths is None else valid_steps(lengths, x.shape[1])
    outputs = [x.new_zeros(x.shape[0], 0, x.shape[2])]
    for t in range(x.shape[1]):
        after = a * state + b * x[:, t, :, None]
        state = after if valid is None else torch.where(valid[:, t, None, None], after, state)
        y = (c * state).sum(-1)
        outputs.append((y.real if y.is_complex() else y)[:, None])
    state = torch.view_as_real(state) if state.is_complex() else state
    return _outputs(torch.cat(outputs, 1), x, skip, lengths, reverse, inputs.dtype), state


def diagonal_ssm_blocks(
    inputs: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    skip: Tensor | None = None,
    initial: Tensor | None = None,
    lengths: Tensor | None = None,
    reverse: bool = False,
) -> tuple[Tensor, Tensor]:
    """Compute :func:`diagonal_ssm_reference` by blocks of steps: matrix products within blocks, a loop over the blocks.

    With K steps in a block, states S_n at its start and taps k_j = Re(sum_m c a^j b), j < K:

        y_{nK+j} = sum_{i<=j} k_{j-i} x_{nK+i} + Re(sum_m c a^{j+1} S_n),    S_{n+1} = a^K S_n + sum_i a^{K-1-i} b x_{nK+i}.
    """
    x, a, b, c, skip, state = _prepared(inputs, a, b, c, skip, initial, lengths, reverse)
    real = a.dim() == 2
    if real:
        a, b, c, state = (torch.stack([part, torch.zeros_like(part)], -1) for part in (a, b, c, state))
    steps = x.shape[1]
    ends = torch.full((x.shape[0],), steps, device=x.device) if lengths is None else lengths
    if steps == 0:
        return _outputs(x, x, skip, lengths, reverse, inputs.dtype), state[..., 0] if real else state
    block = min(_BLOCK, steps)
    blocks = torch.nn.functional.pad(x, (0, 0, 0, -steps % block)).unflatten(1, (-1, block))
    powers = _powers(a, block)  # (K + 1, H, M, 2)
    reads = product(c, powers)
    taps = product(reads[:block], b)[..., 0].sum(-1)
    enters = product(powers[:block], b)  # a^j b
    driven = torch.einsum("bnih,ihmp->nbhmp", blocks, enters.flip(0))
    starts = [state]
    for entered in driven.unbind():
        starts.append(product(powers[block], starts[-1]) + entered)
    before = torch.stack(starts, 1)  # (B, blocks + 1, H, M, 2)
    conjugate = torch.stack([reads[1:, ..., 0], -reads[1:, ..., 1]], -1)
    y = _within_blocks(blocks, taps) + torch.einsum("bnhmp,jhmp->bnjh", before[:, :-1], conjugate)
    final = _state_at(ends, x, before, enters, powers)
    y = y.flatten(1, 2)[:, :steps]
    return _outputs(y, x, skip, lengths, reverse, inputs.dtype), final[..., 0] if real else final


def diagonal_ssm_compiled(
    inputs: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    skip: Tensor | None = None,
    initial: Tensor | None = None,
    lengths: Tensor | None = None,
    reverse: bool = False,
) -> tuple[Tensor, Tensor]:
    """Compute :func:`diagonal_ssm_reference` in one call, in ``csrc/diagonal_ssm.cpp``. Differentiable once.

    From a zero state, s_t / b obeys the recurrence with b = 1, so that b moves into c and the final state. That saves a quarter
    of the operations. Real modes run as complex ones.
    """
    check_shapes(inputs, a, b, c, skip, initial)
    if a.dim() == 2:
        pairs = (None if part is None else torch.stack([part, torch.zeros_like(part)], -1) for part in (a, b, c, initial))
        a, b, c, initial = pairs  # type: ignore[assignment]
        outputs, final = diagonal_ssm_compiled(inputs, a, b, c, skip, initial, lengths, reverse)
        return outputs, final[..., 0]
    given = (inputs, a, b, c, skip, initial)
    needed = torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in given)
    dtype = widest(*given)
    x, a, b, c = (tensor.to(dtype) for tensor in (inputs, a, b, c))
    skip, initial = (None if tensor is None else tensor.to(dtype) for tensor in (skip, initial))
    settings = (skip, initial, lengths, reverse, _CHUNK if needed else 0)
    if initial is not None:
        outputs, final, _ = torch.ops.seqmem.diagonal_ssm(x, a, b, c, *settings)
        return outputs.to(inputs.dtype), final
    outputs, final, _ = torch.ops.seqmem.diagonal_ssm(x, a, None, product(b, c), *settings)
    return outputs.to(inputs.dtype), product(final, b)


def diagonal_ssm_exported(
    inputs: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    skip: Tensor | None = None,
    initial: Tensor | None = None,
    lengths: Tensor | None = None,
    reverse: bool = False,
) -> tuple[Tensor, Tensor]:
    """Compute :func:`diagonal_ssm_reference` by torch's scan operator, for exported programs of any length."""
    x, a, b, c, skip, state = _prepared(inputs, a, b, c, skip, initial, lengths, reverse)
    real = a.dim() == 2
    valid = torch.ones_like(x[..., :1]) if lengths is None else valid_steps(lengths, x.shape[1])[..., None].to(x)
    parts = [state.clone()] if real else [state[..., 0].clone(), state[..., 1].clone()]

    def step(before: list[Tensor], items: list[Tensor]) -> tuple[list[Tensor], Tensor]:
        term, here = items[0][..., None], items[1][..., None]
        if real:
            after = [a * before[0] + b * term]
            y = (c * after[0]).sum(-1)
        else:
            s_re, s_im = before
            after = [
                a[..., 0] * s_re - a[..., 1] * s_im + b[..., 0] * term,
                a[..., 0] * s_im + a[..., 1] * s_re + b[..., 1] * term,
            ]
            y = (c[..., 0] * after[0] - c[..., 1] * after[1]).sum(-1)
        return [here * new + (1 - here) * old for new, old in zip(after, before, strict=True)], y

    last, outputs = scan(step, parts, [x.transpose(0, 1).clone(), valid.transpose(0, 1).clone()])
    final = last[0] if real else torch.stack(list(last), -1)
    return _outputs(outputs.transpose(0, 1), x, skip, lengths, reverse, inputs.dtype), final


def _within_blocks(blocks: Tensor, taps: Tensor) -> Tensor:
    """Return sum_{i<=j} k_{j-i} x_i of blocks x (B, blocks, K, H) and taps k (K, H).

    The matrix product has zeros for i > j, and 0 * NaN is NaN. So values and gradients that are not finite take no part in it:
    a term of zeros, cumulative in time, makes their results and gradients NaN.
    """
    lags = torch.arange(len(taps), device=taps.device)
    lags = lags[:, None] - lags
    toeplitz = taps[lags.clamp(min=0)].where((lags >= 0)[..., None], 0)  # (j, i, H)
    zeros = (taps.where(taps.isfinite(), 0) * 0).sum(0)
    terms = (blocks * zeros).cumsum(2) * zeros
    if torch.compiler.is_compiling():  # torch.compile supports no forward-mode derivative of a function
        return torch.einsum("bnih,jih->bnjh", blocks.where(blocks.isfinite(), 0), toeplitz) + terms
    return _Finite.apply(torch.einsum("bnih,jih->bnjh", _Finite.apply(blocks, False), toeplitz), True) + terms


class _Finite(torch.autograd.Function):
    """Replace the values, or else the gradients, that are not finite by zeros, and pass on the others unchanged."""

    generate_vmap_rule = True

    @staticmethod
    def forward(values: Tensor, gradients: bool) -> Tensor:
        return values.view_as(values) if gradients else values.where(values.isfinite(), 0)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, bool], output: Tensor) -> None:
        ctx.gradients = inputs[1]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return (grad.where(grad.isfinite(), 0) if ctx.gradients else grad), None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: None) -> Tensor:
        return tangent.view_as(tangent) if ctx.gradients else tangent.where(tangent.isfinite(), 0)


def _state_at(ends: Tensor, x: Tensor, before: Tensor, enters: Tensor, powers: Tensor) -> Tensor:
    """Return the states (B, H, M, 2) after ``ends`` (B,) steps, from those before each block (B, blocks + 1, H, M, 2)."""
    block = len(enters)
    rows, whole, rest = torch.arange(x.shape[0], device=x.device), ends // block, ends % block
    ages = torch.arange(block, device=x.device)
    late = (ages < rest[:, None])[..., None]
    steps = (ends[:, None] - 1 - ages).clamp(min=0)
    recent = x.gather(1, steps[..., None].expand(-1, -1, x.shape[2])).where(late, 0)
    return product(powers[rest], before[rows, whole]) + torch.einsum("bih,ihmp->bhmp", recent, enters)


def _powers(a: Tensor, count: int) -> Tensor:
    """Return a^0 to a^count, (count + 1, H, M, 2), by doubling, so that errors grow with the logarithm of the exponent."""
    one = torch.stack([torch.ones_like(a[..., 0]), torch.zeros_like(a[..., 0])], -1)
    powers = torch.stack([one, a])
    while len(powers) <= count:
        powers = torch.cat([powers, product(powers[-1], powers[1:])])
    return powers[: count + 1]


def _prepared(
    inputs: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    skip: Tensor | None,
    initial: Tensor | None,
    lengths: Tensor | None,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None, Tensor]:
    """Check shapes, and return the tensors at least in float32: x masked and in the order of the recurrence, and a state."""
    check_shapes(inputs, a, b, c, skip, initial)
    dtype = widest(inputs, a, b, c, skip, initial)
    x, a, b, c = (tensor.to(dtype) for tensor in (inputs, a, b, c))
    state = x.new_zeros(x.shape[0], *a.shape) if initial is None else initial.to(dtype)
    x = masked(x, lengths)
    x = reversed_steps(x, lengths) if reverse else x
    return x, a, b, c, None if skip is None else skip.to(dtype), state


def check_shapes(inputs: Tensor, a: Tensor, b: Tensor, c: Tensor, skip: Tensor | None, initial: Tensor | None) -> None:
    """Refuse arguments of :func:`diagonal_ssm_reference` whose shapes do not match."""
    shape = tuple(inputs.shape[:1]) + tuple(a.shape)
    if inputs.dim() != 3 or a.dim() not in (2, 3) or a.shape[0] != inputs.shape[2] or a.shape[2:] not in ((), (2,)):
        raise UserError(
            f"diagonal_ssm: got inputs of shape {tuple(inputs.shape)} and a of shape {tuple(a.shape)}, expected inputs "
            "(B, T, H) and a (H, M, 2) or (H, M)"
        )
    expected = {"b": (b, a.shape), "c": (c, a.shape), "skip": (skip, a.shape[:1]), "initial": (initial, shape)}
    for name, (tensor, size) in expected.items():
        if tensor is not None and tensor.shape != size:
            raise UserError(f"diagonal_ssm: got {name} of shape {tuple(tensor.shape)}, expected {tuple(size)}")


def _outputs(y: Tensor, x: Tensor, skip: Tensor | None, lengths: Tensor | None, reverse: bool, dtype: torch.dtype) -> Tensor:
    y = masked(y if skip is None else y + skip * x, lengths)
    return (reversed_steps(y, lengths) if reverse else y).to(dtype)


def _shapes(inputs: Tensor, a: Tensor, *others: Any) -> tuple[Tensor, ...]:
    *_, chunk_steps = others
    batch, steps, channels = inputs.shape
    chunk = max(1, min(chunk_steps, steps)) if chunk_steps > 0 else 1
    saved = (batch, -(-steps // chunk) if chunk_steps > 0 else 0, a.shape[1], 2, -(-channels // 16) * 16)
    return inputs.new_empty(inputs.shape), inputs.new_empty(batch, channels, *a.shape[1:]), inputs.new_empty(saved)


def _gradient_shapes(*given: Any) -> list[Tensor]:
    inputs, *others = given[3:9]
    shapes = [inputs.new_empty(0 if tensor is None else tensor.shape) for tensor in others]
    return [inputs.new_empty(inputs.shape if given[-1] else 0), *shapes]


register_sequence("diagonal_ssm", 2, _shapes, outputs=0, gradient_shapes=_gradient_shapes)
