"""Every file of cfg/experiment/ composes, spells out what it sets, and trains when it is made small."""

from functools import cache
from pathlib import Path

import pytest
import torch
import yaml

from seqmem import datasets, training
from seqmem.cli import commandline
from tests.data_files import require
from tests.trials import run_trials

_root = Path(__file__).parents[1] / "cfg" / "experiment"

every_experiment = pytest.mark.parametrize(
    "name", sorted(str(path.relative_to(_root).with_suffix("")) for path in _root.rglob("*.yaml"))
)


@cache
def load(arguments):
    return datasets.load(dict(arguments))


@every_experiment
def test_trains_when_made_small(name, tmp_path):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    small = ["train.batch_size=3", "train.limit_train_batches=1", "runner.ntrials=1"]
    if name.startswith("hippo/function_approximation"):
        small += ["model.order=5", "dataset.length=3001", "dataset.train_samples=7"]
    elif name == "igloo/copy_memory":
        small += ["model.nb_patches=9", "dataset.length=51", "dataset.train_samples=7"]
    else:
        small += ["model.cell_args.hidden_size=4"]
    config = commandline.compose([f"experiment={name}", *small, "smoke_test=true", "runner.accelerator=cpu"])
    if "memory_order" in config["model"].get("cell_args", {}):
        config["model"]["cell_args"]["memory_order"] = 5
    require(config["dataset"]["name"])
    try:
        data = load(tuple(config["dataset"].items()))
        training.check_fit(config, data.spec)
        [folder] = run_trials(config, data, tmp_path)
    finally:
        torch.set_num_threads(threads)
    assert folder.read_record()["status"] == "finished"


@pytest.mark.parametrize("path", sorted((_root / "hippo").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_papers_row_spells_out_every_hyper_parameter(path):
    own, composed = yaml.safe_load(path.read_text()), commandline.compose([f"experiment=hippo/{path.stem}"])
    for section, keys in own.items():
        if section != "defaults":
            for key, value in keys.items():
                if isinstance(value, dict):
                    assert value.items() <= composed[section][key].items()
                else:
                    assert composed[section][key] == value
    assert {"lr", "batch_size", "epochs", "optimizer", "wd", "gradient_clip_val"} <= set(own["train"])
    assert own["model"].get("order") or own["model"]["cell_args"]["hidden_size"]
    assert own["runner"]["ntrials"] >= 3
    assert f"python train.py experiment=hippo/{path.stem}" in path.read_text()
