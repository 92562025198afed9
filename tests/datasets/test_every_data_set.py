"""The contract of every data set. A new module in ``datasets/`` with its YAML is included automatically."""

import inspect
import json
import multiprocessing
from dataclasses import fields

import pytest
import torch
from torch import Tensor

from seqmem import datasets, tasks
from seqmem.arguments import parameters
from seqmem.data import IGNORE_INDEX, Batch, DataSpec
from seqmem.errors import UserError

from .conftest import CONFIGURATIONS

every_data_set = pytest.mark.parametrize("name", datasets.names())

TRAINING_SPLITS = {
    "adding": "c9ffe2b1",
    "addition": "2342158e",
    "copy_memory": "7cd0bcae",
    "copying": "98f46ee5",
    "ct": "fec24ef6",
    "cycle_navigation": "e30aa17f",
    "digits": "79fe4a08",
    "even_pairs": "7e69d0d3",
    "findmax": "e53f4dc6",
    "flip_flop": "59caa016",
    "group_words": "cc95db34",
    "imdb": "f59feed8",
    "induction": "a28b22df",
    "listops": "4f2109ea",
    "mnist": "0469c173",
    "modular_arithmetic": "465e4f74",
    "moving_digits": "0b241a17",
    "mqar": "4e835041",
    "parity": "718fa7de",
    "phase_signals": "7fbab7aa",
    "reber": "f8eebbdd",
    "scifar": "3a294901",
    "selective_copying": "cfd7fb3c",
    "text": "c7e8412c",
    "text8": "c7e8412c",
    "uea": "7112e5c1",
}
"""Beginnings of the checksums of training splits at the sizes of ``load_small``: numbers and splits of a seed do not change.

Data sets whose numbers depend on the rounding of sines or of a solver are left out."""


def assert_valid(batch: Batch, spec: DataSpec, rows: int) -> None:
    steps = batch.inputs.shape[1]
    assert steps <= spec.max_length
    if spec.tokens:
        assert batch.inputs.shape == (rows, steps)
        assert batch.inputs.dtype == torch.int64
        assert 0 <= batch.inputs.min() <= batch.inputs.max() < spec.input_size
    else:
        assert batch.inputs.shape == (rows, steps, spec.input_size)
        assert batch.inputs.dtype == torch.float32
        assert batch.inputs.isfinite().all()
    outputs = {0: (), None: (steps,)}.get(spec.output_steps, (spec.output_steps,))
    if tasks.get(spec.task).class_targets:
        assert batch.targets.shape == (rows, *outputs)
        assert batch.targets.dtype == torch.int64
        counted = batch.targets[batch.targets != IGNORE_INDEX]
        assert 0 <= counted.min() <= counted.max() < spec.output_size
    else:
        assert batch.targets.shape == (rows, *outputs, spec.output_size)
        assert batch.targets.dtype == torch.float32
        assert batch.targets.isfinite().all()
    if batch.lengths is not None:
        assert batch.lengths.shape == (rows,)
        assert 1 <= batch.lengths.min() <= batch.lengths.max() <= steps
    assert (batch.times is not None) == spec.times
    if batch.times is not None:
        assert batch.times.shape == (rows, steps)
        assert (batch.times.diff(dim=1) >= 0).all()


def full_lengths(batch: Batch) -> Tensor:
    """The length of each sequence (B,) without its padding."""
    return torch.full((len(batch),), batch.inputs.shape[1]) if batch.lengths is None else batch.lengths


def same(left, right) -> bool:
    pairs = list(zip(tensors(left), tensors(right), strict=True))
    return all(torch.equal(a, b) for a, b in pairs)


def tensors(batches) -> list[Tensor]:
    """All tensors of all batches, in order."""
    values = [getattr(batch, field.name) for batch in batches for field in fields(batch)]
    return [value for value in values if isinstance(value, Tensor)]


def rows(batches) -> list[bytes]:
    """Every sequence without its padding, with its target, in a form that can be sorted."""
    found = []
    for batch in batches:
        for inputs, target, length in zip(batch.inputs, batch.targets, full_lengths(batch).tolist(), strict=True):
            valid = target[:length] if target.shape[:1] == inputs.shape[:1] else target
            found.append(inputs[:length].numpy().tobytes() + valid.numpy().tobytes())
    return found


def whole(data, split) -> list[bytes]:
    return rows([data.batch(split, torch.arange(data.sizes[split]))])


def test_every_data_set_has_a_configuration():
    assert sorted(path.stem for path in CONFIGURATIONS.glob("*.yaml")) == datasets.names()


def test_configurations_list_and_explain_every_argument(configuration, load_small, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for name in datasets.names():
        given = configuration(name)
        datasets.check(given)
        assert next(iter(given)) == "name", name
        assert given.pop("name") == name
        defaults = parameters(type(load_small(name)))
        assert given == {
            key: given[key] if default is inspect.Parameter.empty else default for key, default in defaults.items()
        }, name
        lines = (CONFIGURATIONS / f"{name}.yaml").read_text().splitlines()
        assert [line for line in lines[1:] if " # " not in line] == []
    assert list((tmp_path / "elsewhere").iterdir()) == []  # checking reads and writes no file


@every_data_set
def test_batches_are_valid_and_splits_are_disjoint(name, load_small):
    data = load_small(name)
    assert data.spec.name.split()[0] == name  # uea adds its problem
    assert set(data.sizes) == set(datasets.SPLITS)
    found = {split: whole(data, split) for split in datasets.SPLITS}
    for split, size in data.sizes.items():
        assert size > 0
        loader = data.loader(split, 7)
        batches = list(loader)
        assert len(batches) == len(loader)
        assert sum(map(len, batches)) == size
        assert {len(batch) for batch in batches} <= set(range(1, 8))
        assert data.whole_batches or [len(batch) for batch in batches[:-1]] == [7] * (size // 7 - (size % 7 == 0))
        for batch in batches:
            assert_valid(batch, data.spec, len(batch))
        if split == "train" and getattr(data, "fresh", False):
            batches = list(data.loader(split, 7, None))  # the others are drawn anew in each epoch
        assert sorted(rows(batches)) == sorted(found[split])
        # Rows of a contiguous text follow each other within a row of the batches, see test_text8.py.
        if split != "train" and not data.spec.contiguous:
            assert rows(batches) == found[split]
    assert len(set().union(*found.values())) == sum(len(set(part)) for part in found.values())


@every_data_set
def test_targets_that_later_inputs_hold_are_declared(name, load_small):
    """A model that reads later inputs, as a bidirectional one does, would copy them."""
    data = load_small(name)
    batch = data.batch("train", torch.arange(min(data.sizes["train"], 9)))
    steps = batch.inputs.shape[1]
    if data.spec.output_steps is not None or batch.targets.shape[:2] != batch.inputs.shape[:2]:
        return
    counted = batch.targets != IGNORE_INDEX
    later = any(
        batch.targets.shape == batch.inputs.shape
        and counted[:, :-k].any()
        and torch.equal(batch.targets[:, :-k][counted[:, :-k]], batch.inputs[:, k:][counted[:, :-k]].to(batch.targets.dtype))
        for k in range(1, steps - 3)
    )
    declared = data.spec.later_targets or tasks.get(data.spec.task).predicts_following
    assert declared or not later
    assert declared == later or name == "flip_flop"


@every_data_set
def test_a_seed_determines_the_data_and_the_record(name, load_small):
    first, second = load_small(name), load_small(name)
    record = first.describe()
    assert json.loads(json.dumps(record)) == record == second.describe()
    assert (record["name"], record["sizes"]) == (name, first.sizes)
    assert set(record["sha256"]) == set(datasets.SPLITS)
    assert all(len(digest) == 64 for digest in [*record["sha256"].values(), *record["files"].values()])
    for split in datasets.SPLITS:
        assert same(first.loader(split, 7), second.loader(split, 7))
    if name in TRAINING_SPLITS:
        assert record["sha256"]["train"].startswith(TRAINING_SPLITS[name])
    for key in parameters(type(first)):
        if key.endswith("seed"):
            other = load_small(name, **{key: record["seed"] + 1}).describe()
            assert other["seed"] == record["seed"] + 1
            assert other["sha256"]["train"] != record["sha256"]["train"]


def test_a_separate_test_split_does_not_depend_on_the_sizes_of_others(load_small):
    separate = [name for name in datasets.names("test_samples") if type(load_small(name)).separate_test]
    assert {"adding", "copying", "parity", "sinusoids"} <= set(separate)
    for name in separate:
        few = {key: 1 for key, value in datasets.of_test({"name": name}).items() if value == 1}
        assert set(few) == {"train_samples", "validation_samples"}
        assert whole(load_small(name, **few), "test") == whole(load_small(name), "test"), name
    assert datasets.of_test({"name": "mackey_glass"}) == {"name": "mackey_glass"}


def test_test_sequences_at_a_length_have_that_length(configuration, load_small):
    """What ``length`` counts may differ from the steps, as with a question after the sequence, but by the same number."""
    for name in datasets.names("length"):
        given, more = configuration(name), set()
        for length in (52, 62):
            changed = {key: value for key, value in datasets.at_length(given, length).items() if value != given[key]}
            data = load_small(name, **changed)
            batches = list(data.loader("test", 2))[: 1 if data.spec.contiguous else None]  # the end of a text is shorter
            lengths = torch.cat([full_lengths(batch) for batch in batches])
            more |= {steps - length for steps in lengths.tolist()}
        assert len(more) == 1, name


def test_worker_processes_make_the_same_batches(load_small):
    for name in ["adding", "text8", "uea"]:
        for split in ("train", "validation"):
            alone, together = load_small(name).loader(split, 7, 5), load_small(name, num_workers=2).loader(split, 7, 5)
            for epoch in range(2):
                if split == "train":
                    alone.sampler.set_epoch(epoch)
                    together.sampler.set_epoch(epoch)
                assert same(alone, together)


@pytest.mark.slow
def test_worker_processes_of_every_data_set(load_small):
    for name in datasets.names():
        alone, together = load_small(name), load_small(name, num_workers=2)
        for split in datasets.SPLITS:
            assert same(alone.loader(split, 7, 5), together.loader(split, 7, 5)), name


def test_the_training_order_depends_on_seed_and_epoch_alone(load_small):
    data = load_small("adding")

    def order(seed: int, epoch: int, global_seed: int = 0) -> list[bytes]:
        torch.manual_seed(global_seed)
        loader = data.loader("train", 7, seed)
        loader.sampler.set_epoch(epoch)
        return rows(loader)

    assert order(0, 0) == order(0, 0, global_seed=1)
    assert len({tuple(order(seed, epoch)) for seed in (0, 1) for epoch in (0, 1, 2)}) == 6


def test_a_loader_without_a_seed_keeps_the_order(load_small):
    data = load_small("adding")
    assert rows(data.loader("train", 7, None)) == whole(data, "train")


def test_loading_keeps_the_global_random_state(load_small):
    before = torch.get_rng_state()
    for name in ("adding", "text8"):
        list(load_small(name).loader("train", 7))
    assert torch.equal(before, torch.get_rng_state())


def test_a_position_within_an_epoch_is_restored(load_small):
    data = load_small("adding")
    first, second = data.loader("train", 7), data.loader("train", 7)
    batches = list(first)
    position = iter(second)
    next(position)
    state = second.state_dict()
    resumed = data.loader("train", 7)
    resumed.load_state_dict(state)
    assert state == {"batches": 1}
    assert same(resumed, batches[1:])
    assert same(resumed, batches)


def test_wrong_arguments_are_refused(configuration, load_small):
    arguments = configuration("adding")
    message = r"^dataset\.num_worker: adding takes no argument 'num_worker'; did you mean 'num_workers'\?$"
    with pytest.raises(UserError, match=message):
        datasets.check(arguments | {"num_worker": 1})
    for value in (-1, True, "two", 1.5, None):
        with pytest.raises(UserError, match=r"^dataset\.num_workers: got "):
            datasets.check(arguments | {"num_workers": value})
    data = load_small("adding")
    with pytest.raises(UserError, match=r"split: got 'trian', .* did you mean 'train'\?"):
        data.loader("trian", 7)
    with pytest.raises(UserError, match="batch_size: got 0, expected greater than 0"):
        data.loader("train", 0)
    with pytest.raises(UserError, match="seed: got -1"):
        data.loader("train", 7, -1)


def test_workers_start_within_a_worker_of_joblib(load_small):
    """Its processes have a start method of joblib's own, with which the workers of a DataLoader cannot start."""
    import joblib.externals.loky  # noqa: F401

    own = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method("loky", force=True)
    try:
        batch = next(iter(load_small("digits", num_workers=1).loader("test", 3)))
    finally:
        multiprocessing.set_start_method(own, force=True)
    assert len(batch) == 3
