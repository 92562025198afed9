"""The tests' compiler of kernels reports what a kernel uses, and the limits of each card."""

import pytest

from tests.ops.gpu.compiled import SHARED_MEMORY, SPILLS, Compiled, check_limits, compile_kernel, missing_reason

if missing_reason():
    pytest.skip(missing_reason(), allow_module_level=True)

import triton
import triton.language as tl


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
