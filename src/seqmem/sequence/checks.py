"""Checks of the arguments of a call, with the same rules and messages for every cell and layer.

Inputs and states have the type of the weights, as in torch.nn, except that under autocast any floating-point type but float64
is taken. Lengths may have any integer type.

Values on a GPU are checked there, without waiting for the result: a wrong one stops the process with a "device-side assert".
:func:`seqmem.data.checks.check_batch` refuses the same values of a batch on the CPU, with the row in its message.
"""

from collections.abc import Iterator
from itertools import repeat
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from seqmem.data.checks import expected_rate, shown_rate
from seqmem.errors import UserError
from seqmem.ops.lengths import is_integer
from seqmem.ops.precision import autocast_active
from seqmem.ops.states import parts, rebuild_eagerly

_AUTOCAST_TYPES = {torch.float32, torch.bfloat16, torch.float16}


def check_tensor(label: str, inputs: Any) -> None:
    """Refuse inputs that are not a tensor.

    Args:
        label: name of the layer in messages.
        inputs: the argument of the call.

    Raises:
        UserError: they are packed or of a type that is not a tensor.
    """
    if isinstance(inputs, PackedSequence):
        raise UserError(
            f"{label}: got a PackedSequence, expected a tensor (B, T, C) and lengths=; "
            "torch.nn.utils.rnn.pad_packed_sequence(..., batch_first=True) returns both"
        )
    if not isinstance(inputs, Tensor):
        raise UserError(f"{label}: got inputs of type {type(inputs).__name__}, expected a tensor (B, T, C)")


def checked_rate(label: str, rate: Any, rescales: bool) -> float:
    """Return a rate as a Python number.

    Args:
        label: name of the layer in messages.
        rate: the argument of the call, a number of Python or NumPy.
        rescales: the layer can be rescaled to another sampling rate.

    Raises:
        UserError: it is not a positive number, or other than 1 for a layer that does not rescale.
    """
    if expected := expected_rate(rate):
        raise UserError(f"{label}: got rate={shown_rate(rate)}, expected {expected}")
    if rate != 1 and not rescales:
        raise UserError(f"{label}: got rate={rate:g}, expected 1: the layer cannot be rescaled to another sampling rate")
    return float(rate)


def check_type(label: str, inputs: Tensor, module: nn.Module) -> None:
    """Refuse inputs of a different type than a module's weights.

    Args:
        label: name of the layer in messages.
        inputs: any shape.
        module: the layer.

    Raises:
        UserError: the types differ.
    """
    check_dtype(label, inputs, weight_type(module))


def check_dtype(label: str, inputs: Tensor, dtype: torch.dtype | None) -> None:
    """Refuse inputs of a different type than that of the weights, None for a module without weights.

    The other arguments and the errors are those of :func:`check_type`.
    """
    if dtype not in (None, inputs.dtype) and not _is_autocast(inputs, dtype):
        raise UserError(f"{label}: got inputs of {inputs.dtype}, expected {dtype}, the type of its weights")


def weight_type(module: nn.Module) -> torch.dtype | None:
    """Return the type of a module's first parameter that is real floating point; None if it has none.

    Those in ``no_decay`` of a module come last: dynamics may stay in float32 beside weights in half precision.
    """
    first, special = _weight_types(module)
    return first or special


def _weight_types(module: nn.Module, is_free: bool = False) -> tuple[torch.dtype | None, torch.dtype | None]:
    """Return the types of the first parameter that is not in ``no_decay``, and of the first one that is, if it is before.

    Args:
        module: with parameters, also parametrised ones.
        is_free: all of them are in ``no_decay``.
    """
    no_decay, special = getattr(module, "no_decay", ()) or (), None
    is_free = is_free or no_decay is True
    for name, weight in module._parameters.items():  # in the order of named_parameters(), which is slow for single steps
        if weight is not None and weight.is_floating_point():
            if not is_free and name not in no_decay:
                return weight.dtype, special
            special = special or weight.dtype
    for name, child in module._modules.items():
        if child is not None:
            parametrized = child._modules.items() if name == "parametrizations" else ()
            inner = [(each, is_free or of in no_decay) for of, each in parametrized if each is not None] or [(child, is_free)]
            for each, each_is_free in inner:
                first, of_child = _weight_types(each, each_is_free)
                special = special or of_child
                if first is not None:
                    return first, special
    return None, special


def check_times(label: str, times: Any, shape: tuple[int, ...]) -> None:
    """Refuse times that are not a tensor of a shape.

    Args:
        label: name of the layer in messages.
        times: the argument of the call.
        shape: (B, T), or (B,) for one step.

    Raises:
        UserError: a different type or shape.
    """
    if not isinstance(times, Tensor):
        raise UserError(f"{label}: got times of type {type(times).__name__}, expected a tensor {shape}")
    if times.shape != shape:
        raise UserError(f"{label}: got times of shape {tuple(times.shape)}, expected {shape}")


def state_form(state: Any) -> Any:
    """Return the structure of a state, and the shapes without the batch and the types of its tensors."""
    if state is None:
        return None
    if isinstance(state, Tensor):
        return Tensor, tuple(state.shape[1:]), state.dtype
    return type(state), [state_form(part) for part in state], None


def has_form(state: Any, form: Any, batch_size: int) -> bool:
    """Return whether a state of ``batch_size`` rows has a form of :func:`state_form`."""
    if form is None or state is None:
        return form is state
    kind, inner, dtype = form
    if kind is Tensor:
        return isinstance(state, Tensor) and state.dtype == dtype and state.shape == (batch_size, *inner)
    return type(state) is kind and len(state) == len(inner) and all(map(has_form, state, inner, repeat(batch_size)))


def checked_state(label: str, state: Any, like: Any, batch_size: int) -> Any:
    """Return a state in the structure and types of a layer's own.

    Args:
        label: name of the layer in messages.
        state: the layer's own, or its parts in tuples and lists.
        like: an initial state of the layer.
        batch_size: B.

    Raises:
        UserError: a different number of parts, or a part of a different shape or type.
    """
    given, own = list(_leaves(label, state)), parts(like)
    if len(given) != len(own):
        parts_given = "1 part" if len(given) == 1 else f"{len(given)} parts"
        raise UserError(f"{label}: got a state of {parts_given}, expected {len(own)}: {', '.join(_names(like))}")
    fitting = [_fitted(label, k, part, like, batch_size) for k, part in enumerate(given)]
    if _same_structure(state, like) and all(new is old for new, old in zip(fitting, given, strict=True)):
        return state  # a loop over step() passes what the layer returned
    return rebuild_eagerly(like, fitting)


def _fitted(label: str, place: int, part: Tensor, like: Any, batch_size: int) -> Tensor:
    """Check the part of a state at one place, and return it in the type of the layer's own."""
    expected = parts(like)[place]
    shape = (batch_size, *expected.shape[1:])
    if part.shape == shape and part.dtype == expected.dtype:
        return part
    if part.dim() == len(shape) and part.shape[0] != batch_size:
        raise UserError(f"{label}: got a state of {part.shape[0]} rows, expected {batch_size}, as many as the inputs have")
    name = list(_names(like))[place]
    if part.shape != shape:
        raise UserError(f"{label}: got {name} of shape {tuple(part.shape)}, expected {shape}")
    if not (is_integer(part) and is_integer(expected)) and not _is_autocast(part, expected.dtype):
        raise UserError(f"{label}: got {name} of {part.dtype}, expected {expected.dtype}")
    return part.to(expected.dtype)


def _is_autocast(tensor: Tensor, expected: torch.dtype | None) -> bool:
    """Return whether autocast may have changed the type of a tensor: it leaves float64 and other types alone."""
    return autocast_active(tensor.device) and {tensor.dtype, expected} <= _AUTOCAST_TYPES


def _leaves(label: str, state: Any) -> Iterator[Tensor]:
    """Yield the tensors of a state, in order."""
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, tuple | list):
        for inner in state:
            yield from _leaves(label, inner)
    elif state is not None:
        raise UserError(f"{label}: got a state with a part of type {type(state).__name__}, expected tensors")


def _names(state: Any, name: str = "state") -> Iterator[str]:
    """Yield the names of a state's tensors for messages, for example state.hidden."""
    if isinstance(state, Tensor):
        yield name
    elif state is not None:
        fields = getattr(state, "_fields", None)
        for k, inner in enumerate(state):
            yield from _names(inner, f"{name}.{fields[k]}" if fields else f"{name}[{k}]")


def _same_structure(state: Any, like: Any) -> bool:
    if isinstance(like, Tensor) or like is None:
        return isinstance(state, Tensor) == isinstance(like, Tensor)
    return type(state) is type(like) and all(_same_structure(*pair) for pair in zip(state, like, strict=True))
