"""Gradient and read-out of a model's carried state over the lag."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from seqmem.data.batch import Batch
from seqmem.diagnostics.gradients import effective_memory_length, gradient_norms
from seqmem.diagnostics.read_out import r2, read_out_r2
from seqmem.diagnostics.reconstruction import closed_form, reconstruction_errors
from seqmem.diagnostics.sample import Sample
from seqmem.diagnostics.states import flat_state
from seqmem.errors import UserError
from seqmem.hippo import Memory
from seqmem.models import SequenceModel
from seqmem.ops.states import parts
from seqmem.sequence import SequenceLayer


@dataclass(frozen=True)
class Curves:
    """What a state holds of its inputs, over the lag.

    Attributes:
        size: d, the numbers of the state.
        norms: (K + 1,) mean over sequences of the norm of dh_T/dx_(T-k), at lags 0 to K; see :func:`gradient_norms`.
        errors: (K + 1,) standard error of this mean, NaN for one sequence. It includes the error of random directions.
        is_exact: the norms of single sequences are exact, not estimated from random directions.
        effective_length: see :func:`effective_memory_length`; None if the norms are all zero, or not finite.
        r2: (L,) held-out R^2 of the read-out at the sample's lags; NaN where it is undefined.
    """

    size: int
    norms: Tensor
    errors: Tensor
    is_exact: bool
    effective_length: int | None
    r2: Tensor


def carried_layers(model: SequenceModel) -> int:
    """Return the number of layers whose states a model carries; 0 if it carries none, as in both directions of time."""
    layers = _layers(model.initial_state(1)) if model.carries else []
    return len(layers) if any(part.is_floating_point() or part.is_complex() for part in parts(layers)) else 0


def measure(
    model: SequenceModel, sample: Sample, layer: int | None = None, probes: int | None = 32, left: float = 0.01, seed: int = 0
) -> Curves:
    """Measure what a model's state holds after the last step of each sequence.

    The model is evaluated in evaluation mode, each sequence from the initial state. The gradient is that by the data set's
    values, or by the embedding of a token (:meth:`seqmem.models.SequenceModel.embed`), and the read-out is that of the data
    set's values, or of one-hot tokens. Where a model has a straight-through estimator, as HM-LSTM's boundaries, the gradient is
    the estimator's.

    Args:
        model: whose states are measured, on any device.
        sample: the sequences.
        layer: number of a layer, from 1; None for the states of all layers as one vector.
        probes: directions of :func:`gradient_norms`; None for the exact norm.
        left: of :func:`effective_memory_length`.
        seed: seed of the directions.

    Raises:
        UserError: the model carries no state, has no such layer, or has tokens and does not define ``embed``.
    """
    _check(model, layer)
    directions = torch.Generator().manual_seed(seed)
    with _fixed(model):
        found = [_gradient(model, _placed(batch, model), layer, probes, directions) for batch in sample.gradient]
        states = torch.cat([_states(model, _placed(batch, model), layer) for batch in sample.batches])
    norms = torch.cat([each[:, : sample.longest + 1] for each in found])
    mean = norms.mean(0)
    measurable = bool(mean.isfinite().all() and mean.any())
    return Curves(
        states.shape[1],
        mean,
        norms.std(0) / len(norms) ** 0.5 if len(norms) > 1 else torch.full_like(mean, torch.nan),
        probes is None or probes >= states.shape[1],
        effective_memory_length(mean, left) if measurable else None,
        _read_out(states, sample),
    )


def closed_forms(model: SequenceModel, sample: Sample, layer: int | None = None) -> list[tuple[Memory, Tensor]]:
    """Return the memories of a model's HiPPO cells, and R^2 (L,) of the inputs as each of them reconstructs them.

    R^2 is that of the sequences which the read-out is measured on. A memory's coefficients are here those of the data set's
    inputs, N for each channel (:func:`seqmem.diagnostics.reconstruction_r2`), and those of the cell are of its own inputs.

    Args:
        model: with cells that have a closed form (:func:`seqmem.diagnostics.closed_form`); else the result is empty.
        sample: the sequences.
        layer: as in :func:`measure`. Equal memories of several layers occur once.
    """
    layers = [module for module in model.modules() if isinstance(module, SequenceLayer)]
    chosen = layers if layer is None or len(layers) != carried_layers(model) else layers[layer - 1 : layer]
    memories: list[Memory] = []
    for each in chosen:
        memory = closed_form(each, sample.steps)
        if memory is not None and memory not in memories:
            memories.append(memory)
    return [(memory, _reconstruction(memory, sample)) for memory in memories]


def _layers(state: Any) -> list[Any]:
    """Return the states of the layers: the items of a list, as models carry it, or the state itself."""
    return state if isinstance(state, list) else [state]


def _check(model: SequenceModel, layer: int | None) -> None:
    layers = carried_layers(model)
    if not layers:
        raise UserError(
            f"got a {type(model).__name__} that carries no state from step to step, expected recurrent cells or causal layers"
        )
    if layer is not None and not 1 <= layer <= layers:
        expected = "1, the only layer" if layers == 1 else f"1 to {layers}, the layers"
        raise UserError(f"layer: got {layer}, expected {expected} of the model")
    if model.spec.tokens and type(model).embed is SequenceModel.embed:
        raise UserError(f"got a {type(model).__name__} of tokens without the method embed, which gradients require")


@contextmanager
def _fixed(model: SequenceModel) -> Iterator[None]:
    """Keep a model in evaluation mode, without gradients by its parameters, which would double the time."""
    training, trained = model.training, [each for each in model.parameters() if each.requires_grad]
    model.eval().requires_grad_(False)
    try:
        yield
    finally:
        model.train(training)
        for parameter in trained:
            parameter.requires_grad_()


def _placed(batch: Batch, model: SequenceModel) -> Batch:
    """Return a batch on the device of the weights, with inputs in their floating-point type.

    Times keep their type: layers compute step sizes from them as given.
    """
    weight = next(value for value in model.parameters() if value.is_floating_point())
    moved = batch.to(weight.device)
    inputs = moved.inputs.to(weight.dtype) if moved.inputs.is_floating_point() else moved.inputs
    return replace(moved, inputs=inputs)


def _state(model: SequenceModel, batch: Batch, layer: int | None) -> Any:
    state = model.carry(batch)[1]
    return state if layer is None else _layers(state)[layer - 1]


def _gradient(model: SequenceModel, batch: Batch, layer: int | None, probes: int | None, directions: torch.Generator) -> Tensor:
    def state_of(inputs: Tensor) -> Any:
        return _state(model, replace(batch, inputs=inputs), layer)

    return gradient_norms(state_of, model.embed(batch), batch.lengths, probes, directions).cpu()


@torch.no_grad()
def _states(model: SequenceModel, batch: Batch, layer: int | None) -> Tensor:
    return flat_state(_state(model, batch, layer)).double().cpu()


def _read_out(states: Tensor, sample: Sample) -> Tensor:
    """Return R^2; NaN if the states are not finite."""
    if not bool(states.isfinite().all()):
        return torch.full(sample.lags.shape, torch.nan, dtype=torch.float64)
    return read_out_r2(states, sample.inputs, sample.fitted)


def _reconstruction(memory: Memory, sample: Sample) -> Tensor:
    errors = torch.cat([reconstruction_errors(memory, batch.inputs, sample.lags, batch.lengths) for batch in sample.batches])
    return r2(errors[~sample.fitted].sum(0), sample.inputs[~sample.fitted])
