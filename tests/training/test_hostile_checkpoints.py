"""Checkpoints from untrusted sources: nothing in them is executed, and damage is named in one line."""

import copy
import io
import pickle
import shutil
import zipfile
from contextlib import suppress
from dataclasses import dataclass

import pytest
import torch

from seqmem import datasets
from seqmem.cli import commandline, finished_trial
from seqmem.errors import UserError
from seqmem.training.checkpoints.files import load_plain, read_checkpoint, restore
from tests.hostile import MakesFile
from tests.trials import assert_same, run_trials

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")

SMALL = [
    "dataset=digits",
    "model=lstm",
    "model.preset=tiny",
    "train.epochs=1",
    "train.limit_train_batches=2",
    "train.limit_val_batches=1",
    "train.limit_test_batches=1",
]


@pytest.fixture(scope="module")
def data():
    return datasets.load(commandline.compose(SMALL)["dataset"])


@pytest.fixture(scope="module")
def trial(data, tmp_path_factory):
    """The folder of a finished trial."""
    [folder] = run_trials(commandline.compose(SMALL), data, tmp_path_factory.mktemp("trial"))
    return folder


def pickled(marker, kind):
    """The content of a file that creates ``marker`` if its pickle is executed."""
    file = io.BytesIO()
    if kind == "pickle":
        pickle.dump(MakesFile(marker), file)
    elif kind == "checkpoint of it":
        torch.save(MakesFile(marker), file)
    else:
        weights = {"weight": torch.zeros(3)}
        content = {"hyper_parameters": {"config": MakesFile(marker)}, "epoch": 0, "state_dict": weights}
        torch.save(content, file, _use_new_zipfile_serialization=kind == "checkpoint with it")
    return file.getvalue()


def test_a_pickle_is_not_executed(trial, data, tmp_path, capsys):
    marker, path = tmp_path / "marker", tmp_path / "best.ckpt"
    for kind in ("pickle", "checkpoint of it", "old checkpoint with it", "checkpoint with it"):
        path.write_bytes(pickled(marker, kind))
        with suppress(RuntimeError):
            torch.load(path, weights_only=False)
        assert marker.exists(), kind  # an unsafe reader executes it
        marker.unlink()
        with pytest.raises(UserError, match=r"best\.ckpt is not a checkpoint: it is damaged, or "):
            read_checkpoint(path)
    config = commandline.compose([*SMALL, f"train.resume={path}"])
    with pytest.raises(UserError, match=r"best\.ckpt is not a checkpoint"):
        run_trials(config, data, tmp_path / "other")
    shutil.copytree(trial.path.parent, tmp_path / "own" / trial.path.parent.name)
    [own] = (tmp_path / "own").glob("*/seed_0")
    (own / "record.json").unlink()
    shutil.copy(path, own / "checkpoints/last.ckpt")
    [restarted] = run_trials(commandline.compose(SMALL), data, tmp_path / "own")
    assert "last.ckpt" in capsys.readouterr().err
    assert_same(trial, restarted)
    assert not marker.exists()


def test_a_truncated_checkpoint_is_refused_wherever_it_ends(trial, tmp_path):
    content, path = (trial.checkpoints / "best.ckpt").read_bytes(), tmp_path / "x.ckpt"
    for length in [*range(0, len(content), len(content) // 12), len(content) - 1]:
        path.write_bytes(content[:length])
        with pytest.raises(UserError, match=r"x\.ckpt is not a checkpoint: it is damaged"):
            read_checkpoint(path)


def test_a_checkpoint_that_would_fill_memory_is_refused(tmp_path):
    torch.save({"a": torch.zeros(40_000_000)}, tmp_path / "plain.ckpt")
    with (
        zipfile.ZipFile(tmp_path / "plain.ckpt") as plain,
        zipfile.ZipFile(tmp_path / "x.ckpt", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for name in plain.namelist():
            bomb.writestr(name, plain.read(name))
    assert (tmp_path / "x.ckpt").stat().st_size < 10**6
    with pytest.raises(UserError, match=r"x\.ckpt is not a checkpoint: it is damaged"):
        load_plain(tmp_path / "x.ckpt")


CHANGES = {
    "a list": lambda c: [c],
    "no config": lambda c: c["hyper_parameters"].pop("config"),
    "a config that is not a dict": lambda c: c["hyper_parameters"].update(config="model"),
    "a config without seed": lambda c: c["hyper_parameters"]["config"].pop("seed"),
    "a model that is not a dict": lambda c: c["hyper_parameters"]["config"].update(model=3),
    "a spec that is not a dict": lambda c: c["hyper_parameters"].update(spec=[1]),
    "a spec of words": lambda c: c["hyper_parameters"]["spec"].update(input_size="x"),
    "an unknown task": lambda c: c["hyper_parameters"]["spec"].update(task="x"),
    "an epoch that is not a number": lambda c: c.update(epoch="x"),
}


def test_values_that_are_not_those_of_a_trial_are_refused(trial, tmp_path):
    for name, change in CHANGES.items():
        content = torch.load(trial.checkpoints / "best.ckpt", weights_only=True)
        changed = change(content)
        torch.save(changed if name == "a list" else content, tmp_path / "x.ckpt")
        with pytest.raises(UserError, match=r"x\.ckpt is not a checkpoint of seqmem train"):
            read_checkpoint(tmp_path / "x.ckpt")


def test_weights_that_are_not_the_models_are_refused_before_it_is_made(trial, data, tmp_path):
    content = torch.load(trial.checkpoints / "best.ckpt", weights_only=True)
    name = next(iter(content["state_dict"]))

    def loaded(**changes):
        changed = copy.deepcopy(content)
        changed["state_dict"].update(changes.get("weights", {}))
        changed["hyper_parameters"]["config"]["model"].update(changes.get("model", {}))
        torch.save(changed, tmp_path / "x.ckpt")
        checkpoint = read_checkpoint(tmp_path / "x.ckpt")
        return restore(checkpoint, checkpoint.config["train"], data.spec)

    assert torch.equal(loaded().state_dict()[name], content["state_dict"][name])
    arguments = content["hyper_parameters"]["config"]["model"]
    huge = {"cell_args": {**arguments["cell_args"], "hidden_size": 10**6}}
    for changes, message in (
        ({"weights": {name: torch.zeros(2, 2)}}, rf"of a different model: got {name} of shape \(2, 2\), expected"),
        ({"weights": {"more": torch.zeros(2)}}, r"got more of shape \(2,\), expected nothing"),
        ({"weights": {name: "x"}}, "its weights are not plain tensors by name"),
        ({"weights": {name: content["state_dict"][name].to_sparse()}}, "is not a checkpoint"),
        ({"weights": {name: content["state_dict"][name].to("meta")}}, "its weights are not plain tensors by name"),
        ({"model": {"cell": "gru"}}, "is a checkpoint of a different model: got"),
        ({"model": huge}, r"is a checkpoint of a different model: got .*, expected \(4000000"),  # 16 TB of weights
    ):
        with pytest.raises(UserError, match=message):
            loaded(**changes)


def test_a_checkpoint_without_the_state_of_training_is_refused(trial, data, tmp_path):
    shutil.copytree(trial.path, tmp_path / "trial")
    config = commandline.compose([*SMALL, f"train.resume={tmp_path / 'trial'}", "train.epochs=2"])
    for missing in ("loops", "callbacks", "optimizer_states", "lr_schedulers", "epoch_recorder"):
        content = torch.load(trial.checkpoints / "last.ckpt", weights_only=True)
        content[missing] = "x"
        torch.save(content, tmp_path / "trial/checkpoints/last.ckpt")
        with pytest.raises(UserError, match=rf"last\.ckpt.*no {missing}"):
            run_trials(config, data, tmp_path / "other")
    for rows in (None, 3, [{}], [{"val/accuracy": "x"}], ["x"]):
        content = torch.load(trial.checkpoints / "last.ckpt", weights_only=True)
        content["epoch_recorder"]["rows"] = rows
        torch.save(content, tmp_path / "trial/checkpoints/last.ckpt")
        for patience in ("train.patience=null", "train.patience=1"):
            patient = commandline.compose([*SMALL, f"train.resume={tmp_path / 'trial'}", "train.epochs=2", patience])
            with pytest.raises(UserError, match=r"last\.ckpt.*no rows with val/"):
                run_trials(patient, data, tmp_path / "other")


def test_a_config_is_not_interpolated(trial, tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET", "the password")
    path = tmp_path / "strange.ckpt"
    checkpoint = torch.load(trial.checkpoints / "best.ckpt", weights_only=True)
    checkpoint["hyper_parameters"]["config"]["output_dir"] = "${oc.env:SECRET}"
    torch.save(checkpoint, path)

    @dataclass(frozen=True)
    class Keys:
        split: str = "test"

    _, config, _ = finished_trial.read([str(path), "train.eval_batch_size=3", "dataset.num_workers=1"], Keys)
    assert config["output_dir"] == "${oc.env:SECRET}"
    assert config["train"]["eval_batch_size"] == 3
    assert config["dataset"]["num_workers"] == 1
    with pytest.raises(UserError, match=r"train.lr.x: no such key; lr is a single value"):
        finished_trial.read([str(path), "train.lr.x=3"], Keys)
