"""Sequential and permuted digits: small real images, without a download."""

from importlib.metadata import version

import numpy as np
from pydantic import NonNegativeInt

from seqmem.arguments import checked
from seqmem.data import PermutationName, Provenance, Seed, sha256, stratified_split
from seqmem.datasets.pixels import PixelSequences, permutation_for


class Digits(PixelSequences):
    """The 1797 handwritten digits of 8x8 pixels in scikit-learn, as sequences of 64 pixels or as frames.

    A step is a pixel: inputs are (B, 64, 1) in [0, 1], targets (B,) of 10 classes. With ``frames`` a step is an image: inputs
    are (B, 1, 64). Splits are stratified by class: 1257 for training, 270 for validation, 270 for test.
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
            permute: permute the pixels, in the same way for all images; false keeps them row by row.
            permutation: pixel order if ``permute``: "bitreversal", "nru" (the NRU paper's), or the seed of a random one.
            reconstruction: the targets are the images, and the classes are the labels of a batch.
            frames: an image is one step, a frame of 8x8 pixels.
            split_seed: seed of the choice of validation and test images.
            num_workers: worker processes that make batches; 0 makes them in the main process.
        """
        # Imported here because it takes a second, and listing the data sets must be fast.
        from sklearn.datasets import load_digits

        values, labels = load_digits(return_X_y=True)
        images = values.astype(np.uint8)
        parts = stratified_split(labels, held_out=0.15, seed=split_seed)
        provenance = Provenance(
            seed=split_seed,
            sha256={split: sha256(indices) for split, indices in parts.items()},
            permutation=permutation_for(permute, permutation, images.shape[1]),
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
