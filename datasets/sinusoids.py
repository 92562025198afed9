"""Noisy sums of two sinusoids: predict them some steps ahead, or reconstruct them."""

import math
from typing import Annotated

import numpy as np
import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor

from seqmem.arguments import checked
from seqmem.data import Batch, DataSet, DataSpec, Provenance, Seed, Split, generator, sha256
from seqmem.errors import UserError

STEP = 50 * math.pi / 399
"""Distance in x of two samples: the original has 400 from 0 to 50 pi. The periods are about 27 and 160 samples."""

AMPLITUDES = np.array([2.0, 5.0])
"""Amplitudes of the two sinusoids."""

FREQUENCIES = np.array([0.6, 0.1])
"""Angular frequencies of the two sinusoids, in x."""


class Sinusoids(DataSet):
    """Noisy sums of two sinusoids; the target of every step is the value ``horizon`` steps ahead.

    A signal is 2 sin(0.6 x + p) + 5 sin(0.1 x + q) + noise. Inputs are (B, L - horizon, C); targets have the same shape and are
    the signal ``horizon`` steps later. With ``reconstruction`` inputs and targets are both the whole signal, (B, L, C). The
    phases p and q are uniform on [0, 10) and the noise is normal, drawn for every signal and channel.

    The noise of the target cannot be predicted, so the expected mean squared error is at least its variance. A model has to
    estimate the phases from noisy inputs and stays above it. Source: HM-LSTM's original code.
    """

    name = "sinusoids"
    separate_test = True

    @checked
    def __init__(
        self,
        length: PositiveInt = 400,
        horizon: PositiveInt = 3,
        channels: PositiveInt = 1,
        noise: Annotated[float, Field(ge=0, le=1e6)] = 0.5,
        reconstruction: bool = False,
        train_samples: PositiveInt = 290,
        validation_samples: PositiveInt = 50,
        test_samples: PositiveInt = 50,
        seed: Seed = 0,
        num_workers: NonNegativeInt = 0,
    ):
        """Draw the signals.

        Args:
            length: L, samples of a signal; a sequence has ``length - horizon`` steps.
            horizon: how many steps ahead the target is.
            channels: C, independent signals in one sequence.
            noise: standard deviation of the noise; at most 10^6.
            reconstruction: the targets are the inputs; ``horizon`` is ignored.
            train_samples: sequences for training; 290 as in the original's example.
            validation_samples: sequences for validation.
            test_samples: sequences for test.
            seed: seed of all three splits, which are drawn independently.
            num_workers: worker processes that make batches; 0 makes them in the main process.

        Raises:
            UserError: ``horizon`` is not less than ``length``.
        """
        if horizon >= length and not reconstruction:
            raise UserError(f"dataset.horizon: got {horizon}, expected less than dataset.length={length}")
        sizes: dict[Split, int] = {"train": train_samples, "validation": validation_samples, "test": test_samples}
        x = STEP * np.arange(length)
        self._horizon = 0 if reconstruction else horizon
        self._signals: dict[Split, Tensor] = {}
        for split, size in sizes.items():
            random = generator(seed, self.name, split)
            phases = random.uniform(0, 10, (size, 1, channels, 2))
            waves = (AMPLITUDES * np.sin(FREQUENCIES * x[:, None, None] + phases)).sum(-1)
            self._signals[split] = torch.from_numpy((waves + random.normal(0, noise, waves.shape)).astype(np.float32))
        spec = DataSpec(
            self.name,
            input_size=channels,
            output_size=channels,
            task="reconstruction" if reconstruction else "regression",
            output_steps=None,
            max_length=length - self._horizon,
            irreducible_error=None if reconstruction else noise**2,
            later_targets=not reconstruction,
        )
        sums = {split: sha256(signals.numpy()) for split, signals in self._signals.items()}
        super().__init__(spec, sizes, Provenance(seed, sums), num_workers)

    def batch(self, split: Split, indices: Tensor) -> Batch:
        """Return inputs (B, T, C) float32 and targets (B, T, C) float32."""
        signals = self._signals[split][indices]
        return Batch(signals[:, : signals.shape[1] - self._horizon], signals[:, self._horizon :])
