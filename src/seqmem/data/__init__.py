"""The contract between data sets and models: batches, specs, splits, masks, seeds and provenance.

A data set makes batches and describes them by a spec. A model is built from the spec and called on the batches. Neither imports
the other. All that a data set needs is imported from here; :mod:`seqmem.data.sequences`, :mod:`seqmem.data.text` and
:mod:`seqmem.data.signals` have helpers for single kinds of data.
"""

from seqmem.data.batch import IGNORE_INDEX, Batch
from seqmem.data.dataset import DataSet, EpochSampler
from seqmem.data.generated import GeneratedDataSet, mixed_lengths
from seqmem.data.masks import counted_targets, masked, valid_steps
from seqmem.data.permutations import Permutation, PermutationName, named_permutation
from seqmem.data.provenance import Provenance, label_of, sha256
from seqmem.data.seeds import Seed, generator
from seqmem.data.shuffle import Shuffle
from seqmem.data.spec import DataSpec
from seqmem.data.splits import SPLITS, Split, random_split, stratified_split, stratified_validation
from seqmem.data.subsets import distinct_integers, random_subsets

__all__ = [
    "IGNORE_INDEX",
    "SPLITS",
    "Batch",
    "DataSet",
    "DataSpec",
    "EpochSampler",
    "GeneratedDataSet",
    "Permutation",
    "PermutationName",
    "Provenance",
    "Seed",
    "Shuffle",
    "Split",
    "counted_targets",
    "distinct_integers",
    "generator",
    "label_of",
    "masked",
    "mixed_lengths",
    "named_permutation",
    "random_split",
    "random_subsets",
    "sha256",
    "stratified_split",
    "stratified_validation",
    "valid_steps",
]
