"""Moving digits: small videos of a digit that bounces off the edges."""

from importlib.metadata import version

import numpy as np
import torch
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor

from seqmem.arguments import checked
from seqmem.data import Batch, DataSet, DataSpec, Provenance, Seed, Split, generator, sha256, stratified_split
from seqmem.errors import UserError

DIGIT = 8
"""Pixels of a digit's side."""


class MovingDigits(DataSet):
    """One of scikit-learn's digits of 8x8 pixels on a black square, after Moving MNIST (Srivastava et al., 2015).

    A step is a frame of S x S values in [0, 1], row by row: inputs and targets are the same video, (B, T, S * S), and
    ``Batch.labels`` is the digit. The digit starts at a random position and moves by up to two pixels a frame in each
    direction; at an edge it turns back. No image is in two splits.
    """

    name = "moving_digits"
    splitting = ("seed",)

    @checked
    def __init__(
        self,
        length: PositiveInt = 10,
        size: PositiveInt = 16,
        train_samples: PositiveInt = 2000,
        validation_samples: PositiveInt = 250,
        test_samples: PositiveInt = 250,
        seed: Seed = 0,
        num_workers: NonNegativeInt = 0,
    ):
        """Draw images, positions and velocities; videos are computed batch by batch.

        Args:
            length: T, frames of a video.
            size: S, pixels of a frame's side, more than the 8 of a digit.
            train_samples: videos for training.
            validation_samples: videos for validation.
            test_samples: videos for test.
            seed: seed of the split and of all random numbers.
            num_workers: worker processes that make batches; 0 makes them in the main process.

        Raises:
            UserError: ``size`` is at most 8.
        """
        if size <= DIGIT:
            raise UserError(f"dataset.size: got {size}, expected more than {DIGIT}, the side of a digit")
        # Imported here because it takes a second, and listing the data sets must be fast.
        from sklearn.datasets import load_digits

        values, labels = load_digits(return_X_y=True)
        images = stratified_split(labels, held_out=0.15, seed=seed)
        sizes: dict[Split, int] = {"train": train_samples, "validation": validation_samples, "test": test_samples}
        self._frame, self._length = size, length
        self._digits = torch.from_numpy(values.astype(np.float32) / 16).view(-1, DIGIT, DIGIT)
        self._labels = torch.from_numpy(labels.astype(np.int64))
        self._drawn: dict[Split, tuple[Tensor, Tensor, Tensor]] = {}
        for split, count in sizes.items():
            random = generator(seed, self.name, split)
            chosen = random.choice(images[split], count)
            starts, velocities = random.uniform(0, size - DIGIT, (count, 2)), random.uniform(-2, 2, (count, 2))
            self._drawn[split] = tuple(torch.from_numpy(each) for each in (chosen, starts, velocities))
        spec = DataSpec(self.name, size**2, size**2, "reconstruction", output_steps=None, max_length=length, frame=(size, size))
        provenance = Provenance(
            seed=seed,
            sha256={split: sha256(*(each.numpy() for each in drawn)) for split, drawn in self._drawn.items()},
            files={f"scikit-learn {version('scikit-learn')} load_digits": sha256(values, labels)},
        )
        super().__init__(spec, sizes, provenance, num_workers)

    def batch(self, split: Split, indices: Tensor) -> Batch:
        """Return inputs (B, T, S * S) float32, equal targets, and labels (B,)."""
        chosen, starts, velocities = (each[indices] for each in self._drawn[split])
        span = self._frame - DIGIT
        moved = starts[:, None] + velocities[:, None] * torch.arange(self._length)[:, None]
        corners = (span - (moved % (2 * span) - span).abs()).round().long()  # a triangle wave between 0 and span
        rows, columns = (corners[..., axis, None] + torch.arange(DIGIT) for axis in (0, 1))
        frames = torch.zeros(len(indices), self._length, self._frame, self._frame)
        row, step = torch.arange(len(indices))[:, None, None, None], torch.arange(self._length)[:, None, None]
        frames[row, step, rows[..., :, None], columns[..., None, :]] = self._digits[chosen][:, None]
        videos = frames.flatten(2)
        return Batch(videos, videos.clone(), labels=self._labels[chosen])
