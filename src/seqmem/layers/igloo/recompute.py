"""Activation recomputation: forward and backward of a layer for a few rows and one block of steps at a time."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call

from seqmem.layers.igloo.layout import Block
from seqmem.layers.igloo.patches import Patches
from seqmem.ops.rounded_products import same_products


class BlockwiseLayer(Protocol):
    """Interface of a layer for :class:`Recomputed`."""

    @property
    def blocks(self) -> Sequence[Block]:
        """Blocks of steps whose outputs can be computed independently."""

    def patches(self) -> Iterable[Patches]:
        """Every module whose backward passes share work."""

    def forward_block(self, inputs: Tensor, lengths: Tensor | None, generator: torch.Generator | None, block: int) -> Tensor:
        """Compute the outputs of one block of steps for some rows."""

    def output_shape(self, inputs: Tensor) -> tuple[int, ...]:
        """Return the shape of all outputs of some inputs."""

    def output_place(self, rows: slice, block: int) -> slice | tuple[slice, slice]:
        """Return the index of some rows' outputs in one block among all outputs."""


class Recomputed(torch.autograd.Function):
    """A layer's outputs, of which backward computes every activation again.

    Only inputs, outputs and parameters are kept, so a training step needs little more memory than these and their gradients.
    Recomputation is a function of the saved tensors alone. Those of activation checkpointing and torch.func.functional_call are
    different objects from the layer's own.
    """

    @staticmethod
    def forward(
        ctx: Any,
        layer: BlockwiseLayer,
        rows: int,
        names: Sequence[str],
        inputs: Tensor,
        lengths: Tensor | None,
        seeds: Tensor,
        *values: Tensor,
    ):
        """Compute the outputs.

        Args:
            ctx: of autograd.
            layer: a module.
            rows: in a chunk.
            names: of the layer's parameters and buffers.
            inputs: as for :meth:`BlockwiseLayer.forward_block`.
            lengths: as for :meth:`BlockwiseLayer.forward_block`.
            seeds: those of dropout for each chunk; empty without dropout.
            values: the parameters and buffers, which are those of the layer.
        """
        device = inputs.device.type
        ctx.layer, ctx.rows, ctx.names, ctx.has_lengths = layer, rows, names, lengths is not None
        ctx.autocast = (device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device))
        ctx.products = same_products()
        ctx.save_for_backward(seeds, inputs, *([] if lengths is None else [lengths]), *values)
        outputs = None
        for block in range(len(layer.blocks)):
            for number, chunk in enumerate(_chunks(len(inputs), rows)):
                made = layer.forward_block(
                    inputs[chunk], _take(lengths, chunk), dropout_generator(inputs, seeds, number), block
                )
                if outputs is None:
                    outputs = made.new_empty(layer.output_shape(inputs))
                outputs[layer.output_place(chunk, block)] = made
                del made
        assert outputs is not None  # there are rows
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Compute the outputs again, and their gradients."""
        seeds, inputs, *rest = ctx.saved_tensors  # read once: activation checkpointing unpacks each only once
        lengths = rest.pop(0) if ctx.has_lengths else None
        needs = ctx.needs_input_grad[_VALUES:]
        leaves = [value.detach().requires_grad_(needed) for value, needed in zip(rest, needs, strict=True)]
        trained = [leaf for leaf in leaves if leaf.requires_grad]
        totals = {leaf: torch.zeros_like(leaf, memory_format=torch.contiguous_format) for leaf in trained}
        grad_inputs = torch.zeros_like(inputs) if ctx.needs_input_grad[_INPUTS] else None

        def accumulate() -> None:
            chunks = _chunks(len(inputs), ctx.rows)
            for block in range(len(ctx.layer.blocks)):
                with ExitStack() as stack:
                    for patches in ctx.layer.patches():
                        stack.enter_context(patches.sharing_backward(block, totals, len(chunks) > 1))
                    for number, chunk in enumerate(chunks):
                        part = inputs[chunk].detach().requires_grad_(grad_inputs is not None)
                        with torch.enable_grad(), torch.autocast(*ctx.autocast), ctx.products():
                            generator = dropout_generator(inputs, seeds, number)
                            made = ctx.layer.forward_block(part, _take(lengths, chunk), generator, block)
                        sources = [*trained, *([] if grad_inputs is None else [part])]
                        # Patches add the gradients of their weights to the totals themselves and return None.
                        found = torch.autograd.grad(
                            made, sources, grad[ctx.layer.output_place(chunk, block)], allow_unused=True
                        )
                        if grad_inputs is not None:
                            grad_inputs[chunk] += found[-1]
                        for total, gradient in zip(totals.values(), found, strict=False):
                            if gradient is not None:
                                total += gradient
                        del made, found

        _call_with(ctx.layer, dict(zip(ctx.names, leaves, strict=True)), accumulate)
        return None, None, None, grad_inputs, None, None, *(totals.get(leaf) for leaf in leaves)


_INPUTS, _VALUES = 3, 6
"""Positions among the arguments of :class:`Recomputed`."""


class _Holder(nn.Module):
    """Call any function, for functional_call."""

    def __init__(self, layer: Any):
        super().__init__()
        self.layer = layer

    def forward(self, function: Callable[[], None]) -> None:
        function()


def _call_with(layer: Any, values: Mapping[str, Tensor], function: Callable[[], None]) -> None:
    """Call a function while the layer's parameters and buffers have other values."""
    functional_call(_Holder(layer), {f"layer.{name}": value for name, value in values.items()}, (function,))


def dropout_generator(inputs: Tensor, seeds: Tensor, chunk: int) -> torch.Generator | None:
    """Return a chunk's dropout generator, the same in forward and backward; None if there are no seeds."""
    return torch.Generator(inputs.device).manual_seed(int(seeds[chunk])) if len(seeds) else None


def _chunks(rows: int, size: int) -> list[slice]:
    return [slice(start, start + size) for start in range(0, rows, size)]


def _take(lengths: Tensor | None, chunk: slice) -> Tensor | None:
    return None if lengths is None else lengths[chunk]
