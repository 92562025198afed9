"""The targets of make that train the tables behind the papers'."""

import shlex
import subprocess

import pandas as pd
import pytest

from benchmarks import paper_tables
from seqmem.cli import commandline
from tests import program
from tests.data_files import require
from tests.program import ROOT


def commands(*tables):
    listed = subprocess.run(
        ["make", "--dry-run", "TABLE_FLAGS=scale=smoke", *tables], capture_output=True, text=True, cwd=ROOT, check=True
    ).stdout
    return [line for line in listed.splitlines() if "train.py -m experiment=" in line]


TABLES = ["table-hippo-1", "table-hippo-2", "table-hippo-3", "table-hippo-appendix", "table-lmu", "table-hmlstm"]
TABLES += ["table-igloo", "table-igloo-mnist", "table-successors", "table-memory", "table-uea"]
WITHOUT_TABLE = {"igloo/copy_memory", "successors/scifar_s4d", "memory/selective_copying_4096"}
WITHOUT_TABLE |= {"hippo/short_pmnist_legs", "hippo/recipe_pmnist_legs"}


def test_every_experiment_is_a_row_of_a_table():
    named = [command.split("experiment=")[1].split(maxsplit=1) for command in commands(*TABLES)]
    rows = [(name, others) for names, others in named for name in names.split(",")]
    files = {str(path.relative_to(ROOT / "cfg/experiment").with_suffix("")) for path in ROOT.glob("cfg/experiment/*/*.yaml")}
    assert {name for name, _ in rows} | WITHOUT_TABLE == files
    assert len(rows) == len(set(rows))
    assert len([name for name, _ in rows if name == "igloo/copy_memory_table"]) == 2  # the second one at another rate


def test_the_rows_of_copy_memory_up_to_1000_blanks_are_trained():
    changes = [set(command.split()) for command in commands("table-igloo")]
    assert {"model=lstm,gru", "dataset.length=1000", "train.lr=0.001"} <= changes[1]
    sweep = commandline.compose(["experiment=igloo/copy_memory_table", "model=gru", "dataset.length=100"])
    assert sweep["train"]["lr"] == 0.01
    entries = [entry.changes for entry in paper_tables.IGLOO.entries if "dataset.length=10000" not in entry.changes]
    slow = {("dataset.length=1000", f"model={model}", "train.lr=0.001") for model in ("lstm", "gru")}
    assert {each for each in entries if "train.lr=0.001" in each} == slow


def test_a_table_scaled_down_is_tiny():
    config = commandline.compose(["experiment=igloo/copy_memory_table", "model=gru", "dataset.length=100", "scale=smoke"])
    assert config["smoke_test"]
    assert config["train"]["batch_size"] == 4
    assert config["runner"]["ntrials"] == 1
    assert config["model"]["cell_args"]["hidden_size"] < 20


def test_a_small_table_has_a_memory_as_small_as_its_networks():
    config = commandline.compose(["experiment=hippo/pmnist_legs", "scale=small"])
    sizes = config["model"]["cell_args"]
    assert (sizes["hidden_size"], sizes["memory_order"]) == (128, -1)
    assert (config["train"]["epochs"], config["runner"]["ntrials"], config["smoke_test"]) == (10, 3, False)


@pytest.mark.slow
@pytest.mark.parametrize("table", TABLES)
def test_a_table_scaled_down_runs_to_its_end(table, tmp_path):
    for number, line in enumerate(commands(table)):
        (folder := tmp_path / str(number)).mkdir()
        check_table(line, folder)


def check_table(line, tmp_path):
    _, *command = shlex.split(line)
    experiments = next(part for part in command if part.startswith("experiment=")).removeprefix("experiment=").split(",")
    for name in experiments:
        dataset = commandline.compose([f"experiment={name}", "scale=smoke"])["dataset"]
        require(dataset["name"], dataset.get("problem", ""))
    done = program.run(command, tmp_path, timeout=1200)
    assert done.returncode == 0, done.stderr
    [path] = tmp_path.glob("runs/sweep_*/table.csv")
    rows = pd.read_csv(path)
    assert len(rows) >= len(experiments)
    assert (rows["n"] == 1).all()
