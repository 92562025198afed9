"""Digits against scikit-learn's own arrays."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from seqmem import datasets
from seqmem.data import named_permutation
from seqmem.errors import UserError


def everything(data, split):
    return data.batch(split, torch.arange(data.sizes[split]))


def test_splits_have_all_digits_once_and_are_stratified():
    data = datasets.load({"name": "digits"})
    images, labels = load_digits(return_X_y=True)
    assert data.sizes == {"train": 1257, "validation": 270, "test": 270}
    batches = {split: everything(data, split) for split in datasets.SPLITS}
    found = np.concatenate([np.column_stack([16 * b.inputs[..., 0].numpy(), b.targets.numpy()]) for b in batches.values()])
    assert sorted(found.tolist()) == sorted(np.column_stack([images, labels]).tolist())
    for split, batch in batches.items():
        expected = np.bincount(labels) * data.sizes[split] / 1797
        assert np.abs(np.bincount(batch.targets.numpy()) - expected).max() <= 1.5


def test_values_are_between_0_and_1():
    inputs = everything(datasets.load({"name": "digits"}), "train").inputs
    assert inputs.shape == (1257, 64, 1)
    assert (inputs.min(), inputs.max()) == (0, 1)


def test_a_permutation_without_permute_is_refused():
    for name in ("nru", 3):
        with pytest.raises(UserError, match=rf"^dataset\.permutation: got {name} with dataset\.permute=false, expected"):
            datasets.load({"name": "digits", "permutation": name})


def test_permuted_digits_are_the_same_images_in_the_recorded_order():
    for name in ["bitreversal", "nru"]:
        plain, permuted = (
            datasets.load({"name": "digits"}),
            datasets.load({"name": "digits", "permute": True, "permutation": name}),
        )
        record = permuted.describe()["permutation"]
        assert record == {"name": name, "indices": named_permutation(name, 64).indices}
        assert plain.describe()["permutation"] is None
        for split in datasets.SPLITS:
            assert torch.equal(everything(permuted, split).inputs, everything(plain, split).inputs[:, record["indices"]])
            assert torch.equal(everything(permuted, split).targets, everything(plain, split).targets)
