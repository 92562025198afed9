"""The videos: one of scikit-learn's digits, whole, moving by constant steps and turning at the edges."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from seqmem import datasets
from seqmem.errors import UserError

SMALL = {"name": "moving_digits", "train_samples": 60, "validation_samples": 7, "test_samples": 5}


@pytest.mark.parametrize(("size", "length"), [(16, 10), (9, 25), (31, 1)])
def test_a_whole_digit_moves_smoothly(size, length):
    data = datasets.load({**SMALL, "size": size, "length": length})
    assert data.spec.frame == (size, size)
    batch = data.batch("train", torch.arange(60))
    assert torch.equal(batch.inputs, batch.targets)
    values, labels = load_digits(return_X_y=True)
    known = {(image / 16).astype(np.float32).tobytes(): label for image, label in zip(values, labels, strict=True)}
    moved = False
    for video, label in zip(batch.inputs.unflatten(-1, (size, size)), batch.labels.tolist(), strict=True):
        places = []
        for frame in video.numpy():
            corners = [
                (row, column)
                for row in range(size - 7)
                for column in range(size - 7)
                if known.get(frame[row : row + 8, column : column + 8].tobytes()) == label
                and frame.sum() == pytest.approx(frame[row : row + 8, column : column + 8].sum())
            ]
            assert corners
            places.append(corners[0])
        steps = np.abs(np.diff(places, axis=0))
        assert steps.max(initial=0) <= 3  # two pixels and rounding
        moved |= bool(steps.any())
    assert moved == (length > 1)


def test_splits_share_no_image():
    data = datasets.load({**SMALL, "length": 1})
    drawn = {split: set(data._drawn[split][0].tolist()) for split in datasets.SPLITS}
    assert not drawn["train"] & drawn["validation"]
    assert not drawn["test"] & (drawn["train"] | drawn["validation"])


def test_a_frame_that_is_not_larger_than_a_digit_is_refused():
    with pytest.raises(UserError, match=r"dataset\.size: got 8, expected more than 8"):
        datasets.load({**SMALL, "size": 8})
