"""Common parts of the compiled sequences: fallback reasons, gradients, and shapes of meta tensors.

The kernels are in ``csrc/``.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from seqmem.ops import extension
from seqmem.ops.transforms import refuse_batches, register_gradient

# Rows of (step, batch) that backward holds at a time: enough for efficient products for the weights' gradients, few enough to
# stay in cache.
_CHUNK_ROWS = 800

# Arguments without a gradient.
_CONSTANT = ("step_sizes", "generators", "step", "drive", "lengths", "draws", "slope", "restarts")


def fallback_reason(inputs: Tensor, half_products: bool = True) -> str:
    """Return why the compiled sequences cannot run on inputs (B, T, C), or an empty string.

    Under autocast to bfloat16 the products of float32 weights are in bfloat16, with float32 sums, states and outputs.

    Args:
        inputs: (B, T, C), in the type of the weights.
        half_products: the operator has products in bfloat16 and uses them under autocast.
    """
    if extension.REASON:
        extension.warn_once()
        return extension.REASON
    if not inputs.is_cpu:
        return f"the compiled sequences run on the CPU only; the inputs are on {inputs.device}"
    if inputs.dtype == torch.float32 and torch.is_autocast_enabled("cpu") and half_products:
        half = torch.get_autocast_dtype("cpu")
        if half != torch.bfloat16:
            return f"the compiled sequences have no products in {half}"
    return "" if inputs.dtype in (torch.float32, torch.float64) else f"there are no compiled sequences of {inputs.dtype}"


def scan_fallback_reason(inputs: Tensor) -> str:
    """Return why the compiled scans cannot run on inputs (B, T, C), or an empty string.

    They compute half precision in float32, also under autocast: their products are elementwise.

    Args:
        inputs: (B, T, C), in the type of the weights.
    """
    if extension.REASON:
        extension.warn_once()
        return extension.REASON
    return "" if inputs.is_cpu else f"the compiled scans run on the CPU only; the inputs are on {inputs.device}"


def products_in_half(hidden: Tensor) -> bool:
    """Return whether autocast requests products in bfloat16 for states of this type."""
    return hidden.dtype == torch.float32 and torch.is_autocast_enabled("cpu")


def chunk_steps(inputs: Tensor, *others: Tensor | None) -> int:
    """Return the number of steps in a chunk of backward; 0 if no tensor requires a gradient.

    Forward keeps a checkpoint of the state before each chunk.
    """
    if not torch.is_grad_enabled() or not any(tensor is not None and tensor.requires_grad for tensor in (inputs, *others)):
        return 0
    return max(1, min(inputs.shape[1], -(-_CHUNK_ROWS // max(1, inputs.shape[0]))))


def padded_size(hidden: Tensor) -> int:
    """Return H of hidden (B, H), rounded up to a multiple of 16 units."""
    return -(-hidden.shape[1] // 16) * 16


def register_sequence(
    name: str,
    states: int,
    shapes: Callable[..., tuple[Tensor, ...]],
    outputs: int = 1,
    gradient_shapes: Callable[..., list[Tensor]] | None = None,
    keeps_inputs: bool = True,
) -> None:
    """Register the shapes and the gradient of a compiled sequence, if the library is loaded.

    Args:
        name: name of the operator. Its arguments are the inputs, the states before the first step, all other tensors, then
            the settings, ``chunk_steps`` last. It returns the outputs, the states after the last step, and what backward needs.
        states: number of tensors in a state.
        shapes: maps the operator's arguments to empty tensors with the shapes of its results.
        outputs: number of outputs; backward uses them.
        gradient_shapes: the same for backward; None if each gradient has the shape of its argument.
        keeps_inputs: backward reads the inputs; else it only needs their shape, and they are not kept for it.
    """
    if extension.REASON:
        return
    extension.register_shapes(f"seqmem::{name}", shapes)
    extension.register_shapes(f"seqmem::{name}_backward", gradient_shapes or _gradient_shapes(name))
    _register_gradient(name, states, outputs, keeps_inputs)


def register_operator(name: str, states: int, shapes: Callable[..., tuple[Tensor, ...]]) -> None:
    """Register the shapes and the gradient of a sequence operator that does not come from the compiled library.

    Its tensors may be on several devices. The arguments are those of :func:`register_sequence`.
    """
    torch.library.register_fake(f"seqmem::{name}", shapes)
    torch.library.register_fake(f"seqmem::{name}_backward", _gradient_shapes(name))
    _register_gradient(name, states, 1, True)


def register_scan(
    name: str, shapes: Callable[..., tuple[Tensor, ...]], gradient_shapes: Callable[..., Sequence[Tensor]] | None = None
) -> None:
    """Register the shapes and the gradient of a compiled scan, if the library is loaded.

    Args:
        name: name of the operator. Its backward operator takes gradients ``grad_X`` of the first results, then arguments and
            results of forward by their names, and ``X_gradient``, whether argument X requires a gradient. It returns the
            gradients of all floating-point tensors; those that are not required are ignored.
        shapes: maps the operator's arguments to empty tensors with the shapes of its results.
        gradient_shapes: the same for backward; None if each gradient has the shape of its argument, or is empty for None.
    """
    if extension.REASON:
        return
    operator = getattr(torch.ops.seqmem, f"{name}_backward").default
    arguments, results = ([part.name for part in parts] for parts in (_schema(name).arguments, _schema(name).returns))
    tensors = [part.name for part in _schema(name).arguments if "Tensor" in str(part.type)]
    differentiable = [part for part in tensors if part not in _CONSTANT]
    taken = [part.name for part in _schema(f"{name}_backward").arguments]
    count = sum(part.startswith("grad_") for part in taken)
    kept = [part for part in taken[count:] if part in tensors or part in results]

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        values = dict(zip(arguments, inputs, strict=True)) | dict(zip(results, output, strict=True))
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*output[count:])
        ctx.settings = {part: value for part, value in values.items() if part not in tensors and part not in results}
        ctx.save_for_backward(*(values[part] for part in kept))

    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors  # read once: activation checkpointing unpacks each only once
        if all(grad is None for grad in grads[:count]):
            return (None,) * len(arguments)
        needed = dict(zip(arguments, ctx.needs_input_grad, strict=True))
        values = dict(zip(kept, saved, strict=True)) | ctx.settings
        values |= {f"{part}_gradient": is_needed for part, is_needed in needed.items()}
        found = operator(*grads[:count], *(values[part] for part in taken[count:]))
        gradients = dict(zip(differentiable, found, strict=True))
        return tuple(gradients[part] if is_needed else None for part, is_needed in needed.items())

    def shapes_of_arguments(*values: Any) -> list[Tensor]:
        given = dict(zip(taken, values, strict=True))
        none = given[tensors[0]].new_empty(0)
        return [none.new_empty(0 if given[part] is None else given[part].shape) for part in differentiable]

    extension.register_shapes(f"seqmem::{name}", shapes)
    extension.register_shapes(f"seqmem::{name}_backward", gradient_shapes or shapes_of_arguments)
    register_gradient(f"seqmem::{name}", backward, setup_context)
    register_last_gradient(f"{name}_backward")


def _register_gradient(name: str, states: int, outputs: int, keeps_inputs: bool) -> None:
    operator = getattr(torch.ops.seqmem, f"{name}_backward").default
    arguments = [(argument.name, "Tensor" in str(argument.type)) for argument in _schema(name).arguments]
    tensors = [name for name, is_tensor in arguments if is_tensor]
    differentiable = [name for name in tensors if name not in _CONSTANT]

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        given = dict(zip((name for name, _ in arguments), inputs, strict=True))
        saved = output[outputs + states :]
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*saved)
        ctx.settings = {name: given[name] for name, is_tensor in arguments if not is_tensor}
        ctx.inputs_shape = None if keeps_inputs else inputs[0].shape
        kept = [given[name] for name in tensors]
        ctx.save_for_backward(*(kept if keeps_inputs else kept[1:]), *output[:outputs], *saved)

    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors  # read once: activation checkpointing unpacks each only once
        if ctx.inputs_shape is not None:
            saved = (saved[0].new_empty(ctx.inputs_shape), *saved)  # never read or written
        given = dict(zip(tensors, saved, strict=False)) | ctx.settings
        results: dict[str, Tensor | None] = {name: None for name, _ in arguments}
        incoming = grads[: outputs + states]
        if any(grad is not None for grad in incoming):
            values = operator(*incoming, *saved[len(tensors) :], *given.values(), ctx.needs_input_grad[0])
            results |= dict(zip(differentiable, values, strict=True))
        return tuple(None if given[name] is None else result for name, result in results.items())

    register_gradient(f"seqmem::{name}", backward, setup_context)
    register_last_gradient(f"{name}_backward")


def _schema(name: str) -> torch.FunctionSchema:
    return getattr(torch.ops.seqmem, name).default._schema


def register_last_gradient(name: str) -> None:
    """Register that a backward operator refuses to be differentiated, and to take several gradients at once.

    An operator that returns no list takes several: torch loops over them.
    """
    register_gradient(f"seqmem::{name}", _refuse_second_derivative)
    if any(str(returned.type) != "Tensor" for returned in _schema(name).returns):
        refuse_batches(name, _refuse_batches)


def _refuse_batches(*arguments: Any) -> None:
    raise NotImplementedError(
        "a compiled operator takes one gradient at a time; torch.func.jacrev and other transforms of torch.func, "
        "vectorize=False of torch.autograd.functional.jacobian, or SEQMEM_REFERENCE=1 for a whole process compute several"
    )


def _refuse_second_derivative(ctx: Any, *grads: Any) -> None:
    raise NotImplementedError(
        "a compiled operator is differentiable once; torch.func.grad and other transforms of torch.func, or SEQMEM_REFERENCE=1 "
        "for a whole process, replace it by torch's operations, differentiable to any order"
    )


def _gradient_shapes(name: str) -> Callable[..., list[Tensor]]:
    arguments = [argument.name for argument in _schema(f"{name}_backward").arguments]
    states = ("inputs", "hidden", "memory")

    def shapes(*values: Any) -> list[Tensor]:
        given = dict(zip(arguments, values, strict=True))
        inputs = given["inputs"]
        sources = {name: value for name, value in given.items() if name in states or name.startswith(("weight_", "bias_"))}
        if not given["input_gradient"]:
            sources["inputs"] = None
        return [inputs.new_empty(0) if value is None else value.new_empty(value.shape) for value in sources.values()]

    return shapes
