'''Data sets: how each is got, split and batched. They know nothing of models.

    from seqmem import datasets

    data = datasets.load({"name": "digits", "permute": True})
    for batch in data.loader("train", batch_size=50, seed=0):
        batch.inputs  # (50, 64, 1)

How to add a data set: one module here and one YAML with the same arguments in ``cfg/dataset/``; nothing else is edited.
The arguments of the constructor, with their annotations, are the schema of the configuration, so a wrong value is refused
before anything is loaded. The tests in ``tests/datasets`` pick the new data set up. ``datasets/parity.py`` could be::

    import torch
    from pydantic import NonNegativeInt, PositiveInt

    from seqmem.data.dataset import DataSet
    from seqmem.data.provenance import Provenance, sha256
    from seqmem.data.seeds import Seed, generator
    from seqmem.data.splits import SPLITS
    from seqmem.arguments import checked
    from seqmem.data.batch import Batch
    from seqmem.data.spec import DataSpec


    class Parity(DataSet):
        """Is the number of ones in a sequence of bits even (class 0) or odd (class 1)?"""

        name = "parity"

        @checked
        def __init__(self, length: PositiveInt = 50, seed: Seed = 0, num_workers: NonNegativeInt = 0):
            bits = {split: generator(seed, "parity", split).integers(0, 2, (500, length)) for split in SPLITS}
            self._bits = {split: torch.from_numpy(array) for split, array in bits.items()}
            spec = DataSpec("parity", 2, 2, "classification", output_steps=0, max_length=length, tokens=True)
            provenance = Provenance(seed, {split: sha256(array) for split, array in bits.items()})
            super().__init__(spec, dict.fromkeys(SPLITS, 500), provenance, num_workers)

        def batch(self, split, indices):
            bits = self._bits[split][indices]
            return Batch(bits, bits.sum(dim=1) % 2)

and ``cfg/dataset/parity.yaml``, after which ``python train.py dataset=parity dataset.length=200`` runs::

    name: parity
    length: 50  # bits in a sequence
    seed: 0  # of the sequences
    num_workers: 0  # processes that make batches; 0: the main one
'''

import pkgutil
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from seqmem import arguments as _arguments
from seqmem.data.dataset import DataSet
from seqmem.data.splits import SPLITS, Split
from seqmem.errors import UserError, suggestion

__all__ = ["SPLITS", "DataSet", "Split", "check", "load", "names"]

# In a checkout the data sets lie in its datasets/, which has no __init__.py: Hugging Face's library keeps the name "datasets".
# The build puts them beside this file.
_checkout = Path(__file__).parents[3] / "datasets"
if _checkout.is_dir():
    __path__.append(str(_checkout))


def names() -> list[str]:
    """The data sets that :func:`load` knows, in alphabetical order."""
    return sorted(_classes())


def check(arguments: Mapping[str, Any]) -> None:
    """Check the arguments of a data set without touching any file.

    Args:
        arguments: ``name`` picks the data set; the rest are arguments of its constructor.

    Raises:
        UserError: no such data set, an argument that it does not take, or a value of the wrong type or out of range.
    """
    _resolve(arguments)


def load(arguments: Mapping[str, Any]) -> DataSet:
    """Get a data set ready for use; its files are downloaded only if they are not there.

    Args:
        arguments: as in :func:`check`, which is called first.

    Raises:
        UserError: as in :func:`check`; or a file is missing and cannot be had, damaged, or cannot be read or written.
    """
    owner, checked = _resolve(arguments)
    return owner(**checked)


def _resolve(arguments: Mapping[str, Any]) -> tuple[type[DataSet], dict[str, Any]]:
    given = dict(arguments)
    if "name" not in given:
        raise UserError(f"dataset.name: a value is required; choose from: {', '.join(names())}")
    name = given.pop("name")
    classes = _classes()
    if not isinstance(name, str) or name not in classes:
        raise UserError(f"dataset.name: there is no data set {name!r}{suggestion(name, sorted(classes))}")
    return classes[name], _arguments.check(classes[name], given, where="dataset")


def _classes() -> dict[str, type[DataSet]]:
    modules = [import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)]
    found = [value for module in modules for value in vars(module).values() if isinstance(value, type)]
    # A shared base class has no name of its own, so it is not taken for a data set.
    return {owner.name: owner for owner in found if issubclass(owner, DataSet) and "name" in vars(owner)}
