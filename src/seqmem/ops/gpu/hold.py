"""Zero-order hold of any measure on the device: y = exp(dt A) (x + u v) - u v with v = A^-1 B, in float64.

LegS: exp(dt A)_nk = r <p_n(r .), p_k>, r = exp(-dt), with orthonormal Legendre polynomials p_n on [0, 1] (``csrc/legs.h``).
Gauss quadrature with N nodes is exact here, so the exponential is a constant orthogonal matrix, the values of x at the nodes,
and then sums over the nodes by the three-term recurrence, O(N^2). The other measures form the exponential, O(N^3).
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from seqmem.ops.constants import on_device
from seqmem.ops.exponential import SCALED_NORM, halvings, scaled_exponential
from seqmem.ops.gpu.updates import Settings, block
from seqmem.ops.legs_hold import quadrature
from seqmem.ops.transition import transition

LARGEST_STEP = 1024.0
"""Step size from which on the exponential is 0 in float64, whatever the measure: its slowest mode decays as exp(-dt / 2)."""


@triton.jit
def _legs_hold_kernel(
    values, step_sizes, nodes, weights, target, order, rows_per_size, stride, ADJOINT: tl.constexpr, BLOCK: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    j = tl.arange(0, BLOCK)
    inside = j < order
    r = tl.exp(-tl.load(step_sizes + row // rows_per_size * stride).to(tl.float64))
    z = 2.0 * r * tl.load(nodes + j, mask=inside, other=0.0) - 1.0
    weight = tl.load(weights + j, mask=inside, other=0.0) * r
    before = tl.zeros((BLOCK,), tl.float64)
    polynomial = tl.full((BLOCK,), 1.0, tl.float64)
    values += row * order
    target += row * order
    if ADJOINT:
        total = tl.zeros((BLOCK,), tl.float64)
    else:
        x = tl.load(values + j, mask=inside, other=0.0) * weight
    for n in range(order):
        count = tl.full((), n, tl.float64)
        scale = tl.sqrt(2.0 * count + 1.0)
        if ADJOINT:
            total += scale * tl.load(values + n) * polynomial
        else:
            tl.store(target + n, scale * tl.sum(x * polynomial, 0))
        after = ((2.0 * count + 1.0) * z * polynomial - count * before) / (count + 1.0)
        before = polynomial
        polynomial = after
    if ADJOINT:
        tl.store(target + j, total * weight, mask=inside)


def hold(
    memory: Tensor, inputs: Tensor, step_sizes: Tensor | None, step_size: float, measure: str, settings: Settings
) -> Tensor:
    """Compute one step of zero-order hold; arguments and result are those of :func:`seqmem.ops.gpu.updates.update`."""
    fixed = device_fixed_point(_like(memory), measure, memory.shape[2], settings)
    shift = inputs[..., None].double() * fixed
    after = _times_exponential(memory.double() + shift, step_sizes, step_size, measure, settings, False) - shift
    if step_sizes is not None:
        start = torch.nn.functional.pad(inputs[..., None], (0, memory.shape[2] - 1)).double()
        after = torch.where(step_sizes.isinf()[:, None, None], start, after)
    return after.to(memory.dtype)


def hold_adjoint(
    grad: Tensor, step_sizes: Tensor | None, step_size: float, measure: str, settings: Settings
) -> tuple[Tensor, Tensor]:
    """Compute the transpose of :func:`hold`: gradients of the memory (B, M, N) and of the inputs (B, M)."""
    fixed = device_fixed_point(_like(grad), measure, grad.shape[2], settings)
    before = _times_exponential(grad.double(), step_sizes, step_size, measure, settings, True)
    drive = ((before - grad.double()) * fixed).sum(-1)
    if step_sizes is not None:
        starts = step_sizes.isinf()[:, None]
        before, drive = before.masked_fill(starts[..., None], 0), torch.where(starts, grad[..., 0].double(), drive)
    return before.to(grad.dtype), drive.to(grad.dtype)


def _times_exponential(
    rows: Tensor, step_sizes: Tensor | None, step_size: float, measure: str, settings: Settings, adjoint: bool
) -> Tensor:
    """Multiply rows (B, M, N) float64 by exp(dt A)^T, for the adjoint by exp(dt A)."""
    batch, size, order = rows.shape
    sizes = rows.new_full((1,), step_size) if step_sizes is None else step_sizes
    if measure == "legs":
        return _legs_times_exponential(rows, sizes, size if step_sizes is not None else batch * size, adjoint)
    A, norm = device_transition(_like(rows), measure, order, settings), transition_norm(measure, order, settings)
    if step_sizes is None:
        squarings = halvings(norm * min(abs(step_size), LARGEST_STEP))
        matrices = scaled_exponential(A * (min(step_size, LARGEST_STEP) / 2**squarings), squarings)
        return rows @ (matrices if adjoint else matrices.mT)
    dt = sizes.double().abs().clamp(max=LARGEST_STEP)
    needed = torch.log2(norm * dt / SCALED_NORM).ceil().clamp(min=0)
    matrices = scaled_exponential(A * (dt * torch.exp2(-needed))[:, None, None], halvings(norm * LARGEST_STEP), needed)
    return rows @ (matrices if adjoint else matrices.mT)


def _legs_times_exponential(rows: Tensor, sizes: Tensor, rows_per_size: int, adjoint: bool) -> Tensor:
    batch, size, order = rows.shape
    values, nodes, weights = quadrature(_like(rows), order)
    given = (rows if adjoint else rows @ values.mT).contiguous()
    target = torch.empty_like(given)
    with torch.cuda.device_of(rows):
        _legs_hold_kernel[(batch * size,)](
            given,
            sizes,
            nodes,
            weights,
            target,
            order,
            rows_per_size,
            sizes.stride(0),
            ADJOINT=adjoint,
            **block(order),
        )
    return target @ values if adjoint else target


@on_device
def device_transition(measure: str, order: int, settings: Settings) -> Tensor:
    """A (N, N) of a measure."""
    return transition(measure, order, **dict(settings))[0]


@on_device
def device_fixed_point(measure: str, order: int, settings: Settings) -> Tensor:
    """A^-1 B (N,) of a measure: -A^-1 B u is the fixed point of a constant input u."""
    A, B = transition(measure, order, **dict(settings))
    return torch.linalg.solve(A, B)


@on_device
def _norm(measure: str, order: int, settings: Settings) -> Tensor:
    return torch.linalg.matrix_norm(transition(measure, order, **dict(settings))[0], 1)


def transition_norm(measure: str, order: int, settings: Settings) -> float:
    """Return the 1-norm of A."""
    return _norm(torch.empty(0, dtype=torch.float64), measure, order, settings).item()


def _like(tensor: Tensor) -> Tensor:
    return tensor.new_empty(0, dtype=torch.float64)
