"""``python -m seqmem.publish``: a folder from which the model can be loaded, with a card and without this machine's paths."""

import json
import re
import shlex
import time
from dataclasses import asdict
from importlib.util import find_spec

import pytest
import torch
import yaml

import seqmem
from seqmem import datasets
from seqmem.cli import commandline, predict, publish
from seqmem.errors import UserError
from seqmem.results.model_card import card, shared_command
from seqmem.training.checkpoints import hub_folder
from seqmem.training.checkpoints.files import read_checkpoint
from tests.trials import run_trials

needs_safetensors = pytest.mark.skipif(
    find_spec("safetensors") is None, reason="safetensors is not installed: pip install -e '.[hub]'"
)
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")
FILES = {"README.md", "config.json", "preprocessor_config.json", "model.safetensors"}


@pytest.fixture(scope="module")
def trial(tmp_path_factory):
    """Of a text in a folder of this machine, in float64."""
    folder = tmp_path_factory.mktemp("trial")
    (folder / "a book.txt").write_text("the quick brown fox jumps over the lazy dog\n" * 30, encoding="utf-8")
    given = ["dataset=text", f"dataset.path='{folder / 'a book.txt'}'", "dataset.length=20", "model=lstm", "model.preset=tiny"]
    config = commandline.compose([*given, "train.precision=64-true", "smoke_test=true", f"output_dir={folder}"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["/home/me/train.py", *given, "--flag"])
        [trial] = run_trials(config, datasets.load(config["dataset"]), folder)
    return trial


def published(trial, folder, *options):
    publish.run(publish._parser().parse_args([str(trial.path), "--to", str(folder), "--license", "MIT", *options]))
    return folder


@needs_safetensors
def test_the_loaded_model_is_the_trials(trial, tmp_path, capsys):
    folder = published(trial, tmp_path / "model")
    assert {path.name for path in folder.iterdir()} == FILES
    assert "load it: seqmem.load(" in capsys.readouterr().out
    own, loaded = seqmem.load(trial.path), seqmem.load(folder)
    assert loaded.spec == own.spec
    assert not loaded.training
    tokens = torch.randint(own.spec.input_size, (3, 15))
    with torch.no_grad():
        assert torch.equal(loaded.predict(tokens), own.predict(tokens))
    assert loaded.predict(tokens).dtype == torch.float64
    one, other = read_checkpoint(trial.path), read_checkpoint(folder / "model.safetensors")
    assert (one.epoch, one.data, one.backend) == (other.epoch, other.data, other.backend)


@needs_safetensors
def test_the_card_says_what_was_trained_on_what_by_what(trial, tmp_path):
    text = (published(trial, tmp_path / "model") / "README.md").read_text()
    _, header, body = text.split("---\n", 2)
    front = yaml.safe_load(header)
    record, data = trial.read_record(), trial.read_data()
    assert (front["license"], front["library_name"], front["metrics"]) == ("mit", "seqmem", [record["metric"]])
    [index] = front["model-index"]
    [result] = index["results"]
    assert result["task"] == {"type": "text-generation"}
    assert {each["name"]: each["value"] for each in result["metrics"]} == {
        f"test {record['metric_label']}": record["result"][f"test/{record['metric']}"],
        f"validation {record['metric_label']}": record["result"][f"val/{record['metric']}"],
    }
    for value in (record["commit"], record["code"], record["machine"]["processor"], *data["sha256"].values()):
        assert str(value) in body
    command = "train.py dataset=text dataset.path='a book.txt' dataset.length=20 model=lstm model.preset=tiny --flag"
    assert shlex.split(body.partition("```bash\n")[2].partition("\n```")[0]) == [
        *command.split(" dataset.path")[0].split(),
        "dataset.path='a book.txt'",
        *command.partition("' ")[2].split(),
    ]
    assert "This is a smoke test" in body


@pytest.mark.parametrize(
    ("given", "shared"),
    [
        ("/home/me/train.py", "train.py"),
        ("dataset.path=/home/me/a book.csv", "dataset.path=a book.csv"),
        ("dataset.files=[/a/b/c.csv,'/d e/f.csv']", "dataset.files=[c.csv,'f.csv']"),
        ("dataset.files={train: /a/b.csv}", "dataset.files={train: b.csv}"),
        ("dataset.path=data/mine.csv", "dataset.path=data/mine.csv"),
        ("train.lr=1e-3,1e-2", "train.lr=1e-3,1e-2"),
        ("address=https://host/a", "address=https://host/a"),
        ("dataset.id_column=/meta/id", "dataset.id_column=/meta/id"),
        ("dataset.channel_columns=[/imu/acc_x,/imu/acc_y]", "dataset.channel_columns=[/imu/acc_x,/imu/acc_y]"),
        ('dataset.path="/tmp/o\'neil clients/reg.csv"', 'dataset.path="reg.csv"'),
        ("dataset.path='/tmp/a, b [c]/{d}/reg.csv'", "dataset.path='reg.csv'"),
        (r"dataset.path='/home/o\'neil/a \'b\'.csv'", r"dataset.path='a \'b\'.csv'"),
        ("dataset.files={train:/a/b.csv,test: '/a/c.csv'}", "dataset.files={train:b.csv,test: 'c.csv'}"),
        ("dataset.path=//home/me//x.csv", "dataset.path=x.csv"),
        ("dataset.path=C:/Users/me/x.csv", "dataset.path=x.csv"),
        ("dataset.path='C:/Users/me, you/x.csv'", "dataset.path='x.csv'"),
        ("dataset.path=file:///home/me/x.csv", "dataset.path=file://x.csv"),
        ("x=choice(/home/me/a.csv,/home/me/b.csv)", "x=choice(a.csv,b.csv)"),
        ("dataset.files={train: //home/me/x.csv}", "dataset.files={train: x.csv}"),
        (r"dataset.path=/home/me\,you/x.csv", "dataset.path=x.csv"),
        ("dataset.path='file:///home/me, you/x.csv'", "dataset.path='x.csv'"),
        ("path='/" + 20_000 * r"\a", "path='/" + 20_000 * r"\a"),  # an open quote takes no time
        ("/home/o'neil, me/train.py", "train.py"),
    ],
)
def test_absolute_paths_lose_their_folders(given, shared):
    started = time.perf_counter()
    assert shared_command([given]) == [shared]
    assert time.perf_counter() - started < 1


@needs_safetensors
def test_nothing_names_a_folder_of_this_machine(trial, tmp_path):
    folder = published(trial, tmp_path / "model")
    for name in FILES:
        content = (folder / name).read_bytes()
        assert str(trial.path.parent.parent).encode() not in content
        assert b"/home/me" not in content
    config = json.loads((folder / "config.json").read_text())["config"]
    assert (config["dataset"]["path"], config["output_dir"]) == ("a book.txt", "runs")


def test_a_card_shows_a_command_that_runs_and_no_addresses(trial, tmp_path):
    record, spec = trial.read_record(), asdict(read_checkpoint(trial.path).spec)
    secret = "https://me:secret@host"
    keys = ("runner.mlflow", "+runner.wandb", "runner.address", "hydra.sweeper.storage")
    private = [f"{key}={secret}" for key in keys]
    for program, words in (("seqmem train", ["seqmem", "train"]), ("/home/me/a b/train.py", ["train.py"])):
        text = card(record | {"command": [program, "model=lstm", *private, "dataset=text"]}, trial.read_data(), spec, "mit")
        [command] = re.findall(r"```bash\n(.*)\n```", text)
        assert shlex.split(command) == [*words, "model=lstm", "dataset=text"]
        assert "secret" not in text
    config = read_checkpoint(trial.path).config
    runner = {**config["runner"], "wandb": "online", "mlflow": secret, "address": secret}
    shared = publish.shared_config({**config, "runner": runner})
    assert [shared["runner"][key] for key in ("wandb", "mlflow", "address")] == [None] * 3
    assert publish.shared_config(config)["runner"].keys() == config["runner"].keys()
    assert "secret" not in json.dumps(shared)
    columns = {"id_column": "/meta/id", "channel_columns": ["/imu/x"], "path": "/home/me/o'neil/bag.csv"}
    shared = publish.shared_config({**config, "dataset": {**config["dataset"], **columns}})
    assert {key: shared["dataset"][key] for key in columns} == {**columns, "path": "bag.csv"}
    assert "model.predict(inputs)  " in text
    text = card(record, trial.read_data(), {**spec, "times": True}, "mit")
    assert f"model.predict(inputs, times=times)  # (B, T) tokens below {spec['input_size']} and times (B, T) -> " in text


@needs_safetensors
def test_files_of_ones_own_are_prepared_as_in_the_training(tmp_path):
    rows = [f"s{k},{t},{100 + k % 2 + t / 9},{'ab'[k % 2]}" for k in range(24) for t in range(4 + k % 3)]
    table = tmp_path / "walks.csv"
    table.write_text("\n".join(["id,time,x,label", *rows]))
    given = ["dataset=files", f"dataset.path={table}", "model=gru", "model.preset=tiny", "smoke_test=true"]
    config = commandline.compose(given)
    [trial] = run_trials(config, datasets.load(config["dataset"]), tmp_path)
    folder = published(trial, tmp_path / "model")
    saved = json.loads((folder / "preprocessor_config.json").read_text())["preparation"]
    assert saved["mean"][0] > 100
    for place, name in ((trial.path, "own.csv"), (folder, "published.csv")):
        predict.main([str(place), str(table), "--out", str(tmp_path / name)])
    assert (tmp_path / "own.csv").read_text() == (tmp_path / "published.csv").read_text()


@needs_safetensors
def test_files_of_the_same_name_in_different_folders_keep_their_checksums(tmp_path):
    for label in ("up", "down"):
        (tmp_path / "walks" / label).mkdir(parents=True)
        for k in range(12):
            (tmp_path / "walks" / label / f"{k}.csv").write_text(f"x\n{k}\n{k + (1 if label == 'up' else -1)}\n")
    given = ["dataset=files", f"dataset.path={tmp_path / 'walks'}", "model=gru", "model.preset=tiny", "smoke_test=true"]
    config = commandline.compose(given)
    [trial] = run_trials(config, datasets.load(config["dataset"]), tmp_path)
    folder = published(trial, tmp_path / "model")
    data = json.loads((folder / "preprocessor_config.json").read_text())["data"]
    assert data["files"].keys() == {f"{label}/{k}.csv" for label in ("up", "down") for k in range(12)}
    assert "| down/3.csv |" in (folder / "README.md").read_text()


@needs_safetensors
def test_a_card_of_an_earlier_record_has_what_is_known(trial, tmp_path):
    record = trial.read_record()
    for key in ("metric_label", "versions", "commit", "backend", "machine", "command", "started"):
        del record[key]
    spec = asdict(read_checkpoint(trial.path).spec)
    assert "| machine | not known |" in card(record, trial.read_data(), spec, "mit")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"best_epoch": 2, "epochs": 5}, "Validation chose epoch 3 of 5; the test split was used once."),
        (
            {"best_epoch": 2, "epochs": 5, "result_last": {"test/bpc": 2.0}},
            "Validation chose epoch 3 of 5; the test split was used for it, and for the last epoch.",
        ),
        ({"best_epoch": -1, "epochs": 0}, "The weights are the initial ones, without training; the test split was used once."),
    ],
)
def test_a_card_says_which_epoch_was_tested_and_shows_small_errors(changes, said):
    result = {"test/mse": 3.2e-6, "val/mse": 0.25}
    record = {"model": "lstm", "dataset": "waves", "metric": "mse", "seed": 0, "parameters": 1, "result": result}
    spec = {"task": "forecasting", "tokens": False, "input_size": 1, "output_size": 1, "output_steps": None}
    text = card({**record, "seconds": 1.0, "peak_memory_mib": 1.0, **changes}, {"name": "waves"}, spec, "mit")
    assert f"| test | 3.20e-06 |\n| validation | 0.2500 |\n\nOne trial, of the seed 0. {said}\n" in text


@needs_safetensors
def test_a_clone_of_a_hub_keeps_its_files(trial, tmp_path):
    (tmp_path / ".gitattributes").write_text("*.safetensors filter=lfs\n")
    published(trial, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {*FILES, ".gitattributes"}
    with pytest.raises(UserError, match=r"--to: got .*, which holds config.json already; give a different folder"):
        published(trial, tmp_path)


@needs_safetensors
@pytest.mark.parametrize(
    "content", ["# My notes\n", "---\ntitle: notes\n---\n", "---\nlicense: [\n---\n", "a\n---\nlicense: mit\n---\n"]
)
def test_a_readme_that_is_no_card_is_kept(content, trial, tmp_path):
    (tmp_path / "README.md").write_text(content)
    with pytest.raises(UserError, match=r"--to: got .*, which holds README.md already; give a different folder"):
        published(trial, tmp_path)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("README.md", content)]


@needs_safetensors
def test_a_card_is_replaced(trial, tmp_path):
    """That of a new repository at a hub, then one of this program."""
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n")
    card = (published(trial, tmp_path) / "README.md").read_text()
    for name in FILES - {"README.md"}:
        (tmp_path / name).unlink()
    assert (published(trial, tmp_path) / "README.md").read_text() == card


@needs_safetensors
@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", "{", "config.json is damaged"),
        ("config.json", "[]", r"config.json is damaged \(got a list, expected an object\)"),
        ("config.json", '{"model_type": "bert"}', "config.json: got library_name=None, expected seqmem"),
        ("config.json", '{"library_name": "seqmem", "format": 9}', "config.json: got format=9, expected 1"),
        ("config.json", '{"library_name": "seqmem", "format": 1}', "model.safetensors is not a checkpoint of seqmem train"),
        ("preprocessor_config.json", None, "cannot read .*preprocessor_config.json"),
        ("model.safetensors", "nothing", "model.safetensors is damaged"),
    ],
)
def test_a_damaged_folder_is_one_line(trial, tmp_path, name, content, message):
    folder = published(trial, tmp_path / "model")
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        seqmem.load(folder)
    assert "\n" not in str(caught.value)


@needs_safetensors
def test_weights_of_a_different_model_are_refused(trial, tmp_path):
    from safetensors.torch import save_file

    folder = published(trial, tmp_path / "model")
    save_file({"model.weight": torch.zeros(3)}, folder / "model.safetensors")
    with pytest.raises(UserError, match="is a checkpoint of a different model"):
        seqmem.load(folder)


@needs_safetensors
def test_what_cannot_be_published_is_one_line(trial, tmp_path):
    (tmp_path / "file").touch()
    for arguments, message in (
        ([tmp_path / "none", "--to", tmp_path / "a"], "none does not exist; expected the folder of a finished trial"),
        ([trial.path.parent, "--to", tmp_path / "a"], "is not the folder of a finished trial; did you mean one of .*seed_0?"),
        ([trial.path, "--to", tmp_path / "a" / "b"], r"--to: got .*, but the folder .*a does not exist"),
        ([trial.path, "--to", tmp_path / "file"], "--to: got .*, which is a file; expected a folder"),
        (
            [trial.path, "--to", tmp_path / "a", "--license", "my own!"],
            "--license: got 'my own!', expected an identifier such as",
        ),
    ):
        given = [*map(str, arguments), *([] if "--license" in arguments else ["--license", "mit"])]
        with pytest.raises(UserError, match=message):
            publish.run(publish._parser().parse_args(given))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_licence_must_be_chosen(capsys):
    with pytest.raises(SystemExit):
        publish.main(["trial", "--to", "folder"])
    assert re.search(r"required: --license\n$", capsys.readouterr().err)


def test_a_missing_package_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(hub_folder, "find_spec", lambda name: None)
    message = r"^model.safetensors: safetensors is not installed; install it with: pip install -r requirements/hub.txt$"
    with pytest.raises(UserError, match=message):
        publish.run(publish._parser().parse_args(["trial", "--to", str(tmp_path), "--license", "mit"]))
