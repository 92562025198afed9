"""Training steps in Lightning's own loop on a pretended GPU: no step waits for it, nor does anything between two steps."""

from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.accelerators import CPUAccelerator
from pytorch_lightning.strategies import SingleDeviceStrategy
from torch import nn

from seqmem import datasets, models
from seqmem.cli import commandline
from seqmem.results.record import RunFolder
from seqmem.tasks import task_for
from seqmem.training.checkpoints.saving import WithinEpoch
from seqmem.training.checkpoints.seeds import StepSeeds
from seqmem.training.config import TrainConfig, model_arguments
from seqmem.training.loop import copied_ahead, loss_check
from seqmem.training.loop.averaging import WeightAverage
from seqmem.training.loop.module import SequenceModule
from seqmem.training.loop.progress import FirstLine, TimedProgressBar
from seqmem.training.loop.quiet import quiet_lightning
from seqmem.training.loop.recorder import EpochRecorder
from seqmem.training.loop.splits import Splits
from tests.pretended_gpu import CUDA, PretendedGPU, watched
from tests.test_no_wait_for_a_gpu import refuse

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")


TCN = ["dataset=digits", "model=tcn", "model.num_layers=1"]


class Accelerator(CPUAccelerator):
    """An accelerator for a device that is not there."""

    def setup_device(self, device: torch.device) -> None:
        pass


class Strategy(SingleDeviceStrategy):
    """A strategy that leaves the model there."""

    def teardown(self) -> None:
        pass


class Event:
    """An event that has always happened."""

    def record(self, stream):
        pass

    def query(self):
        return True

    def synchronize(self):
        pass


class Watched(pl.Callback):
    """Watches from the second step of training and of validation to the beginning of the last one."""

    def __init__(self) -> None:
        self.waits: dict[str, list[Any]] = {}

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self._switch("training", batch_idx)

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        self._switch("validation", batch_idx)

    def _switch(self, stage, batch_idx):
        if batch_idx == 1:
            self.watch = watched()
            self.waits[stage] = self.watch.__enter__()
        if batch_idx == 3:
            self.watch.__exit__(None, None, None)


@pytest.fixture(autouse=True)
def _nothing_of_cuda(monkeypatch):
    """What needs a driver: streams, events, synchronisation, the device's name."""
    monkeypatch.setattr(copied_ahead._Copy, "__init__", _copy)
    monkeypatch.setattr(copied_ahead._Copy, "arrived", lambda copy: copy.batch)
    monkeypatch.setattr(copied_ahead, "_stream", lambda device: None)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    monkeypatch.setattr(loss_check, "STEPS", 2)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "none")


def _copy(copy, batch, device, stream):
    copy.batch = batch.pin_memory().to(device, non_blocking=True)


def train(keys: list[str], folder: Any) -> dict[str, list[Any]]:
    """Train and validate four steps each; return what waited within them and between them."""
    limits = ["train.limit_train_batches=4", "train.limit_val_batches=4", "train.batch_size=4", "train.epochs=1"]
    config = commandline.compose([*keys, *limits, "model.preset=tiny"])
    data = datasets.load(config["dataset"])
    settings = TrainConfig(**config["train"])
    splits = Splits.of(data, settings, 0, smoke_test=False).on(CUDA, settings.input_type)
    module = SequenceModule(models.build(model_arguments(config), data.spec), task_for(data.spec), settings, 4)
    seen, recorder = Watched(), EpochRecorder(RunFolder(folder))
    average = [] if settings.ema is None else [WeightAverage(settings.ema)]
    callbacks = [StepSeeds(0), recorder, *average, WithinEpoch(folder / "last.ckpt", 10), FirstLine("", folder), seen]
    with PretendedGPU(), watched(), quiet_lightning():
        trainer = pl.Trainer(
            strategy=Strategy(CUDA, Accelerator()), max_epochs=1, limit_train_batches=4, limit_val_batches=4,
            callbacks=[*callbacks, TimedProgressBar(1)], logger=False, enable_checkpointing=False, enable_model_summary=False,
            num_sanity_val_steps=0, use_distributed_sampler=False, accumulate_grad_batches=settings.accumulate_grad_batches,
        )  # fmt: skip
        trainer.fit(module, splits.loaders["train"], splits.loaders["validation"])
    assert recorder.rows[-1]["step"] == 4 // settings.accumulate_grad_batches
    assert set(seen.waits) == {"training", "validation"}
    return seen.waits


@pytest.mark.parametrize(
    "optimizer", ["adam", *(pytest.param(name, marks=pytest.mark.slow) for name in ("adamw", "muon", "rmsprop", "sgd"))]
)
def test_no_step_waits(optimizer, tmp_path):
    clip = ["train.gradient_clip_val=1", "train.schedule=cosine", "train.schedule_interval=step"]
    for waits in train([*TCN, f"train.optimizer={optimizer}", *clip], tmp_path).values():
        refuse(waits)


def test_no_step_of_several_batches_waits_nor_an_average_of_the_weights(tmp_path):
    keys = ["train.accumulate_grad_batches=2", "train.ema=0.9", "train.gradient_clip_val=1"]
    for waits in train([*TCN, *keys], tmp_path).values():
        refuse(waits)


def test_a_wait_within_a_step_is_found(tmp_path, monkeypatch):
    def forward(head, values):
        bool(values.isfinite().all())
        return nn.functional.linear(values, head.weight, head.bias)

    monkeypatch.setattr(nn.Linear, "forward", forward)
    for waits in train([*TCN], tmp_path).values():
        assert {(wait.what, wait.module) for wait in waits} == {("item() or bool()", "Linear")}
