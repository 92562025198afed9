"""Rows of a batch that one of several processes trains on."""

from collections.abc import Callable

from seqmem.data.batch import Batch


def own_rows(batch: Batch, weight: Callable[[Batch], float], rank: int, processes: int) -> tuple[Batch, float]:
    """Return the rows of one process, and a factor of their loss.

    With the factor, the mean over the processes is the loss of the whole batch. The exception is batch normalisation, whose
    statistics are of each process's own rows. Of R processes each takes every R-th row. A process for which no row is left
    takes the first one, with a factor of 0.

    Args:
        batch: the whole batch.
        weight: of the loss of rows in a mean over batches.
        rank: of the process.
        processes: that train together.
    """
    if processes == 1:
        return batch, 1.0
    if rank >= len(batch):
        return batch.rows(slice(1)), 0.0
    own = batch.rows(slice(rank, None, processes))
    return own, processes * weight(own) / (weight(batch) or 1)
