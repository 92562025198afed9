"""Completion of the shell: Hydra's script of bash as it is, its questions, and nested choices."""

import os
import shutil
import subprocess
import sys

import pytest

from seqmem.cli import choices, completion
from tests import program

ROOT = program.ROOT


def asked(line, *command, cwd=ROOT):
    done = program.run([*command, "-sc", "query=bash"], cwd, {"COMP_LINE": line})
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.fixture(autouse=True)
def own_folders(monkeypatch):
    monkeypatch.setattr(choices, "own_folders", [])


@pytest.mark.parametrize("start", ["python train.py", "/usr/bin/python3.11 train.py", "seqmem"])
def test_choices_of_a_group(monkeypatch, start):
    monkeypatch.setenv("COMP_LINE", f"{start} model=legt dataset=di")
    assert completion.answer() == ["dataset=digits"]


@pytest.mark.parametrize(
    ("word", "found"),
    [
        ("experiment=hippo/pmnist_legt", ["experiment=hippo/pmnist_legt_theta20", "experiment=hippo/pmnist_legt_theta200"]),
        ("model=gru,lst", ["model=gru,lstm", "model=gru,lstm_ae"]),
        ("model=nothing", []),
        ("train.l", None),
        ("", None),
    ],
)
def test_words_that_hydra_does_not_complete(monkeypatch, word, found):
    monkeypatch.setenv("COMP_LINE", f"python train.py -m {word}")
    assert completion.answer() == found


def test_ones_own_files_are_choices(monkeypatch, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/leaky.yaml").write_text("network: recurrent\n")
    monkeypatch.setenv("COMP_LINE", f"python train.py --config-dir {tmp_path} model=le")
    assert "model=leaky" in completion.answer()


def test_keys_and_values_of_hydra():
    assert {"train.lr=", "train.lr_decay="} <= set(asked("python train.py train.l", "train.py"))
    assert asked("python train.py train.optimizer=", "train.py") == ["train.optimizer=adam"]
    assert {"model=", "model."} == set(asked("python train.py mod", "train.py"))


def test_subcommands_and_the_keys_of_train():
    command = ("-m", "seqmem")
    assert asked("seqmem ev", *command) == ["evaluate"]
    assert {"train", "report"} <= set(asked("seqmem ", *command))
    assert asked("seqmem train dataset=di", *command) == ["dataset=digits"]
    assert "model.cell_args.hidden_size=" in asked("seqmem train model=gru model.cell_args.h", *command)
    assert asked("seqmem report ru", *command) == []  # the shell completes the folder


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes(tmp_path):
    """With the script that the command installs, and the variables that bash sets."""
    executable = tmp_path / "seqmem"
    executable.write_text(f'#!/bin/sh\nexec {sys.executable} -m seqmem "$@"\n')
    executable.chmod(0o755)
    script = """
        eval "$(seqmem train -sc install=bash)"
        complete -p seqmem
        for COMP_LINE in "seqmem tr" "seqmem train dataset=di" "seqmem train train.lr_"; do
            words=($COMP_LINE); COMP_CWORD=$((${#words[@]} - 1)); COMP_POINT=${#COMP_LINE}
            hydra_bash_completion
            echo "${COMPREPLY[@]}"
        done
    """
    environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, cwd=tmp_path, env=environment, check=True)
    assert done.stderr == ""
    assert done.stdout.splitlines()[0] == "complete -o default -o nospace -F hydra_bash_completion seqmem"
    assert done.stdout.splitlines()[1:] == ["train", "dataset=digits", "train.lr_decay="]
