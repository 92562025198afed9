"""Checks of the projection for CUDA tensors in Triton's interpreter, against the float64 loop over the samples."""

from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing import assert_close

from seqmem.hippo import project
from seqmem.ops import legs_function_approximation, reference
from seqmem.ops.gpu.projection import legs_scan
from seqmem.ops.legs_projection import legs_projection, legs_projection_reference

ALPHAS = (0.5, 0.0, 1.0, 0.3)
PIECES = ((1, 3, 0, 1), (5, 3, 0, 0), (6, 19, 0, 4), (7, 10, 1, 7), (33, 7, 1000, 1), (64, 9, 5, 20))
"""Order, length, start and ``every``."""


def check_projection(size: str) -> int:
    """Values and gradients, from the first sample or from later ones."""
    compared = 0
    for count, (order, length, start, every) in enumerate(PIECES[:5] if size == "sample" else PIECES):
        for alpha in ALPHAS if size == "all" else [ALPHAS[count % 4]]:
            for dtype in (torch.float64, torch.float32) if alpha != 0 and (size == "all" or count < 2) else (torch.float64,):
                leaves = [torch.randn(2, length, dtype=torch.float64), torch.randn(2, order, dtype=torch.float64)]
                exact = _with_gradients(legs_projection_reference, leaves, start, alpha, every)
                leaves = [leaf.to(dtype) for leaf in leaves]
                tolerance = 1e-11 if dtype == torch.float64 else 1e-5
                for given, expected in zip(_with_gradients(legs_scan, leaves, start, alpha, every), exact, strict=True):
                    assert given.dtype == dtype
                    scale = 1 + (expected.abs().max().item() if expected.numel() else 0)
                    assert_close(given.double(), expected, rtol=0, atol=tolerance * scale)
                    compared += given.numel()
    return compared


def check_halves_of_a_signal(size: str) -> int:
    """Two pieces give the coefficients of the whole, at late positions in float32 too; no rows; half precision."""
    compared = 0
    for start, dtype in ((0, torch.float64), (2**23 - 4, torch.float32), (2**40, torch.float32)):
        signal, memory = torch.randn(2, 9, dtype=torch.float64), torch.randn(2, 5, dtype=torch.float64)
        kept, after = legs_projection_reference(signal, memory, start, 0.5, 2)
        first, middle = legs_scan(signal[:, :4].to(dtype), memory.to(dtype), start, 0.5, 2)
        second, last = legs_scan(signal[:, 4:].to(dtype), middle, start + 4, 0.5, 2)
        assert last.dtype == dtype
        for given, exact in ((torch.cat((first, second), 1), kept), (last, after)):
            assert_close(given.double(), exact, rtol=0, atol=1e-11 if dtype == torch.float64 else 1e-6)
            compared += given.numel()
    kept, after = legs_scan(torch.zeros(0, 3), torch.zeros(0, 4), 0, 0.5, 1)
    assert (kept.shape, after.shape) == ((0, 3, 4), (0, 4))
    half = legs_scan(torch.ones(1, 3, dtype=torch.bfloat16), torch.zeros(1, 4, dtype=torch.bfloat16), 0, 0.5, 0)[1]
    assert_close(half, torch.tensor([[1.0, 0, 0, 0]], dtype=torch.bfloat16), rtol=0, atol=1e-2)
    signal = torch.randn(2, 8, dtype=torch.float64)
    exact = reference.legs_function_approximation(signal, 4)
    assert_close(legs_scan(signal, signal.new_zeros(2, 4), 0, 0.5, 0)[1], exact)
    return compared


def check_second_derivatives_of_the_projection(size: str) -> int:
    """It is linear: the gradient of its transpose is itself."""
    signal, memory = (torch.randn(1, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    _, after = legs_scan(signal, memory, 2, 0.5, 2)
    cotangent = torch.randn(1, 3, dtype=torch.float64, requires_grad=True)
    grads = torch.autograd.grad(after, (signal, memory), cotangent, create_graph=True)
    weights = [torch.randn(1, 3, dtype=torch.float64) for _ in grads]
    [again] = torch.autograd.grad(grads, cotangent, weights)
    assert_close(again, legs_scan(*weights, 2, 0.5, 2)[1])
    return again.numel()


def check_fake_projections(size: str) -> int:
    """Nothing is launched, and no call reads a value or copies to the host."""
    count = 0
    with FakeTensorMode():
        for dtype in (torch.float32, torch.float64, torch.bfloat16) if size == "all" else (torch.bfloat16,):
            signal, memory = torch.empty(2, 3000, device="cuda:0", dtype=dtype), torch.empty(2, 6, device="cuda:0", dtype=dtype)
            for discretization in ("forward", "backward", "bilinear", "zoh", 0.3):
                for every in (0, 1, 7):
                    kept, after = legs_projection(signal, memory, 5, discretization, every)
                    assert (kept.shape, after.shape) == ((2, 3005 // every - 5 // every if every else 0, 6), (2, 6))
                    assert {(each.dtype, each.device) for each in (kept, after)} == {(dtype, signal.device)}
                    count += 1
            assert legs_function_approximation(signal, 4).device == signal.device
    with FakeTensorMode(allow_non_fake_inputs=True):  # windows multiply matrices that are not fake
        signal = torch.empty(2, 3000, device="cuda:0")
        for measure, theta in (("legs", None), ("legt", 90.0), ("lmu", 90.0), ("lagt", 90.0)):
            for discretization in ("bilinear", "zoh"):
                assert project(signal, 6, measure, theta, discretization=discretization).device == signal.device
                assert project(signal, 6, measure, theta, 500, discretization).shape == (2, 6, 6)
                count += 1
    return count


def _with_gradients(run: Any, leaves: list[Tensor], *settings: Any) -> tuple[Tensor, ...]:
    leaves = [leaf.clone().requires_grad_() for leaf in leaves]
    kept, after = run(*leaves, *settings)
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(each.shape, dtype=torch.float64, generator=generator).to(each.dtype) for each in (kept, after)]
    loss = (kept * weights[0]).sum() + (after * weights[1]).sum()
    return kept, after, *torch.autograd.grad(loss, leaves, materialize_grads=True, allow_unused=True)
