"""Closed form of HiPPO memories: R^2 of the reconstruction of past inputs, without a network or a fit."""

import torch
from torch import Tensor

from seqmem.cells import LMU, LMUT, LagT, LegS, LegT
from seqmem.diagnostics.read_out import r2
from seqmem.diagnostics.states import inputs_at_lags
from seqmem.hippo import Memory, project, reconstruct
from seqmem.sequence import SequenceLayer

_budget = 2**22  # numbers of signals that are projected at once
_windows = (LegT, LMUT, LMU, LagT)  # with measures of seqmem.hippo, unlike the ablations LegST, LegSN, LegTS and LagTS


def closed_form(layer: SequenceLayer, steps: int) -> Memory | None:
    """Return the memory of a cell's own coefficients, if these have a closed form over ``steps`` steps.

    LegS, LegT, LMUT, LMU, LMUPlain and LagT have one with fixed matrices; LegS if it counts from t = 0 and ``max_length`` does
    not stop its clock. Its coefficients are those of the cell's inputs u = W x + ..., and not of the data's inputs.

    Args:
        layer: cell or layer.
        steps: number of steps that it reads.
    """
    if isinstance(layer, LegS):
        counts_all = layer.init_t == 0 and (layer.max_length is None or layer.max_length >= steps)
        return Memory(layer.memory_order, "legs", None, layer.discretization, layer.measure_args) if counts_all else None
    if isinstance(layer, _windows) and layer.trainable_scale == 0:
        return Memory(layer.memory_order, layer.measure, 1 / layer.dt, layer.discretization, layer.measure_args)
    return None


def reconstruction_r2(memory: Memory, inputs: Tensor, lags: Tensor, lengths: Tensor | None = None) -> Tensor:
    """Compute R^2 of the inputs at each lag as a HiPPO memory of the inputs themselves reconstructs them.

    Each channel is projected onto N coefficients of its own (:func:`seqmem.hippo.project`), and reconstructed from those after
    the last step. Nothing is fitted.

    Args:
        memory: measure, order and discretization.
        inputs: (n, T, C) floating point, or (n, T) int64 tokens, which are projected as one-hot vectors.
        lags: (L,) int64.
        lengths: (n,) valid steps of each row; None if all T are valid.

    Returns:
        (L,) float64; NaN at lags that the memory's window does not reach, or where the inputs of all rows are the same.

    Raises:
        UserError: a row is too short for the largest lag.

    >>> signals = torch.randn(50, 1, 1).expand(-1, 100, -1)  # constant ones
    >>> reconstruction_r2(Memory(order=4), signals, torch.tensor([0, 50])) > 0.999
    tensor([True, True])
    """
    return r2(reconstruction_errors(memory, inputs, lags, lengths).sum(0), inputs_at_lags(inputs, lags, lengths))


def reconstruction_errors(memory: Memory, inputs: Tensor, lags: Tensor, lengths: Tensor | None = None) -> Tensor:
    """Return the squared errors of :func:`reconstruction_r2`, summed over channels: (n, L) float64."""
    inputs, lags = inputs.cpu(), lags.cpu()
    errors = torch.full((len(inputs), len(lags)), torch.nan, dtype=torch.float64)
    ends = torch.full((len(inputs),), inputs.shape[1]) if lengths is None else lengths.cpu()
    for length in ends.unique().tolist():
        moments = (length - 1 - lags).double()
        reached = (moments >= memory.oldest(length)).nonzero()[:, 0]
        channels = inputs[0, 0].numel() if inputs.is_floating_point() else length
        for rows in (ends == length).nonzero()[:, 0].split(max(1, _budget // (channels * length))):
            signals, row_of_signal = _signals(inputs[rows, :length])
            coefficients = project(signals, memory.order, **memory.settings)
            found = reconstruct(coefficients, length, at=moments[reached], **memory.settings)
            squares = (found - signals[:, length - 1 - lags[reached]]).square()
            summed = squares.new_zeros(len(rows), len(reached)).index_add(0, row_of_signal, squares)
            errors[rows[:, None], reached] = summed
    return errors


def _signals(inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Return the channels of inputs (B, T, C) as signals (S, T) float64, and the row (S,) of each.

    Tokens (B, T) have a channel for each that occurs in the row. The others have a signal of zeros, and no error.
    """
    if inputs.is_floating_point():
        channels = inputs.shape[2]
        return inputs.double().transpose(1, 2).flatten(0, 1), torch.arange(len(inputs)).repeat_interleave(channels)
    pairs = [(row[None] == row.unique()[:, None]).double() for row in inputs]
    return torch.cat(pairs), torch.arange(len(inputs)).repeat_interleave(torch.tensor([len(pair) for pair in pairs]))
