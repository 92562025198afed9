"""IGLOO for data sets: its outputs, defaults that depend on the data, and the penalty in training."""

from inspect import signature
from pathlib import Path

import pytest
import torch
import yaml
from torch.testing import assert_close

from seqmem import datasets, models, training
from seqmem.cli import commandline
from seqmem.data.batch import Batch
from seqmem.data.spec import DataSpec
from seqmem.errors import UserError
from seqmem.tasks import task_for
from seqmem.training.checkpoints.files import read_checkpoint, restore
from seqmem.training.config import TrainConfig, model_arguments
from seqmem.training.evaluation.measure import evaluate
from seqmem.training.loop.module import SequenceModule
from tests.data_files import require
from tests.trials import run_trials

_cfg = Path(__file__).parents[2] / "cfg" / "model"

MATCHED = ["igloo", "legs", "lstm", "gru", "tcn"]


def spec(**changes):
    values = {
        "name": "made up",
        "input_size": 3,
        "output_size": 4,
        "task": "classification",
        "output_steps": 0,
        "max_length": 30,
    }
    return DataSpec(**{**values, **changes})


def network(data, **changes):
    torch.manual_seed(0)
    return models.build({"network": "igloo", "nb_filters_conv1d": 4, **changes}, data)


def test_outputs_are_where_the_data_set_expects_them():
    for output_steps, shape in ((0, (2, 4)), (5, (2, 5, 4)), (None, (2, 30, 4))):
        model = network(spec(output_steps=output_steps))
        inputs, lengths = torch.randn(2, 30, 3), torch.tensor([30, 17])
        outputs = model(Batch(inputs, None, lengths=lengths))
        assert outputs.shape == shape
        assert_close(outputs, model.head(model.layer(inputs, lengths)))


def test_numbers_of_patches_follow_the_data():
    assert network(spec()).layer.stacks[0].global_patches.indices.shape == (1, 30, 4)
    assert network(spec(output_steps=None)).layer.stacks[0].global_patches.indices.shape == (30, 50, 4)
    assert network(spec(output_steps=5)).layer.stacks[0].global_patches.indices.shape == (5, 50, 4)
    assert network(spec(output_steps=5), nb_patches=7).layer.stacks[0].global_patches.indices.shape == (5, 7, 4)


def test_tokens_and_times_join_the_inputs():
    tokens, times = torch.randint(0, 3, (2, 30)), torch.rand(2, 30).cumsum(1)
    one_hot = network(spec(tokens=True, times=True))
    assert_close(
        one_hot.inputs(Batch(tokens, None, times=times), torch.float32),
        torch.cat([times[..., None], torch.eye(3)[tokens]], -1),
    )
    embedded = network(spec(tokens=True), embedding_size=6)
    assert_close(embedded.inputs(Batch(tokens, None), torch.float32), embedded.inputs.embedding.weight[tokens])
    assert network(spec(tokens=True, embedding_size=5)).inputs.size == 5


def test_every_trial_has_its_own_patches_unless_a_seed_is_given():
    def patches(trial, **changes):
        torch.manual_seed(trial)
        model = models.build({"network": "igloo", **changes}, spec())
        return model.layer.stacks[0].global_patches.indices

    assert torch.equal(patches(1), patches(1))
    assert not torch.equal(patches(1), patches(2))
    assert torch.equal(patches(1, seed=3), patches(2, seed=3))


def test_training_adds_the_penalty_to_the_loss(monkeypatch):
    data = spec()
    module = SequenceModule(network(data, l2reg=0.1), task_for(data), TrainConfig())
    logged = {}
    monkeypatch.setattr(module, "log", lambda name, value, **_: logged.update({name: getattr(value, "total", None)}))
    batch = Batch(torch.randn(2, 30, 3), torch.tensor([0, 3]))
    loss = module.training_step(batch, 0)
    plain = module.task.loss(module.model(batch), batch)
    assert_close(loss, plain + module.model.layer.penalty())
    assert_close(logged["train/loss"] / 2, plain.double())
    assert_close(logged["train/penalty"] / 2, module.model.layer.penalty().double())
    assert module.model.layer.penalty() > 0
    assert_close(module.validation_step(batch, 0)["outputs"], module.model(batch))
    assert_close(logged["val/loss"] / 2, plain.double())


FEW = [f"dataset.{split}_samples=12" for split in ("train", "validation", "test")]
DATA = {
    "last steps": ["dataset=copy_memory", "dataset.length=41", *FEW],
    "pixels of permuted digits": ["dataset=mnist", "dataset.permute=true", "dataset.train_samples=50"],
    "strokes with times and lengths": ["dataset=ct", "dataset.timestamp=true", "dataset.padding=mask"],
    "speakers": ["dataset=uea"],
    "reviews": ["dataset=imdb", "dataset.validation_fraction=0.25"],
    "strings": ["dataset=reber", "dataset.length=41", "dataset.shortest=20", *FEW],
    "chaos": ["dataset=mackey_glass", "dataset.length=41", *FEW],
    "signals to come": ["dataset=sinusoids", "dataset.length=41", *FEW],
    "letters to come": ["dataset=text", "dataset.length=41", "dataset.step=41"],
    "last steps of many": ["dataset=copy_memory", "dataset.length=25000", "dataset.encoding=one_hot", *FEW],
}


@pytest.fixture
def files(tmp_path):
    """Small reviews and a small text, by data set, as arguments of the command."""
    words = ["good", "bad", "film", "long", "again"]
    for number in range(32):
        folder = tmp_path / "aclImdb" / ("train", "test")[number % 2] / ("pos", "neg")[number // 2 % 2]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}_7.txt").write_text(" ".join(words[(number * k) % 5] for k in range(3, 5 + number)))
    (tmp_path / "text").write_text("".join("abcdefgh "[k * k % 83 % 9] for k in range(4000)))
    return {"imdb": [f"dataset.data_dir={tmp_path}"], "text": [f"dataset.path={tmp_path / 'text'}"]}


@pytest.mark.parametrize(
    "arguments",
    [pytest.param(given, id=name, marks=[pytest.mark.slow] * (name != "last steps")) for name, given in DATA.items()],
)
def test_it_trains_and_its_checkpoint_gives_the_same_result(arguments, files, tmp_path):
    """Every kind of task: outputs as a whole, at the last steps, at every step; values and tokens, with lengths and times."""
    dataset = arguments[0].removeprefix("dataset=")
    if dataset not in files:
        require(dataset)
    config = commandline.compose(
        ["model=igloo", *arguments, *files.get(dataset, []), "debug=tiny", "train.batch_size=12", "runner.accelerator=cpu"]
    )
    data = datasets.load(config["dataset"])
    training.check_fit(config, data.spec)
    [folder] = run_trials(config, data, tmp_path)
    record = folder.read_record()
    assert record["status"] == "finished"
    torch.manual_seed(99)
    again = evaluate(restore(read_checkpoint(folder.path), config["train"], data.spec), data, config)
    assert again == pytest.approx({name: record["result"][name] for name in again}, rel=1e-4)


def table_config(model, length):
    return commandline.compose(["experiment=igloo/copy_memory_table", f"model={model}", f"dataset.length={length}"])


def assert_100000_parameters(config):
    few = {f"{split}_samples": 1 for split in ("train", "validation", "test")}
    data = datasets.load(config["dataset"] | few)
    with torch.device("meta"):
        network = models.build(model_arguments(config), data.spec)
    assert 98_000 <= sum(parameter.numel() for parameter in network.parameters()) <= 102_000


def test_the_table_has_the_same_budget_and_size_for_every_model():
    configs = [table_config(model, 1_000) for model in MATCHED]
    for config in configs:
        assert_100000_parameters(config)
        assert (config["train"], config["dataset"]) == (configs[0]["train"], configs[0]["dataset"])
    train = configs[0]["train"]
    assert (train["batch_size"], train["epochs"] * train["limit_train_batches"]) == (32, 300)


@pytest.mark.slow
def test_the_table_has_the_same_size_at_every_length():
    for length in (100, 10_000):
        for model in MATCHED:
            assert_100000_parameters(table_config(model, length))


def test_the_yaml_has_the_layers_defaults():
    given = yaml.safe_load((_cfg / "igloo.yaml").read_text())
    defaults = {name: p.default for name, p in signature(models.IGLOO1D.__init__).parameters.items()}
    for name in set(given) & set(defaults) - {"nb_patches", "nb_filters_conv1d", "seed"}:
        assert given[name] == defaults[name], name
    assert set(defaults) - set(given) == {"self", "shape", "return_sequences", "nb_sequences"}


def test_combinations_that_make_no_sense_are_refused():
    for data, changes, message in (
        ({}, {"nb_patches": 9}, r"^model\.nb_patches: got 9, expected at least 10"),
        ({"output_steps": None}, {"stretch_factor": 7}, r"^model\.stretch_factor: got 7, expected a divisor of the 30 steps"),
        ({"output_steps": None}, {"padding_style": "same"}, r"^model\.padding_style: got 'same', expected 'causal'"),
        ({}, {"embedding_size": 4}, r"^model\.embedding_size: got 4, expected null, since made up has no tokens"),
        ({"task": "reconstruction"}, {}, r"^model\.network: .*igloo"),
        ({"contiguous": True, "output_steps": None}, {}, r"igloo carries no state.*dataset\.step=30"),
    ):
        with pytest.raises(UserError, match=message):
            network(spec(**data), **changes)
