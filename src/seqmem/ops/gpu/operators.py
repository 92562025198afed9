"""Operators of Triton kernels: their schemas, shapes of results, and gradients.

The functions that call them compute tensors on other devices, and empty ones, by the reference. Only Triton's interpreter runs
the operators on CPU tensors.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from seqmem.ops import extension
from seqmem.ops.compiled_sequence import register_last_gradient
from seqmem.ops.gpu import support
from seqmem.ops.transforms import register_gradient

NAME = "one Triton kernel"
MOST_WARPS = 8
"""Most warps of a program: a card has 255 registers for each thread of so many."""

Arguments = Sequence[Any]


class Operator(NamedTuple):
    """An operator ``seqmem::NAME``, whose arguments are tensors, then settings.

    Attributes:
        name: its name.
        tensors: names of the tensors; a name ends with "?" if None is allowed. All but ``lengths`` have gradients.
        settings: the schema of the settings.
        shapes: maps the arguments to empty tensors like the results: outputs, final state, and what backward needs.
        saved: number of results after outputs and final state.
        forward: writes into the results, which are given first, by a kernel.
        backward: maps the gradients of outputs and final state, the results and the arguments to the gradients of the tensors,
            in the types of the tensors or wider; those of tensors that are None are left out.
    """

    name: str
    tensors: tuple[str, ...]
    settings: str
    shapes: Callable[..., tuple[Tensor, ...]]
    saved: int
    forward: Callable[..., None]
    backward: Callable[..., dict[str, Tensor]]

    @property
    def names(self) -> list[str]:
        """Names of the tensors."""
        return [name.rstrip("?") for name in self.tensors]


def fallback_reason(inputs: Tensor, *options: Any) -> str:
    """Return why the kernels cannot run on inputs (B, T, C), or an empty string."""
    if extension.FORCED:
        return extension.REASON
    return support.fallback_reason()


def runs_kernels(*tensors: Tensor) -> bool:
    """Return whether there is something to compute on a GPU."""
    return on_gpu(tensors[0]) and all(tensor.numel() > 0 for tensor in tensors)


def on_gpu(tensor: Tensor) -> bool:
    """Return whether the kernels can run on a tensor."""
    return tensor.is_cuda


def needs_gradient(*tensors: Tensor | None) -> bool:
    """Return whether backward may follow."""
    return torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)


def register(operator: Operator) -> None:
    """Define an operator and its gradient."""
    name = operator.name
    tensors = ", ".join(f"Tensor{'?' * full.endswith('?')} {full.rstrip('?')}" for full in operator.tensors)
    arguments, count = ", ".join(filter(None, (tensors, operator.settings))), 2 + operator.saved
    torch.library.define(f"seqmem::{name}", f"({arguments}) -> ({', '.join(['Tensor'] * count)})")
    grads = ", ".join(["Tensor? grad_outputs, Tensor? grad_final", *(f"Tensor result_{k}" for k in range(count))])
    torch.library.define(f"seqmem::{name}_backward", f"({grads}, {arguments}) -> Tensor[]")

    def run(*given: Any) -> tuple[Tensor, ...]:
        results = operator.shapes(*given)
        operator.forward(results, *_contiguous(given))
        return results

    def run_backward(*given: Any) -> list[Tensor]:
        (*grads,), results, given = given[:2], given[2 : 2 + count], given[2 + count :]
        found = operator.backward(*_contiguous(grads), results, *_contiguous(given))
        like = _differentiable(operator, given)
        return [found[key].to(value.dtype).contiguous() for key, value in like.items() if value is not None]

    def gradient_shapes(*given: Any) -> list[Tensor]:
        found = _differentiable(operator, given[2 + count :]).values()
        return [value.new_empty(value.shape) for value in found if value is not None]

    for device in ("cpu", "cuda"):
        torch.library.impl(f"seqmem::{name}", device, run)
        torch.library.impl(f"seqmem::{name}_backward", device, run_backward)
    torch.library.register_fake(f"seqmem::{name}", operator.shapes)
    torch.library.register_fake(f"seqmem::{name}_backward", gradient_shapes)
    _register_gradient(operator)


def _register_gradient(operator: Operator) -> None:
    name, count = operator.name, len(operator.tensors)
    backward_operator = getattr(torch.ops.seqmem, f"{name}_backward").default

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*output[2:])
        ctx.settings = inputs[count:]
        ctx.save_for_backward(*inputs[:count], *output)

    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        kept = ctx.saved_tensors  # read once: activation checkpointing unpacks each only once
        given, results = kept[:count], kept[count:]
        if grads[0] is None and grads[1] is None:
            return (None,) * (count + len(ctx.settings))
        found = iter(backward_operator(*grads[:2], *results, *given, *ctx.settings))
        gradients = [
            None if tensor is None or name == "lengths" else next(found)
            for name, tensor in zip(operator.names, given, strict=True)
        ]
        return (*gradients, *[None] * len(ctx.settings))

    register_gradient(f"seqmem::{name}", backward, setup_context)
    register_last_gradient(f"{name}_backward")


def _contiguous(given: Arguments) -> list[Any]:
    return [part.contiguous() if isinstance(part, Tensor) else part for part in given]


def _differentiable(operator: Operator, given: Arguments) -> dict[str, Tensor | None]:
    return {name: value for name, value in zip(operator.names, given, strict=False) if name != "lengths"}
