"""Band-limited white noise: signals to be kept in a few numbers and given back."""

from typing import Annotated

import numpy as np
import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor

from seqmem.arguments import checked
from seqmem.data.batch import Batch
from seqmem.data.dataset import DataSet
from seqmem.data.provenance import Provenance, sha256
from seqmem.data.seeds import Seed, generator
from seqmem.data.spec import DataSpec
from seqmem.data.splits import Split
from seqmem.errors import UserError


class WhiteNoise(DataSet):
    """Periodic signals of normal amplitudes of equal variance at 1, 2, ... ``frequency`` oscillations over their length.

    Inputs and targets are the same signal (B, T, 1), of mean 0: it is read sample by sample, and wanted from the last state.
    This is the function approximation experiment of HiPPO (table 3), at 10^6 samples. A polynomial of order N holds somewhat
    fewer than N / pi oscillations; the default of 100 is beyond that for order 256, and gives errors like the published ones.
    (The paper's own is not known here.)
    """

    name = "white_noise"

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
        """Draw the amplitudes; a signal is made of them when its batch is asked for.

        Args:
            length: T, samples of a signal.
            frequency: the highest number of oscillations over the whole signal.
            rms: root mean square of each signal, at most 10^6; always predicting 0 has an error of its square.
            train_samples: signals for training.
            validation_samples: signals for validation.
            test_samples: signals for test.
            seed: of the amplitudes.
            num_workers: processes that make batches; 0 makes them in the main one.

        Raises:
            UserError: more oscillations than so few samples can hold.
        """
        if length <= 2 * frequency:
            raise UserError(f"dataset.length: got {length}, expected more than {2 * frequency}, for {frequency} oscillations")
        sizes: dict[Split, int] = {"train": train_samples, "validation": validation_samples, "test": test_samples}
        self._length = length
        self._amplitudes = {split: _amplitudes(size, frequency, rms, seed, split) for split, size in sizes.items()}
        spec = DataSpec(self.name, 1, 1, "reconstruction", output_steps=None, max_length=length)
        sums = {split: sha256(values) for split, values in self._amplitudes.items()}
        super().__init__(spec, sizes, Provenance(seed, sums), num_workers)

    def batch(self, split: Split, indices: Tensor) -> Batch:
        """Inputs (B, T, 1) float32, which are the targets too."""
        amplitudes = self._amplitudes[split][indices.numpy()]
        spectrum = np.zeros((len(amplitudes), self._length // 2 + 1), complex)
        spectrum[:, 1 : amplitudes.shape[1] + 1] = amplitudes
        signals = torch.from_numpy(np.fft.irfft(spectrum, self._length, norm="forward").astype(np.float32)).unsqueeze(-1)
        return Batch(signals, signals.clone())


def _amplitudes(count: int, frequency: int, rms: float, seed: int, split: Split) -> np.ndarray:
    """(count, frequency) complex; an amplitude a stands for a exp(i k x) and its conjugate."""
    parts = generator(seed, WhiteNoise.name, split).standard_normal((count, frequency, 2))
    drawn = parts[..., 0] + 1j * parts[..., 1]
    return drawn * rms / np.sqrt(2 * (np.abs(drawn) ** 2).sum(-1, keepdims=True))
