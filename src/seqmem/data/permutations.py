"""Fixed permutations of the steps of a sequence, chosen by name or by seed."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from seqmem.data.seeds import Seed

PermutationName = Literal["bitreversal", "nru"] | Seed
"""Choice of a permutation; see :func:`named_permutation`."""

NRU_SEED = 92916


@dataclass(frozen=True)
class Permutation:
    """A permutation of the steps of a sequence.

    Attributes:
        name: the name or seed that it was chosen by.
        indices: step t of the permuted sequence is step ``indices[t]`` of the original one.
    """

    name: str | int
    indices: list[int]


def named_permutation(name: PermutationName, length: int) -> Permutation:
    """Return the permutation of ``length`` steps that a name or seed stands for.

    Args:
        name: "bitreversal" is the order of HiPPO's permuted MNIST: the numbers from 0 with their binary digits reversed,
            without those that are not below ``length``. "nru" is the order of the NRU and LMU papers, the seed 92916. A seed
            gives ``numpy.random.RandomState(seed).permutation(length)``.
        length: T, number of steps.
    """
    if name == "bitreversal":
        return Permutation(name, _bit_reversal(length))
    seed = NRU_SEED if name == "nru" else name
    # RandomState and not a newer generator: its stream never changes, and published results depend on it.
    return Permutation(name, np.random.RandomState(seed).permutation(length).tolist())


def _bit_reversal(length: int) -> list[int]:
    bits = (length - 1).bit_length()
    reversals = (int(f"{number:0{bits}b}"[::-1], 2) for number in range(1 << bits))
    return [number for number in reversals if number < length]
