"""Images as sequences of pixels: the base class of ``mnist`` and ``digits``."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from seqmem.data import Batch, DataSet, DataSpec, Permutation, PermutationName, Provenance, Split, named_permutation
from seqmem.errors import UserError


def permutation_for(permute: bool, permutation: PermutationName, length: int) -> Permutation | None:
    """Return the permutation that the arguments of a data set of images choose; None for the order of the rows.

    Raises:
        UserError: a permutation other than the default is chosen without ``permute``.
    """
    if permute:
        return named_permutation(permutation, length)
    if permutation != "bitreversal":
        raise UserError(f"dataset.permutation: got {permutation} with dataset.permute=false, expected dataset.permute=true")
    return None


class PixelSequences(DataSet):
    """Images as sequences of grey values in [0, 1], row by row unless permuted, for classification or reconstruction."""

    def __init__(
        self,
        images: Mapping[Split, np.ndarray],
        labels: Mapping[Split, np.ndarray],
        white: int,
        classes: int,
        provenance: Provenance,
        num_workers: int,
        reconstruction: bool = False,
        frame: tuple[int, int] | None = None,
        label: str = "",
    ):
        """Permute and store the images; a subclass calls it last.

        Args:
            images: for each split (n, T) uint8 grey values; they stay uint8 in memory.
            labels: for each split (n,) class numbers from 0.
            white: the grey value that becomes 1.
            classes: number of classes.
            provenance: its permutation, if any, is applied to the images.
            num_workers: as in :class:`DataSet`.
            reconstruction: the targets are the images, and the classes are ``Batch.labels``.
            frame: shape (H, W) of an image if it is a single step; None if a step is a pixel.
            label: of the images in messages and tables, after the data set's name.
        """
        order = slice(None) if provenance.permutation is None else provenance.permutation.indices
        self._images = {split: torch.from_numpy(np.array(array[:, order], order="C")) for split, array in images.items()}
        self._labels = {split: torch.from_numpy(array.astype(np.int64)) for split, array in labels.items()}
        self._white = white
        self._reconstruction = reconstruction
        pixels = images["train"].shape[1]
        steps, channels = (pixels, 1) if frame is None else (1, pixels)
        self._step = (steps, channels)
        spec = DataSpec(
            f"{self.name} {label}".strip(),
            input_size=channels,
            output_size=channels if reconstruction else classes,
            task="reconstruction" if reconstruction else "classification",
            output_steps=None if reconstruction else 0,
            max_length=steps,
            frame=frame,
        )
        super().__init__(spec, {split: len(array) for split, array in images.items()}, provenance, num_workers)

    def batch(self, split: Split, indices: Tensor) -> Batch:
        """Return inputs (B, T, 1), or (B, 1, T) as frames, and targets (B,).

        For reconstruction the targets are the inputs, and the classes are ``labels`` (B,).
        """
        inputs = self._images[split][indices].to(torch.float32).div_(self._white).view(-1, *self._step)
        labels = self._labels[split][indices]
        return Batch(inputs, inputs.clone(), labels=labels) if self._reconstruction else Batch(inputs, labels)
