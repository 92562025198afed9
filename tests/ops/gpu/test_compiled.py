"""The tests' compiler of kernels reports what a kernel uses, and the limits of each card."""

import ast
import importlib
from collections import Counter
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from tests.ops.gpu.compiled import CAPABILITIES, SHARED_MEMORY, SPILLS, Compiled, check_limits, compile_kernel, missing_reason

if missing_reason():
    pytest.skip(missing_reason(), allow_module_level=True)

import triton
import triton.language as tl

ROOT = Path(__file__).parents[3]


@triton.jit
def _keep(source, target, length, BLOCK: tl.constexpr):
    """All elements are alive at the barrier of the sum, so that a small budget of registers spills them."""
    n = tl.arange(0, BLOCK)
    x = tl.load(source + n, mask=n < length, other=0.0)
    y = tl.exp(x - tl.sum(x, 0))
    tl.store(target + n, y / tl.sum(y, 0) + x, mask=n < length)


@triton.jit
def _product(a, b, target, SIZE: tl.constexpr, HALF: tl.constexpr = False):
    n = tl.arange(0, SIZE)
    at = n[:, None] * SIZE + n[None, :]
    x, y = tl.load(a + at), tl.load(b + at)
    tl.store(target + at, tl.dot(x, y, out_dtype=tl.float32).to(target.dtype.element_ty))


def test_registers_and_sums_are_reported():
    found = compile_kernel(_keep, {"BLOCK": 1024}, arguments={"length": "i32"})
    assert 8 < found.registers < 128
    assert (found.spilled, found.stack) == (0, 0)
    assert 0 < found.shared <= 1024  # of the sum over warps
    check_limits(found)


def test_spills_are_reported_and_refused():
    found = compile_kernel(_keep, {"BLOCK": 8192}, arguments={"length": "i32"}, maxnreg=32)
    assert found.registers <= 32
    assert found.spilled > 64
    assert found.stack > 0
    with pytest.raises(AssertionError, match="bytes of spills"):
        check_limits(found)
    check_limits(found, spills=found.spilled)


@pytest.mark.parametrize("capability", SHARED_MEMORY)
def test_shared_memory_is_compared_with_the_card(capability):
    limit = SHARED_MEMORY[capability]
    check_limits(Compiled("fits", capability, 32, SPILLS, SPILLS, limit))
    with pytest.raises(AssertionError, match="bytes of shared memory"):
        check_limits(Compiled("does not fit", capability, 32, 0, 0, limit + 1))


@pytest.mark.slow
def test_operands_of_products_are_in_shared_memory():
    found = compile_kernel(_product, {"SIZE": 128}, pointers="bf16", arguments={"target": "*fp32"})
    assert found.shared >= 2 * 128 * 128 * 2
    assert "HALF=False" in found.name


@pytest.mark.parametrize(
    ("constants", "arguments", "message"),
    [
        ({}, {"length": "i32"}, r"without a value \['BLOCK'\]"),
        ({"BLOCK": 64, "BLOK": 64}, {"length": "i32"}, r"unknown arguments \['BLOK'\]"),
        ({"BLOCK": 64}, {"size": "i32"}, r"unknown arguments \['size'\]"),
        ({"BLOCK": 64, "length": 1}, {"length": "i32"}, r"a value and a type \['length'\]"),
    ],
)
def test_arguments_are_checked(constants, arguments, message):
    with pytest.raises(ValueError, match=message):
        compile_kernel(_keep, constants, arguments=arguments)


def kernels() -> set[str]:
    """The names of the functions under ``triton.jit`` that no other such function uses: those that are launched."""
    found, used = set(), set()
    for path in (ROOT / "src" / "seqmem" / "ops" / "gpu").glob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and any("triton.jit" in ast.unparse(d) for d in node.decorator_list):
                found.add(node.name)
                inside = [inner for statement in node.body for inner in ast.walk(statement)]
                used |= {inner.id for inner in inside if isinstance(inner, ast.Name)}
                used |= {inner.attr for inner in inside if isinstance(inner, ast.Attribute)}
    return found - used


def cases(test: Any) -> Iterator[dict[str, Any]]:
    """Yield the arguments of a parametrized test."""
    marks = [mark for mark in getattr(test, "pytestmark", []) if mark.name == "parametrize"]
    for values in product(*(mark.args[1] for mark in marks)):
        yield {mark.args[0]: value for mark, value in zip(marks, values, strict=True)}


def test_every_kernel_is_compiled_by_a_test(monkeypatch):
    """Run the tests that compile, with a stand-in for the compiler that counts the kernels it gets."""
    found = Counter()

    def compile_kernel(kernel: Any, constants: Any, *, capability: int = 90, warps: int = 4, **options: Any) -> Compiled:
        found[kernel.__name__, capability] += 1
        return Compiled(f"{kernel.__name__}, {warps} warps", capability, 32, 0, 0, 0)

    for name in ("test_updates", "test_projection", "test_memory_chunks_kernels", "test_scans"):
        module = importlib.import_module(f"tests.ops.gpu.{name}")
        monkeypatch.setattr(module, "compile_kernel", compile_kernel)
        for label, test in vars(module).items():
            if label.startswith("test_") and "compile" in label:
                for arguments in cases(test):
                    test(**arguments)
    assert len(kernels()) >= 8
    assert {(kernel, capability) for kernel in kernels() for capability in CAPABILITIES} <= found.keys()
