"""Random choice of the steps in each patch, from the layer's own generator."""

import numpy as np

from seqmem.errors import UserError


def sample_patches(random: np.random.Generator, ends: np.ndarray, count: int, size: int, backbone: bool) -> np.ndarray:
    """Sample patches of the whole past of some steps.

    A patch of a step t >= p holds p different steps of 0 to t in random order. For t < p the steps may repeat.

    The backbone is the first floor(t / max(p - 1, 1)) + 1 patches of each step. They are windows of p adjacent steps, from t
    back to 0. Neighbouring windows share one step, and together the windows cover every step.

    Args:
        random: source of the random choice.
        ends: t, (S,) integers from 0.
        count: L, patches per step.
        size: p, steps per patch.
        backbone: whether the first patches of each step are the backbone.

    Returns:
        (S, L, p) int32.

    Raises:
        UserError: the backbone needs more than L patches.
    """
    stride = max(size - 1, 1)
    windows = int(ends.max()) // stride + 1
    if backbone and windows > count:
        raise UserError(
            f"nb_patches: got {count}, expected at least {windows} for a backbone that covers {ends.max() + 1} steps with "
            f"patches of {size}; build_backbone=False needs fewer"
        )
    patches = _sample_subsets(random, np.broadcast_to(ends[:, None] + 1, (len(ends), count)), size)
    if backbone:
        starts = ends[:, None, None] - stride * np.arange(windows)[:, None]
        adjacent = np.maximum(starts - np.arange(size), 0)
        patches[:, :windows] = np.where(starts >= 0, adjacent, patches[:, :windows])
    return patches


def sample_local_patches(random: np.random.Generator, ends: np.ndarray, count: int, size: int, stretch: int) -> np.ndarray:
    """Sample patches of the recent past of each step.

    The patches of the last lighthouse may miss that past: a lighthouse stands at every multiple of ``stretch``. A local patch
    of a step t >= p holds p - 1 different earlier steps in random order, then t itself. The earlier steps start one step
    before the lighthouse, or at t - 4 p if that is earlier. With a lighthouse at every step the original has no such bound and
    always takes t - 1. For t < p a patch holds p steps of 0 to t that may repeat.

    Args:
        random: source of the random choice.
        ends: t, (S,) integers from 0.
        count: patches per step.
        size: p, steps per patch.
        stretch: s, steps between two lighthouses.

    Returns:
        (S, count, p) int32.
    """
    oldest = np.maximum(np.minimum(ends // stretch * stretch - 1, ends - 4 * size), 0)
    shape = (len(ends), count)
    late = np.broadcast_to((ends >= size)[:, None], shape)
    patches = _sample_subsets(random, np.broadcast_to(ends[:, None] + 1, shape), size)
    past = _sample_subsets(random, np.broadcast_to((ends - oldest)[:, None], shape), size - 1) + oldest[:, None, None]
    patches[late, :-1] = past[late]
    patches[late, -1] = np.broadcast_to(ends[:, None], shape)[late]
    return patches.astype(np.int32)


def _sample_subsets(random: np.random.Generator, options: np.ndarray, size: int) -> np.ndarray:
    """Sample a subset of 0 to n - 1 for each n in ``options``, by Floyd's algorithm.

    Returns:
        (..., size) int32; with repetition where n <= size.
    """
    subsets = np.empty((*options.shape, size), np.int32)
    repeating = options <= size
    for place in range(size):
        newest = options - size + place  # the largest number that this place may hold
        subsets[..., place] = random.integers(0, np.where(repeating, np.maximum(options, 1), newest + 1))
        taken = (subsets[..., :place] == subsets[..., place, None]).any(-1) & ~repeating
        subsets[..., place] = np.where(taken, newest, subsets[..., place])
    return subsets
