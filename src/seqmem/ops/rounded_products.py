"""torch's products under autocast to bfloat16, on processors where products in bfloat16 are slower than in float32.

Without instructions for bfloat16, torch's products take up to ten times as long as in float32. Here the operands are rounded to
bfloat16 and multiplied in float32, as the compiled sequences do there.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from threading import local
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from seqmem.ops import extension
from seqmem.ops.precision import full_precision
from seqmem.ops.transforms import fallback_reason

_MATRICES = ("matmul", "mm", "bmm", "addmm", "addbmm", "baddbmm", "inner", "matrix_power")

# Functions of several products (einsum, attention, recurrences) round their arguments alone: what they compute in between stays
# in float32. Calls within them do not come here, since torch suspends a mode while it handles a call.
_PRODUCTS = {
    functional.linear,
    *(getattr(functional, f"{kind}{dimensions}d") for kind in ("conv", "conv_transpose") for dimensions in (1, 2, 3)),
    torch.conv_tbc,
    functional.scaled_dot_product_attention,
    functional.multi_head_attention_forward,
    *(getattr(torch, name) for name in (*_MATRICES, "einsum", "tensordot", "chain_matmul")),
    *(getattr(Tensor, name) for name in (*_MATRICES, "__matmul__", "__rmatmul__")),
    *(getattr(torch.linalg, name) for name in ("matmul", "multi_dot", "matrix_power", "vecdot")),
    *(getattr(torch, name) for name in ("lstm", "gru", "rnn_tanh", "rnn_relu")),
    *(getattr(torch, f"{name}_cell") for name in ("lstm", "gru", "rnn_tanh", "rnn_relu")),
}


def products_are_rounded() -> bool:
    """Return whether this processor multiplies rounded operands in float32 faster than in bfloat16."""
    return not extension.REASON and torch.ops.seqmem.bfloat16_products() == "rounded"


class _Thread(local):
    contexts = 0  # of RoundedProducts that this thread is in


_thread = _Thread()


class RoundedProducts(TorchFunctionMode):
    """A context in which products under autocast to bfloat16 round their operands and are in float32, as are their results."""

    def __enter__(self) -> Self:
        """Enter the context."""
        _thread.contexts += 1
        return super().__enter__()

    def __exit__(self, *error: object) -> None:
        """Leave the context."""
        _thread.contexts -= 1
        super().__exit__(*error)

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Compute one function of torch."""
        if func not in _PRODUCTS or not torch.is_autocast_enabled("cpu") or torch.get_autocast_dtype("cpu") != torch.bfloat16:
            return func(*args, **kwargs or {})
        if kwargs and kwargs.get("out") is not None:  # autocast leaves these calls alone too
            return func(*args, **kwargs)
        with full_precision(torch.device("cpu")):
            return func(*map(_rounded, args), **{name: _rounded(value) for name, value in (kwargs or {}).items()})


def same_products() -> Callable[[], AbstractContextManager[object]]:
    """Return what makes contexts with the products of this one, for backward: torch suspends function modes there."""
    return RoundedProducts if _thread.contexts > 0 else nullcontext


def _rounded(value: Any) -> Any:
    """Round tensors that autocast casts: on the CPU, of a floating-point type other than float64."""
    if isinstance(value, tuple | list):
        return [_rounded(item) for item in value]
    if not isinstance(value, Tensor) or not value.is_cpu or not value.is_floating_point() or value.dtype == torch.float64:
        return value
    if fallback_reason():
        full = value.float()
        error = (value.bfloat16().float() - full).detach()
        return full + error.where(full.isfinite(), 0)
    return _Nearest.apply(value)


class _Nearest(torch.autograd.Function):
    """The nearest bfloat16 as float32; the gradient is not rounded."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        ctx.dtype = value.dtype
        return value.bfloat16().float()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad.to(ctx.dtype)
