"""Forward and backward through an IGLOO layer in the memory of its inputs and outputs: a part at a time, each twice."""

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

if TYPE_CHECKING:
    from seqmem.layers.igloo.layer import IGLOO1D


class PartByPart(torch.autograd.Function):
    """:meth:`IGLOO1D.represent` of a few rows and a block of steps at a time, forward and, from the inputs again, backward."""

    @staticmethod
    def forward(
        ctx: Any, layer: "IGLOO1D", rows: int, inputs: Tensor, lengths: Tensor | None, seeds: Tensor, *parameters: Tensor
    ):
        device = inputs.device.type
        ctx.layer, ctx.rows, ctx.has_lengths = layer, rows, lengths is not None
        ctx.autocast = (device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device))
        # The parameters are saved for autograd's check that nothing has changed them before the way back.
        ctx.save_for_backward(seeds, inputs, *([] if lengths is None else [lengths]), *parameters)
        outputs = inputs.new_empty(0)
        for block, wanted, parts in layer.parts(len(inputs), rows):
            for number, part in parts:
                own = None if lengths is None else lengths[part]
                made = layer.represent(inputs[part], own, generator_of(inputs, seeds, number), block)
                if block == number == 0:
                    outputs = made.new_empty(layer.output_shape(inputs))
                outputs[layer.place(part, wanted)] = made
                del made
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        seeds, inputs, *rest = ctx.saved_tensors
        lengths = rest.pop(0) if ctx.has_lengths else None
        trained = [p for p, needed in zip(rest, ctx.needs_input_grad[5:], strict=True) if needed]
        totals = {p: torch.zeros_like(p, memory_format=torch.contiguous_format) for p in trained}
        grad_inputs = torch.zeros_like(inputs) if ctx.needs_input_grad[2] else None
        for block, wanted, parts in ctx.layer.parts(len(inputs), ctx.rows):
            with ExitStack() as stack:
                for patches in ctx.layer.patches():
                    stack.enter_context(patches.unchanged(block, totals.get(patches.weight), len(parts) > 1))
                for number, part in parts:
                    own = None if lengths is None else lengths[part]
                    given = inputs[part].detach().requires_grad_(grad_inputs is not None)
                    with torch.enable_grad(), torch.autocast(*ctx.autocast):
                        made = ctx.layer.represent(given, own, generator_of(inputs, seeds, number), block)
                    wrt = [*trained, *([] if grad_inputs is None else [given])]
                    # Patches have added the gradients of their weights themselves, and none comes back.
                    found = torch.autograd.grad(made, wrt, grad[ctx.layer.place(part, wanted)], allow_unused=True)
                    if grad_inputs is not None:
                        grad_inputs[part] += found[-1]
                    for total, share in zip(totals.values(), found, strict=False):
                        if share is not None:
                            total += share
                    del made, found
        gradients = iter(totals.values())
        return (
            None,
            None,
            grad_inputs,
            None,
            None,
            *(next(gradients) if needed else None for needed in ctx.needs_input_grad[5:]),
        )


def generator_of(inputs: Tensor, seeds: Tensor, number: int) -> torch.Generator | None:
    """What is dropped in a part of the batch, the same each time; None where there are no seeds."""
    return torch.Generator(inputs.device).manual_seed(int(seeds[number])) if len(seeds) else None
