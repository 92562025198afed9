"""Steps with an output, their lighthouses, and the blocks of steps that a layer computes one at a time."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


class Block(NamedTuple):
    """One block of steps, as slices into the three arrays that it is a part of.

    Attributes:
        lighthouses: slice of the lighthouses.
        steps: slice of the feature map's steps.
        outputs: slice of the steps that have an output.
    """

    lighthouses: slice
    steps: slice
    outputs: slice


@dataclass(frozen=True)
class Layout:
    """Positions of outputs and lighthouses in a sequence.

    Attributes:
        steps: T, steps of the feature map.
        stretch: s, steps between two lighthouses.
        outputs: (S,) the last S steps, each of which has an output.
        lighthouses: (N,) multiples of s; the first may precede the first output.
        blocks: consecutive parts of the outputs.
    """

    steps: int
    stretch: int
    outputs: np.ndarray
    lighthouses: np.ndarray
    blocks: list[Block]


def make_layout(steps: int, stretch: int, outputs: int, patches: int, filters: int) -> Layout:
    """Place lighthouses and split the outputs into blocks.

    Every block computes the feature map again, so a block's outputs hold at least four times as many numbers as the map.

    Args:
        steps: T, steps of the feature map.
        stretch: s, a divisor of T.
        outputs: S, the number of last steps that have an output.
        patches: global and local patches of a step.
        filters: K, channels of the feature map.
    """
    first = steps - outputs
    lighthouses = np.arange(first // stretch, -(-steps // stretch)) * stretch
    count = max(outputs * patches // (4 * steps * filters), 1)
    size = -(-len(lighthouses) // count)
    blocks = []
    for begin in range(0, len(lighthouses), size):
        end = min(begin + size, len(lighthouses))
        start, stop = max(int(lighthouses[begin]), first), int(lighthouses[end - 1]) + stretch
        blocks.append(Block(slice(begin, end), slice(start, stop), slice(start - first, stop - first)))
    return Layout(steps, stretch, np.arange(first, steps), lighthouses, blocks)
