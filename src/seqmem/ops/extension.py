"""The compiled operators ``torch.ops.seqmem.*``: loading them, and what torch.compile must know of them.

The schemas, kernels and gradients are in ``csrc/``. The library has no Python in it and is loaded by path, never imported.
"""

import os
import re
import struct
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seqmem.errors import UserError
from seqmem.ops.reference import check_signal, check_update

LIBRARY = Path(os.environ.get("SEQMEM_EXTENSION") or Path(__file__).with_name("_extension.so"))
"""The compiled operators; ``SEQMEM_EXTENSION`` names another build of them (``make sanitize`` tests one)."""

BUILD = "build it with `pip install -e . --no-build-isolation --no-deps` in a checkout (a C++ compiler is needed)"

ON_GPU = torch.cuda.is_available() and find_spec("triton") is not None
"""Whether the updates have kernels for CUDA tensors."""

UPDATES = ("legs_euler_forward", "legs_euler_backward", "legs_trapezoidal", "legs_zoh", "legt_euler_forward")
ANY_MEASURE = "quasiseparable_update"

SEQUENCES = ("memory_sequence", "lstm_sequence", "gru_sequence", "multiscale_sequence")


class ReferenceWarning(RuntimeWarning):
    """The plain-torch reference is in use because the compiled operators are not there."""


def load(library: Path) -> str:
    """Load the compiled operators, and return why that cannot be done (empty if it was)."""
    problem = _unusable(library)
    if problem:
        return problem
    try:
        torch.ops.load_library(library)
    except (OSError, RuntimeError) as error:
        return f"{library} cannot be loaded: {' '.join(str(error).split())}"
    _register_fakes()
    if ON_GPU:
        from seqmem.ops import triton_updates

        triton_updates.register()
    return ""


def built_for(library: Path) -> str:
    """The version of torch that a library was built for, without loading it; empty if the file does not say."""
    match = re.search(rb"seqmem built for torch ([\w.]+)\n", library.read_bytes())
    return match[1].decode() if match else ""


def warn_once() -> None:
    """Say, at the first call only, why the reference is in use, unless it was asked for."""
    global _warned
    if REASON and not FORCED and not _warned and not torch.compiler.is_compiling():
        _warned = True
        warnings.warn(f"slower reference operators are in use: {REASON}; {BUILD}", ReferenceWarning, stacklevel=3)


@contextmanager
def reference_only(reason: str) -> Iterator[None]:
    """Take the reference wherever there is a choice, as SEQMEM_REFERENCE=1 does for a whole process."""
    global REASON, FORCED
    before = REASON, FORCED
    REASON, FORCED = reason, True
    try:
        yield
    finally:
        REASON, FORCED = before


def register_shapes(name: str, shapes: Callable[..., Any]) -> None:
    """Tell torch what an operator returns, for tensors without numbers.

    Args:
        name: of the operator.
        shapes: given its arguments, returns empty tensors like its results.
    """

    def checked(*arguments: Any) -> Any:
        devices = {str(argument.device) for argument in arguments if isinstance(argument, Tensor)}
        if len(devices) > 1:  # with one of them on the meta device, results on another would come back unwritten
            raise UserError(f"{name}: all tensors must be on one device, got {' and '.join(sorted(devices))}")
        return shapes(*arguments)

    torch.library.register_fake(name, checked)


def _unusable(library: Path) -> str:
    """What is wrong with a library that would be unsafe to load, or empty."""
    if not library.exists():
        return f"there is no compiled library {library}"
    try:
        content = library.read_bytes()
    except OSError as error:
        return f"{library} cannot be read: {error.strerror}"
    # The section table ends an ELF file. A library that is cut short before it may kill the process that loads it.
    if content[:5] == b"\x7fELF\x02":
        complete = len(content) >= 64
        if complete:
            (start,) = struct.unpack_from("<Q", content, 0x28)
            size, count = struct.unpack_from("<HH", content, 0x3A)
            complete = len(content) >= start + size * count
        if not complete:
            return f"{library} is cut short"
    wanted = torch.__version__.split("+")[0]
    given = built_for(library)
    if not given:
        return f"{library} is not a library of this package"
    return "" if given == wanted else f"{library} was built for torch {given}, this is torch {wanted}"


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

    # Linear in the signal, so that it and its transpose are each other's gradient.
    name, transpose = "seqmem::legs_function_approx_trapezoidal", "seqmem::legs_function_approx_trapezoidal_adjoint"
    register_shapes(name, approximation)
    register_shapes(transpose, approximation_adjoint)

    def keep_size(ctx, inputs, output):
        ctx.size = inputs[0].shape[-1]

    def transposed(ctx, grad):
        return ops.legs_function_approx_trapezoidal_adjoint(grad, ctx.size), None

    def direct(ctx, grad):
        return ops.legs_function_approx_trapezoidal(grad, ctx.size), None

    torch.library.register_autograd(name, transposed, setup_context=keep_size)
    torch.library.register_autograd(transpose, direct, setup_context=keep_size)


def _register_any_measure(ops: Any, update: Any, adjoint: Any) -> None:
    """Gradients as csrc/autograd.cpp ties them to the updates of single measures, which says why they hold."""
    name, transpose = f"seqmem::{ANY_MEASURE}", f"seqmem::{ANY_MEASURE}_adjoint"
    step, back = ops.quasiseparable_update.default, ops.quasiseparable_update_adjoint.default

    def slope(weight, at, inputs, generators):
        rate = step(at, inputs, at.new_ones(at.shape[0]), generators, 0.0) - at
        return (weight * rate).sum((1, 2))

    def keep(ctx, inputs, output):
        memory, memory_input, dt, generators, ctx.implicit = inputs
        ctx.save_for_backward(memory, memory_input, dt, generators, output)

    def backward(ctx, grad):
        memory, memory_input, dt, generators, updated = ctx.saved_tensors
        grad_memory, grad_written = back(grad, dt, generators, ctx.implicit)
        grad_dt = None
        if ctx.needs_input_grad[2]:
            at, weight = torch.lerp(memory, updated, ctx.implicit), torch.lerp(grad, grad_memory, ctx.implicit)
            grad_dt = slope(weight, at, memory_input, generators)
        return grad_memory, grad_written, grad_dt, None, None

    def keep_adjoint(ctx, inputs, output):
        grad, dt, generators, ctx.implicit = inputs
        ctx.save_for_backward(grad, dt, generators, output[0])

    def backward_adjoint(ctx, memory, memory_input):
        grad, dt, generators, grad_memory = ctx.saved_tensors
        updated = step(memory, memory_input, dt, generators, ctx.implicit)
        grad_dt = None
        if ctx.needs_input_grad[1]:
            at, weight = torch.lerp(memory, updated, ctx.implicit), torch.lerp(grad, grad_memory, ctx.implicit)
            grad_dt = slope(weight, at, memory_input, generators)
        return updated, grad_dt, None, None

    register_shapes(name, lambda mem, input, dt, generators, implicit: update(mem, input, dt))
    register_shapes(transpose, lambda grad, dt, generators, implicit: adjoint(grad, dt))
    torch.library.register_autograd(name, backward, setup_context=keep)
    torch.library.register_autograd(transpose, backward_adjoint, setup_context=keep_adjoint)


FORCED = os.environ.get("SEQMEM_REFERENCE", "") not in ("", "0")
REASON = "SEQMEM_REFERENCE is set" if FORCED else load(LIBRARY)
_warned = False
