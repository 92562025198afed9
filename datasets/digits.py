"""Sequential and permuted digits: small real images that need no download."""

from importlib.metadata import version

import numpy as np
from pydantic import NonNegativeInt
from seqmem.datasets.pixels import PixelSequences

from seqmem.arguments import checked
from seqmem.data.permutation import PermutationName
from seqmem.data.permutation import permutation as named_permutation
from seqmem.data.provenance import Provenance, sha256
from seqmem.data.seeds import Seed
from seqmem.data.splits import stratified_split


class Digits(PixelSequences):
    """The 1797 handwritten digits of 8x8 pixels that come with scikit-learn, as sequences of 64 pixels or as frames.

    Splits are stratified by class: 1257 for training, 270 for validation, 270 for test.
    """

    name = "digits"

    @checked
    def __init__(
        self,
        permute: bool = False,
        permutation: PermutationName = "bitreversal",
        reconstruction: bool = False,
        frames: bool = False,
        split_seed: Seed = 0,
        num_workers: NonNegativeInt = 0,
    ):
        """Load the images and split them.

        Args:
            permute: whether the pixels come in another order than row by row, the same for all images.
            permutation: that order, if ``permute``: "bitreversal", "nru" or a seed (see :mod:`seqmem.data.permutation`).
            reconstruction: the images themselves are wanted, instead of their classes.
            frames: an image is one step, a frame of 8x8 pixels.
            split_seed: of the choice of validation and test images.
            num_workers: processes that make batches; 0 makes them in the main one.
        """
        # Imported here because it takes a second, and listing the data sets must not.
        from sklearn.datasets import load_digits

        values, labels = load_digits(return_X_y=True)
        images = values.astype(np.uint8)
        parts = stratified_split(labels, held_out=0.15, seed=split_seed)
        provenance = Provenance(
            seed=split_seed,
            sha256={split: sha256(indices) for split, indices in parts.items()},
            permutation=named_permutation(permutation, images.shape[1]) if permute else None,
            files={f"scikit-learn {version('scikit-learn')} load_digits": sha256(values, labels)},
        )
        super().__init__(
            {split: images[indices] for split, indices in parts.items()},
            {split: labels[indices] for split, indices in parts.items()},
            white=16,
            classes=10,
            provenance=provenance,
            num_workers=num_workers,
            reconstruction=reconstruction,
            frame=(8, 8) if frames else None,
        )
