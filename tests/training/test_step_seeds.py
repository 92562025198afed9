"""Random numbers of a training step: they follow from seed, epoch, batch and process alone."""

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from seqmem.training.checkpoints.seeds import StepSeeds


def drawn(seed=1, epoch=2, batch=3, rank=0):
    trainer = SimpleNamespace(global_rank=rank, current_epoch=epoch)
    StepSeeds(seed).on_train_batch_start(trainer, None, None, batch)
    return random.random(), np.random.random(), torch.rand(()).item()  # noqa: NPY002


def test_a_step_draws_the_same_numbers_whatever_was_drawn_before():
    first = drawn()
    drawn(seed=5)
    assert drawn() == first


@pytest.mark.parametrize("changed", ["seed", "epoch", "batch", "rank"])
def test_different_steps_draw_different_numbers(changed):
    pairs = zip(drawn(), drawn(**{changed: 7}), strict=True)
    assert all(first != second for first, second in pairs)
