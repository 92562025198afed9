"""Loading of the compiled operators ``torch.ops.seqmem.*``, and registration of their shapes and gradients.

The schemas and kernels are in ``csrc/``. The library contains no Python module: it is loaded by path, never imported. CUDA
tensors need no library: see :mod:`seqmem.ops.gpu`.

On x86-64 every compiled operator takes denormals (below 1.2e-38 in float32, 2.2e-308 in float64) as zeros and returns zeros in
their place. For the reference :func:`torch.set_flush_denormal` decides.
"""

import hashlib
import os
import struct
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seqmem.errors import UserError
from seqmem.ops import sources
from seqmem.ops.reference import check_signal, check_update
from seqmem.ops.transforms import register_gradient

_OWN = Path(__file__).with_name("_extension.so")
LIBRARY = Path(os.environ.get("SEQMEM_EXTENSION") or _OWN)
"""Path of the compiled operators; ``SEQMEM_EXTENSION`` selects another build (``make sanitize`` tests one)."""

_in_checkout = _OWN.parents[2].name == "src"
BUILD = (
    "build it with `pip install -e . --no-build-isolation --no-deps` in a checkout (a C++ compiler is needed)"
    if _in_checkout
    else "with a C++ compiler, build it for the installed torch: `pip install --force-reinstall --no-deps --no-build-isolation "
    "ADDRESS`, with the address or wheel that seqmem came from"
)

UPDATES = ("legs_euler_forward", "legs_euler_backward", "legs_trapezoidal", "legs_zoh", "legt_euler_forward")
ANY_MEASURE = "quasiseparable_update"
SIGNALS = ("legs_function_approx_trapezoidal", "legs_projection")
SEQUENCES = ("memory_sequence", "lstm_sequence", "gru_sequence", "modrelu_sequence", "multiscale_sequence", "slstm_sequence")
SCANS = ("causal_convolution", "diagonal_scan", "diagonal_ssm", "minimal_gates", "oscillators", "selective_scan")


class ReferenceWarning(RuntimeWarning):
    """The plain-torch reference is in use because the compiled operators are not available."""


def load(library: Path) -> str:
    """Load the compiled operators; return the reason if they cannot be loaded, else an empty string."""
    reason = _unusable_reason(library)
    if reason:
        return reason
    try:
        torch.ops.load_library(library)
    except (OSError, RuntimeError) as error:
        return f"{library}: loading failed ({' '.join(str(error).split())})"
    _register_fakes()
    return ""


def built_for(library: Path) -> str:
    """Return the version of torch that a library was built for, without loading it; empty if unknown."""
    return _embedded(library, "built for torch")


def built_from(library: Path) -> str:
    """Return the hash of the sources and build flags that a library was built from, without loading it; empty if unknown.

    See :mod:`seqmem.ops.sources`. A library of other flags in the environment has a suffix: ``HASH+FLAGS``.
    """
    return _embedded(library, "sources")


def checksums(library: Path) -> dict[str, str]:
    """Return the checksums of a library's file: ``sources`` as of :func:`built_from`, and ``sha256``."""
    return {"sources": built_from(library), "sha256": hashlib.sha256(library.read_bytes()).hexdigest()}


def _embedded(library: Path, line: str) -> str:
    try:
        return sources.embedded(library.read_bytes(), f"seqmem {line}")
    except OSError:
        return ""


def stale_reason(library: Path, csrc: Path = sources.CSRC) -> str:
    """Return why a library of a checkout must be built again, or an empty string.

    Args:
        library: the compiled operators.
        csrc: the sources next to it; without them, as in an installed package, no library is stale.
    """
    if not csrc.is_dir() or not library.is_file():
        return ""
    found, expected = built_from(library).partition("+")[0], sources.source_hash(csrc)
    if found == expected:
        return ""
    return (
        f"{library}: got a build of sources {found[:10] or 'unknown'}, expected {expected[:10]} of {csrc}; "
        f"build it again with: cd {csrc.parent} && python setup.py build_ext --inplace; "
        "or set SEQMEM_REFERENCE=1 for the slower reference"
    )


def require_current() -> None:
    """Refuse a library that does not match the sources next to it: it would compute with code that is not theirs.

    Raises:
        UserError: the library must be built again; the message has the command.
    """
    if STALE and not FORCED:
        raise UserError(STALE)


def warn_once() -> None:
    """Warn once that the reference is in use, unless it was requested.

    Raises:
        UserError: the library must be built again.
    """
    global _warned
    require_current()
    if REASON and not FORCED and not _warned and not torch.compiler.is_compiling():
        _warned = True
        warnings.warn(f"the slower reference operators are in use: {REASON}; {BUILD}", ReferenceWarning, stacklevel=3)


@contextmanager
def reference_only(reason: str) -> Iterator[None]:
    """Use the reference in this context, as SEQMEM_REFERENCE=1 does for a whole process."""
    global REASON, FORCED
    before = REASON, FORCED
    REASON, FORCED = reason, True
    try:
        yield
    finally:
        REASON, FORCED = before


def register_shapes(name: str, shapes: Callable[..., Any]) -> None:
    """Register the fake implementation of an operator: the shapes of its results, for torch.compile and meta tensors.

    Args:
        name: name of the operator.
        shapes: function of the operator's arguments that returns empty tensors like its results.
    """

    def checked(*arguments: Any) -> Any:
        devices = {str(argument.device) for argument in arguments if isinstance(argument, Tensor)}
        if len(devices) > 1:  # with one tensor on the meta device, results on another device would stay uninitialised
            raise UserError(f"{name}: got tensors on {' and '.join(sorted(devices))}, expected one device")
        return shapes(*arguments)

    torch.library.register_fake(name, checked)


def _unusable_reason(library: Path) -> str:
    """Reason why a library is unsafe to load, or an empty string."""
    if not library.exists():
        return f"the compiled library {library} does not exist"
    try:
        content = library.read_bytes()
    except OSError as error:
        return f"{library}: reading failed ({error.strerror})"
    if _is_truncated(content):
        return f"{library}: the file is truncated"
    expected, version = torch.__version__.split("+")[0], built_for(library)
    if not version:
        return f"{library}: not a library of seqmem"
    return "" if version == expected else f"{library}: built for torch {version}, expected torch {expected}"


def _is_truncated(content: bytes) -> bool:
    """Whether an ELF file ends before its section table: loading such a file may kill the process."""
    if content[:5] != b"\x7fELF\x02":
        return False
    if len(content) < 64:
        return True
    (start,) = struct.unpack_from("<Q", content, 0x28)
    size, count = struct.unpack_from("<HH", content, 0x3A)
    return len(content) < start + size * count


def _register_fakes() -> None:
    def update(mem: Tensor, input: Tensor, dt: float | Tensor) -> Tensor:
        check_update(mem, input, dt)
        return mem.new_empty(mem.shape)

    def adjoint(grad: Tensor, dt: float | Tensor) -> tuple[Tensor, Tensor]:
        return grad.new_empty(grad.shape), grad.new_empty(grad.shape[:2])

    def approximation(input: Tensor, memorder: int) -> Tensor:
        check_signal(input, memorder)
        return input.new_empty((*input.shape[:-1], memorder))

    def approximation_adjoint(grad: Tensor, length: int) -> Tensor:
        return grad.new_empty((*grad.shape[:-1], length))

    for name in UPDATES:
        for overload in ("", ".tensor"):
            register_shapes(f"seqmem::{name}{overload}", update)
            register_shapes(f"seqmem::{name}_adjoint{overload}", adjoint)

    ops = torch.ops.seqmem
    _register_any_measure(ops, update, adjoint)

    # Linear in the signal: the operator and its transpose are the gradients of each other.
    name, transpose = "seqmem::legs_function_approx_trapezoidal", "seqmem::legs_function_approx_trapezoidal_adjoint"
    register_shapes(name, approximation)
    register_shapes(transpose, approximation_adjoint)

    def save_size(ctx, inputs, output):
        ctx.size = inputs[0].shape[-1]

    def backward(ctx, grad):
        return ops.legs_function_approx_trapezoidal_adjoint(grad, ctx.size), None

    def adjoint_backward(ctx, grad):
        return ops.legs_function_approx_trapezoidal(grad, ctx.size), None

    register_gradient(name, backward, save_size)
    register_gradient(transpose, adjoint_backward, save_size)


def _register_any_measure(ops: Any, update: Any, adjoint: Any) -> None:
    """Register shapes and gradients of the update of any measure; csrc/updates_autograd.cpp derives the formulas."""
    name, transpose = f"seqmem::{ANY_MEASURE}", f"seqmem::{ANY_MEASURE}_adjoint"
    step, step_adjoint = ops.quasiseparable_update.default, ops.quasiseparable_update_adjoint.default

    def step_size_gradient(grad, grad_memory, memory, memory_input, updated, generators, alpha):
        v, w = torch.lerp(memory, updated, alpha), torch.lerp(grad, grad_memory, alpha)
        derivative = step(v, memory_input, v.new_ones(v.shape[0]), generators, 0.0) - v
        return (w * derivative).sum((1, 2))

    def save(ctx, inputs, output):
        memory, memory_input, dt, generators, ctx.alpha = inputs
        ctx.save_for_backward(memory, memory_input, dt, generators, output)

    def backward(ctx, grad):
        memory, memory_input, dt, generators, updated = ctx.saved_tensors
        grad_memory, grad_input = step_adjoint(grad, dt, generators, ctx.alpha)
        grad_dt = None
        if ctx.needs_input_grad[2]:
            grad_dt = step_size_gradient(grad, grad_memory, memory, memory_input, updated, generators, ctx.alpha)
        return grad_memory, grad_input, grad_dt, None, None

    def save_adjoint(ctx, inputs, output):
        grad, dt, generators, ctx.alpha = inputs
        ctx.save_for_backward(grad, dt, generators, output[0])

    def adjoint_backward(ctx, memory, memory_input):
        grad, dt, generators, grad_memory = ctx.saved_tensors
        updated = step(memory, memory_input, dt, generators, ctx.alpha)
        grad_dt = None
        if ctx.needs_input_grad[1]:
            grad_dt = step_size_gradient(grad, grad_memory, memory, memory_input, updated, generators, ctx.alpha)
        return updated, grad_dt, None, None

    register_shapes(name, lambda mem, input, dt, generators, alpha: update(mem, input, dt))
    register_shapes(transpose, lambda grad, dt, generators, alpha: adjoint(grad, dt))
    register_gradient(name, backward, save)
    register_gradient(transpose, adjoint_backward, save_adjoint)


FORCED = os.environ.get("SEQMEM_REFERENCE", "") not in ("", "0")
STALE = "" if FORCED or LIBRARY != _OWN or not _in_checkout else stale_reason(LIBRARY)
"""Why the library of this checkout must be built again; a library that SEQMEM_EXTENSION names is used as it is."""

REASON = "SEQMEM_REFERENCE is set" if FORCED else STALE or load(LIBRARY)

CHECKSUMS = {} if REASON else checksums(LIBRARY)
"""Checksums of the library that is loaded, taken now: a later build may replace the file, but not the loaded operators."""

_warned = False
