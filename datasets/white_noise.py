"""Band-limited white noise: signals to reconstruct from a memory of a few numbers."""

from typing import Annotated

import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor

from seqmem.arguments import checked
from seqmem.data import Batch, DataSet, DataSpec, Provenance, Seed, Split, generator, sha256
from seqmem.data.signals import scale_amplitudes, synthesize
from seqmem.errors import UserError


class WhiteNoise(DataSet):
    """Periodic signals with normal amplitudes of equal variance at 1, 2, ... ``frequency`` oscillations over their length.

    Inputs and targets are the same signal (B, T, 1), of mean 0: a model reads it sample by sample and reconstructs it from its
    last state. This is the function approximation experiment of HiPPO (table 3), at 10^6 samples. A polynomial of order N holds
    somewhat fewer than N / pi oscillations. The default of 100 is beyond that for order 256, and gives errors like the
    published ones. The paper's own frequency is not known.
    """

    name = "white_noise"
    separate_test = True

    @checked
    def __init__(
        self,
        length: PositiveInt = 1_000_000,
        frequency: PositiveInt = 100,
        rms: Annotated[float, Field(gt=0, le=1e6)] = 0.5,
        train_samples: PositiveInt = 1024,
        validation_samples: PositiveInt = 1,
        test_samples: PositiveInt = 4,
        seed: Seed = 0,
        num_workers: NonNegativeInt = 0,
    ):
        """Draw the amplitudes; signals are computed batch by batch.

        Args:
            length: T, samples of a signal.
            frequency: the highest number of oscillations over the whole signal.
            rms: root mean square of each signal, at most 10^6; always predicting 0 has a mean squared error of ``rms**2``.
            train_samples: signals for training.
            validation_samples: signals for validation.
            test_samples: signals for test.
            seed: seed of the amplitudes.
            num_workers: worker processes that make batches; 0 makes them in the main process.

        Raises:
            UserError: ``length`` is too short for ``frequency`` oscillations.
        """
        if length <= 2 * frequency:
            raise UserError(f"dataset.length: got {length}, expected more than {2 * frequency}, for {frequency} oscillations")
        sizes: dict[Split, int] = {"train": train_samples, "validation": validation_samples, "test": test_samples}
        self._length = length
        self._amplitudes = {}
        for split, size in sizes.items():
            parts = generator(seed, self.name, split).standard_normal((size, frequency, 2))
            self._amplitudes[split] = scale_amplitudes(parts[..., 0] + 1j * parts[..., 1], rms)
        spec = DataSpec(self.name, 1, 1, "reconstruction", output_steps=None, max_length=length)
        sums = {split: sha256(values) for split, values in self._amplitudes.items()}
        super().__init__(spec, sizes, Provenance(seed, sums), num_workers)

    def batch(self, split: Split, indices: Tensor) -> Batch:
        """Return inputs (B, T, 1) float32 and equal targets."""
        signals = torch.from_numpy(synthesize(self._amplitudes[split][indices.numpy()], self._length)).float().unsqueeze(-1)
        return Batch(signals, signals.clone())
