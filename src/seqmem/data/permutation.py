"""Fixed permutations of the steps of a sequence, by name or by seed."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from seqmem.data.seeds import Seed

PermutationName = Literal["bitreversal", "nru"] | Seed
"""How a permutation is chosen; see :func:`permutation`."""

NRU_SEED = 92916


@dataclass(frozen=True)
class Permutation:
    """A permutation of the steps of a sequence.

    Attributes:
        name: what it was chosen by.
        indices: step t of the permuted sequence is step ``indices[t]`` of the original one.
    """

    name: str | int
    indices: list[int]


def permutation(name: PermutationName, length: int) -> Permutation:
    """The permutation of ``length`` steps that goes by a name.

    Args:
        name: "bitreversal", the order of HiPPO's permuted MNIST: 0, 1, 2, ... with the binary digits of each reversed, those
            not below ``length`` left out. "nru", the order of the NRU and LMU papers: the seed 92916. Or any seed, which
            gives ``numpy.random.RandomState(seed).permutation(length)``.
        length: number of steps.
    """
    if name == "bitreversal":
        return Permutation(name, _bit_reversal(length))
    seed = NRU_SEED if name == "nru" else name
    # RandomState rather than a newer generator: its stream never changes, and published results depend on it.
    return Permutation(name, np.random.RandomState(seed).permutation(length).tolist())


def _bit_reversal(length: int) -> list[int]:
    bits = (length - 1).bit_length()
    reversals = (int(f"{number:0{bits}b}"[::-1], 2) for number in range(1 << bits))
    return [number for number in reversals if number < length]
