"""The table of sequence implementations, looked up by device, type and options.

A sequence operator has a reference that follows the formula (``NAME_reference`` in the operator's file) and faster
implementations that agree with it in value and gradient. All have the signature of the reference. To add an implementation for
another device, write its function and its fallback reason in a file of ``seqmem/ops``, and add a row to :data:`TABLE`.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from seqmem.errors import UserError, suggestion
from seqmem.ops import compiled_sequence, extension, transforms
from seqmem.ops.activations import Activation
from seqmem.ops.causal_convolution import causal_convolution_compiled, causal_convolution_reference
from seqmem.ops.diagonal_scan import diagonal_scan, diagonal_scan_exported, diagonal_scan_parallel
from seqmem.ops.diagonal_ssm import diagonal_ssm_blocks, diagonal_ssm_compiled, diagonal_ssm_exported
from seqmem.ops.discretization import Discretization, alpha_of
from seqmem.ops.export import exporting
from seqmem.ops.gated import gated_sequence
from seqmem.ops.gpu import cudnn, memory_chunks, operators
from seqmem.ops.gpu.diagonal_scan import diagonal_scan_kernel
from seqmem.ops.gpu.diagonal_ssm import diagonal_ssm_kernel
from seqmem.ops.gpu.minimal_gates import minimal_gates_kernel
from seqmem.ops.gpu.oscillators import oscillator_scan_kernel
from seqmem.ops.gpu.selective_scan import selective_scan_kernel
from seqmem.ops.gru import gru_sequence
from seqmem.ops.lstm import lstm_sequence
from seqmem.ops.memory_network import memory_network_sequence
from seqmem.ops.minimal_gates import minimal_gates_exported, minimal_gates_parallel, minimal_gates_scan
from seqmem.ops.modrelu import modrelu_sequence
from seqmem.ops.multiscale import multiscale_sequence
from seqmem.ops.oscillators import oscillator_scan, oscillator_scan_exported, oscillator_scan_parallel
from seqmem.ops.plain import plain_sequence
from seqmem.ops.selective_scan import selective_scan_blocks, selective_scan_compiled, selective_scan_exported
from seqmem.ops.slstm import slstm_exported, slstm_reference, slstm_sequence

Run = Callable[..., Any]


class Implementation(NamedTuple):
    """An implementation of a sequence operator.

    Attributes:
        name: its name in :attr:`seqmem.sequence.SequenceLayer.path`.
        device: device type of the tensors, as torch names it; empty for any.
        fallback_reason: maps inputs (B, T, C) and the layer's options to the reason why it cannot run, or an empty string.
        run: the function, with the signature of the operator's reference.
        plain: it consists of torch's operations, so that it has forward-mode derivatives and supports torch.func.
    """

    name: str
    device: str
    fallback_reason: Callable[..., str]
    run: Run
    plain: bool = False


class Choice(NamedTuple):
    """The result of a look-up.

    Attributes:
        run: the function of the implementation; None to compute step by step.
        path: description for the user.
        fallback_reason: why no implementation can run; empty if one can.
    """

    run: Run | None
    path: str
    fallback_reason: str


class Loop(NamedTuple):
    """A way to run the time loop of a recurrence whose operator has no implementation for the inputs.

    Attributes:
        name: its name for the user.
        method: the method of :class:`seqmem.cells.Recurrence` that runs it.
        fallback_reason: maps inputs (B, T, C) and whether a CUDA graph can capture the loop to the reason why it cannot run.
    """

    name: str
    method: str
    fallback_reason: Callable[[Tensor, bool], str]


COMPILED = "one compiled call"
EXPORTED = "torch's scan operator in exported programs"
STEPWISE = "step by step"


def _memory_network_reason(
    inputs: Tensor,
    discretization: Discretization = "bilinear",
    learned_step: bool = False,
    times_need_gradient: bool = False,
    hidden_feeds_gates: bool = False,
    rows_differ: bool = False,
) -> str:
    if times_need_gradient and torch.is_grad_enabled():
        return "the compiled sequence has no gradient for timestamps"
    if learned_step:
        return "the memory's step is learned"
    if alpha_of(discretization) is None:
        return f"there is no compiled sequence for the discretization '{discretization}'"
    return compiled_sequence.fallback_reason(inputs)


def _full_precision_reason(inputs: Tensor) -> str:
    return compiled_sequence.fallback_reason(inputs, half_products=False)


def _gru_reason(inputs: Tensor, reset_after: bool = True, hidden_activation: Activation = "tanh") -> str:
    return compiled_sequence.fallback_reason(inputs)


def _plain_reason(inputs: Tensor, hidden_activation: Activation = "tanh") -> str:
    return compiled_sequence.fallback_reason(inputs)


def _exported_reason(inputs: Tensor) -> str:
    return "" if exporting() else "torch's scan operator is for exported programs only"


def _always(inputs: Tensor, *options: Any) -> str:
    return ""


def _scan_reason(inputs: Tensor, capturable: bool) -> str:
    return _exported_reason(inputs)


def _graph_reason(inputs: Tensor, capturable: bool) -> str:
    if not inputs.is_cuda:
        return f"a CUDA graph is for cuda tensors; the inputs are on {inputs.device}"
    if extension.FORCED:
        return extension.REASON
    if not capturable:
        return "a step draws random numbers or waits for the GPU"
    return transforms.fallback_reason()


def _scan_rows(compiled: Run, exported: Run, kernel: Run, name: str, plain: Run) -> tuple[Implementation, ...]:
    """Return the implementations of a scan; ``name`` is that of the one in torch's operations, for all devices."""
    return (
        Implementation(COMPILED, "cpu", compiled_sequence.scan_fallback_reason, compiled),
        Implementation(EXPORTED, "", _exported_reason, exported, True),
        Implementation(operators.NAME, "cuda", operators.fallback_reason, kernel),
        Implementation(name, "", _always, plain, True),
    )


TABLE: dict[str, tuple[Implementation, ...]] = {
    "memory_network": (
        Implementation(COMPILED, "cpu", _memory_network_reason, memory_network_sequence),
        Implementation("chunks of steps in Triton", "cuda", memory_chunks.fallback_reason, memory_chunks.memory_network_chunks),
    ),
    "plain": (
        Implementation(COMPILED, "cpu", _plain_reason, plain_sequence),
        Implementation("one cuDNN call", "cuda", cudnn.plain_fallback_reason, cudnn.plain_cudnn),
    ),
    "modrelu": (Implementation(COMPILED, "cpu", _full_precision_reason, modrelu_sequence),),
    "gated": (Implementation(COMPILED, "cpu", compiled_sequence.fallback_reason, gated_sequence),),
    "lstm": (
        Implementation(COMPILED, "cpu", compiled_sequence.fallback_reason, lstm_sequence),
        Implementation("one cuDNN call", "cuda", cudnn.fallback_reason, cudnn.lstm_cudnn),
    ),
    "gru": (
        Implementation(COMPILED, "cpu", _gru_reason, gru_sequence),
        Implementation("one cuDNN call", "cuda", cudnn.gru_fallback_reason, cudnn.gru_cudnn),
    ),
    "multiscale": (Implementation(COMPILED, "cpu", _full_precision_reason, multiscale_sequence),),
    "diagonal_scan": _scan_rows(
        diagonal_scan, diagonal_scan_exported, diagonal_scan_kernel, "parallel scan", diagonal_scan_parallel
    ),
    "diagonal_ssm": _scan_rows(
        diagonal_ssm_compiled, diagonal_ssm_exported, diagonal_ssm_kernel, "blocks of steps", diagonal_ssm_blocks
    ),
    "selective_scan": _scan_rows(
        selective_scan_compiled, selective_scan_exported, selective_scan_kernel, "blocks of steps", selective_scan_blocks
    ),
    "slstm": (
        Implementation(COMPILED, "cpu", _full_precision_reason, slstm_sequence),
        Implementation(EXPORTED, "", _exported_reason, slstm_exported, True),
        Implementation("a loop over the steps", "", _always, slstm_reference, True),
    ),
    "causal_convolution": (
        Implementation(COMPILED, "cpu", compiled_sequence.scan_fallback_reason, causal_convolution_compiled),
        Implementation("a sum over the taps", "", _always, causal_convolution_reference, True),
    ),
    "minimal_gates": _scan_rows(
        minimal_gates_scan, minimal_gates_exported, minimal_gates_kernel, "parallel scan", minimal_gates_parallel
    ),
    "oscillators": _scan_rows(
        oscillator_scan, oscillator_scan_exported, oscillator_scan_kernel, "parallel scan", oscillator_scan_parallel
    ),
}
"""The implementations of each operator, the preferred ones first."""

LOOPS = (
    Loop(EXPORTED, "scan_forward", _scan_reason),
    Loop("CUDA graphs of the time loop", "captured_forward", _graph_reason),
    Loop(STEPWISE, "stepwise_forward", _always),
)
"""The time loops of a recurrence for which :data:`TABLE` has no implementation, the preferred ones first."""


def choose(operator: str, inputs: Tensor, options: Mapping[str, Any], label: str) -> Choice:
    """Look up the first implementation that can run.

    Args:
        operator: a key of :data:`TABLE`; empty for a layer without an operator.
        inputs: (B, T, C); their device and type matter, not their values.
        options: settings of the layer, passed to the fallback reasons.
        label: name of the layer in the reason.
    """
    rows = TABLE.get(operator, ())
    own = [row for row in rows if row.device in ("", inputs.device.type)]
    reasons = []
    for row in own or rows:
        reason = row.fallback_reason(inputs, **options)
        if not reason and not row.plain:
            reason = transforms.fallback_reason()
        if not reason and row in own:
            return Choice(row.run, row.name, "")
        reasons.append(reason or f"{row.name} is for {row.device} tensors; the inputs are on {inputs.device}")
    reason = "; ".join(reasons) or f"there is no compiled sequence of {label}"
    return Choice(None, f"{STEPWISE} ({reason})", reason)


def required(operator: str, inputs: Tensor) -> Any:
    """Return the first implementation that can run, of an operator that has one for all inputs.

    Args:
        operator: a key of :data:`TABLE`.
        inputs: as for :func:`choose`.

    Raises:
        UserError: there is no such operator, or none of its implementations can run.
    """
    if operator not in TABLE:
        raise UserError(f"got operator '{operator}', expected the name of an operator{suggestion(operator, TABLE)}")
    choice = choose(operator, inputs, {}, operator)
    if choice.run is None:
        raise UserError(f"{operator}: no implementation can run: {choice.fallback_reason}")
    return choice.run


def choose_loop(inputs: Tensor, capturable: bool) -> Loop:
    """Look up the first time loop that can run.

    Args:
        inputs: (B, T, C); their device matters.
        capturable: whether a CUDA graph can capture the loop.
    """
    return next(loop for loop in LOOPS if not loop.fallback_reason(inputs, capturable))


def describe() -> dict[str, str]:
    """List the implementations of each operator with their devices, for ``python -m seqmem.ops``."""
    found = {
        operator: ", ".join(f"{row.name} ({row.device or 'any device'})" for row in rows) for operator, rows in TABLE.items()
    }
    return found | {"other recurrences": ", ".join(loop.name for loop in LOOPS)}
