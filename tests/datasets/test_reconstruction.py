"""Data sets whose targets can be their inputs, with the classes as labels."""

import pytest
import torch

from seqmem import datasets

WITH_CLASSES = ("ct", "digits", "uea")


@pytest.mark.parametrize("name", [*WITH_CLASSES, "sinusoids"])
def test_targets_are_the_inputs_and_labels_the_classes(name, load_small):
    padding = {"padding": "mask"} if name == "ct" else {}
    plain, data = load_small(name, **padding), load_small(name, reconstruction=True, **padding)
    assert data.spec.task == "reconstruction"
    assert data.spec.output_size == data.spec.input_size == plain.spec.input_size
    assert data.spec.output_steps is None
    for split in datasets.SPLITS:
        everything = torch.arange(plain.sizes[split])
        before, batch = plain.batch(split, everything), data.batch(split, everything)
        assert torch.equal(batch.targets, batch.inputs)
        assert batch.inputs.shape[1] <= data.spec.max_length
        if name in WITH_CLASSES:
            assert torch.equal(batch.inputs, before.inputs)
            assert torch.equal(batch.labels, before.targets)
            assert before.labels is None
            assert (batch.lengths is None) == (before.lengths is None)
        else:
            assert torch.equal(batch.inputs[:, : before.inputs.shape[1]], before.inputs)
            assert batch.inputs.shape[1] == data.spec.max_length == plain.spec.max_length + 3
            assert data.spec.irreducible_error is None


def test_digits_as_frames_are_the_same_pixels(load_small):
    pixels, frames = load_small("digits", reconstruction=True), load_small("digits", reconstruction=True, frames=True)
    few = torch.arange(9)
    assert frames.spec.frame == (8, 8)
    assert frames.batch("test", few).inputs.shape == (9, 1, 64)
    assert torch.equal(frames.batch("test", few).inputs[:, 0], pixels.batch("test", few).inputs[..., 0])
    assert load_small("digits", frames=True).batch("test", few).targets.shape == (9,)


def test_a_signal_shorter_than_the_horizon_can_be_reconstructed():
    data = datasets.load({"name": "sinusoids", "length": 2, "reconstruction": True, "train_samples": 3})
    assert data.batch("train", torch.arange(3)).inputs.shape == (3, 2, 1)
