"""Cases of the scans for CUDA tensors: arguments of each operator, and the comparison with its reference in float64."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.testing import assert_close

from seqmem.ops import diagonal_scan, diagonal_ssm, minimal_gates, oscillators, selective_scan
from seqmem.ops.gpu import diagonal_scan as gpu_diagonal_scan
from seqmem.ops.gpu import diagonal_ssm as gpu_diagonal_ssm
from seqmem.ops.gpu import minimal_gates as gpu_minimal_gates
from seqmem.ops.gpu import oscillators as gpu_oscillators
from seqmem.ops.gpu import selective_scan as gpu_selective_scan

Run = Callable[..., tuple[Tensor, Tensor]]
RUNS: dict[str, tuple[Run, Run]] = {
    "diagonal_scan": (gpu_diagonal_scan.diagonal_scan_kernel, diagonal_scan.diagonal_scan_reference),
    "diagonal_ssm": (gpu_diagonal_ssm.diagonal_ssm_kernel, diagonal_ssm.diagonal_ssm_reference),
    "minimal_gates": (gpu_minimal_gates.minimal_gates_kernel, minimal_gates.minimal_gates_reference),
    "oscillators": (gpu_oscillators.oscillator_scan_kernel, oscillators.oscillator_scan_reference),
    "selective_scan": (gpu_selective_scan.selective_scan_kernel, selective_scan.selective_scan_reference),
}
"""The implementation for CUDA tensors and the reference of each operator."""

SMALL = {
    gpu_diagonal_scan: {"BLOCK": 4, "GROUP": 2},
    gpu_diagonal_ssm: {"TILE": 8, "CHUNK": 4, "GROUP": 2},
    gpu_minimal_gates: {"BLOCK": 4, "GROUP": 2},
    gpu_oscillators: {"BLOCK": 4, "GROUP": 2},
    gpu_selective_scan: {"TILE": 8, "CHUNK": 4, "GROUP": 2},
}
"""Sizes of programs with which small tensors have several blocks, groups and chunks."""


class Case(NamedTuple):
    """Arguments of an operator: the tensors that get a gradient, or None, then lengths and settings."""

    operator: str
    title: str
    leaves: tuple[Tensor | None, ...]
    others: tuple[Any, ...]


def cases(batch: int, steps: int, size: int, states: int = 3) -> Iterator[Case]:
    """Yield cases with every option of every operator, the plain ones before those with all options."""
    for full in (False, True):
        lengths = torch.linspace(steps, 0, batch).long() if full else None
        label = "all options" if full else "no options"
        for varying in (False, True):
            for tail in ((), (2,)):
                factors = torch.rand(*((batch, steps, size) if varying else (size,)), *tail, dtype=torch.float64)
                leaves = (0.7 * factors, _noise(batch, steps, size, *tail), _noise(batch, size, *tail) if full else None)
                title = f"{'varying' if varying else 'constant'} {'pairs' if tail else 'real'}, {label}"
                yield Case("diagonal_scan", title, leaves, (lengths, full))
        for gates, count in (("gru", 2), ("lstm", 3), ("lstm_raw", 3)):
            leaves = (_noise(batch, steps, count * size), _noise(batch, size) if full else None)
            yield Case("minimal_gates", f"{gates}, {label}", leaves, (lengths, gates))
        for method in ("im", "imex"):
            parameters = torch.rand(2, size, dtype=torch.float64) + 0.1
            leaves = (*parameters, _noise(batch, steps, size, 2), _noise(batch, 2, size, 2) if full else None)
            yield Case("oscillators", f"{method}, {label}", leaves, (lengths, method))
        for tail in ((), (2,)):
            modes = [0.6 * _noise(size, states, *tail).tanh(), *(0.5 * _noise(size, states, *tail) for _ in range(2))]
            optional = (_noise(size), _noise(batch, size, states, *tail)) if full else (None, None)
            leaves = (_noise(batch, steps, size), *modes, *optional)
            yield Case("diagonal_ssm", f"{'pairs' if tail else 'real'}, {label}", leaves, (lengths, full))
        yield _selective(batch, steps, size, states, full, lengths, label)


def _selective(batch: int, steps: int, size: int, states: int, full: bool, lengths: Tensor | None, label: str) -> Case:
    shape = (batch, steps, size)
    optional = (_noise(size), _noise(*shape), _noise(size) - 2, _noise(batch, size, states)) if full else (None,) * 4
    rates = -torch.rand(size, states, dtype=torch.float64)
    leaves = (_noise(*shape), _noise(*shape), rates, _noise(batch, steps, states), _noise(batch, steps, states), *optional)
    return Case("selective_scan", label, leaves, (lengths, full))


def _noise(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def compare(case: Case, dtype: torch.dtype = torch.float64, relative: float = 1e-9, device: str | torch.device = "cpu") -> int:
    """Compare values and all gradients with the reference in float64; return how many numbers were compared."""
    fast, reference = RUNS[case.operator]
    rounded = tuple(None if leaf is None else leaf.to(dtype).double() for leaf in case.leaves)
    expected = trained(reference, rounded, case.others)
    others = tuple(part.to(device) if isinstance(part, Tensor) else part for part in case.others)
    found = trained(fast, tuple(None if leaf is None else leaf.to(device, dtype) for leaf in rounded), others)
    for index, (one, other) in enumerate(zip(found, expected, strict=True)):
        limit = relative * (1 + other.abs().max().item() if other.numel() else 1)
        text = f"{case.operator}, {case.title}, {dtype}, result {index} of shape {tuple(other.shape)}"
        assert_close(one.cpu().double(), other, rtol=0, atol=limit, msg=lambda found, text=text: f"{text}: {found}")
    return sum(tensor.numel() for tensor in expected)


def trained(run: Run, leaves: tuple[Tensor | None, ...], others: tuple[Any, ...]) -> list[Tensor]:
    """Return outputs, the final state and all gradients of a loss that reads both."""
    given = [None if leaf is None else leaf.clone().requires_grad_() for leaf in leaves]
    outputs, final = run(*given, *others)
    weights = torch.linspace(-1, 1, outputs.numel(), dtype=torch.float64, device=outputs.device).view_as(outputs)
    loss = (outputs.double() * weights).sum() + final.double().square().sum()
    sources = [leaf for leaf in given if leaf is not None]
    return [outputs, final, *torch.autograd.grad(loss, sources, materialize_grads=True)]
