"""The projection for CUDA tensors: in Triton's interpreter, on fake tensors, and compiled without a GPU."""

import pytest

from tests.ops.gpu.compiled import CAPABILITIES, check_limits, compile_kernel
from tests.ops.gpu.interpreted import checked

pytest.importorskip("triton", reason="Triton is not installed")

ARGUMENTS = dict.fromkeys(("length", "count", "start", "every"), "i32") | {
    "order": "i32:16",
    "alpha_high": "fp32",
    "alpha_low": "fp32",
}


@pytest.mark.parametrize("size", ["sample", pytest.param("all", marks=pytest.mark.slow)])
def test_equals_the_loop(size):
    compared = checked(size)
    assert compared["projection"] > 300
    for name in ("halves_of_a_signal", "second_derivatives_of_the_projection", "fake_projections"):
        assert compared[name] > 0


@pytest.mark.slow
@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("pointers", ["fp32", "fp64"])
def test_compiles_without_spills(capability, pointers):
    from seqmem.ops.gpu import projection
    from seqmem.ops.gpu.updates import block

    for kernel in (projection._projection_kernel, projection._projection_adjoint_kernel):
        for order in (33, 256, 1000):
            size = block(order)
            constants, warps = {"BLOCK": size["BLOCK"]}, size["num_warps"]
            arguments = ARGUMENTS | {"start": "i64"}
            check_limits(
                compile_kernel(kernel, constants, arguments=arguments, pointers=pointers, capability=capability, warps=warps)
            )
