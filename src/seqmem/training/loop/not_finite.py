"""Search for the first thing in a training step that is not finite, by computing the step again.

Nothing of this runs in a training until a loss, a gradient or a weight is found to be not finite.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any, Self

import torch
from lightning_utilities import apply_to_collection
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor, nn

from seqmem.data.batch import Batch
from seqmem.data.dataset import ShuffledSampler
from seqmem.data.masks import valid_steps
from seqmem.errors import UserError
from seqmem.tasks import Task


@dataclass(frozen=True)
class Finding:
    """The first thing in a step that is not finite, in the order in which the step computes.

    Attributes:
        what: "inputs", "times", "targets", "weight", "output", "loss", "penalty", "gradient of an output", "gradient" or
            "update".
        words: the same in words.
        layer: name of the layer in the model; empty for data, and for the model as a whole.
        parameter: name of the parameter or buffer in the model; for an output the layer's largest one; empty if there is none.
        row: of the batch, from 0; None if it is not known.
        step: time step, from 0; None if it is not known.
        sequence: number of the sequence in the training split, from 0; None if it is not known.
    """

    what: str
    words: str
    layer: str = ""
    parameter: str = ""
    row: int | None = None
    step: int | None = None
    sequence: int | None = None

    @property
    def in_data(self) -> bool:
        """Whether the data are not finite, so that no setting of the training helps."""
        return self.what in ("inputs", "times", "targets")


class NotFiniteError(UserError):
    """A loss, a gradient or a weight is not finite.

    Attributes:
        finding: what was first; None if that is not known yet.
        fact: the message without ``finding`` and advice.
        advice: the remedy.
        position: number of the epoch and of the batch, from 0.
    """

    finding: Finding | None = None
    fact: str = ""
    advice: str = ""
    position: tuple[int, int] = (0, 0)

    @classmethod
    def of(cls, fact: str, advice: str, position: tuple[int, int], finding: Finding | None = None) -> Self:
        """Create the error; pickle takes the message alone."""
        first = f"; first not finite: {finding.words}" if finding else ""
        remedy = "correct the data, or leave these sequences out" if finding and finding.in_data else advice
        error = cls(f"{fact}{first}; {remedy}")
        error.finding, error.fact, error.advice, error.position = finding, fact, advice, position
        return error

    @property
    def is_explained(self) -> bool:
        """Whether the finding is the cause: weights that were not finite before the step have one in an earlier step."""
        return self.finding is not None and self.finding.what != "weight"


def first_not_finite(model: nn.Module, task: Task, batch: Batch, loss: Callable[[], Tensor]) -> Finding | None:
    """Compute a step again and return what is first not finite in it; None if everything is finite.

    Random numbers, buffers and gradients are afterwards as before.

    Args:
        model: with the weights before the step.
        task: says which targets count.
        batch: the data of the step.
        loss: computes the loss of the step from them, with the random numbers of the step.
    """
    found = _in_batch(batch, task) or _in_weights(model)
    if found is not None:
        return found
    with _as_before(model), torch.enable_grad():
        return _in_computation(model, batch, loss)


def numbered(finding: Finding, trainer: Any, batch_idx: int) -> Finding:
    """Return a finding in the data with the number of its sequence in the training split, where the batches' order has it.

    Args:
        finding: in the rows of this process.
        trainer: Lightning's trainer, with the loader of the training split.
        batch_idx: number of the batch in its epoch.
    """
    loader = trainer.train_dataloader
    if not finding.in_data or finding.row is None or not isinstance(getattr(loader, "sampler", None), ShuffledSampler):
        return finding
    row = finding.row * trainer.world_size + trainer.global_rank
    place = batch_idx * getattr(loader, "loader", loader).batch_size + row
    [sequence] = islice(loader.sampler.order(), place, place + 1)
    words = f"{finding.words} (sequence {sequence} of the training split)"
    return replace(finding, row=row, sequence=int(sequence), words=words)


def not_finite_tensor(named: Any) -> str:
    """Return the name of the first tensor that is not finite; an empty string if all are. This waits for a GPU once."""
    names, values = zip(*[(name, value) for name, value in named if value is not None], strict=True)
    finite = torch.stack([torch.isfinite(value).all() for value in values]).tolist()
    return next((name for name, good in zip(names, finite, strict=True) if not good), "")


def _in_batch(batch: Batch, task: Task) -> Finding | None:
    """Return which input, time or counted target is not finite."""
    batch = batch.on_host
    steps = None if batch.lengths is None else valid_steps(batch.lengths, batch.inputs.shape[1])
    for what, values, valid in (
        ("inputs", batch.inputs, steps),
        ("times", batch.times, steps),
        ("targets", batch.targets, task.counted(batch)),
    ):
        if values is None or not values.is_floating_point():
            continue
        place = _first_place(values, valid)
        if place is not None:
            row, step, value = place
            return Finding(what, f"the {what} of the data, {_words(row, step)}: {value}", row=row, step=step)
    return None


def _in_weights(model: nn.Module) -> Finding | None:
    named = [*model.named_parameters(), *model.named_buffers()]  # on a GPU, some buffers may be on the CPU
    name = next((name for name, value in named if not torch.isfinite(value).all()), "")
    if not name:
        return None
    return Finding("weight", f"{name}, before the step", _layer_of(name), name)


@contextmanager
def _as_before(model: nn.Module) -> Iterator[None]:
    """Restore random states and buffers at the end, and run without compilation by torch."""
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    with isolate_rng(), torch.compiler.set_stance("force_eager"):
        try:
            yield
        finally:
            with torch.no_grad():
                for buffer, before in buffers:
                    if not torch.equal(buffer, before):  # the graph of the first computation may hold the others
                        buffer.copy_(before)


class _Found(Exception):
    """Ends the forward pass at the first output that is not finite."""

    def __init__(self, finding: Finding):
        super().__init__(finding.words)
        self.finding = finding


def _in_computation(model: nn.Module, batch: Batch, loss: Callable[[], Tensor]) -> Finding | None:
    """Watch the outputs of all layers, then the loss, then all gradients in the order of backward."""
    backward: list[Finding] = []
    largest = [0.0]
    weights = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
    with ExitStack() as hooks:
        for name, module in model.named_modules():
            hook = partial(_check_outputs, name=name, batch=batch, backward=backward, largest=largest)
            hooks.callback(module.register_forward_hook(hook).remove)
        for name, weight in weights:
            hooks.callback(weight.register_hook(partial(_check_gradient, name=name, backward=backward)).remove)
        try:
            value = loss()
        except _Found as found:
            return found.finding
        if not torch.isfinite(value):
            return Finding("loss", f"the loss of finite outputs, of at most {largest[0]:.3g}: {value.item()}")
        # Unlike backward, this leaves the gradients so far, and those that several processes exchange.
        gradients = torch.autograd.grad(value, [weight for _, weight in weights], allow_unused=True)
    if backward:
        return backward[0]
    name = not_finite_tensor(zip([name for name, _ in weights], gradients, strict=True))
    return _gradient(name) if name else None


def _check_outputs(
    module: nn.Module, inputs: Any, outputs: Any, *, name: str, batch: Batch, backward: list[Finding], largest: list[float]
) -> None:
    """Refuse an output of a layer that is not finite, and watch its gradient."""
    if _is_capturing():
        return
    label = f"{name or 'the model'} ({type(module).__name__})"

    def check(value: Tensor) -> Tensor:
        if not (value.is_floating_point() or value.is_complex()) or value.numel() == 0:
            return value
        place = _first_place(value, _valid(value, batch))
        if place is not None:
            row, step, found = place
            parameter, size = _largest_weight(name, module)
            weight = f" (largest weight: {parameter}, {size:.3g})" if parameter else ""
            words = f"the output of {label}, {_words(row, step)}: {found}{weight}"
            raise _Found(Finding("output", words, name, parameter, row, step))
        largest[0] = max(largest[0], value.detach().abs().max().item())
        if value.requires_grad:
            words = f"the gradient of the output of {label}"
            value.register_hook(partial(_note, finding=Finding("gradient of an output", words, name), backward=backward))
        return value

    apply_to_collection(outputs, Tensor, check)


def _check_gradient(gradient: Tensor | None, *, name: str, backward: list[Finding]) -> None:
    _note(gradient, finding=_gradient(name), backward=backward)


def _note(gradient: Tensor | None, *, finding: Finding, backward: list[Finding]) -> None:
    if not backward and gradient is not None and not _is_capturing() and not torch.isfinite(gradient).all():
        backward.append(finding)


def _is_capturing() -> bool:
    """Return whether a CUDA graph is being captured, within which no value can be read; the layer's own output follows."""
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()


def _gradient(name: str) -> Finding:
    return Finding("gradient", f"the gradient of {name}", _layer_of(name), name)


def _valid(values: Tensor, batch: Batch) -> Tensor | None:
    """Return the padding mask of values (B, T, ...); None for other shapes."""
    lengths, shape = batch.lengths, tuple(batch.inputs.shape[:2])
    return None if lengths is None or tuple(values.shape[:2]) != shape else valid_steps(lengths, shape[1]).to(values.device)


def _first_place(values: Tensor, valid: Tensor | None) -> tuple[int, int | None, Any] | None:
    """Return row, time step and value of the first that is not finite: the earliest step, then the first row.

    Args:
        values: (B, ...) or (B, T, ...); the second dimension counts as time if there are three, or a mask has it.
        valid: (B,) or (B, T) bool; others do not count. None if all count.
    """
    wrong = ~torch.isfinite(values.detach())
    if valid is not None:
        wrong &= valid.view(*valid.shape, *[1] * (wrong.dim() - valid.dim()))
    if not wrong.any():
        return None
    if wrong.dim() == 0:
        return 0, None, values.item()
    timed = wrong.dim() > 2 or (valid is not None and valid.dim() == 2)
    table = wrong.flatten(2).any(2) if wrong.dim() > 2 else wrong if timed else wrong.flatten(1).any(1)[:, None]
    step = int(table.any(0).nonzero()[0])
    row = int(table[:, step].nonzero()[0])
    cell = (row, step) if timed else (row,)
    return row, step if timed else None, values[cell][wrong[cell]].flatten()[0].item()


def _words(row: int, step: int | None) -> str:
    return f"row {row}" if step is None else f"row {row}, time step {step}"


def _largest_weight(name: str, module: nn.Module) -> tuple[str, float]:
    """Return the layer's parameter with the largest absolute value, and that value."""
    sizes = {key: value.detach().abs().max().item() for key, value in module.named_parameters() if value.numel()}
    if not sizes:
        return "", 0.0
    key = max(sizes, key=lambda each: sizes[each])
    return f"{name}.{key}".lstrip("."), sizes[key]


def _layer_of(parameter: str) -> str:
    return parameter.rpartition(".")[0].removesuffix(".parametrizations")
