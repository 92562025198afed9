"""The Triton kernels of the HiPPO network in chunks: values in the interpreter, and resources of the compiled kernels."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ops.gpu.compiled import CAPABILITIES, check_limits, compile_kernel, interpreter_reason, missing_reason

pytest.importorskip("triton", reason="Triton is not installed")

# An own process: Triton reads TRITON_INTERPRET when it is imported.
SCRIPT = """
import sys, torch
from pytest import MonkeyPatch
from seqmem.ops.gpu import memory_chunks_launch, memory_chunks_layout
from tests.ops.gpu.chunks import CELLS, use_on_cpu
from tests.ops.gpu.test_memory_chunks import assert_equals_the_loop, make
from tests.ops.test_sequence import assert_same, random_state, run

use_on_cpu(MonkeyPatch(), memory_chunks_launch)
torch.manual_seed(0)
torch.use_deterministic_algorithms(True)  # fresh memory is NaN
if sys.argv[1] == "sample":
    memory_chunks_layout.MAX_CHUNK = 2
    cell = make("legs", 1, 3, memory_order=3, architecture={"um": True})
    assert_equals_the_loop(cell, 2, 3, [3, 1], random_state(cell, 2, together=True))
    assert_equals_the_loop(make("legt ungated", 1, 3, memory_order=3), 1, 3)
else:
    for name in CELLS:
        for batch, steps, size in ((2, 17, 7), (1, 1, 33), (1, 9, 33)):
            assert_equals_the_loop(make(name, 2, size), batch, steps)
        cell = make(name, 2, 7)
        assert_equals_the_loop(cell, 5, 11, [11, 0, 4, 8, 9], random_state(cell, 5, together=True))
    for name in ("legs", "legts", "legt", "legs all on"):
        inputs = torch.randn(2, 19, 3, dtype=torch.float64)
        assert_same(run(make(name, 3, 33).float(), inputs.float()), run(make(name, 3, 33), inputs, loop=True), 2e-5)
        with torch.autocast("cpu", torch.bfloat16):
            given = run(make(name, 3, 33).float(), inputs.float())
        assert_same(given, run(make(name, 3, 33), inputs, loop=True), 0.05)
print("done")
"""


@pytest.mark.parametrize("sizes", ["sample", pytest.param("all", marks=pytest.mark.slow)])
@pytest.mark.skipif(bool(interpreter_reason()), reason=interpreter_reason())
def test_interpreted_kernels_equal_the_loop(sizes):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, sizes],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[3],
        env={**os.environ, "TRITON_INTERPRET": "1", "SEQMEM_EXTENSION": "no library here", "SEQMEM_REFERENCE": ""},
        check=False,
    )
    assert done.stdout.endswith("done\n"), done.stdout + done.stderr


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
    return compile_kernel(function, constants, arguments=types, pointers=pointers, capability=capability, warps=warps, stages=1)


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
