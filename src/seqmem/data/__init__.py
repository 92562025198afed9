"""The contract between data sets and models: batches, specs, splits, masks, and sequences in memory.

A data set gives batches and a spec; a model is built from the spec and called on the batches. Neither knows the other.
"""

from seqmem.data.batch import Batch
from seqmem.data.dataset import DataSet
from seqmem.data.masks import masked, valid_steps
from seqmem.data.provenance import Provenance
from seqmem.data.spec import DataSpec
from seqmem.data.splits import SPLITS, Split

__all__ = ["SPLITS", "Batch", "DataSet", "DataSpec", "Provenance", "Split", "masked", "valid_steps"]
