"""Memory updates for CUDA tensors: in Triton's interpreter, compiled without a GPU, on fake tensors, without the library."""

import pytest

from tests.ops.gpu.compiled import CAPABILITIES, check_limits, compile_kernel
from tests.ops.gpu.interpreted import checked

pytest.importorskip("triton", reason="Triton is not installed")

ARGUMENTS = {"generators": "*fp64", "order": "i32:16", "rows_per_size": "i32", "stride": "i32"} | dict.fromkeys(
    ("high", "low", "alpha_high", "alpha_low"), "fp32"
)


@pytest.mark.parametrize("size", ["sample", pytest.param("all", marks=pytest.mark.slow)])
def test_equal_the_reference(size):
    compared = checked(size)
    assert compared["values_and_gradients_of_updates"] > 500
    for name in ("second_derivatives", "infinite_and_zero_steps", "large_orders_and_steps", "fake_tensors_without_the_library"):
        assert compared[name] > 0


def compiled(kernel, order, adjoint, pointers="fp32", capability=90, **constants):
    """Compile a kernel of updates or of zero-order hold as a launch for N coefficients does."""
    from seqmem.ops.gpu.updates import block

    size = block(order)
    arguments = {name: kind for name, kind in ARGUMENTS.items() if name in kernel.arg_names}
    constants |= {"ADJOINT": adjoint, "BLOCK": size["BLOCK"]}
    options = {"pointers": pointers, "capability": capability, "warps": size["num_warps"]}
    return compile_kernel(kernel, constants, arguments=arguments, **options)


def test_compile():
    from seqmem.ops.gpu import updates

    check_limits(compiled(updates._general_kernel, 512, True, PER_ROW=True))


@pytest.mark.slow
@pytest.mark.parametrize("capability", CAPABILITIES)
def test_compile_without_spills(capability):
    from seqmem.ops.gpu import hold, updates

    for adjoint in (False, True):
        for kernel in (updates._triangular_kernel, updates._general_kernel):
            for per_row in (False, True):
                check_limits(compiled(kernel, 512, adjoint, capability=capability, PER_ROW=per_row))
        check_limits(compiled(hold._legs_hold_kernel, 512, adjoint, "fp64", capability))


@pytest.mark.slow
@pytest.mark.parametrize("order", [33, 1024])
def test_other_orders_compile_without_spills(order):
    """With the warps of a launch: each has 128 coefficients."""
    from seqmem.ops.gpu import hold, updates

    for adjoint in (False, True):
        for pointers in ("fp32", "fp64"):
            for kernel in (updates._triangular_kernel, updates._general_kernel):
                found = compiled(kernel, order, adjoint, pointers, PER_ROW=True)
                assert found.name.endswith(f", {1 if order == 33 else 8} warps")
                check_limits(found)
        check_limits(compiled(hold._legs_hold_kernel, order, adjoint, "fp64"))


def test_without_triton_there_is_one_reason(monkeypatch, recwarn):
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    from seqmem.ops import extension, memory
    from seqmem.ops.gpu import support

    assert support.fallback_reason() == ("" if not extension.FORCED else extension.REASON)
    monkeypatch.setattr(support, "HAS_TRITON", False)
    monkeypatch.setattr(support, "_warned", False)
    monkeypatch.setattr(extension, "FORCED", False)
    with FakeTensorMode():
        tensor = torch.empty(1, 1, 2, device="cuda")
        assert [memory._is_for_gpu(tensor) for _ in range(2)] == [False, False]
    [warning] = recwarn
    reason = "Triton is not installed; install it with `pip install triton`"
    assert str(warning.message) == f"the slower reference operators are in use for CUDA tensors: {reason}"
    assert "reference (Triton is not installed" in support.path()
    with extension.reference_only("a test"):
        assert support.fallback_reason() == "a test"
