"""Ahead-of-time compilation of Triton kernels without a GPU: registers, spills and shared memory.

    compiled = compile_kernel(_kernel, {"BLOCK": 512}, arguments={"order": "i32", "alpha": "fp32"}, capability=90)
    check_limits(compiled)

Triton writes PTX and its own ptxas assembles it for any architecture; only a launch needs a GPU.
"""

import re
import subprocess
import tempfile
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from packaging.version import Version

CAPABILITIES = (80, 90, 100)
"""The architectures of default tests: A100, H100 and H200, B200."""

SHARED_MEMORY = {80: 163 * 1024, 86: 99 * 1024, 89: 99 * 1024, 90: 227 * 1024, 100: 227 * 1024, 120: 99 * 1024}
"""Most bytes of shared memory of a program, by compute capability (86, 89 and 120 are consumer cards)."""

SPILLS = 16
"""Most bytes of spills: a register or two that are kept over a whole kernel cost nothing that can be measured."""

# ptxas names the width in the instruction: STL is 4 bytes, STL.64 is 8.
_SPILL = re.compile(r"\bSTL(?:\.(\w+))?\b")
_WIDTHS = {"U8": 1, "S8": 1, "U16": 2, "S16": 2, "64": 8, "128": 16}


class Compiled(NamedTuple):
    """Resources of a compiled kernel.

    Attributes:
        name: the kernel and its constants.
        capability: compute capability, 90 for sm_90.
        registers: registers of a thread.
        spilled: bytes that a thread stores to its local memory, each store instruction counted once.
        stack: bytes of a thread's stack, where spills are.
        shared: bytes of shared memory of a program.
    """

    name: str
    capability: int
    registers: int
    spilled: int
    stack: int
    shared: int


def missing_reason() -> str:
    """Return why nothing can be compiled, or an empty string."""
    try:
        import triton
    except ImportError as error:
        return f"Triton is not installed ({error})"
    if triton.knobs.runtime.interpret:
        return "TRITON_INTERPRET is set: kernels are interpreted, and not compiled"
    missing = [tool for tool in ("cuobjdump", "ptxas") if not _tool(tool).is_file()]
    return f"this installation of Triton has no {' and no '.join(missing)}" if missing else ""


def interpreter_reason() -> str:
    """Return why Triton's interpreter cannot run the kernels, or an empty string."""
    try:
        found = version("triton")
    except PackageNotFoundError:
        return "Triton is not installed"
    if Version(found) < Version("3.7") and Version(version("numpy")) >= Version("2.4"):
        return f"the interpreter of Triton {found} runs no loops with NumPy 2.4 or newer"
    return ""


def compile_kernel(
    kernel: Any,
    constants: Mapping[str, Any],
    *,
    arguments: Mapping[str, str] | None = None,
    pointers: str = "fp32",
    capability: int = 90,
    warps: int = 4,
    stages: int = 3,
    **options: Any,
) -> Compiled:
    """Compile a kernel for an architecture, and return its resources. The test is skipped where nothing can be compiled.

    Args:
        kernel: a function under ``triton.jit``.
        constants: values of the ``tl.constexpr`` arguments, except those with a default. Other arguments may be listed too,
            such as a pointer that is None or an integer that is 1: a launch makes constants of them.
        arguments: Triton's types of the other arguments, such as ``"i32"``, ``"i64"``, ``"fp32"`` or ``"*bf16"``. With ``:16``,
            as in ``"i32:16"``, an integer is a multiple of 16, of which a launch makes use. Pointers are so anyhow, as torch
            allocates them. Default: a pointer.
        pointers: element type of the pointers without an entry in ``arguments``.
        capability: compute capability.
        warps: ``num_warps`` of the launch.
        stages: ``num_stages`` of the launch; the default is that of a launch.
        **options: further options of a launch, such as ``maxnreg``.
    """
    reason = missing_reason()
    if reason:
        pytest.skip(reason)
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature, values, attributes = _signature(kernel, constants, arguments or {}, pointers)
    done = triton.compile(
        ASTSource(kernel, signature, values, attributes),
        target=GPUTarget("cuda", capability, 32),
        options={"num_warps": warps, "num_stages": stages, **options},
    )
    settings = ", ".join(f"{key}={value}" for key, value in values.items())
    usage, sass = _dump(done.asm["cubin"])
    return Compiled(
        name=f"{kernel.__name__}({settings}), {warps} warps",
        capability=capability,
        registers=usage["REG"],
        spilled=sum(_WIDTHS.get(width, 4) for width in _SPILL.findall(sass)),
        stack=usage["STACK"],
        shared=done.metadata.shared,
    )


def check_limits(compiled: Compiled, spills: int = SPILLS) -> None:
    """Fail if a kernel spills more than a few bytes or has more shared memory than its architecture.

    Args:
        compiled: the kernel.
        spills: most bytes of spills.
    """
    shared = SHARED_MEMORY[compiled.capability]
    assert compiled.spilled <= spills, f"{compiled}: got {compiled.spilled} bytes of spills, expected at most {spills}"
    assert compiled.shared <= shared, f"{compiled}: got {compiled.shared} bytes of shared memory, expected at most {shared}"


def _signature(
    kernel: Any, constants: Mapping[str, Any], arguments: Mapping[str, str], pointers: str
) -> tuple[dict[str, str], dict[str, Any], dict[tuple[int], list]]:
    """Return the types, the constants and the divisibility of a kernel's arguments, as ASTSource takes them."""
    defaults = {p.name: p.default for p in kernel.params if p.is_constexpr and p.has_default}
    values = {**defaults, **constants}
    names = set(kernel.arg_names)
    unknown = (set(constants) | set(arguments)) - names
    unset = {p.name for p in kernel.params if p.is_constexpr} - set(values)
    if unknown or unset or set(values) & set(arguments):
        raise ValueError(
            f"{kernel.__name__}: got unknown arguments {sorted(unknown)}, constants without a value {sorted(unset)}, "
            f"arguments with a value and a type {sorted(set(values) & set(arguments))}; expected none of them"
        )
    signature, attributes = {}, {}
    for index, name in enumerate(kernel.arg_names):
        kind, _, multiple = arguments.get(name, f"*{pointers}").partition(":")
        signature[name] = "constexpr" if name in values else kind
        if name not in values and (kind.startswith("*") or multiple == "16"):
            attributes[index,] = [["tt.divisibility", 16]]
    return signature, values, attributes


def _dump(cubin: bytes) -> tuple[dict[str, int], str]:
    """Return the resource usage and the instructions of a compiled kernel."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        outputs = [
            subprocess.run([_tool("cuobjdump"), option, file.name], capture_output=True, text=True, check=True).stdout
            for option in ("--dump-resource-usage", "--dump-sass")
        ]
    return {key: int(value) for key, value in re.findall(r"\b(REG|STACK):(\d+)", outputs[0])}, outputs[1]


def _tool(name: str) -> Path:
    import triton

    return Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name
