"""Data sets that cannot be identified are refused, or named, before anything is trained."""

import numpy as np
import pytest
import torch

from seqmem import datasets, training
from seqmem.data import SPLITS, Batch, DataSet, DataSpec, Provenance, generator, sha256
from seqmem.errors import UserError
from seqmem.training.engines import data_check
from seqmem.training.engines.data_check import check_data
from tests.training.test_trials import config


def data_set(draw, provenance):
    """A class of data sets whose bits are ``draw(split)``."""

    class Bits(DataSet):
        name = "bits"

        def __init__(self, length: int = 5):
            self.bits = {split: draw(split) for split in SPLITS}
            spec = DataSpec("bits", 2, 2, "classification", 0, length, tokens=True)
            super().__init__(spec, dict.fromkeys(SPLITS, 30), provenance(self.bits))

        def batch(self, split, indices):
            bits = self.bits[split][indices]
            return Batch(bits, bits.sum(1) % 2)

    return Bits


def torch_draws(split):
    return torch.randint(0, 2, (30, 5))


def numpy_draws(split):
    return torch.from_numpy(np.random.default_rng().integers(0, 2, (30, 5)))


def global_numpy_draws(split):
    return torch.from_numpy(np.random.randint(0, 2, (30, 5)))  # noqa: NPY002


def seeded_draws(split):
    return torch.from_numpy(generator(0, split).integers(0, 2, (30, 5)))


def sums(bits):
    return Provenance(0, {split: sha256(array.numpy()) for split, array in bits.items()})


def nothing(bits):
    return Provenance(0, {})


def sums_of_the_rows(bits):
    return Provenance(0, {split: sha256(np.arange(len(array))) for split, array in bits.items()})


def sums_and_a_file(bits):
    return Provenance(None, {split: sha256(np.arange(len(array))) for split, array in bits.items()}, files={"a": "1"})


OTHER_NUMBERS = "data set bits: a second loading gives other numbers"
CASES = [
    (torch_draws, nothing, OTHER_NUMBERS, ""),
    (torch_draws, sums, OTHER_NUMBERS, ""),
    (torch_draws, sums_of_the_rows, OTHER_NUMBERS, ""),
    (numpy_draws, sums_and_a_file, OTHER_NUMBERS, ""),
    (numpy_draws, lambda bits: Provenance(None, {"train": "a"}), OTHER_NUMBERS, ""),
    (seeded_draws, lambda bits: Provenance(None, {}), "has neither a seed nor a checksum; give it Provenance", ""),
    (seeded_draws, nothing, "", "warning: data set bits has no checksum of train, validation, test; give it Provenance"),
    (seeded_draws, sums, "", ""),
    (seeded_draws, sums_and_a_file, "", ""),
]


def test_each_case_in_one_line(monkeypatch, capsys):
    for draw, provenance, refusal, warning in CASES:
        owner = data_set(draw, provenance)
        monkeypatch.setattr(datasets, "_classes", lambda owner=owner: {"bits": owner})
        data = datasets.load({"name": "bits"})
        if refusal:
            with pytest.raises(UserError, match=refusal) as caught:
                check_data({"name": "bits"}, data)
            assert "\n" not in str(caught.value)
        else:
            check_data({"name": "bits"}, data)
        shown = capsys.readouterr().err
        assert shown.startswith(warning)
        assert len(shown.splitlines()) == bool(warning)


def test_other_data_are_not_checked(monkeypatch):
    monkeypatch.setattr(datasets, "load", lambda arguments: pytest.fail("loaded again"))
    check_data({"name": "digits"}, data_set(torch_draws, nothing)())
    check_data({"name": "bits"}, object())


def test_slow_data_with_checksums_are_loaded_again_only_after_global_draws(monkeypatch):
    monkeypatch.setattr(data_check, "_MOST_SECONDS", 0)
    for draw, again in ((torch_draws, True), (global_numpy_draws, True), (seeded_draws, False)):
        owner = data_set(draw, sums)
        monkeypatch.setattr(datasets, "_classes", lambda owner=owner: {"bits": owner})
        data = datasets.load({"name": "bits"})
        assert data.drew_globally == again
        if again:
            with pytest.raises(UserError, match=OTHER_NUMBERS):
                check_data({"name": "bits"}, data)
        with monkeypatch.context() as patch:
            patch.setattr(datasets, "load", lambda arguments: pytest.fail("loaded again"))
            check_data({"name": "bits"}, data_set(draw, sums)())  # made without datasets.load
            if not again:
                check_data({"name": "bits"}, data)


def test_data_of_other_arguments_are_not_taken_for_random(monkeypatch):
    made = iter(generator(1, "x").integers(0, 2, (30, 5)) for _ in range(3))
    first = data_set(lambda split: torch.from_numpy(next(made)), sums)()
    first.load_seconds = 0.1
    monkeypatch.setattr(datasets, "load", lambda arguments: data_set(seeded_draws, sums)())
    check_data({"name": "bits"}, first)


def test_an_experiment_of_unseeded_data_is_refused_before_training(tmp_path, monkeypatch):
    owner = data_set(torch_draws, nothing)
    monkeypatch.setattr(datasets, "load", lambda arguments: owner())
    model = {"network": "recurrent", "cell": "gru", "cell_args": {"hidden_size": 4}}
    with pytest.raises(UserError, match=OTHER_NUMBERS):
        training.experiment(config(model=model, dataset={"name": "bits"}), owner(), tmp_path)
    assert not list(tmp_path.iterdir())
