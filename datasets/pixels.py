"""Images read one pixel at a time: what ``mnist`` and ``digits`` share."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from datasets.base import DataSet
from datasets.provenance import Provenance
from datasets.splits import Split
from seqmem.batch import Batch
from seqmem.spec import DataSpec


class PixelSequences(DataSet):
    """Classification of images given as sequences of grey values in [0, 1], row by row unless permuted."""

    def __init__(
        self,
        images: Mapping[Split, np.ndarray],
        labels: Mapping[Split, np.ndarray],
        white: int,
        classes: int,
        provenance: Provenance,
        num_workers: int,
    ):
        """Called last by a subclass.

        Args:
            images: for each split (n, T) uint8 grey values; they stay uint8 in memory.
            labels: for each split (n,) class numbers from 0.
            white: the grey value that becomes 1.
            classes: number of classes.
            provenance: its permutation, if any, is applied here.
            num_workers: as in :class:`DataSet`.
        """
        order = slice(None) if provenance.permutation is None else provenance.permutation.indices
        self._images = {split: torch.from_numpy(np.array(array[:, order], order="C")) for split, array in images.items()}
        self._labels = {split: torch.from_numpy(array.astype(np.int64)) for split, array in labels.items()}
        self._white = white
        steps = images["train"].shape[1]
        spec = DataSpec(self.name, 1, classes, "classification", output_steps=0, max_length=steps)
        super().__init__(spec, {split: len(array) for split, array in images.items()}, provenance, num_workers)

    def batch(self, split: Split, indices: Tensor) -> Batch:
        """Inputs (B, T, 1) in [0, 1], targets (B,)."""
        inputs = self._images[split][indices].to(torch.float32).div_(self._white)
        return Batch(inputs.unsqueeze(-1), self._labels[split][indices])
