"""Generated data sets: fresh and fixed sequences, one length a batch, in bounded memory."""

import tracemalloc

import numpy as np
import pytest
import torch

from seqmem import datasets
from seqmem.cli import commandline
from seqmem.data import IGNORE_INDEX, SPLITS, DataSpec, GeneratedDataSet, generated, mixed_lengths
from seqmem.errors import UserError
from seqmem.training.config import TrainConfig
from seqmem.training.engines.data_check import check_data
from seqmem.training.loop.splits import Splits
from tests.datasets.test_every_data_set import rows, same


class Recall(GeneratedDataSet):
    """Symbols of which the first is the target at the end, or at every second step."""

    name = "recall"

    def __init__(
        self,
        length: int = 6,
        min_length: int | None = None,
        every: bool = False,
        one_hot: bool = False,
        train_samples: int = 50,
        validation_samples: int = 20,
        test_samples: int = 21,
        seed: int = 0,
        num_workers: int = 0,
        fresh: bool = True,
    ):
        self.every, self.one_hot, self.calls = every, one_hot, []
        steps = None if every else 0
        spec = DataSpec("recall", 9, 9, "classification", output_steps=steps, max_length=length + 1, tokens=not one_hot)
        sizes = {"train": train_samples, "validation": validation_samples, "test": test_samples}
        lengths = dict.fromkeys(SPLITS, mixed_lengths(min_length or length, length))
        super().__init__(spec, sizes, lengths, seed=seed, fresh=fresh, num_workers=num_workers)

    def draw(self, random, count, length):
        self.calls.append((count, length))
        symbols = random.integers(1, 9, (count, length + 1))
        targets = symbols[:, 0]
        if self.every:
            targets = np.where(np.arange(length + 1) % 2, symbols[:, :1], IGNORE_INDEX)
        return (np.eye(9, dtype=np.float32)[symbols] if self.one_hot else symbols), targets


def epoch(data, seed, number, size=8):
    loader = data.loader("train", size, seed)
    loader.sampler.set_epoch(number)
    return list(loader)


def test_fresh_sequences_depend_on_the_trial_and_the_epoch_alone():
    data = Recall()
    assert same(epoch(data, 3, 1), epoch(Recall(seed=7), 3, 1))
    found = {tuple(rows(epoch(data, seed, number))) for seed in (0, 1) for number in (0, 1, 2)}
    assert len(found) == 6
    assert len(set().union(*found)) > 290  # of 300 sequences, next to no one comes again
    assert [len(batch) for batch in epoch(data, 0, 0)] == [8] * 6 + [2]
    for batch in epoch(data, 0, 5):
        assert torch.equal(batch.targets, batch.inputs[:, 0])


@pytest.mark.parametrize("fresh", [True, False])
@pytest.mark.parametrize("min_length", [2, 6])
def test_an_epoch_resumes_at_any_batch_with_any_number_of_workers(fresh, min_length):
    arguments = {"fresh": fresh, "min_length": min_length}
    whole = epoch(Recall(**arguments), 5, 2)
    for workers, place in ((0, 3), (2, 1)):
        loader = Recall(**arguments, num_workers=workers).loader("train", 8, 5)
        loader.load_state_dict({"batches": place})
        loader.sampler.set_epoch(2)
        assert same(loader, whole[place:])
        assert loader.state_dict() == {"batches": len(whole)}
        assert same(loader, whole)


def test_a_fixed_training_split_is_shuffled_and_an_unseeded_loader_keeps_its_order():
    data = Recall(fresh=False)
    whole = rows([data.batch("train", torch.arange(50))])
    assert rows(data.loader("train", 8, None)) == whole
    first, second = rows(epoch(data, 0, 0)), rows(epoch(data, 0, 1))
    assert sorted(first) == sorted(second) == sorted(whole)
    assert len({tuple(first), tuple(second), tuple(whole)}) == 3
    assert [len(batch) for batch in epoch(data, 0, 1)] == [8] * 6 + [2]
    assert rows(Recall().loader("train", 8, None)) == whole


def test_a_limit_reads_batches_of_all_lengths():
    data = datasets.load({"name": "parity", "validation_samples": 4, "train_samples": 8})
    config = commandline.compose(["dataset=parity", "model=lstm", "train.batch_size=2"])
    for limit, lengths in ((8, range(3, 41, 5)), (2, (11, 31)), (0.5, range(1, 41)), (80, [*range(1, 41)] * 2)):
        train = TrainConfig(**config["train"] | {"limit_val_batches": limit})
        read = [batch.inputs.shape[1] - 1 for batch in Splits.of(data, train, 0, smoke_test=False).read("validation")]
        assert read == sorted(lengths)
    assert len(data.loader("validation", 2)) == 80


@pytest.mark.parametrize("split", ["validation", "test"])
def test_fixed_splits_depend_on_the_seed_of_the_data_alone(split):
    def read(size, trial, **arguments):
        return rows(Recall(**arguments).loader(split, size, trial))

    assert read(4, 0) == read(7, 1) == read(100, None, fresh=False, train_samples=3)
    assert read(4, 0) != read(4, 0, seed=1)
    for batch in Recall().loader(split, 4):
        assert torch.equal(batch.targets, batch.inputs[:, 0])


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("fresh", [True, False])
def test_a_batch_has_one_length_and_every_length_comes(split, fresh):
    data = Recall(length=6, min_length=2, fresh=fresh, train_samples=403)
    counts = np.zeros(8, int)
    order = []
    for batch in data.loader(split, 4, 0):
        assert batch.lengths is None
        counts[batch.inputs.shape[1]] += len(batch)
        order.append(batch.inputs.shape[1])
    assert counts.sum() == data.sizes[split]
    if fresh and split == "train":
        assert (np.abs(counts[3:] - 80) < 5 * 4 * (101 * 0.2 * 0.8) ** 0.5).all()
    else:
        assert counts[3:].max() - counts[3:].min() <= 1
    assert (order == sorted(order)) == (split != "train")


def test_sequences_of_different_lengths_are_padded_if_they_are_taken_together():
    for arguments in ({}, {"every": True}, {"one_hot": True}):
        data = Recall(length=4, min_length=3, **arguments)
        both, short, long = (data.batch("test", torch.tensor(indices)) for indices in ([0, 20], [0], [20]))
        assert both.lengths.tolist() == [4, 5]
        assert short.lengths is None
        assert long.lengths is None
        assert torch.equal(both.inputs[:1, :4], short.inputs)
        assert torch.equal(both.inputs[1:], long.inputs)
        assert not both.inputs[0, 4].any()
        if arguments == {"every": True}:
            assert torch.equal(both.targets[:1, :4], short.targets)
            assert both.targets[0, 4] == IGNORE_INDEX
        else:
            assert torch.equal(both.targets, torch.cat([short.targets, long.targets]))


def test_data_are_drawn_when_they_are_needed_in_blocks(monkeypatch):
    monkeypatch.setattr(generated, "BLOCK_ROWS", 8)
    data = Recall()
    loaders = [data.loader(split, 5) for split in SPLITS]
    assert data.calls == []
    list(loaders[2])
    assert data.calls == [(8, 6), (8, 6), (5, 6)]
    first = rows(loaders[2])
    assert len(data.calls) == 3
    monkeypatch.setattr(generated, "KEPT_BYTES", 100)
    small = Recall()
    assert rows(small.loader("test", 5)) == rows(small.loader("test", 7)) == first
    assert len(small.calls) == 5  # one block is kept
    fixed = Recall(fresh=False)
    list(fixed.loader("train", 5))
    list(fixed.loader("train", 5))
    assert len(fixed.calls) == 7


def test_long_evaluation_sequences_take_bounded_memory(monkeypatch):
    monkeypatch.setattr(generated, "KEPT_BYTES", 2**22)
    arguments = Recall.at_length({"train_samples": 10**9, "validation_samples": 1, "test_samples": 200}, 2**16)
    data = Recall(**arguments)
    tracemalloc.start()
    for batch in data.loader("test", 2):
        assert batch.inputs.shape == (2, 2**16 + 1)
    data.describe()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 40e6  # all sequences take 105 MB as int64
    assert sum(count for count, _ in data.calls) < 500


def test_a_description_identifies_the_data(monkeypatch, capsys):
    monkeypatch.setattr(datasets, "_classes", lambda: {"recall": Recall})
    first = datasets.load({"name": "recall", "min_length": 1})
    assert first.describe() == datasets.load({"name": "recall", "min_length": 1}).describe()
    assert first.describe()["fresh"] is True
    assert "fresh" not in Recall(fresh=False).describe()
    assert first.describe()["sha256"]["test"] == Recall(min_length=1, fresh=False, train_samples=3).describe()["sha256"]["test"]
    for changed in ({"seed": 1}, {"min_length": 2}):
        sums = Recall(**{"min_length": 1, **changed}).describe()["sha256"]
        assert all(sums[split] != first.describe()["sha256"][split] for split in SPLITS)
    check_data({"name": "recall", "min_length": 1}, first)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(Recall, "draw", lambda self, random, *size: Recall_draw(self, np.random.default_rng(), *size))
    with pytest.raises(UserError, match="a second loading gives other numbers"):
        check_data({"name": "recall"}, datasets.load({"name": "recall"}))


Recall_draw = Recall.draw


def test_truth_values_are_classes_and_tokens():
    class Truth(Recall):
        def draw(self, random, count, length):
            bits = random.random((count, length)) < 0.5
            return bits, bits[:, 0]

    data = Truth()
    for batch in (data.batch("test", torch.arange(5)), next(iter(data.loader("train", 5)))):
        assert batch.inputs.dtype == batch.targets.dtype == torch.int64
        assert torch.equal(batch.inputs[:, 0], batch.targets)


def test_arguments_at_another_length(monkeypatch):
    assert Recall.at_length({"length": 4, "min_length": 2, "seed": 3}, 9) == {"length": 9, "min_length": 9, "seed": 3}
    changed = datasets.at_length({"name": "adding", "length": 50, "seed": 3}, 70)
    assert changed == {"name": "adding", "length": 70, "seed": 3}
    reber = datasets.load({**datasets.at_length({"name": "reber"}, 20), "test_samples": 10, "train_samples": 1})
    assert reber.batch("test", torch.arange(10)).lengths.tolist() == [20] * 10
    with pytest.raises(UserError, match=r"^dataset\.length: got 70, but imdb has no length to choose; did you mean 'max_leng"):
        datasets.at_length({"name": "imdb"}, 70)


def test_sequences_that_would_fill_the_memory_are_refused():
    with pytest.raises(UserError, match=r"^dataset: got a length of 1000000001 steps, expected at most 67108864$"):
        Recall(length=10**9, min_length=1)
    for arguments in ({"name": "parity"}, {"name": "induction"}):
        with pytest.raises(UserError, match="expected at most 67108864"):
            datasets.load(datasets.at_length(arguments, 10**9))
