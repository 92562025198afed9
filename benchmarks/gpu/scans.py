"""Arguments of the operators of scans at the sizes of a benchmark, on a device."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.sides import Sizes
from seqmem.ops import implementations
from seqmem.ops.implementations import Implementation

STATES = 16
"""N of the selective scan; the diagonal state space models have twice as many modes."""


def arguments(operator: str, sizes: Sizes, device: str) -> list[Any]:
    """Return the arguments of an operator; its tensors need a gradient.

    Args:
        operator: a key of :data:`OPERATORS`.
        sizes: H, T and B.
        device: cuda or cpu.
    """
    torch.manual_seed(0)
    made = OPERATORS[operator](sizes.batch, sizes.steps, sizes.hidden)
    return [part.to(device).requires_grad_() if isinstance(part, Tensor) else part for part in made]


def sides(operator: str, device: str) -> list[Implementation]:
    """Return the implementations of an operator on a device, those of exported programs left out."""
    name = operator.split(",")[0]
    rows = [row for row in implementations.TABLE[name] if row.device in ("", device)]
    return [row for row in rows if not row.fallback_reason(torch.empty(1, 1, 1, device=device))]


def _modes(size: int) -> list[Tensor]:
    angles, rates = 3 * torch.rand(size, 2 * STATES), -0.1 * torch.rand(size, 2 * STATES)
    a = torch.view_as_real(torch.polar(rates.exp(), angles))
    return [a, *(torch.randn_like(a) / STATES for _ in range(2))]


OPERATORS: dict[str, Callable[[int, int, int], list[Any]]] = {
    "diagonal_scan, varying and real": lambda b, t, n: [torch.rand(b, t, n), torch.randn(b, t, n)],
    "diagonal_scan, constant and complex": lambda b, t, n: [0.7 * torch.rand(n, 2), torch.randn(b, t, n, 2)],
    "minimal_gates, gru": lambda b, t, n: [torch.randn(b, t, 2 * n), None, None, "gru"],
    "oscillators, im": lambda b, t, n: [torch.rand(n), torch.rand(n), torch.randn(b, t, n, 2), None, None, "im"],
    "diagonal_ssm, complex": lambda b, t, n: [torch.randn(b, t, n), *_modes(n)],
    "selective_scan, softplus": lambda b, t, n: [
        *(torch.randn(b, t, n), torch.randn(b, t, n) - 2, -torch.rand(n, STATES)),
        *(torch.randn(b, t, STATES), torch.randn(b, t, STATES), None, None, None, None, None, True),
    ],
}
"""Arguments of (B, T, H)."""
