"""Scans and convolutions by the fastest implementation for their tensors, for loops and layers outside of this project.

    >>> import torch
    >>> from seqmem.ops.functional import diagonal_scan
    >>> h, last = diagonal_scan(torch.rand(16), torch.randn(2, 100, 16))
    >>> h.shape, last.shape
    (torch.Size([2, 100, 16]), torch.Size([2, 16]))

:data:`seqmem.ops.implementations.TABLE` chooses by device, type and transforms of torch.func, as for the layers.
"""

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from torch import Tensor

from seqmem.ops.causal_convolution import causal_convolution_reference
from seqmem.ops.diagonal_scan import diagonal_scan_reference
from seqmem.ops.diagonal_ssm import diagonal_ssm_reference
from seqmem.ops.implementations import required
from seqmem.ops.minimal_gates import MinimalGates, minimal_gates_reference
from seqmem.ops.oscillators import OscillatorMethod, oscillator_scan_reference
from seqmem.ops.selective_scan import selective_scan_reference

__all__ = ["causal_convolution", "diagonal_scan", "diagonal_ssm", "minimal_gates", "oscillators", "selective_scan"]

Function = TypeVar("Function", bound=Callable[..., Any])


def _described_by(reference: Callable[..., Any]) -> Callable[[Function], Function]:
    """Decorate a function, and add the docstring of the reference without its first line to its own."""

    def decorate(function: Function) -> Function:
        _, _, rest = inspect.cleandoc(reference.__doc__ or "").partition("\n")
        function.__doc__ = f"{inspect.cleandoc(function.__doc__ or '')}\n{rest}"
        return function

    return decorate


@_described_by(diagonal_scan_reference)
def diagonal_scan(
    a: Tensor, b: Tensor, initial: Tensor | None = None, lengths: Tensor | None = None, reverse: bool = False
) -> tuple[Tensor, Tensor]:
    """Compute h_t = a_t h_{t-1} + b_t, elementwise."""
    return _run("diagonal_scan", b, a, b, initial, lengths, reverse)


@_described_by(selective_scan_reference)
def selective_scan(
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
    """Compute the selective scan of Mamba."""
    return _run("selective_scan", inputs, inputs, delta, a, b, c, skip, gate, delta_bias, initial, lengths, softplus)


@_described_by(diagonal_ssm_reference)
def diagonal_ssm(
    inputs: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    skip: Tensor | None = None,
    initial: Tensor | None = None,
    lengths: Tensor | None = None,
    reverse: bool = False,
) -> tuple[Tensor, Tensor]:
    """Compute s_t = a s_{t-1} + b x_t and y_t = Re(sum_m c_m s_t,m) + skip x_t for each channel."""
    return _run("diagonal_ssm", inputs, inputs, a, b, c, skip, initial, lengths, reverse)


@_described_by(minimal_gates_reference)
def minimal_gates(
    projected: Tensor, initial: Tensor | None = None, lengths: Tensor | None = None, gates: MinimalGates = "gru"
) -> tuple[Tensor, Tensor]:
    """Compute h_t = a_t h_{t-1} + i_t g(k_h), with g(k) = k + 1/2 for k >= 0 and sigmoid(k) below."""
    return _run("minimal_gates", projected, projected, initial, lengths, gates)


@_described_by(oscillator_scan_reference)
def oscillators(
    stiffness: Tensor,
    step: Tensor,
    driven: Tensor,
    initial: Tensor | None = None,
    lengths: Tensor | None = None,
    method: OscillatorMethod = "im",
) -> tuple[Tensor, Tensor]:
    """Compute the velocities z' = u - A y and positions y' = z of P oscillators."""
    return _run("oscillators", driven, stiffness, step, driven, initial, lengths, method)


@_described_by(causal_convolution_reference)
def causal_convolution(
    inputs: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    initial: Tensor | None = None,
    lengths: Tensor | None = None,
    restarts: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Compute a causal convolution of each channel."""
    return _run("causal_convolution", inputs, inputs, weight, bias, initial, lengths, restarts)


def _run(operator: str, inputs: Tensor, *arguments: Any) -> tuple[Tensor, Tensor]:
    outputs: tuple[Tensor, Tensor] = required(operator, inputs)(*arguments)
    return outputs
