"""The Triton kernels of the HiPPO network in chunks: values in the interpreter, and resources of the compiled kernels."""

import pytest

from tests.ops.gpu.compiled import CAPABILITIES, check_limits, compile_kernel, missing_reason
from tests.ops.gpu.interpreted import checked

pytest.importorskip("triton", reason="Triton is not installed")


@pytest.mark.parametrize("size", ["sample", pytest.param("all", marks=pytest.mark.slow)])
def test_interpreted_kernels_equal_the_loop(size):
    compared = checked(size)
    assert compared["chunks"] > (100 if size == "sample" else 10_000)
    assert compared["elimination"] >= 3 * 5 * 34
    assert size == "sample" or compared["lengths_and_borders"] > 10_000


OPTIONS = {
    "legs": {"elimination": None},
    "legts": {},
    "powers": {"generators": None, "sizes": None, "elimination": None, "pulled": None},
    "zoh": {"generators": None, "sizes": None, "elimination": None, "pulled": None},
}
"""Arguments that each kind of transition leaves out."""


def compiled(kernel, kind, size, capability, half=False, full=False, pointers="fp32", **sizes):
    """Compile a kernel for H = N = size.

    Args:
        kernel: forward_chunk, backward_chunk or evolve.
        kind: a key of OPTIONS.
        size: H and N.
        capability: compute capability.
        half: products in bfloat16.
        full: lengths, and a memory that feeds its own input.
        pointers: type of the state.
        sizes: other constants.
    """
    from seqmem.ops.gpu import memory_chunks_backward_kernel, memory_chunks_kernels, memory_chunks_launch

    function = getattr(memory_chunks_backward_kernel if "back" in kernel else memory_chunks_kernels, kernel)
    left_out = dict(OPTIONS[kind])
    if not full:
        left_out |= dict.fromkeys(("lengths", "feedback", "free_inputs", "weight_um", "fed"))
    if not half:
        left_out |= dict.fromkeys(("free_half", "half"))
    if sizes.get("X", 1) == 0:
        left_out |= dict.fromkeys(("x", "weight_x", "bias", *(() if half else ("product",))))
    block = 1 << (size - 1).bit_length()
    constants = {"H": size, "N": size, "M": 1, "C": 8, "X": 1, "GATED": True, "STATIONARY": kind == "powers", "SAVE": True}
    constants |= {"ACTIVATION_U": "id", "ACTIVATION_H": "tanh", "BLOCK_H": block, "BLOCK_N": block, **left_out, **sizes}
    types = dict.fromkeys(("start", "count", "next_count", "steps", "stride", "width", "stride_u", "batch"), "i32")
    types |= dict.fromkeys(("table", "free_half", "half", "grad_gates"), "*bf16") if half else {}
    types["lengths"] = "*i64"
    names = function.arg_names
    constants = {name: value for name, value in constants.items() if name in names}
    types = {name: value for name, value in types.items() if name in names and name not in constants}
    warps = memory_chunks_launch.warps(block)
    return compile_kernel(function, constants, arguments=types, pointers=pointers, capability=capability, warps=warps)


needs_compiler = pytest.mark.skipif(bool(missing_reason()), reason=missing_reason())


@needs_compiler
def test_kernels_compile():
    for kernel in ("forward_chunk", "backward_chunk"):
        check_limits(compiled(kernel, "legs", 128, 90, full=True, C=2))


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("size", [128, 256, 512, 1024])
@pytest.mark.parametrize("kernel", ["forward_chunk", "backward_chunk"])
def test_kernels_compile_without_spills(kernel, size, capability):
    for kind in OPTIONS:
        for half in (False, True):
            check_limits(compiled(kernel, kind, size, capability, half=half, full=half))
    check_limits(compiled(kernel, "legs", size, capability, full=True, M=2, C=4))
    check_limits(compiled(kernel, "legs", size, capability, full=True, M=9, C=1))
    check_limits(compiled(kernel, "legs", size, capability, X=0))


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("capability", CAPABILITIES)
def test_other_kernels_compile_without_spills(capability):
    for kind in ("legs", "legts"):
        for pointers in ("fp32", "fp64"):
            for size in (128, 512, 1024):
                check_limits(compiled("evolve", kind, size, capability, full=True, pointers=pointers))
    for size in (128, 512, 1024):
        check_limits(compiled("eliminate", "legts", size, capability, pointers="fp64"))
