"""NumPy numbers are taken wherever a data set or a config states a number."""

import json

import numpy as np
import pytest
import torch

from seqmem import datasets, models
from seqmem.cells import GRU
from seqmem.data import Batch, DataSet, DataSpec, Provenance, sha256
from seqmem.errors import UserError
from seqmem.training.config import check_config

SPEC = DataSpec(
    "counts",
    np.int64(3),
    np.int32(2),
    "classification",
    np.array(2),
    np.uint8(5),
    tokens=np.bool_(False),
    irreducible_error=np.float32(0.5),
    frame=(np.int64(1), np.int64(3)),
)


class Counts(DataSet):
    """Batches of NumPy arrays."""

    name = "counts"

    def __init__(self):
        sizes = dict(zip(("train", "validation", "test"), np.array([6, 3, 3]), strict=True))
        super().__init__(SPEC, sizes, Provenance(np.int64(7), {split: sha256(np.arange(3)) for split in sizes}))

    def batch(self, split, indices):
        rows = len(indices)
        inputs = np.ones((rows, 5, 3), np.float32)
        inputs.flags.writeable = False
        return Batch(inputs, np.ones((rows, 2), np.uint8), np.full(rows, 4, np.int32))


def test_a_spec_has_python_numbers():
    assert DataSpec("counts", 3, 2, "classification", 2, 5, irreducible_error=0.5, frame=(1, 3)) == SPEC
    assert {type(value) for value in vars(SPEC).values()} == {str, int, bool, float, tuple, type(None)}
    for changes, message in (
        ({"input_size": 0}, r"DataSpec\.input_size: got 0, expected greater than 0"),
        ({"output_size": 2.5}, r"DataSpec\.output_size: got 2\.5, expected a valid integer"),
        ({"max_length": "5"}, r"DataSpec\.max_length: got '5', expected a valid integer"),
    ):
        with pytest.raises(UserError, match=message):
            DataSpec(**{**vars(SPEC), **changes})


def test_a_data_set_of_numpy_arrays_trains_and_is_recorded():
    data = Counts()
    assert json.loads(json.dumps(data.describe()))["sizes"] == {"train": 6, "validation": 3, "test": 3}
    assert data.describe()["seed"] == 7
    model = models.build({"network": "recurrent", "cell": "gru", "cell_args": {"hidden_size": np.int64(4)}}, data.spec)
    [batch] = data.loader("train", np.int64(6), np.int64(1))
    assert batch.lengths.dtype == batch.targets.dtype == torch.int64
    assert model(batch).shape == (6, 2, 2)


def test_sizes_are_checked():
    for sizes in ({"train": 3}, {"train": 3, "validation": 0, "test": 1}, {"train": 3, "validation": 1.5, "test": 1}):
        with pytest.raises(UserError, match=r"sizes of counts: got \{.*\}, expected a number of sequences above 0 for each of"):
            DataSet.__init__(Counts.__new__(Counts), SPEC, sizes, Provenance(0, {}))


def test_arguments_and_configs_take_numpy_numbers():
    arguments = {
        "name": "adding",
        "length": np.int64(7),
        "train_samples": np.array(4),
        "validation_samples": 1,
        "test_samples": 1,
    }
    assert datasets.load(arguments).batch("train", torch.arange(4)).inputs.shape == (4, 7, 2)
    assert GRU(np.int64(3), hidden_size=np.int16(5)).output_size == 5
    config = check_config(
        {
            "model": {"network": "recurrent", "cell": "gru", "cell_args": {"hidden_size": np.int64(4)}},
            "dataset": arguments,
            "train": {"epochs": np.int64(1), "lr": np.float32(0.5)},
            "runner": {"accelerator": "cpu"},
            "seed": np.uint32(3),
        }
    )
    assert json.loads(json.dumps(config)) == config
    assert (config["seed"], config["train"]["lr"], config["model"]["cell_args"]["hidden_size"]) == (3, 0.5, 4)
