"""The trial loop on a small made-up data set: seeds, records, limits, and a test set that is touched once."""

import csv
import json
import os
import time
from datetime import UTC, datetime, timedelta
from importlib.metadata import version

import pytest
import torch
import yaml

from seqmem import models, training
from seqmem.data.batch import Batch
from seqmem.data.spec import DataSpec
from seqmem.errors import UserError
from seqmem.results import aggregate
from seqmem.results.reading import find_runs, read_run
from seqmem.results.record import RunFolder
from seqmem.tasks import task_for
from seqmem.training.config import TrainConfig, limited
from seqmem.training.loop.module import SequenceModule
from seqmem.training.loop.splits import Splits
from tests.trials import run_trials

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")


class Signs:
    """Is the first value of a sequence positive? Logs each split that is read."""

    spec = DataSpec("signs", 1, 2, "classification", 0, 6)

    def __init__(self, batches=8):
        self.log, self.batches = [], batches

    def loader(self, split, batch_size, seed=0):
        count = self.batches
        order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
        inputs = torch.randn(count, batch_size, 6, 1, generator=torch.Generator().manual_seed(len(split)))
        data = self

        class Batches(torch.utils.data.Dataset):
            def __len__(self):
                return count

            def __getitem__(self, index):
                data.log.append(split)
                chosen = inputs[order[index] if split == "train" else index]
                return Batch(chosen, (chosen[:, 0, 0] > 0).long())

        return torch.utils.data.DataLoader(Batches(), batch_size=None)

    def describe(self):
        return {"name": "signs", "made": "here"}


def config(**changes):
    plain = {
        "model": {"network": "recurrent", "cell": "legs", "cell_args": {"hidden_size": 6}},
        "dataset": {"name": "signs"},
        "train": {"epochs": 2, "batch_size": 8, "lr": 0.01},
        "runner": {"ntrials": 1, "accelerator": "cpu"},
        "seed": 3,
        "smoke_test": False,
    }
    for key, value in changes.items():
        plain[key] = {**plain[key], **value} if isinstance(value, dict) else value
    return training.check_config(plain)


def weights(folder):
    return torch.load(folder.checkpoints / "last.ckpt", weights_only=True)["state_dict"]


def test_each_trial_has_its_seed_folder_and_record(tmp_path):
    folders = run_trials(config(runner={"ntrials": 2}), Signs(), tmp_path)
    assert [folder.path.name for folder in folders] == ["seed_3", "seed_4"]
    assert len({folder.path.parent for folder in folders}) == 1
    records = [folder.read_record() for folder in folders]
    assert [record["seed"] for record in records] == [3, 4]
    assert len({record["group"] for record in records}) == 1
    assert len({record["result"]["test/loss"] for record in records}) == 2
    for folder, record in zip(folders, records, strict=True):
        assert record["status"] == "finished"
        assert record["model"] == "legs"
        assert (record["metric"], record["metric_label"], record["best"]) == ("accuracy", "accuracy", "max")
        assert record["versions"]["torch"] == version("torch")
        assert record["parameters"] == sum(p.numel() for name, p in weights(folder).items() if name.startswith("model."))
        assert set(record["result"]) == {"val/accuracy", "test/loss", "test/accuracy"}
        assert min(record["seconds"], record["sequences_per_second"], record["peak_memory_mib"]) > 0
        assert yaml.safe_load((folder.path / "config.yaml").read_text())["seed"] == record["seed"]
        assert json.loads((folder.path / "data.json").read_text()) == {"name": "signs", "made": "here"}
        with open(folder.path / "metrics.csv") as file:
            rows = list(csv.DictReader(file))
        assert [row["epoch"] for row in rows] == ["0", "1"]
        assert [row["step"] for row in rows] == ["8", "16"]
        seconds = [1 / float(row["sequences_per_second"]) for row in rows]
        assert record["sequences_per_second"] == pytest.approx(2 / sum(seconds), abs=0.01)
        assert max(float(row["val/accuracy"]) for row in rows) == record["result"]["val/accuracy"]
        assert {path.name for path in folder.checkpoints.iterdir()} == {"best.ckpt", "last.ckpt"}
        stored = torch.load(folder.checkpoints / "best.ckpt", weights_only=True)["hyper_parameters"]
        assert stored["config"] == folder.read_config()
        assert DataSpec(**stored["spec"]) == Signs.spec


def test_the_test_set_is_read_once_after_training_with_the_best_checkpoint(tmp_path, monkeypatch):
    tested = {}
    original = SequenceModule.test_step

    def test_step(self, batch, batch_idx):
        tested.setdefault("weights", {name: value.clone() for name, value in self.state_dict().items()})
        return original(self, batch, batch_idx)

    monkeypatch.setattr(SequenceModule, "test_step", test_step)
    data = Signs()
    [folder] = run_trials(config(train={"epochs": 3, "lr": 0.5}), data, tmp_path)
    assert data.log.count("test") == 8
    assert data.log.index("test") > max(index for index, split in enumerate(data.log) if split != "test")
    best = torch.load(folder.checkpoints / "best.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(best[name], value) for name, value in tested["weights"].items() if name in best)
    metrics = folder.read_metrics()
    assert metrics["val/accuracy"].idxmax() == folder.read_record()["best_epoch"]


@pytest.mark.parametrize(
    ("changes", "trained", "validation", "test", "epochs"),
    [
        ({"train": {"limit_train_batches": 0.25, "limit_val_batches": 1, "limit_test_batches": 3}}, 2, 1, 3, 2),
        ({"smoke_test": True, "train": {"limit_train_batches": 1}}, 1, 2, 2, 1),
    ],
)
def test_limits_count_batches(tmp_path, changes, trained, validation, test, epochs):
    data = Signs()
    [folder] = run_trials(config(**changes), data, tmp_path)
    assert folder.read_metrics()["step"].tolist() == [trained * (epoch + 1) for epoch in range(epochs)]
    assert data.log.count("validation") == validation * epochs
    assert data.log.count("test") == test
    assert [limited(40, limit) for limit in (1, 100, 1.0, 0.5, 0.001)] == [1, 40, 40, 20, 1]
    assert [limited(100, percent / 100) for percent in range(1, 101)] == list(range(1, 101))
    assert [limited(10, limit) for limit in (0.29, 0.299999, 0.3)] == [2, 2, 3]


@pytest.mark.parametrize("algorithm", ["norm", "value"])
def test_gradients_are_clipped(algorithm, tmp_path):
    """By plain gradient descent at a rate of 1, a step is the clipped gradient."""
    clip = {"gradient_clip_val": 1e-3, "gradient_clip_algorithm": algorithm}
    settings = {"limit_train_batches": 1, "epochs": 1, "optimizer": "sgd", "lr": 1.0, **clip}
    [folder] = run_trials(config(train=settings), Signs(), tmp_path)
    torch.manual_seed(3)
    before = models.build(config()["model"], Signs.spec).state_dict()
    step = torch.cat([(weights(folder)[f"model.{name}"] - value).flatten() for name, value in before.items()])
    size = step.norm() if algorithm == "norm" else step.abs().max()
    assert size.item() == pytest.approx(1e-3, rel=1e-2)


def test_learns(tmp_path):
    [folder] = run_trials(config(train={"epochs": 2, "lr": 0.05}), Signs(20), tmp_path)
    assert folder.read_record()["result"]["test/accuracy"] > 0.9


def test_the_start_is_in_utc(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "JST-9")
        time.tzset()
        [folder] = run_trials(config(smoke_test=True), Signs(), tmp_path)
    time.tzset()
    started = datetime.strptime(folder.read_record()["started"], "%Y-%m-%dT%H:%M:%S+0000").replace(tzinfo=UTC)
    assert timedelta() <= datetime.now(UTC) - started < timedelta(hours=1)


def test_tensorboard_by_option(tmp_path):
    [folder] = run_trials(config(runner={"tensorboard": True}, smoke_test=True), Signs(), tmp_path)
    assert list((folder.path / "tensorboard").glob("events.out.tfevents.*"))


def test_a_finished_trial_is_logged_from_its_metrics_as_in_training(tmp_path, capsys):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def scalars(trial):
        found = EventAccumulator(str(trial.path / "tensorboard")).Reload()
        return {tag: {(event.step, event.value) for event in found.Scalars(tag)} for tag in found.Tags()["scalars"]}

    with_events = config(runner={"tensorboard": True}, train={"test_last": True})
    [trained] = run_trials(with_events, Signs(), tmp_path / "trained")
    run_trials(config(train={"test_last": True}), Signs(), tmp_path / "found")
    capsys.readouterr()
    [found] = run_trials(with_events, Signs(), tmp_path / "found")
    assert capsys.readouterr().out.endswith(f"found in {found.path}, logged to tensorboard from its metrics\n")
    expected = scalars(trained)
    del expected["hp_metric"]  # a placeholder of Lightning's
    assert len(expected["val/accuracy"]) == 2
    assert expected == scalars(found)
    record = trained.read_record()
    for prefix, tested in (("test", record["result"]), ("test_last", record["result_last"])):
        [(step, value)] = expected[f"{prefix}/accuracy"]
        assert (step, value) == (trained.read_metrics()["step"].iloc[-1], pytest.approx(tested["test/accuracy"]))
    before = sorted((found.path / "tensorboard").iterdir())
    for _ in range(2):
        run_trials(with_events, Signs(), tmp_path / "found")
        run_trials(with_events, Signs(), tmp_path / "trained")
    assert sorted((found.path / "tensorboard").iterdir()) == before
    assert "logged to" not in capsys.readouterr().out


def test_a_failed_trial_says_so_in_its_record(tmp_path, monkeypatch):
    def training_step(self, batch, batch_idx):
        raise ArithmeticError("on purpose")

    monkeypatch.setattr(SequenceModule, "training_step", training_step)
    with pytest.raises(ArithmeticError, match="on purpose"):
        run_trials(config(), Signs(), tmp_path)
    [path] = tmp_path.glob("*/seed_3")
    assert (path / "metrics.csv").exists() is False
    record = RunFolder(path).read_record()
    assert record["status"] == "failed"
    assert record["reason"] == "ArithmeticError: on purpose"


def test_other_trials_run_when_one_fails(tmp_path, monkeypatch):
    original = SequenceModule.training_step

    def training_step(self, batch, batch_idx):
        if self.hparams["config"]["seed"] == 4:
            raise ArithmeticError("on purpose")
        return original(self, batch, batch_idx)

    monkeypatch.setattr(SequenceModule, "training_step", training_step)
    with pytest.raises(ArithmeticError, match="on purpose"):
        run_trials(config(runner={"ntrials": 3}, smoke_test=True), Signs(), tmp_path)
    [folder] = tmp_path.iterdir()
    found = [RunFolder(folder / f"seed_{seed}").read_record()["status"] for seed in (3, 4, 5)]
    assert found == ["finished", "failed", "finished"]


@pytest.mark.parametrize(("clip", "clipping"), [(0, ", or train.gradient_clip_val=1$"), (1e9, "$")])
def test_a_loss_that_is_not_finite_stops_the_trial(tmp_path, clip, clipping):
    broken = config(
        model={"cell": "rnn", "cell_args": {"hidden_size": 6, "hidden_activation": "relu"}},
        train={"optimizer": "sgd", "lr": 1e30, "gradient_clip_val": clip},
    )
    message = (
        r"the training loss became (nan|inf) at batch .* of epoch 1 \(step [1-9].*, learning rate 1e\+30, norm of the gradient "
        r"before .*\); try a train.lr below 1e\+30"
    )
    with pytest.raises(UserError, match=message + clipping):
        run_trials(broken, Signs(), tmp_path)


@pytest.mark.parametrize(("precision", "dtype"), [("bf16-mixed", torch.float32), ("64-true", torch.float64)])
def test_precision(precision, dtype, tmp_path):
    [folder] = run_trials(config(smoke_test=True, train={"precision": precision}), Signs(), tmp_path)
    assert weights(folder)["model.head.0.weight"].dtype == dtype


def test_a_model_that_does_not_fit_is_refused_without_memory():
    with pytest.raises(UserError, match="signs has no tokens"):
        training.check_fit(config(model={"embedding_size": 3}), Signs.spec)
    training.check_fit(config(model={"cell": "lstm", "cell_args": {"hidden_size": 10**7}}), Signs.spec)


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["legs", "legt", "rnn"])
def test_compiling_changes_no_result_and_no_checkpoint(cell, tmp_path):
    results = []
    for compile in (False, True):
        settings = config(train={"epochs": 1, "compile": compile}, model={"cell": cell})
        [folder] = run_trials(settings, Signs(), tmp_path / str(compile))
        checkpoint = torch.load(folder.checkpoints / "best.ckpt", weights_only=True)
        results.append((folder.read_record(), checkpoint["state_dict"]))
    (plain, weights), (compiled, same) = results
    assert plain["recurrences"] == compiled["recurrences"]
    assert list(weights) == list(same)
    for name, weight in weights.items():
        torch.testing.assert_close(same[name], weight, rtol=1e-4, atol=1e-5, msg=name)


def test_the_record_says_which_path_sequences_took(tmp_path, capsys):
    [folder] = run_trials(config(smoke_test=True, model={"cell": "grus"}), Signs(), tmp_path)
    [path] = folder.read_record()["recurrences"]
    assert path.startswith("step by step (")
    assert f"each sequence {path}" in capsys.readouterr().out


def test_the_last_epoch_is_tested_too_where_asked(tmp_path):
    [folder] = run_trials(config(train={"epochs": 3, "test_last": True}), Signs(), tmp_path)
    record = folder.read_record()
    assert set(record["result_last"]) == {"test/loss", "test/accuracy"}
    [row] = aggregate.summarize(aggregate.group_trials([read_run(folder)])).to_dict("records")
    assert row["last_mean"] == record["result_last"]["test/accuracy"]
    assert row["test_mean"] == record["result"]["test/accuracy"]


def test_an_orthogonal_matrix_learns_at_a_tenth_of_the_rate():
    settings = config(model={"cell": "exprnn"}, train={"lr": 0.01, "wd": 0.5})
    model = models.build(settings["model"], Signs.spec)
    module = SequenceModule(model, task_for(Signs.spec), TrainConfig(**settings["train"]))
    rates = {
        id(parameter): group["lr"] for group in module.configure_optimizers().param_groups for parameter in group["params"]
    }
    assert len(rates) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        assert rates[id(parameter)] == pytest.approx(0.001 if "recurrent" in name else 0.01), name
    assert all(group["weight_decay"] == 0.5 for group in module.configure_optimizers().param_groups)


def test_without_epochs_the_initial_weights_are_tested(tmp_path):
    data = Signs()
    [trial] = run_trials(config(train={"epochs": 0, "batch_size": 8, "lr": 0.01}), data, tmp_path)
    record = trial.read_record()
    assert set(data.log) == {"validation", "test"}
    assert (record["epochs"], record["best_epoch"], record["sequences_per_second"]) == (0, -1, None)
    torch.manual_seed(3)
    untrained = models.build(config()["model"], data.spec).state_dict()
    kept = torch.load(trial.checkpoints / "best.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(kept[f"model.{name}"], value) for name, value in untrained.items())
    row = aggregate.summarize(aggregate.group_trials(find_runs(tmp_path))).iloc[0]
    assert row["test_mean"] == record["result"]["test/accuracy"]
    assert row["best_epoch"] == 0


def test_epochs_reach_the_schedules_of_a_model_and_come_back_with_its_checkpoint(tmp_path, monkeypatch):
    """The slope of soft boundaries grows by 2 an epoch; the best epoch is not the last one."""
    slopes = {"train": [], "val": [], "test": []}
    original = SequenceModule._loss_and_outputs

    def loss_and_outputs(self, split, *given):
        slopes[split].append(self.model.layers[0].slope.item())
        found = original(self, split, *given)
        if split == "val" and self.current_epoch > 1:
            for parameter in self.model.head.parameters():
                parameter.zero_()
        return found

    monkeypatch.setattr(SequenceModule, "_loss_and_outputs", loss_and_outputs)
    soft = {"hidden_size": 6, "num_layers": 2, "boundary": "soft", "slope_growth": 2.0, "max_slope": 6.0}
    settings = config(
        model={"network": "hmlstm", "cell": "hmlstm", "cell_args": soft},
        train={"epochs": 4, "limit_train_batches": 2, "limit_val_batches": 2, "test_last": True},
    )
    [folder] = run_trials(settings, Signs(), tmp_path)
    record = folder.read_record()
    assert slopes["train"] == slopes["val"] == [1, 1, 3, 3, 5, 5, 6, 6]
    assert record["best_epoch"] < 3
    assert set(slopes["test"][:8]) == {6.0}
    assert set(slopes["test"][8:]) == {1.0 + 2 * record["best_epoch"]}


def test_the_learning_rate_follows_every_update(tmp_path, monkeypatch):
    """A schedule by steps, with a warm-up that is a fraction of all 16 steps; and lr / (1 + d i) at update i."""
    seen = []
    monkeypatch.setattr(
        SequenceModule,
        "on_before_optimizer_step",
        lambda self, optimizer: seen.append(optimizer.param_groups[0]["lr"]),
    )
    schedule = {"schedule": "exponential", "schedule_interval": "step", "final_lr": 0.1, "warmup_steps": 0.25}
    run_trials(config(train={"lr": 0.5, **schedule}), Signs(), tmp_path)
    assert seen == pytest.approx([*(0.5 * k / 4 for k in range(1, 5)), *(0.5 * 0.2 ** (k / 11) for k in range(12))])
    seen.clear()
    run_trials(config(train={"epochs": 2, "lr": 0.5, "lr_decay": 0.1, "limit_train_batches": 3}), Signs(), tmp_path)
    assert seen == pytest.approx([0.5 / (1 + 0.1 * update) for update in range(6)])


def test_a_loaders_own_initialisation_of_workers_is_kept(monkeypatch):
    class Initialised(Signs):
        def loader(self, split, batch_size, seed=0):
            made = super().loader(split, batch_size, seed)
            made.worker_init_fn = calls.append
            return made

    calls, groups = [], []
    monkeypatch.setattr(os, "setpgid", lambda *arguments: groups.append(arguments))
    for data in (Initialised(), Signs()):
        Splits.of(data, TrainConfig(), 0, smoke_test=True).loaders["train"].worker_init_fn(7)
    assert calls == [7]
    assert groups == [(0, 0)] * 2
