"""Files of strangers: nothing in them is executed, and what is wrong with them is told in one line."""

import copy
import io
import pickle
import shutil
import tarfile
import zipfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from seqmem import datasets, results
from seqmem.cli import commandline
from seqmem.datasets import reviews
from seqmem.errors import UserError
from seqmem.io import archive
from seqmem.io.series_files import read_series, write_series
from seqmem.results import RunFolder
from seqmem.training.checkpoints.checkpoints import load_plain, read_checkpoint, restore
from tests.hostile import HOSTILE, MakesFile, write_hostile_zip
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
    """A file that makes ``marker`` if what is in it is executed."""
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


@pytest.mark.parametrize("kind", ["pickle", "checkpoint of it", "checkpoint with it", "old checkpoint with it"])
def test_a_pickle_is_not_executed(kind, trial, data, tmp_path, capsys):
    marker, path = tmp_path / "marker", tmp_path / "best.ckpt"
    path.write_bytes(pickled(marker, kind))
    with suppress(RuntimeError):
        torch.load(path, weights_only=False)
    assert marker.exists()  # so does what reads it carelessly
    marker.unlink()
    with pytest.raises(UserError, match=r"best\.ckpt is not a checkpoint: it is damaged, or holds more than tensors and plain"):
        read_checkpoint(path)
    config = commandline.compose([*SMALL, f"train.resume={path}"])
    with pytest.raises(UserError, match=r"best\.ckpt is not a checkpoint"):
        run_trials(config, data, tmp_path / "other")
    shutil.copytree(trial.path.parent, tmp_path / "own" / trial.path.parent.name)
    [own] = (tmp_path / "own").glob("*/seed_0")
    (own / "record.json").unlink()
    shutil.copy(path, own / "checkpoints/last.ckpt")
    [anew] = run_trials(commandline.compose(SMALL), data, tmp_path / "own")
    assert "the trial begins anew" in capsys.readouterr().err
    assert_same(trial, anew)
    assert not marker.exists()


def test_a_truncated_checkpoint_is_refused_wherever_it_ends(trial, tmp_path):
    content, path = (trial.checkpoints / "best.ckpt").read_bytes(), tmp_path / "x.ckpt"
    for length in [*range(0, len(content), len(content) // 40), len(content) - 1]:
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
    "a config that is none": lambda c: c["hyper_parameters"].update(config="model"),
    "a config without seed": lambda c: c["hyper_parameters"]["config"].pop("seed"),
    "a model that is none": lambda c: c["hyper_parameters"]["config"].update(model=3),
    "a spec that is none": lambda c: c["hyper_parameters"].update(spec=[1]),
    "a spec of words": lambda c: c["hyper_parameters"]["spec"].update(input_size="x"),
    "an unknown task": lambda c: c["hyper_parameters"]["spec"].update(task="x"),
    "an epoch that is none": lambda c: c.update(epoch="x"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_plain_values_that_are_no_trials_are_refused(change, trial, tmp_path):
    content = torch.load(trial.checkpoints / "best.ckpt", weights_only=True)
    changed = CHANGES[change](content)
    torch.save(changed if isinstance(changed, list) and change == "a list" else content, tmp_path / "x.ckpt")
    with pytest.raises(UserError, match=r"x\.ckpt is not a checkpoint of train\.py"):
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
        ({"weights": {name: torch.zeros(2, 2)}}, rf"is a checkpoint of another model: got {name} of shape \(2, 2\), expected"),
        ({"weights": {"more": torch.zeros(2)}}, r"got more of shape \(2,\), expected nothing"),
        ({"weights": {name: "x"}}, "its weights are no plain tensors by name"),
        ({"weights": {name: content["state_dict"][name].to_sparse()}}, "is not a checkpoint"),
        ({"weights": {name: content["state_dict"][name].to("meta")}}, "its weights are no plain tensors by name"),
        ({"model": {"cell": "gru"}}, "is a checkpoint of another model: got"),
        ({"model": huge}, r"is a checkpoint of another model: got .*, expected \(4000000"),  # 16 TB of weights
    ):
        with pytest.raises(UserError, match=message):
            loaded(**changes)


@pytest.mark.parametrize("missing", ["loops", "callbacks", "optimizer_states", "lr_schedulers", "epoch_recorder"])
def test_a_checkpoint_that_no_training_can_go_on_from_is_refused(missing, trial, data, tmp_path):
    content = torch.load(trial.checkpoints / "last.ckpt", weights_only=True)
    content[missing] = "x"
    shutil.copytree(trial.path, tmp_path / "trial")
    torch.save(content, tmp_path / "trial/checkpoints/last.ckpt")
    config = commandline.compose([*SMALL, f"train.resume={tmp_path / 'trial'}", "train.epochs=2"])
    with pytest.raises(UserError, match=rf"last\.ckpt cannot be gone on from: it holds no {missing}"):
        run_trials(config, data, tmp_path / "other")


def test_arrays_of_objects_are_not_unpickled(tmp_path):
    marker = tmp_path / "marker"
    objects = np.array([MakesFile(marker)], dtype=object)
    np.save(tmp_path / "x.npy", objects, allow_pickle=True)
    np.savez(tmp_path / "x.npz", a=np.ones((3, 2)), b=objects)
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as file, zipfile.ZipFile(tmp_path / "x.npz") as arrays:
        file.writestr("meta.json", "{}")
        file.writestr("b.npy", arrays.read("b.npy"))
    for name in ("x.npy", "x.npz"):
        with pytest.raises(UserError, match=rf"cannot read .*{name} \(Object arrays cannot be loaded"):
            read_series(tmp_path / name)
    with pytest.raises(UserError, match=r"x\.zip is no file of a model, or damaged \(Object arrays"):
        archive.read(tmp_path / "x.zip")
    assert not marker.exists()


def test_zips_that_would_fill_memory_are_not_read(tmp_path):
    content = io.BytesIO()
    np.save(content, np.ones((3, 2)))
    message = write_hostile_zip(tmp_path / "x.npz", "bomb", content.getvalue(), "a.npy")
    with pytest.raises(UserError, match=rf"cannot read .*x\.npz \({message}"):
        read_series(tmp_path / "x.npz")
    write_hostile_zip(tmp_path / "x.zip", "bomb", b"{}", "meta.json")
    with pytest.raises(UserError, match=rf"x\.zip is no file of a model, or damaged \({message}"):
        archive.read(tmp_path / "x.zip")
    (tmp_path / "data").mkdir()
    write_hostile_zip(tmp_path / "data/text8.zip", "bomb", b"a b c", "text8")
    with pytest.raises(UserError, match=rf"text8\.zip cannot be read \({message}"):
        datasets.load({"name": "text8", "data_dir": str(tmp_path / "data")})


@pytest.mark.parametrize("kind", sorted({*HOSTILE} - {"bomb"}))
def test_zips_are_read_without_being_unpacked(kind, tmp_path):
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    write_hostile_zip(folder / "x.zip", kind, b"{}", "meta.json")
    assert archive.read(folder / "x.zip") == ({}, {})
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "b", "x.zip"]
    assert not Path("/seqmem_hostile").exists()


def test_series_may_have_names_that_would_be_hostile_paths(tmp_path):
    names = ["../x", "/y", "C:1", "a:b"]
    write_series(tmp_path / "x.npz", names, [np.full((2, 1), k, np.float32) for k in range(4)])
    found, series = read_series(tmp_path / "x.npz")
    assert found == names
    assert [each[0, 0] for each in series] == [0, 1, 2, 3]


def test_headers_that_announce_more_than_there_is_are_refused(tmp_path):
    for shape in ("(2, 100000000000)", "(99999999999999999999, 3)", "(-1, 3)", "(" * 90 + ")" * 90):
        header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
        (tmp_path / "x.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode())
        with pytest.raises(UserError, match=r"cannot read .*x\.npy|x\.npy holds no series"):  # as this numpy sees it
            read_series(tmp_path / "x.npy")


def test_a_review_that_would_fill_memory_is_not_read(tmp_path):
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as file:
        member = tarfile.TarInfo("aclImdb/train/pos/1_10.txt")
        member.size = 2 * reviews.LONGEST
        file.addfile(member, io.BytesIO(bytes(member.size)))
    with pytest.raises(UserError, match=r"x\.tar\.gz holds aclImdb/train/pos/1_10\.txt of 2097152 bytes, expected at most"):
        list(reviews.read_reviews(tmp_path / "x.tar.gz"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("record.json", "{", "record.json is damaged"),
        ("record.json", "\xff", "record.json is damaged"),
        ("record.json", "[" * 100_000, "record.json is damaged"),
        ("record.json", "[]", "record.json is damaged"),
        ("record.json", '{"status": "finished"}', "record.json does not tell its dataset, model, group, seed"),
        (
            "record.json",
            '{"status": "finished", "group": 1, "dataset": 1, "model": 1, "seed": 0}',
            "record.json does not tell its dataset, model, group",
        ),
        ("config.yaml", "a: [", "config.yaml is damaged"),
        ("config.yaml", "!!python/object/apply:pathlib.Path.touch [marker]", "config.yaml is damaged"),
        ("config.yaml", "3", "config.yaml is no config of a trial"),
        ("sweep.json", "[" * 100_000, "cannot read .*sweep.json"),
        ("sweep.json", '{"jobs": [3]}', "cannot read .*sweep.json"),
    ],
)
def test_records_of_strangers_are_refused_by_name(name, content, message, trial, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trial.path, tmp_path / "seed_0")
    folder = tmp_path if name == "sweep.json" else tmp_path / "seed_0"
    (folder / name).write_bytes(content.encode("latin-1"))
    if name == "sweep.json":
        with pytest.raises(UserError, match=message):
            results.find_runs(tmp_path)
    else:
        [group] = results.group_trials(results.find_runs(tmp_path))
        [told] = [run.reason for run in group.unfinished] or [group.note]
        assert message in told
    assert not (tmp_path / "marker").exists()
    if name == "record.json":
        assert RunFolder(folder).finished() is None


@pytest.mark.parametrize("content", [b"", b"step,val/loss\n1,2\n", b"epoch\n1,2,3\n1\n\xff\xfe", b'epoch,"a\n1'])
def test_a_damaged_table_of_metrics_is_told(content, trial, tmp_path):
    copied = RunFolder(Path(shutil.copytree(trial.path, tmp_path / "copied")))
    (copied.path / "metrics.csv").write_bytes(content)
    with pytest.raises(UserError, match=r"metrics.csv is damaged \("):
        copied.read_metrics()


def test_nothing_in_a_strangers_config_is_interpolated(trial, tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET", "the password")
    path = tmp_path / "strange.ckpt"
    checkpoint = torch.load(trial.checkpoints / "best.ckpt", weights_only=True)
    checkpoint["hyper_parameters"]["config"]["output_dir"] = "${oc.env:SECRET}"
    torch.save(checkpoint, path)

    @dataclass(frozen=True)
    class Keys:
        split: str = "test"

    _, config, _ = commandline.of_checkpoint([str(path), "train.eval_batch_size=3", "dataset.num_workers=1"], Keys)
    assert config["output_dir"] == "${oc.env:SECRET}"
    assert config["train"]["eval_batch_size"] == 3
    assert config["dataset"]["num_workers"] == 1
    with pytest.raises(UserError, match=r"train.lr.x: lr holds a single value"):
        commandline.of_checkpoint([str(path), "train.lr.x=3"], Keys)
