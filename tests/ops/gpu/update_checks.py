"""Checks of the memory updates for CUDA tensors in Triton's interpreter, against the dense float64 reference."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing import assert_close

from seqmem.ops import extension, legs_update, legt_update, memory_update, reference
from seqmem.ops.gpu.memory_step import memory_step
from seqmem.ops.transition import MEASURES

SETTINGS: list[tuple[str, dict[str, float]]] = [
    *((name, {}) for name in MEASURES),
    ("lagt", {"beta": 0.3}),
    ("tlagt", {"beta": 2.5}),
    ("glagt", {"alpha": 0.4}),
]
DISCRETIZATIONS = ("forward", 0.3, "bilinear", "backward", "zoh")
SHAPES = [(3, 2, 1), (2, 1, 7), (3, 2, 33), (1, 1, 64)]


def cases(size: str) -> Iterator[tuple[str, dict[str, float], Any, tuple[int, int, int], float | Tensor, torch.dtype]]:
    """Yield measures, their arguments, discretizations, shapes, step sizes and types; a sample has each at least once."""
    types = (torch.float64, torch.float32)
    if size == "sample":
        for count, (measure, arguments) in enumerate(SETTINGS):
            rows = torch.rand(2, dtype=torch.float64)
            for discretization in DISCRETIZATIONS[count % 2 :: 2]:
                shape = (1, 1, 33) if count == 1 and discretization == 0.3 else SHAPES[1]
                yield measure, arguments, discretization, shape, (rows[: shape[0]], 0.27, rows[0])[count % 3], types[count % 2]
        return
    for measure, arguments in SETTINGS:
        for discretization in DISCRETIZATIONS:
            for shape in SHAPES:
                rows = torch.rand(shape[0], dtype=torch.float64)
                for step_size in (0.27, rows, rows[0]):
                    for dtype in types:
                        yield measure, arguments, discretization, shape, step_size, dtype


def check_values_and_gradients_of_updates(size: str) -> int:
    """Values and the gradients of memory, inputs and step size; memories that are not contiguous."""
    compared = 0
    for measure, arguments, discretization, (batch, count, order), step_size, dtype in cases(size):
        leaves = [torch.randn(count, batch, order, dtype=torch.float64), torch.randn(batch, count, dtype=torch.float64)]
        if isinstance(step_size, Tensor):
            leaves.append(step_size)
        cotangent = torch.randn(batch, count, order, dtype=torch.float64)
        results = []
        for run, kind in ((reference.update, torch.float64), (_step, dtype)):
            given = [leaf.to(kind).requires_grad_() for leaf in leaves]
            dt = given[2] if isinstance(step_size, Tensor) else step_size
            after = run(measure, given[0].transpose(0, 1), given[1], dt, discretization, **arguments)
            assert after.dtype == kind
            results.append((after, *torch.autograd.grad(after, given, cotangent.to(kind))))
        tolerance = 1e-10 if dtype == torch.float64 else 2e-5
        for exact, given in zip(*results, strict=True):
            scale = 1 + exact.abs().max().item()
            case = f"{measure} {arguments}, {discretization}, {batch, count, order}, dt {step_size}, {dtype}"
            assert_close(given.double(), exact, rtol=0, atol=tolerance * scale, msg=lambda text, case=case: f"{case}: {text}")
            compared += given.numel()
    return compared


def check_second_derivatives(size: str) -> int:
    """With respect to memory, inputs and step size."""
    compared = 0
    cases = (("legt", "bilinear"), ("legs", "zoh"), ("legs", 0.3), ("lagt", "zoh"), ("glagt", "forward"))
    for measure, discretization in cases[:2] if size == "sample" else cases:
        shapes = ((2, 1, 3), (2, 1), (2,))
        leaves = [torch.rand(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
        weights = [torch.randn(shape, dtype=torch.float64) for shape in (*shapes, shapes[0])]
        results = []
        for run in (reference.update, _step):
            after = run(measure, *leaves, discretization)
            grads = torch.autograd.grad(after, leaves, weights[3], create_graph=True)
            loss = sum((grad * weight).sum() for grad, weight in zip(grads, weights[:3], strict=True)) + after.square().sum()
            results.append(torch.autograd.grad(loss, leaves))
        for exact, given in zip(*results, strict=True):
            assert_close(given, exact, rtol=0, atol=1e-10 * (1 + exact.abs().max().item()))
            compared += given.numel()
    return compared


def check_infinite_and_zero_steps(size: str) -> int:
    """An infinite step starts the memory with u e_0, and a zero step keeps it; half precision; no rows."""
    compared = 0
    for measure in MEASURES if size == "all" else ("legs", "legt"):
        for discretization in ("bilinear", "zoh") if size == "all" or measure == "legs" else ("bilinear",):
            x, u = torch.randn(3, 2, 6, dtype=torch.float64), torch.randn(3, 2, dtype=torch.float64)
            dt = torch.tensor([torch.inf, 0.0, 0.5], dtype=torch.float64)
            results = []
            for run in (memory_update, _step_of_memory):
                given = [tensor.clone().requires_grad_() for tensor in (x, u, dt)]
                after = run(*given, measure, discretization)
                results.append((after, *torch.autograd.grad(after.square().sum(), given)))
            for exact, given in zip(*results, strict=True):
                assert_close(given, exact, rtol=0, atol=1e-9)
                compared += given.numel()
            assert torch.equal(results[1][0][0], torch.nn.functional.pad(u[0, :, None], (0, 5)))
            for empty in ((0, 2, 5), (2, 0, 5)):
                nothing = torch.zeros(empty, requires_grad=True)
                after = _step_of_memory(nothing, torch.zeros(empty[:2]), torch.ones(empty[0]), measure, discretization)
                assert torch.autograd.grad(after.sum(), nothing)[0].shape == after.shape == empty
            half = _step_of_memory(x.bfloat16(), u.bfloat16(), 0.25, measure, discretization)
            exact = reference.update(measure, x.bfloat16(), u.bfloat16(), 0.25, discretization)
            assert half.dtype == torch.bfloat16
            assert_close(half.float(), exact.float(), rtol=1e-2, atol=1e-2)
    return compared


def check_large_orders_and_steps(size: str) -> int:
    """The elimination without pivoting is stable, and its coefficients are rounded once."""
    compared = 0
    for measure, order in (("legt", 40),) if size == "sample" else (("legt", 256), ("lmu", 512), ("legs", 512)):
        x, u = torch.randn(2, 1, order, dtype=torch.float64), torch.randn(2, 1, dtype=torch.float64)
        for dt in (0.001, 1.0, 30.0) if size == "all" else (1.0,):
            exact = reference.update(measure, x, u, dt, 0.5)
            scale = exact.abs().max().item()
            for dtype, tolerance in ((torch.float64, 2e-11), (torch.float32, 2e-5)):
                given = _step_of_memory(x.to(dtype), u.to(dtype), dt, measure, 0.5)
                assert_close(given.double(), exact, rtol=0, atol=tolerance * scale)
                compared += given.numel()
    return compared


def check_fake_tensors_without_the_library(size: str) -> int:
    """Nothing is launched, and no call reads a value or copies between devices."""
    assert "does not exist" in extension.REASON
    count = 0
    with FakeTensorMode():
        for dtype in (torch.float32, torch.bfloat16) if size == "all" else (torch.bfloat16,):
            memory, inputs = torch.empty(3, 2, 5, device="cuda:0", dtype=dtype), torch.empty(3, 2, device="cuda:0")
            for step_size in (0.3, torch.inf, torch.empty(3, device="cuda:0"), torch.empty((), device="cuda:0")):
                for measure in MEASURES:
                    for discretization in DISCRETIZATIONS:
                        after = memory_update(memory, inputs, step_size, measure, discretization)
                        assert (after.shape, after.dtype, after.device) == (memory.shape, dtype, memory.device)
                        count += 1
        assert legs_update(memory, inputs, 0.5).is_cuda
        assert legt_update(memory, inputs, 0.5).is_cuda
    return count


def _step(measure: str, memory: Tensor, inputs: Tensor, step_size: Any, discretization: Any, **arguments: float) -> Tensor:
    return memory_step(memory, inputs, step_size, measure, discretization, arguments)


def _step_of_memory(memory: Tensor, inputs: Tensor, step_size: Any, measure: str, discretization: Any) -> Tensor:
    return memory_step(memory, inputs, step_size, measure, discretization, {})
