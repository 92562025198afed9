"""Conversion of sequences in memory (lists, padded tensors, data sets) to tensors and batches."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from seqmem.data.batch import Batch
from seqmem.errors import UserError


def as_list(sequences: Any, lengths: Any = None) -> list[Tensor]:
    """Return sequences as a list of float32 tensors (T, ...) on the CPU.

    Args:
        sequences: a list of tensors or arrays (T, ...) of any T; a padded tensor (n, T, ...); a data set with ``spec`` and
            ``batch``, of which the training split is taken; or a map-style data set of torch whose items are sequences, or
            tuples that begin with one.
        lengths: (n,) valid steps of each sequence of a padded tensor; None for all.

    Raises:
        UserError: there are no sequences, or one is empty, has a value that is not finite, or has steps of a different shape
            than the first one.
    """
    if hasattr(sequences, "spec") and hasattr(sequences, "batch"):
        batch = sequences.batch("train", torch.arange(sequences.sizes["train"]))
        frame = sequences.spec.frame
        sequences = batch.inputs if frame is None else batch.inputs.unflatten(-1, frame)
        lengths = batch.lengths
    try:
        items = [sequences[k] for k in range(len(sequences))]
        tensors = [torch.as_tensor(item[0] if isinstance(item, tuple) else item).detach().cpu().float() for item in items]
    except (TypeError, ValueError, RuntimeError, KeyError) as error:
        raise UserError(f"got a {type(sequences).__name__}, expected sequences of numbers ({error})") from None
    if lengths is not None:
        tensors = _cut(tensors, [int(length) for length in lengths])
    if not tensors:
        raise UserError("got no sequences, expected at least one")
    for k, tensor in enumerate(tensors):
        _check_sequence(k, tensor, tensors[0].shape[1:])
    return tensors


def padded(sequences: Sequence[Tensor]) -> Batch:
    """Pad sequences (T, C) to a batch whose targets are its inputs, without ``lengths`` if all are equal."""
    lengths = torch.tensor([len(sequence) for sequence in sequences])
    inputs = pad_sequence(list(sequences), batch_first=True)
    return Batch(inputs, inputs, None if bool((lengths == lengths[0]).all()) else lengths)


def _cut(tensors: list[Tensor], lengths: list[int]) -> list[Tensor]:
    if len(lengths) != len(tensors):
        raise UserError(f"got {len(lengths)} lengths of {len(tensors)} sequences, expected one for each")
    for k, (tensor, length) in enumerate(zip(tensors, lengths, strict=True)):
        if not 1 <= length <= len(tensor):
            raise UserError(f"sequence {k}: got a length of {length}, expected 1 to {len(tensor)}")
    return [tensor[:length] for tensor, length in zip(tensors, lengths, strict=True)]


def _check_sequence(k: int, tensor: Tensor, step_shape: torch.Size) -> None:
    if tensor.dim() == 0 or tensor.numel() == 0:
        raise UserError(f"sequence {k}: got a tensor of shape {tuple(tensor.shape)}, expected at least one step")
    if tensor.shape[1:] != step_shape:
        raise UserError(f"sequence {k}: got steps of shape {tuple(tensor.shape[1:])}, expected {tuple(step_shape)}")
    if not tensor.isfinite().all():
        step = int((~tensor.isfinite()).nonzero()[0, 0])
        raise UserError(f"sequence {k}: got a value at step {step} that is not finite")
