"""Training on a GPU: batches that are copied ahead, losses that are not finite, and steps that do not wait."""

import math

import pytest
import torch

from seqmem import datasets
from seqmem.cli import commandline
from seqmem.errors import UserError
from seqmem.training.loop.copied_ahead import copied_ahead
from seqmem.training.loop.module import SequenceModule
from tests.training.test_resume import SMALL
from tests.trials import run_trials

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")]

TINY = [*SMALL, "model.preset=tiny", "train.epochs=2"]


def test_batches_arrive_whole_and_in_order(device):
    data = datasets.load(commandline.compose(["dataset=digits"])["dataset"])
    expected = list(data.loader("train", 100, 0))
    for number, batch in enumerate(copied_ahead(data.loader("train", 100, 0), device)):
        assert batch.inputs.device.type == device.type
        junk = torch.empty_like(batch.inputs).fill_(math.nan)  # takes memory that a batch has freed too early
        assert torch.equal(batch.inputs.cpu(), expected[number].inputs)
        assert torch.equal(batch.targets.cpu(), expected[number].targets)
        assert torch.equal(batch.on_host.inputs, expected[number].inputs)
        del junk
    assert number == len(expected) - 1


def test_a_loss_that_is_not_finite_is_named_by_its_batch(device, tmp_path, monkeypatch):
    original = SequenceModule.training_step

    def spoilt(self, batch, batch_idx):
        if (self.current_epoch, batch_idx) == (1, 1):
            torch.nn.init.constant_(self.model.head[0].weight, math.nan)
        return original(self, batch, batch_idx)

    monkeypatch.setattr(SequenceModule, "training_step", spoilt)
    config = commandline.compose([*TINY, "model=rnn", f"runner.accelerator={'gpu' if device.type == 'cuda' else 'cpu'}"])
    with pytest.raises(UserError, match=r"loss became nan at batch 1 of epoch 2 \(step 4, learning rate 0.001"):
        run_trials(config, datasets.load(config["dataset"]), tmp_path)


@pytest.mark.parametrize("model", ["legs", "lstm", "tcn", "ema"])
def test_no_step_waits(model, device, tmp_path, monkeypatch):
    """torch raises an error where a step of the second epoch, or anything between two of them, waits for the GPU."""
    original = SequenceModule.training_step

    def watched(self, batch, batch_idx):
        if device.type == "cuda" and self.current_epoch == 1 and batch_idx in (0, 2):
            torch.cuda.set_sync_debug_mode("error" if batch_idx == 0 else "default")
        return original(self, batch, batch_idx)

    monkeypatch.setattr(SequenceModule, "training_step", watched)
    config = commandline.compose([*TINY, f"model={model}", f"runner.accelerator={'gpu' if device.type == 'cuda' else 'cpu'}"])
    try:
        [trial] = run_trials(config, datasets.load(config["dataset"]), tmp_path)
    finally:
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("default")
    record = trial.read_record()
    assert record["status"] == "finished"
    assert record["peak_memory_mib"] > 0
