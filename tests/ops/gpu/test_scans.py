"""Scans for CUDA tensors: in Triton's interpreter, compiled without a GPU, and on tensors of other devices."""

import importlib
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from seqmem.ops import implementations
from seqmem.ops.gpu import support
from tests.ops.gpu.compiled import CAPABILITIES, Compiled, check_limits, compile_kernel, missing_reason
from tests.ops.gpu.interpreted import checked
from tests.ops.gpu.scan_cases import RUNS, cases

pytest.importorskip("triton", reason="Triton is not installed")


@pytest.mark.parametrize("size", ["sample", pytest.param("all", marks=pytest.mark.slow)])
def test_equal_the_references(size):
    compared = checked(size)
    assert compared["scans"] > (100 if size == "sample" else 10_000)
    assert compared["types_of_scans"] > 500
    assert compared["scans_of_nothing"] == 3 * 2 * 12
    assert compared["padding_of_scans"] > 300
    assert compared["operators_of_scans"] >= len(RUNS)
    assert compared["bias_of_half_precision"] == 3


OPTIONS = {
    "diagonal_scan": {"VARYING": True, "PAIRS": True, "REVERSE": True},
    "diagonal_ssm": {"PAIRS": True, "REVERSE": True},
    "minimal_gates": {"GATES": "lstm"},
    "oscillators": {},
    "selective_scan": {"SOFTPLUS": True},
}
"""Constants of each operator with all options."""

INTEGERS = ("steps", "size", "channels", "states", "modes")
OPTIONAL = ("lengths", "initial", "grad_initial", "skip", "grad_skip", "gate", "grad_gate", "delta_bias", "grad_delta_bias")
HALF = {
    "diagonal_scan": ("a", "b", "grad_a", "grad_b"),
    "diagonal_ssm": ("inputs", "outputs", "grad_outputs", "grad_inputs"),
    "minimal_gates": ("projected", "grad_projected"),
    "oscillators": ("driven", "grad_driven"),
    "selective_scan": (
        *("inputs", "delta", "b", "c", "gate", "outputs", "grad_outputs"),
        *("grad_inputs", "grad_delta", "grad_gate"),
    ),
}
"""Tensors that are in half precision with such inputs; states, parameters and partial sums are in float32."""


def compiled(
    operator: str,
    direction: str,
    capability: int = 90,
    pointers: str = "fp32",
    states: int = 16,
    full: bool = True,
    **options: Any,
) -> Compiled:
    """Compile a kernel as a launch does.

    Args:
        operator: a key of RUNS.
        direction: forward or backward.
        capability: compute capability.
        pointers: type of the tensors; bf16 for those in HALF.
        states: N or M.
        full: with lengths and all tensors that may be None.
        **options: constants, instead of those in OPTIONS.
    """
    launches = importlib.import_module(f"seqmem.ops.gpu.{operator}")
    kernel = getattr(importlib.import_module(f"seqmem.ops.gpu.{operator}_kernels"), f"{operator}_{direction}")
    wide = "fp64" if pointers == "fp64" else "fp32"
    constants: dict[str, Any] = OPTIONS[operator] | options
    if operator in ("diagonal_ssm", "selective_scan"):
        like = torch.empty(5, states, dtype=torch.float64 if wide == "fp64" else torch.float32, device="meta")
        constants |= launches.block_sizes(like) | {"CHUNK": launches.CHUNK}
    else:
        constants |= {"BLOCK": launches.BLOCK}
    warps = constants.get("num_warps", 1)
    constants |= {"GROUP": launches.GROUP} | ({} if full else dict.fromkeys(OPTIONAL))
    constants = {name: value for name, value in constants.items() if name in kernel.arg_names}
    types = dict.fromkeys(INTEGERS, "i32:16") | {"steps": "i32", "lengths": "*i64"}
    if pointers == "bf16":
        types |= dict.fromkeys(HALF[operator], "*bf16")
    types = {name: kind for name, kind in types.items() if name in kernel.arg_names and name not in constants}
    return compile_kernel(kernel, constants, arguments=types, pointers=wide, capability=capability, warps=warps)


needs_compiler = pytest.mark.skipif(bool(missing_reason()), reason=missing_reason())
DIRECTIONS = ("forward", "backward")


@needs_compiler
def test_compile():
    for operator in ("diagonal_scan", "selective_scan"):
        check_limits(compiled(operator, "forward"))


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("operator", RUNS)
@pytest.mark.parametrize("capability", CAPABILITIES)
def test_compile_without_spills(operator, capability):
    for direction in DIRECTIONS:
        for pointers in ("fp32", "fp64", "bf16"):
            check_limits(compiled(operator, direction, capability, pointers))
        check_limits(compiled(operator, direction, capability, full=False))


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_other_options_compile_without_spills(direction):
    for varying in (False, True):
        check_limits(compiled("diagonal_scan", direction, VARYING=varying, PAIRS=False, REVERSE=False))
    check_limits(compiled("diagonal_scan", direction, VARYING=False, PAIRS=True, REVERSE=False))
    for gates in ("gru", "lstm_raw"):
        check_limits(compiled("minimal_gates", direction, GATES=gates))
    if direction == "forward":
        check_limits(compiled("oscillators", direction, velocities=None))
    for states in (1, 4, 32, 128, 512):
        for pairs in (False, True):
            check_limits(compiled("diagonal_ssm", direction, states=states, PAIRS=pairs, REVERSE=False))
        check_limits(compiled("selective_scan", direction, states=states, SOFTPLUS=False))


def test_a_gpu_runs_the_kernels():
    """The table chooses them for CUDA tensors, and their results have the shapes of the reference."""
    for case in cases(2, 3, 2):
        fast, reference = RUNS[case.operator]
        with FakeTensorMode():
            leaves = [None if leaf is None else torch.empty(leaf.shape, device="cuda") for leaf in case.leaves]
            lengths = None if case.others[0] is None else torch.empty(2, dtype=torch.int64, device="cuda")
            choice = implementations.choose(case.operator, leaves[0], {}, "")
            assert choice == (fast, "one Triton kernel", "")
            outputs, final = choice.run(*leaves, lengths, *case.others[1:])
        expected = reference(*case.leaves, *case.others)
        assert (outputs.shape, final.shape) == tuple(part.shape for part in expected)
        assert outputs.is_cuda
        assert final.is_cuda


def test_torch_computes_where_there_is_no_triton(monkeypatch):
    monkeypatch.setattr(support, "HAS_TRITON", False)
    with FakeTensorMode():
        choice = implementations.choose("diagonal_scan", torch.empty(2, 3, 4, device="cuda"), {}, "")
    assert choice.path == "parallel scan"
