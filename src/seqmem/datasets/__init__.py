'''Data sets, one module each: loading or drawing, splitting and batching, without models.

    from seqmem import datasets

    data = datasets.load({"name": "digits", "permute": True})
    for batch in data.loader("train", batch_size=50, seed=0):
        batch.inputs  # (50, 64, 1)

To add a data set, write one module in ``datasets/`` and one YAML with the same arguments in ``cfg/dataset/``; nothing else has
to be edited. The annotations of the constructor's arguments are the schema of the configuration, so a wrong value is refused
before anything is loaded. A data set must state where its numbers come from (:class:`seqmem.data.Provenance`): results are
filed by its seed and checksums. ``tests/datasets/test_every_data_set.py`` tests every data set. For example,
``datasets/majority.py``::

    from pydantic import NonNegativeInt, PositiveInt

    from seqmem.arguments import checked
    from seqmem.data import SPLITS, DataSpec, GeneratedDataSet, Seed


    class Majority(GeneratedDataSet):
        """Bits (B, T); the target at the end is 1 if more than half of them are 1, else 0."""

        name = "majority"

        @checked
        def __init__(self, length: PositiveInt = 50, fresh: bool = True, seed: Seed = 0, num_workers: NonNegativeInt = 0):
            spec = DataSpec("majority", 2, 2, "classification", output_steps=0, max_length=length, tokens=True)
            sizes, lengths = dict.fromkeys(SPLITS, 500), dict.fromkeys(SPLITS, (length,))
            super().__init__(spec, sizes, lengths, seed=seed, fresh=fresh, num_workers=num_workers)

        def draw(self, random, count, length):
            bits = random.integers(0, 2, (count, length))
            return bits, 2 * bits.sum(axis=1) > length

and ``cfg/dataset/majority.yaml``::

    name: majority
    length: 50  # bits in a sequence
    fresh: true  # draw training sequences anew in each epoch, from the trial's seed
    seed: 0  # seed of the splits that are not drawn anew
    num_workers: 0  # worker processes that make batches; 0: the main process

Then ``python train.py dataset=majority dataset.length=200`` runs. :class:`seqmem.data.GeneratedDataSet` makes the splits and
their checksums from ``draw``. A data set that reads files derives from :class:`seqmem.data.DataSet` and makes its own batches.
'''

import pkgutil
import sys
import time
from collections.abc import Collection, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

from seqmem import arguments as _arguments
from seqmem import plugins
from seqmem.data import SPLITS, DataSet, Split
from seqmem.errors import UserError, suggestion

__all__ = ["SPLITS", "DataSet", "Split", "at_length", "check", "get", "load", "names", "of_test"]

# A checkout has the data sets in its datasets/, which has no __init__.py so that Hugging Face's library keeps the name
# "datasets". The build copies them to the folder of this file.
_checkout = Path(__file__).parents[3] / "datasets"
if not Path(__file__).with_name("digits.py").exists() and _checkout.is_dir():
    __path__.append(str(_checkout))


def names(argument: str | None = None) -> list[str]:
    """Return the names of all data sets, in alphabetical order.

    Args:
        argument: leave out the data sets whose constructor has no argument of this name; None leaves out none.
    """
    found = _classes()
    return sorted(name for name in found if argument is None or argument in _arguments.parameters(found[name]))


def get(name: str) -> type[DataSet]:
    """Return the class of a data set.

    Raises:
        UserError: there is no such data set.
    """
    classes = _classes()
    if not isinstance(name, str) or name not in classes:
        raise UserError(f"dataset.name: got {name!r}, expected a data set{suggestion(name, sorted(classes))}")
    return classes[name]


def check(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Check the arguments of a data set without reading any file.

    Args:
        arguments: ``name`` of the data set, and arguments of its constructor.

    Returns:
        The arguments of its constructor, with defaults filled in.

    Raises:
        UserError: an unknown data set or argument, or a value of the wrong type or out of range.
    """
    return _resolve(arguments)[1]


def as_declared(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return checked arguments with numbers in the types of the constructor, see :func:`seqmem.arguments.as_declared`."""
    return _arguments.as_declared(_classes()[arguments["name"]], arguments)


def load(arguments: Mapping[str, Any], preparation: Mapping[str, Any] | None = None) -> DataSet:
    """Load or draw a data set; its files are downloaded if they do not exist.

    Args:
        arguments: as in :func:`check`, which is called first.
        preparation: that of a trial (:meth:`seqmem.data.DataSet.preparation`), by which inputs are prepared instead of by
            the statistics or the vocabulary of the data's own training split; None for the latter.

    Raises:
        UserError: as in :func:`check`; or a file is missing and cannot be downloaded, is damaged, or cannot be read or written.
    """
    owner, checked = _resolve(arguments)
    start, before = time.perf_counter(), _random_states()
    data = owner(**checked) if preparation is None else owner.like(preparation, checked)
    data.load_seconds, data.drew_globally = time.perf_counter() - start, _random_states() != before
    return data


def at_length(arguments: Mapping[str, Any], length: int) -> dict[str, Any]:
    """Return the arguments of the same data set with sequences of one length, see :meth:`seqmem.data.DataSet.at_length`.

    Args:
        arguments: as in :func:`check`.
        length: as the data set's argument ``length`` counts it.

    Raises:
        UserError: as in :func:`check`, or the data set has no length to choose.
    """
    owner = _resolve(arguments)[0]
    changed = {"name": arguments["name"], **owner.at_length({k: v for k, v in arguments.items() if k != "name"}, length)}
    check(changed)
    return changed


def of_test(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments with the same test split, and with few sequences in the others where that is possible.

    Args:
        arguments: as in :func:`check`.

    Raises:
        UserError: as in :func:`check`.
    """
    owner, known = _resolve(arguments)
    others = ("train_samples", "validation_samples")
    return {**arguments, **{key: 1 for key in others if owner.separate_test and key in known}}


def _random_states() -> tuple[bytes, str]:
    """Return the states of the global generators of torch and NumPy. Importing scikit-learn changes that of Python."""
    state = np.random.get_state(legacy=False)  # noqa: NPY002
    with np.printoptions(threshold=sys.maxsize):
        return torch.get_rng_state().numpy().tobytes(), repr(state)


def _resolve(arguments: Mapping[str, Any]) -> tuple[type[DataSet], dict[str, Any]]:
    given = dict(arguments)
    if "name" not in given:
        raise UserError(f"dataset.name: a value is required; choose from: {', '.join(names())}")
    owner = get(given.pop("name"))
    return owner, _arguments.check(owner, given, where="dataset")


def _classes() -> dict[str, type[DataSet]]:
    modules = [import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)]
    found = [value for module in modules for value in vars(module).values() if isinstance(value, type)]
    registry: dict[str, type[DataSet]] = {}
    # A base class of several data sets does not define "name" and is left out.
    for owner in [*found, *_of_plugins(DataSet, plugins.packages())]:
        if issubclass(owner, DataSet) and "name" in vars(owner):
            plugins.register(registry, owner)
    return registry


def _of_plugins(base: type, packages: Collection[str]) -> Iterator[type]:
    """Yield the classes below ``base`` that plugins define."""
    derived: type
    for derived in type.__subclasses__(base):
        if derived.__module__.partition(".")[0] in packages:
            yield derived
        yield from _of_plugins(derived, packages)
