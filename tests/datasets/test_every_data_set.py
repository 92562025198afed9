"""What every data set promises. A new module in ``datasets/`` with its YAML is picked up by itself."""

import inspect
import json
from dataclasses import fields

import pytest
import torch
from torch import Tensor

from seqmem import datasets
from seqmem.arguments import parameters
from seqmem.data.batch import Batch
from seqmem.data.spec import DataSpec
from seqmem.errors import UserError

from .conftest import CONFIGURATIONS

every_data_set = pytest.mark.parametrize("name", datasets.names())


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
    if spec.task in ("classification", "language_modelling"):
        assert batch.targets.shape == (rows, *outputs)
        assert batch.targets.dtype == torch.int64
        assert 0 <= batch.targets.min() <= batch.targets.max() < spec.output_size
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


def tensors(batches) -> list[Tensor]:
    """All tensors of all batches, in order."""
    return [value for batch in batches for field in fields(batch) if (value := getattr(batch, field.name)) is not None]


def same(left, right) -> bool:
    pairs = list(zip(tensors(left), tensors(right), strict=True))
    return all(torch.equal(a, b) for a, b in pairs)


def rows(batches) -> list[bytes]:
    """Every sequence, without what pads it, with its target, as something that can be sorted."""
    found = []
    for batch in batches:
        lengths = [batch.inputs.shape[1]] * len(batch) if batch.lengths is None else batch.lengths.tolist()
        for inputs, target, length in zip(batch.inputs, batch.targets, lengths, strict=True):
            wanted = target[:length] if target.shape[:1] == inputs.shape[:1] else target
            found.append(inputs[:length].numpy().tobytes() + wanted.numpy().tobytes())
    return found


def test_configurations_and_data_sets_belong_together():
    assert sorted(path.stem for path in CONFIGURATIONS.glob("*.yaml")) == datasets.names()


@every_data_set
def test_configuration_lists_every_argument_and_its_default(name, configuration, load_small):
    given = configuration(name)
    assert next(iter(given)) == "name"
    assert given.pop("name") == name
    defaults = parameters(type(load_small(name)))
    assert given == {key: given[key] if default is inspect.Parameter.empty else default for key, default in defaults.items()}


@every_data_set
def test_configuration_explains_every_argument(name):
    lines = (CONFIGURATIONS / f"{name}.yaml").read_text().splitlines()
    assert [line for line in lines[1:] if "  # " not in line] == []


@every_data_set
def test_configuration_is_accepted_without_touching_files(name, configuration, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    datasets.check(configuration(name))
    assert list(tmp_path.iterdir()) == []


@every_data_set
def test_unknown_argument_is_refused_by_name(name, configuration):
    with pytest.raises(
        UserError, match=rf"^dataset\.num_worker: {name} takes no argument 'num_worker'; did you mean 'num_workers'\?$"
    ):
        datasets.check(configuration(name) | {"num_worker": 1})


@every_data_set
@pytest.mark.parametrize("value", [-1, True, "two", 1.5, None])
def test_wrong_number_of_workers_is_refused(name, value, configuration):
    with pytest.raises(UserError, match=r"^dataset\.num_workers: got "):
        datasets.check(configuration(name) | {"num_workers": value})


@every_data_set
@pytest.mark.parametrize("split", datasets.SPLITS)
@pytest.mark.parametrize("batch_size", [1, 7])
def test_batches_are_valid_and_none_is_lost(name, split, batch_size, load_small):
    data = load_small(name)
    assert data.spec.name.split()[0] == name  # uea adds its problem
    assert set(data.sizes) == set(datasets.SPLITS)
    size = data.sizes[split]
    assert size > 0
    loader = data.loader(split, batch_size)
    batches = list(loader)
    assert len(batches) == len(loader) == -(-size // batch_size)
    for index, batch in enumerate(batches):
        assert_valid(batch, data.spec, min(batch_size, size - index * batch_size))
    in_order = [data.batch(split, torch.arange(size))]
    assert sorted(rows(batches)) == sorted(rows(in_order))


@every_data_set
@pytest.mark.parametrize("split", ["validation", "test"])
def test_evaluation_keeps_its_order(name, split, load_small):
    data = load_small(name)
    # Several rows that follow their own part of a contiguous text each: test_text8.py.
    batch_size = 1 if data.spec.contiguous else 5
    assert rows(data.loader(split, batch_size, seed=3)) == rows([data.batch(split, torch.arange(data.sizes[split]))])


@every_data_set
def test_training_order_depends_on_seed_and_epoch_alone(name, load_small):
    data = load_small(name)

    def order(seed: int, epoch: int, global_seed: int = 0) -> list[bytes]:
        torch.manual_seed(global_seed)
        loader = data.loader("train", 7, seed)
        loader.sampler.set_epoch(epoch)
        return rows(loader)

    assert order(0, 0) == order(0, 0, global_seed=1)
    assert len({tuple(order(seed, epoch)) for seed in (0, 1) for epoch in (0, 1, 2)}) == 6


@every_data_set
def test_loading_leaves_the_global_random_state_alone(name, load_small):
    before = torch.get_rng_state()
    list(load_small(name).loader("train", 7))
    assert torch.equal(before, torch.get_rng_state())


@every_data_set
@pytest.mark.parametrize("split", datasets.SPLITS)
def test_workers_do_not_matter(name, split, load_small):
    alone, together = load_small(name).loader(split, 7, 5), load_small(name, num_workers=2).loader(split, 7, 5)
    for epoch in range(2):
        if split == "train":
            alone.sampler.set_epoch(epoch)
            together.sampler.set_epoch(epoch)
        assert same(alone, together)


@every_data_set
def test_loading_twice_gives_the_same_data_and_the_same_record(name, load_small):
    first, second = load_small(name), load_small(name)
    assert first.describe() == second.describe()
    for split in datasets.SPLITS:
        assert same(first.loader(split, 7), second.loader(split, 7))


@every_data_set
def test_record_survives_json_and_names_what_matters(name, load_small):
    data = load_small(name)
    record = data.describe()
    assert json.loads(json.dumps(record)) == record
    assert record["name"] == name
    assert record["sizes"] == data.sizes
    assert set(record["sha256"]) == set(datasets.SPLITS)
    for digest in [*record["sha256"].values(), *record["files"].values()]:
        assert len(digest) == 64
        int(digest, 16)


@every_data_set
def test_another_seed_gives_another_record(name, load_small):
    first = load_small(name)
    for key in parameters(type(first)):
        if key.endswith("seed"):
            second = load_small(name, **{key: first.describe()["seed"] + 1})
            assert second.describe()["seed"] == first.describe()["seed"] + 1
            assert second.describe()["sha256"]["train"] != first.describe()["sha256"]["train"]


@every_data_set
def test_splits_share_no_sequence(name, load_small):
    data = load_small(name)
    found = [set(rows([data.batch(split, torch.arange(data.sizes[split]))])) for split in datasets.SPLITS]
    assert len(set.union(*found)) == sum(len(part) for part in found)


@every_data_set
def test_wrong_loader_arguments_are_refused(name, load_small):
    data = load_small(name)
    with pytest.raises(UserError, match=r"split: got 'trian', .* did you mean 'train'\?"):
        data.loader("trian", 7)
    with pytest.raises(UserError, match="batch_size: got 0, expected greater than 0"):
        data.loader("train", 0)
    with pytest.raises(UserError, match="seed: got -1"):
        data.loader("train", 7, -1)
