"""The compiled projection of a signal in pieces against the loop over its samples, in value and gradient."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from seqmem.hippo import OnlineProjection
from seqmem.ops import extension
from seqmem.ops.legs_projection import legs_projection, legs_projection_reference

needs_library = pytest.mark.skipif(bool(extension.REASON), reason=f"no compiled operators: {extension.REASON}")


class Calls(TorchDispatchMode):
    """Counts the calls of operators."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += 1
        return function(*args, **(kwargs or {}))


DISCRETIZATIONS = ("bilinear", "forward", "backward", "zoh", 0.3)


def random(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(0))


@needs_library
@pytest.mark.parametrize("discretization", DISCRETIZATIONS)
def test_equals_the_loop(discretization):
    """From the first sample or from later ones; orders and lengths below and above the lanes of a vector."""
    for order, length, start, every in ((1, 1, 0, 1), (5, 3, 0, 0), (7, 90, 0, 4), (40, 150, 1, 70), (6, 37, 1000, 1)):
        leaves = [random(3, length).requires_grad_(), random(3, order).requires_grad_()]
        results = []
        for run in (legs_projection, legs_projection_reference):
            kept, memory = run(*leaves, start, discretization, every)
            loss = (kept * random(*kept.shape)).sum() + (memory * random(3, order)).sum()
            results.append((kept, memory, *torch.autograd.grad(loss, leaves, materialize_grads=True, allow_unused=True)))
        for given, expected in zip(*results, strict=True):
            scale = expected.abs().max().item() if expected.numel() else 0
            assert_close(given, expected, rtol=1e-9, atol=1e-11 * scale)


@needs_library
def test_float32_to_rounding():
    signal, memory = random(2, 300), random(2, 20)
    for discretization in DISCRETIZATIONS:
        if discretization != "forward":  # grows in its first steps
            expected = legs_projection(signal, memory, 30, discretization, 7)
            for given, exact in zip(
                legs_projection(signal.float(), memory.float(), 30, discretization, 7), expected, strict=True
            ):
                assert given.dtype == torch.float32
                assert_close(given.double(), exact, rtol=0, atol=1e-5 * exact.abs().max().item())


@needs_library
def test_late_steps_of_float32():
    """From t = 2^23 on, 2t + 1 is not a number of float32; also around that boundary."""
    signal, memory = random(2, 300), random(2, 20)
    for start in (2**23 - 160, 2**23, 10**8):
        for alpha in (0.5, 0.3):
            results = []
            for dtype in (torch.float32, torch.float64):
                leaves = [tensor.to(dtype).requires_grad_() for tensor in (signal, memory)]
                kept, after = legs_projection(*leaves, start, alpha, 7)
                assert kept.dtype == after.dtype == dtype
                results.append((kept, after, *torch.autograd.grad(kept.sum() + after.square().sum(), leaves)))
            for given, exact in zip(*results, strict=True):
                assert_close(given.double(), exact, rtol=0, atol=1e-6 * exact.abs().max().item())


@needs_library
def test_other_types_and_devices_take_one_call():
    """Computed in float64 on the CPU. The tensors of another device are fake, as a GPU may be missing."""
    signal, memory = random(2, 30), random(2, 5)
    exact = legs_projection(signal.bfloat16().double(), memory.bfloat16().double(), 3, "bilinear", 4)
    with Calls() as calls:
        results = legs_projection(signal.bfloat16(), memory.bfloat16(), 3, "bilinear", 4)
    assert calls.count < 20
    for given, expected in zip(results, exact, strict=True):
        assert torch.equal(given, expected.bfloat16())
    with pytest.raises(ValueError, match=r"memory: got torch\.float32 on cpu, expected torch\.bfloat16 on cpu"):
        legs_projection(signal.bfloat16(), memory.float(), 3)
    with FakeTensorMode(), Calls() as calls:
        results = legs_projection(torch.empty(2, 30, device="cuda"), torch.empty(2, 5, device="cuda"), 3, "bilinear", 4)
        assert [tuple(result.shape) for result in results] == [(2, 8, 5), (2, 5)]
        assert all(result.device.type == "cuda" and result.dtype == torch.float32 for result in results)
    assert calls.count < 20


QUICK = ("test_schema", "test_autograd_registration", "test_faketensor")


@needs_library
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.parametrize("utilities", [QUICK, pytest.param("ALL", marks=pytest.mark.slow)], ids=["quick", "all"])
def test_is_well_formed(utilities):
    given = (random(2, 9).requires_grad_(), random(2, 4).requires_grad_(), 3, 0.5, 4)
    torch.use_deterministic_algorithms(False)
    torch.library.opcheck(torch.ops.seqmem.legs_projection.default, given, test_utils=utilities)
    transposed = (random(2, 3, 4).requires_grad_(), random(2, 4).requires_grad_(), 9, 3, None, 4)
    torch.library.opcheck(torch.ops.seqmem.legs_projection_adjoint.default, transposed, test_utils=utilities)
    signal, memory = given[0][:, :5].detach().requires_grad_(), given[1].detach().requires_grad_()
    for discretization in ("bilinear", "zoh"):
        assert torch.autograd.gradgradcheck(
            lambda *leaves, d=discretization: legs_projection(*leaves, 2, d, 2), (signal, memory)
        )


@needs_library
def test_wrong_arguments_are_named():
    signal, memory = random(2, 9), random(2, 4)
    operator = torch.ops.seqmem.legs_projection.default
    for given, message in (
        ((signal[0], memory, 0, 0.5, 0), r"signal: got shape \[9\], expected \(B, T\) with T > 0"),
        ((signal, memory[:1], 0, 0.5, 0), r"memory: got shape \[1, 4\], expected \[2, 4\]"),
        ((signal, memory.float(), 0, 0.5, 0), "memory: got float32, expected float64"),
        ((signal, memory, -1, 0.5, 0), r"start: got -1, expected 0 to 2\^53 - T with T = 9"),
        ((signal, memory, 0, 0.5, -2), "every: got -2, expected 0 or above"),
        ((signal, memory, 0, 1.5, 0), "alpha: got 1.5, expected 0 to 1"),
    ):
        with pytest.raises(ValueError, match=f"seqmem::legs_projection: {message}"):
            operator(*given)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")  # torch's forward mode
def test_forward_mode_derivatives():
    """Of the projection and of streams: it is linear in the signal."""
    signal, tangent = random(2, 30), random(2, 30).flip(1)
    for measure, theta, every in (("legs", None, None), ("legs", None, 4), ("legt", 9.0, 4)):

        def run(values, measure=measure, theta=theta, every=every):
            stream = OnlineProjection(5, measure, theta)
            stream.update(values[:, :11])
            return stream.update(values[:, 11:], every)

        value, derivative = torch.func.jvp(run, (signal,), (tangent,))
        assert_close(value, run(signal))
        assert_close(derivative, run(tangent))


@needs_library
def test_a_stream_has_no_loop_over_samples():
    """Neither after the first chunk nor with the coefficients after every sample; windows take them 256 at a time."""
    for measure, theta in (("legs", None), ("legt", 50.0), ("lagt", 50.0)):
        for discretization in ("bilinear", "zoh", 0.7):
            stream = OnlineProjection(6, measure, theta, discretization)
            stream.update(random(2, 300), every=1)
            for every, limit in ((None, 100), (1, 600), (7, 200)):
                with Calls() as calls:
                    stream.update(random(2, 1000), every)
                assert calls.count < (10 if measure == "legs" else limit), (measure, discretization, every)
