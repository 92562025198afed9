"""Losses that are not finite: found at once on the CPU, and without waiting on a GPU, before any checkpoint."""

import math
from functools import partial

import pytest
import torch

from seqmem import datasets
from seqmem.cli import commandline
from seqmem.errors import UserError
from seqmem.training.loop import lean, module
from seqmem.training.loop.loss_check import STEPS, LossCheck, Position
from tests.pretended_gpu import PretendedGPU, watched
from tests.training.test_resume import SMALL
from tests.trials import run_trials

WEIGHT = torch.nn.Parameter(torch.zeros(1))


def step(*position, rate=0.5):
    return lambda: (Position(*position), torch.optim.SGD([WEIGHT], rate))


@pytest.mark.parametrize("deferred", [False, True])
@pytest.mark.parametrize("at", [0, 3, STEPS - 1, STEPS, 2 * STEPS + 5])
def test_the_first_wrong_loss_is_named_with_its_batch_step_and_rate(at, deferred):
    check, reached = LossCheck("try a smaller lr", deferred), []

    def train():
        for k in range(3 * STEPS):
            reached.append(k)
            loss = torch.tensor(math.nan if k == at else math.inf if k > at else 1.0, requires_grad=True)
            check.add(loss, step(2, k, k + 7, rate=0.5 if k == at else 0.25))

    message = rf"the training loss became nan at batch {at} of epoch 3 \(step {at + 7}, learning rate 0.5, norm of the "
    with pytest.raises(UserError, match=message + r"gradient before unknown\); try a smaller lr$"):
        train()
    assert reached[-1] == (at // STEPS * STEPS + STEPS - 1 if deferred else at)
    check.wait()  # nothing of the failed training is left


def test_waiting_checks_all():
    check = LossCheck("", deferred=True)
    for value in (1.0, math.inf):
        check.add(torch.tensor(value), step(0, 0, 0))
    with pytest.raises(UserError, match="became inf"):
        check.wait()
    check.add(torch.tensor(1.0), step(0, 0, 0))
    check.wait()


def test_a_loss_of_a_gpu_is_not_waited_for():
    with PretendedGPU(), watched() as waits:
        check = LossCheck("")
        for k in range(STEPS - 1):
            check.add(torch.ones((), device="cuda"), step(0, k, k))
    assert not waits


@pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")
def test_no_checkpoint_holds_weights_that_a_wrong_loss_has_spoilt(tmp_path, monkeypatch):
    """A check that comes late, as on a GPU: the epoch's checkpoint is that of the epoch before."""
    monkeypatch.setattr(module, "LossCheck", partial(LossCheck, deferred=True))
    config = commandline.compose([*SMALL, "model=rnn", "model.preset=tiny", "train.checkpoint_minutes=0"])
    data, original = datasets.load(config["dataset"]), module.SequenceModule.training_step

    def spoilt(self, batch, batch_idx):
        if (self.current_epoch, batch_idx) == (1, 0):
            torch.nn.init.constant_(self.model.head[0].weight, math.nan)
        return original(self, batch, batch_idx)

    monkeypatch.setattr(module.SequenceModule, "training_step", spoilt)
    with pytest.raises(UserError, match=r"loss became nan at batch 0 of epoch 2 \(step 3, learning rate 0.001, .*unknown"):
        run_trials(config, data, tmp_path)
    [folder] = tmp_path.glob("*/seed_0")
    for name in ("best.ckpt", "last.ckpt"):
        checkpoint = torch.load(folder / "checkpoints" / name, weights_only=True)
        assert checkpoint["global_step"] == 3
        assert all(value.isfinite().all() for value in checkpoint["state_dict"].values())


def test_the_lean_loop_ends_with_the_epoch_in_which_it_was(monkeypatch):
    from tests.training import test_lean

    monkeypatch.setattr(lean, "LossCheck", partial(LossCheck, deferred=True))
    spoiled = test_lean.batches()[:2]
    spoiled[0].targets[:] = math.nan
    with pytest.raises(UserError, match=r"loss became nan at batch 0 of epoch 1 \(step 0"):
        test_lean.lean().run(lambda _: spoiled, range(2), lean.Observer())
