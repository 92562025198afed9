"""Which steps of a sequence each patch takes: drawn once, from a generator of their own."""

import numpy as np

from seqmem.errors import UserError


def draw_patches(random: np.random.Generator, ends: np.ndarray, count: int, size: int, backbone: bool) -> np.ndarray:
    """Patches that look back from some steps over everything before them.

    For a step t >= p these are p different steps of 0 to t, in no order; for t < p, p steps of 0 to t that may repeat. With a
    backbone the first floor(t / max(p - 1, 1)) + 1 patches are windows of p steps each instead, which lie side by side from t
    back to 0 and share one step with each neighbour: together they take every step.

    Args:
        random: where the choice comes from.
        ends: t, (S,) integers from 0.
        count: L, patches of each step.
        size: p.
        backbone: whether the first patches of each step cover all that is before it.

    Returns:
        (S, L, p) int32.

    Raises:
        UserError: the backbone needs more than L patches.
    """
    stride = max(size - 1, 1)
    needed = int(ends.max()) // stride + 1
    if backbone and needed > count:
        raise UserError(
            f"nb_patches: got {count}, expected at least {needed}, which the backbone takes to cover "
            f"{ends.max() + 1} steps with "
            f"patches of {size}; build_backbone=False does without"
        )
    drawn = _subsets(random, np.broadcast_to(ends[:, None] + 1, (len(ends), count)), size)
    if backbone:
        starts = ends[:, None, None] - stride * np.arange(needed)[:, None]
        windows = np.maximum(starts - np.arange(size), 0)
        drawn[:, :needed] = np.where(starts >= 0, windows, drawn[:, :needed])
    return drawn


def draw_local_patches(random: np.random.Generator, ends: np.ndarray, count: int, size: int, stretch: int) -> np.ndarray:
    """Patches of each step's near past, where those of the last lighthouse (a multiple of ``stretch``) may know nothing of it.

    Each is the step t itself, in the last place, and p - 1 different steps from the one before the lighthouse on, or of the
    last 4 p if that is more: with a lighthouse at every step the original, which has no such bound, takes t - 1 each time.
    For t < p they are p steps of 0 to t that may repeat.

    Args:
        random: where the choice comes from.
        ends: t, (S,) integers from 0.
        count: patches of each step.
        size: p.
        stretch: s, the distance of two lighthouses.

    Returns:
        (S, count, p) int32.
    """
    oldest = np.maximum(np.minimum(ends // stretch * stretch - 1, ends - 4 * size), 0)
    shape = (len(ends), count)
    late = np.broadcast_to((ends >= size)[:, None], shape)
    drawn = _subsets(random, np.broadcast_to(ends[:, None] + 1, shape), size)
    past = _subsets(random, np.broadcast_to((ends - oldest)[:, None], shape), size - 1) + oldest[:, None, None]
    drawn[late, :-1] = past[late]
    drawn[late, -1] = np.broadcast_to(ends[:, None], shape)[late]
    return drawn.astype(np.int32)


def _subsets(random: np.random.Generator, options: np.ndarray, size: int) -> np.ndarray:
    """For each number n of ``options`` a random subset of 0 to n - 1, (..., size) int32; with repetition where n <= size."""
    chosen = np.empty((*options.shape, size), np.int32)
    repeating = options <= size
    # Floyd's algorithm: the next of a growing range, or its newest member if that one is taken already.
    for place in range(size):
        newest = options - size + place
        chosen[..., place] = random.integers(0, np.where(repeating, np.maximum(options, 1), newest + 1))
        taken = (chosen[..., :place] == chosen[..., place, None]).any(-1) & ~repeating
        chosen[..., place] = np.where(taken, newest, chosen[..., place])
    return chosen
