"""Outputs at some steps only: the steps of a batch whose targets count."""

from dataclasses import replace

from torch import Tensor

from seqmem.data.batch import IGNORE_INDEX, Batch
from seqmem.data.masks import counted_targets, last_steps
from seqmem.data.transfer import copied


def at_counted_steps(batch: Batch) -> Batch:
    """Return a batch whose targets are those that count, with ``places``, so that a model computes no other outputs.

    Args:
        batch: with class indices (B, T) as targets.

    Returns:
        The batch with targets (B, K), K of the row with most of them; the other rows are padded with ``IGNORE_INDEX``. A batch
        of which a row has no other targets is returned as it is.
    """
    host = batch.on_host
    counted = counted_targets(host, host.targets.shape, None, classes=True)
    if counted is None or batch.places is not None:
        return batch
    most = max(1, int(counted.sum(1).max()))
    if most == counted.shape[1]:
        return batch
    places = counted.byte().argsort(dim=1, descending=True, stable=True)[:, :most].contiguous()
    targets = host.targets.gather(1, places).where(counted.gather(1, places), IGNORE_INDEX)
    reduced = replace(host, targets=targets, places=places, target_lengths=None)
    if batch.host is None:
        return reduced
    device = batch.targets.device
    return replace(batch, targets=copied(targets, device), places=copied(places, device), target_lengths=None, host=reduced)


def at_places(outputs: Tensor, batch: Batch) -> Tensor:
    """Select the outputs (B, K, H) at the places of a batch from those at every step (B, T, H); others stay as they are."""
    if batch.places is None or outputs.shape[1] != batch.inputs.shape[1]:
        return outputs
    return outputs.gather(1, batch.places[..., None].expand(-1, -1, outputs.shape[-1]))


def output_steps(outputs: Tensor, batch: Batch, count: int | None) -> Tensor:
    """Select the outputs of a batch's targets.

    Args:
        outputs: (B, T, H), at every step.
        batch: of these steps.
        count: ``output_steps`` of the data set's spec.

    Returns:
        (B, K, H) at the places of the batch, or as :func:`seqmem.data.masks.last_steps` if it has none.
    """
    return last_steps(outputs, count, batch.lengths) if batch.places is None else at_places(outputs, batch)
