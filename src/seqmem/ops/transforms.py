"""Forward-mode differentiation and the transforms of torch.func, which only torch's own operations support.

A compiled operator has no forward-mode derivative, and the transforms of torch.func do not support it either. While one of them
is active, the table of implementations and the memory updates choose plain torch operations. An operator that is called
directly refuses.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad


@torch.compiler.assume_constant_result
def _is_transforming() -> bool:
    """Whether a transform of torch.func is active.

    torch.compile guards the stack of transforms, but traces the call that reads it as an object that is never None.
    """
    return torch._C._functorch.peek_interpreter_stack() is not None


def fallback_reason() -> str:
    """Return why only plain torch operations give the right derivatives here, or an empty string."""
    if _is_transforming():
        return "a transform of torch.func is active"
    return "forward-mode differentiation is active" if forward_ad._current_level >= 0 else ""


def register_gradient(name: str, backward: Callable[..., Any], setup_context: Callable[..., Any] | None = None) -> None:
    """Register the gradient of an operator, which then refuses forward mode and the transforms of torch.func.

    Without that, forward-mode derivatives would be zero.

    Args:
        name: name of the operator, ``seqmem::NAME``.
        backward: see torch.library.register_autograd.
        setup_context: see torch.library.register_autograd.
    """
    torch.library.register_autograd(name, backward, setup_context=setup_context, lib=_library)


def refuse_batches(name: str, refuse: Callable[..., None]) -> None:
    """Register what an operator does if ``is_grads_batched`` of torch.autograd.grad gives it several gradients at once.

    Args:
        name: of the operator, without ``seqmem::``.
        refuse: is called with its arguments, and raises.
    """
    torch.library.Library.impl(_library, name, refuse, "Batched")


def values(tensor: Tensor) -> Tensor:
    """Return the values of a tensor inside transforms of torch.func, with a dimension more for each vmap that maps it."""
    if not _is_transforming():
        return tensor
    while torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return tensor


def has_tangent(tensor: Tensor) -> bool:
    """Return whether forward-mode differentiation has given a tensor a tangent."""
    if forward_ad._current_level < 0 or not (tensor.is_floating_point() or tensor.is_complex()):
        return False
    return forward_ad.unpack_dual(tensor, level=0).tangent is not None


class _Library(torch.library.Library):
    """Registers the kernels of gradients, each behind a check of its arguments."""

    def impl(self, op_name: Any, fn: Any, dispatch_key: str = "", **options: Any) -> Any:
        def refusing(keyset: Any, *arguments: Any, **keywords: Any) -> Any:
            _refuse(op_name, arguments)
            return fn(keyset, *arguments, **keywords)

        return super().impl(op_name, refusing, dispatch_key, **options)


_library = _Library("seqmem", "FRAGMENT")


def _refuse(name: str, arguments: tuple[Any, ...]) -> None:
    reason = fallback_reason()
    if not reason:
        return
    tensors = [argument for argument in arguments if isinstance(argument, Tensor)]
    transformed = _is_transforming()
    if any(has_tangent(tensor) or (transformed and tensor.requires_grad) for tensor in tensors):
        raise NotImplementedError(
            f"seqmem::{name}: {reason}, expected backward() or torch.autograd.grad; cells, layers, seqmem.ops.memory_update "
            "and seqmem.hippo.project compute these derivatives with torch's operations"
        )
