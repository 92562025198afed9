"""``hydra.run.dir``, ``hydra.sweep.dir`` and ``hydra.sweep.subdir`` choose where a run or a sweep lies, with its records."""

import re
import shlex

import pytest
import yaml

from seqmem.cli import places
from seqmem.cli.choices import CONFIGS
from seqmem.cli.overrides import parse
from seqmem.errors import UserError
from tests import program

SMALL = ("dataset=digits", "model.preset=tiny", "smoke_test=true")


def train(cwd, *arguments):
    return program.run(["train.py", *SMALL, *arguments], cwd)


def test_the_usual_folders_are_those_of_the_configs():
    usual = yaml.safe_load((CONFIGS / "hydra/default.yaml").read_text())
    assert (usual["run"]["dir"], usual["sweep"]["dir"], usual["sweep"]["subdir"]) == (".", places.USUAL_SWEEP, ".")


def test_a_run_lies_where_it_was_put(tmp_path):
    chosen = ("model=rnn", "hydra.run.dir=out/${now:%Y}/mine")
    first = train(tmp_path, *chosen)
    assert first.returncode == 0, first.stderr
    [folder] = tmp_path.glob("out/*/mine")
    assert re.fullmatch(r"\d{4}", folder.parent.name)
    assert {"table.md", "seed_0"} <= {path.name for path in folder.iterdir()}
    assert (folder / "seed_0/record.json").exists()
    assert not (tmp_path / "runs").exists()
    assert f"found in {folder.relative_to(tmp_path)}/seed_0" in train(tmp_path, *chosen).stdout
    other = train(tmp_path, "model=gru", chosen[1])
    assert other.returncode == 2
    assert other.stderr == (
        f"error: {folder.relative_to(tmp_path)}/seed_0 has a trial of different settings and code, expected an empty folder, "
        "or the same trial\n"
    )


def test_a_sweep_lies_where_it_was_put(tmp_path):
    done = train(tmp_path, "-m", "model=rnn", "seed=0,1", "hydra.sweep.dir=a b/${now:%S}")
    assert done.returncode == 0, done.stderr
    [folder] = tmp_path.glob("a b/*")
    assert {"sweep.json", "report.html", "table.md"} <= {path.name for path in folder.iterdir()}
    assert len(list(folder.glob("digits_rnn_*/seed_*/record.json"))) == 2
    assert not (tmp_path / "runs").exists()
    again = [shlex.split(line) for line in done.stdout.splitlines() if line.startswith("python ")]
    assert "found in a b/" in program.run(["train.py", *again[0][2:]], tmp_path).stdout


@pytest.mark.slow
def test_each_job_of_a_sweep_lies_in_a_folder_of_its_own(tmp_path):
    chosen = ("-m", "model=rnn,gru", "hydra.sweep.dir=sweep", "hydra.sweep.subdir=job_${hydra.job.num}")
    done = train(tmp_path, *chosen)
    assert done.returncode == 0, done.stderr
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("record.json")}
    assert found == {"sweep/job_0/seed_0/record.json", "sweep/job_1/seed_0/record.json"}
    [again] = [shlex.split(line) for line in done.stdout.splitlines() if line.startswith("python ")]
    assert "found in sweep/job_" in program.run(["train.py", *again[2:]], tmp_path).stdout


def test_a_folder_that_would_be_ignored_is_refused(tmp_path):
    done = train(tmp_path, "-m", "model=rnn,gru", "hydra.run.dir=out")
    assert done.returncode == 2
    assert done.stderr == "error: hydra.run.dir: got out for a sweep, expected hydra.sweep.dir=out\n"
    with pytest.raises(UserError, match=r"hydra.sweep.dir: got a for a single run, expected hydra.run.dir=a, or -m"):
        places.check(["hydra.sweep.dir=a"], sweeps=False)


@pytest.mark.parametrize("value", ["", "null", "''"])
def test_a_folder_without_a_name_is_refused(value):
    with pytest.raises(UserError, match=r"hydra.run.dir: got .*, expected a folder"):
        places.check([f"++hydra.run.dir={value}"], sweeps=False)


@pytest.mark.parametrize("value", [".", "./"])
def test_the_present_folder_is_refused(value):
    with pytest.raises(UserError, match=r"hydra.run.dir: got \./?, expected a folder of its own, such as hydra.run.dir=first"):
        places.check([f"hydra.run.dir={value}"], sweeps=False)


FOLDERS = ["a/b-c.d", "../x", "./x", "a b", "1/2", ".5", ".5/x", "true", "null", "it's", "a=b", "/tmp/x"]
NOT_ASCII = ["caf\u00e9", "/m\u00fcller/l\u00e4ufe", "x\u0663", "\u79cd\u5b50", "a\u00b2"]


@pytest.mark.parametrize("folder", [*FOLDERS, *NOT_ASCII])
def test_a_folder_can_be_assigned_under_any_name(folder):
    [override] = parse([places.assigned("output_dir", folder)])
    assert override.value() == folder
