"""Every file of cfg/experiment/ composes, spells out what it sets, and trains when it is made small."""

import json
import re
from functools import cache

import pytest
import torch
import yaml

from benchmarks.memory_tasks import MEMORY, UEA
from seqmem import datasets, training
from seqmem.cli import commandline
from tests.cli.choices import choices
from tests.data_files import require
from tests.program import ROOT
from tests.trials import run_trials

REPRESENTATIVE = (
    "hippo/function_approximation_legs",
    "hippo/pmnist_legs",
    "hmlstm/text8_hmlstm",
    "successors/pmnist_rglru",
    "igloo/copy_memory",
    "memory/parity",
    "quickstart",
)
PAPERS = ("hippo/", "hmlstm/", "igloo/pmnist", "lmu/")
FIRST = {name.split("_")[0]: name for name in reversed(choices("experiment"))}
"""An experiment of each data set and folder; composing one takes a fifth of a second."""


@cache
def load(section):
    """The data of a config's ``dataset`` section, given as JSON, since its lists cannot be keys of a cache."""
    return datasets.load(json.loads(section))


@cache
def composed(name):
    """The config of an experiment, which several tests of the same process read."""
    return commandline.compose([f"experiment={name}"])


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in REPRESENTATIVE else pytest.mark.slow) for name in choices("experiment")],
)
def test_trains_when_made_small(name, tmp_path):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    small = ["train.batch_size=3", "train.limit_train_batches=1", "runner.ntrials=1"]
    if name.startswith("hippo/function_approximation"):
        small += ["model.order=5", "dataset.length=3001", "dataset.train_samples=7"]
    elif name == "igloo/copy_memory":
        small += ["model.nb_patches=9", "dataset.length=51", "dataset.train_samples=7"]
    elif name == "igloo/pmnist":
        small += ["model.nb_filters_conv1d=2"]
    elif name.startswith(("successors/", "memory/", "uea/")):
        small += ["model.preset=tiny"]
    elif name == "lmu/mackey_glass_lmu_plain_lstm":
        small += ["model.num_layers=2"]
    else:
        small += ["model.cell_args.hidden_size=4"]
    config = commandline.compose([f"experiment={name}", *small, "smoke_test=true", "runner.accelerator=cpu"])
    if "memory_order" in config["model"].get("cell_args", {}):
        config["model"]["cell_args"]["memory_order"] = 5
    require(config["dataset"]["name"], config["dataset"].get("problem", ""))
    try:
        data = load(json.dumps(config["dataset"]))
        training.check_fit(config, data.spec)
        [folder] = run_trials(config, data, tmp_path)
    finally:
        torch.set_num_threads(threads)
    assert folder.read_record()["status"] == "finished"


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in FIRST.values() else pytest.mark.slow) for name in choices("experiment")]
)
def test_an_experiment_composes_to_what_it_spells_out(name):
    config = composed(name)
    if name.startswith(PAPERS):
        check_row(name, config)


def test_a_papers_row_spells_out_its_settings():
    for name in choices("experiment"):
        own = spelled_out(name)
        if name.startswith("hippo/"):
            assert own["model"].get("order") or own["model"]["cell_args"]["hidden_size"], name
            assert own["runner"]["ntrials"] >= (1 if name == "hippo/short_pmnist_legs" else 3), name


def test_models_of_one_size_have_one_budget():
    """Rows of a task differ in model, learning rate, weight decay and torch.compile alone; the last changes only the time."""
    settings = {}
    for name in choices("experiment"):
        if name.startswith(("successors/pmnist_", "successors/ct_")):
            config = composed(name)
            own = check_row(name, config)
            assert own["model"] == {"preset": "params_100k", "dropout": 0.0}, name
            assert own["runner"]["ntrials"] >= 2, name
            task = name.rpartition("_")[0] if "lmu_plain" not in name else "successors/pmnist"
            shared = {key: value for key, value in config["train"].items() if key not in ("lr", "wd", "compile")}
            assert settings.setdefault(task, (config["dataset"], shared)) == (config["dataset"], shared), name
    assert settings.keys() == {"successors/pmnist", "successors/ct_100to200", "successors/ct_200to100"}


@pytest.mark.parametrize(("table", "preset", "trials"), [(MEMORY, "memory_100k", 3), (UEA, "params_100k", 5)])
def test_models_of_a_test_of_memory_share_a_budget(table, preset, trials):
    """A file sets no model, so that its row and those of other models differ in the model alone."""
    folder = "memory" if table is MEMORY else "uea"
    assert {f"{folder}/{task.name}" for task in table} == {
        name for name in choices("experiment") if name.startswith(f"{folder}/")
    }
    for task in table:
        own = check_row(f"{folder}/{task.name}", composed(f"{folder}/{task.name}"))
        assert not any("model" in str(default) for default in own["defaults"])
        assert own["model"]["preset"] == preset
        assert own["runner"]["ntrials"] == trials
        trained = commandline.compose([f"experiment={folder}/{task.name}", "model=legs"])
        assert [each.name for each in table if each.has(trained)] == [task.name]
    other = commandline.compose([f"experiment={folder}/{table[0].name}", "model=slstm"])
    assert (other["model"]["preset"], other["dataset"]) == (preset, composed(f"{folder}/{table[0].name}")["dataset"])


def test_the_published_recipe_of_s4d_is_spelled_out():
    name = "successors/scifar_s4d"
    own = check_row(name, composed(name))
    assert {"model_size", "num_layers", "norm_first", "dropout"} <= set(own["model"])


def check_row(name, config):
    """Each hyper-parameter of the file is what the command trains; return the file."""
    own = spelled_out(name)
    check_values({section: keys for section, keys in own.items() if section != "defaults"}, config, name)
    return own


def check_values(own, config, name):
    """Each value of a file is that of the config, which may have further keys at each depth."""
    for key, value in own.items():
        if isinstance(value, dict):
            check_values(value, config[key], f"{name}: {key}")
        else:
            assert config[key] == value, f"{name}: {key}"


def spelled_out(name):
    """Return a file, which has the command that runs it and, in a row of a paper, each hyper-parameter."""
    text = (ROOT / "cfg" / "experiment" / f"{name}.yaml").read_text()
    own = yaml.safe_load(text)
    if name != "quickstart":
        assert {"lr", "batch_size", "epochs", "optimizer", "wd", "gradient_clip_val"} <= set(own["train"]), name
    assert re.search(rf"python train.py (-m )?experiment={name}\b", text), name
    return own
