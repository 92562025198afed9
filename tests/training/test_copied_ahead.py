"""Batches that are copied to a GPU ahead: their order, their position, and what waits for what."""

from contextlib import nullcontext

import pytest
import torch

from seqmem import datasets
from seqmem.cli import commandline
from seqmem.data import Batch
from seqmem.errors import UserError
from seqmem.training.loop import copied_ahead as module
from seqmem.training.loop import splits
from seqmem.training.loop.copied_ahead import StatefulAheadLoader, ahead_loader, copied_ahead, one_ahead
from tests.pretended_gpu import CUDA, PretendedGPU, watched
from tests.training.test_resume import SMALL, stop_at
from tests.trials import assert_same, run_trials

CPU = torch.device("cpu")


class Stream:
    """A stream that notes what is queued."""

    def __init__(self, log, name="copies"):
        self.log, self.name = log, name

    def record_event(self):
        self.log.append("copied")
        return "event"

    def wait_event(self, event):
        self.log.append(f"{self.name} waits for {event}")


@pytest.fixture
def log(monkeypatch):
    """What happens to streams that do not exist."""
    found = []
    module._stream.cache_clear()
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream(found))
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream(found, "training"))
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: found.append(stream.name))
    yield found
    module._stream.cache_clear()


def batches(count, **changes):
    for number in range(count):
        yield Batch(torch.full((2, 3, 1), float(number)), torch.zeros(2), **changes)


def test_the_next_batch_is_copied_before_a_batch_is_used_without_waiting(log):
    with PretendedGPU(), watched() as waits:
        for number, batch in enumerate(copied_ahead(batches(3), CUDA)):
            assert batch.inputs.is_cuda
            assert batch.host.inputs.unique().tolist() == [number]
            log.append(f"step {number}")
    assert not waits
    use = ["training waits for event", "training", "training"]
    assert log == ["copied", "copied", *use, "step 0", "copied", *use, "step 1", *use, "step 2"]


def test_all_epochs_copy_in_one_stream(log, monkeypatch):
    made = []
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: made.append(device) or Stream(log))
    with PretendedGPU():
        for _ in range(3):
            list(copied_ahead(batches(2), CUDA))
    assert made == [CUDA]


def test_elsewhere_batches_are_moved_one_by_one():
    made, used = [], []
    for batch in copied_ahead((made.append(number) or b for number, b in enumerate(batches(3))), CPU):
        used.append(len(made))
        assert batch.host is None
    assert used == [1, 2, 3]
    assert [list(one_ahead(range(count))) for count in range(3)] == [[], [0], [0, 1]]


def test_a_wrong_batch_is_refused_on_the_host(log):
    wrong = torch.tensor([3, 4])
    with PretendedGPU(), pytest.raises(UserError, match="lengths: got 4 in row 1 of a batch, expected between 0 and T=3"):
        list(copied_ahead(batches(2, lengths=wrong), CUDA))


def test_a_trial_resumes_at_the_batch_that_was_used_not_at_the_one_that_was_copied(tmp_path, monkeypatch):
    config = commandline.compose([*SMALL, "model=rnn", "model.preset=tiny", "train.checkpoint_minutes=0", "train.epochs=2"])
    data = datasets.load(config["dataset"])
    [whole] = run_trials(config, data, tmp_path / "whole")
    monkeypatch.setattr(module, "copied_ahead", lambda given, device, dtype: one_ahead(given))
    monkeypatch.setattr(splits, "ahead_loader", StatefulAheadLoader)
    for at in (2, 4):
        stop_at("training_step", at, config, data, tmp_path / "stopped")
    [stopped] = run_trials(config, data, tmp_path / "stopped")
    assert_same(whole, stopped)
    assert stopped.read_record()["resumed_at"] == [1, 4]


def test_only_a_gpu_gets_a_loader_of_its_own():
    data = datasets.load(commandline.compose(SMALL)["dataset"])
    train, test = data.loader("train", 5), data.loader("test", 5)
    assert ahead_loader(train, CPU) is train
    stateful, plain = ahead_loader(train, CUDA), ahead_loader(test, CUDA)
    assert len(stateful) == len(train)
    assert stateful.sampler is train.sampler
    assert stateful.state_dict() == {"batches": 0}
    assert not hasattr(plain, "state_dict")
