"""Runs the blocks of a page as a reader would, in order and in one folder, with trainings made small.

Consecutive Python blocks share their names, as in a notebook; a shell block between them ends that. A command about a finished
trial, ``runs/DATASET_MODEL_CHECKSUM/seed_0``, gets the page's latest trial of that data set and model, or else a small one that
is trained first. Files that commands read are made by ``FILES``.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path

import pandas as pd
import pytest

from seqmem import datasets
from seqmem.cli import commandline, export_onnx, overrides
from seqmem.io import mkl
from tests import program
from tests.data_files import FILES as DATA_FILES
from tests.docs import pages
from tests.results.lengths import evaluation, trial
from tests.results.synthetic import configuration, write_run

TRAIN = ("python train.py", "seqmem train")
"""How a command that trains begins."""

NOT_RUN = (
    "make",
    "pytest",
    "pip",
    "hf",
    "git",
    ".",
    "cd",
    "python setup.py",
    "python tests/",
    "python -m benchmarks.pages",
    "python -m benchmarks.run",
    "python -m venv",
)
"""How a command begins that sets up, measures for minutes or has a test of its own."""

TRIAL = re.compile(r"runs/(\w+)_(?:[0-9a-f]{12}|CHECKSUM)(/seed_\d+)?")
"""A trial's folder, or that of its config, as pages write it."""


def _plugin(name: str) -> bool:
    return bool(find_spec("hydra_plugins") and find_spec(f"hydra_plugins.{name}"))


WORKERS: dict[str, tuple[Callable[[], object], str]] = {
    "hydra/launcher=joblib": (lambda: _plugin("hydra_joblib_launcher"), "hydra-joblib-launcher is not installed"),
    "hydra/launcher=submitit_local": (lambda: _plugin("hydra_submitit_launcher"), "hydra-submitit-launcher is not installed"),
    "hydra/launcher=submitit_slurm": (lambda: shutil.which("sbatch"), "there is no Slurm cluster here"),
    "hydra/sweeper=optuna": (lambda: find_spec("optuna"), "optuna is not installed"),
    "runner=ray": (lambda: find_spec("ray"), "ray is not installed"),
    "runner.wandb": (lambda: find_spec("wandb"), "wandb is not installed"),
    "runner.mlflow": (lambda: find_spec("mlflow"), "mlflow is not installed"),
    "runner.devices": (lambda: True, ""),
}
"""Words of commands that start workers, with what these need and the reason where it is missing."""

NEEDS: dict[str, tuple[Callable[[], object], str]] = {
    ".parquet": (lambda: find_spec("pyarrow"), "pyarrow is not installed"),
    **dict.fromkeys(
        ("--format onnx", "import onnxruntime"), (lambda: export_onnx.missing() == [], "the extra onnx is not installed")
    ),
    "seqmem.io.mkl": (lambda: mkl.kernels() and shutil.which("cc"), "no AMD processor with AVX-512, or no C compiler"),
    "digits-legs": (lambda: find_spec("safetensors"), "safetensors is not installed"),
}
"""Words of other commands and of Python blocks that need a package or a machine, likewise."""


def _series(path: Path) -> None:
    path.write_text("".join(f"{k},{k + 1},{2 * k}\n" for k in range(8)))


def _published(path: Path) -> None:
    path.write_text("task,model,metric,value\ndigits,legs,test accuracy (%),96.2\n")


def _runs(path: Path) -> None:
    for model in ("legs", "gru"):
        write_run(path / model / "seed_0", configuration(model))


def _runs_at_lengths(path: Path) -> None:
    for model in ("legs", "gru"):
        evaluation(trial(path, model), 256, 0.5)


def _published_here(path: Path) -> None:
    path.parent.mkdir(parents=True)
    shutil.copy(program.ROOT / "benchmarks/results/published.csv", path)


def _walks(path: Path) -> None:
    lines = [f"r{k},{t},{t * (k % 2)},{'ab'[k % 2]}\n" for k in range(40) for t in range(3 + k % 2)]
    path.write_text("id,time,x,label\n" + "".join(lines))


def _walks_in_parquet(path: Path) -> None:
    _walks(path.with_suffix(".tmp"))
    pd.read_csv(path.with_suffix(".tmp")).to_parquet(path)


def _ts(path: Path) -> None:
    path.write_text("@timeStamps false\n@classLabel true a b\n@data\n" + "".join(f"{k},1,2:{'ab'[k % 2]}\n" for k in range(20)))


def _new_walks(path: Path) -> None:
    path.write_text("id,time,x\n" + "".join(f"r{k},{t},{k * t % 7}\n" for k in range(3) for t in range(3)))


def _plugin_of_the_guide(path: Path) -> None:
    guide = pages.DOCS / "guides/plugins.md"
    path.with_suffix(".py").write_text(pages.blocks(guide, "python")[0].text)
    (path.parent / "cfg/model").mkdir(parents=True, exist_ok=True)
    (path.parent / "cfg/model/leaky.yaml").write_text(pages.blocks(guide, "yaml")[0].text)


FILES: dict[str, Callable[[Path], None]] = {
    "my_cells": _plugin_of_the_guide,
    "walks.csv": _walks,
    "new.csv": _new_walks,
    "series.csv": _series,
    "published.csv": _published,
    "benchmarks/results/published.csv": _published_here,
    "runs": _runs,
    "runs/copying": _runs_at_lengths,
    "walks.parquet": _walks_in_parquet,
    "own_TRAIN.ts": _ts,
    "own_TEST.ts": _ts,
}
"""Makes the files of these names where a command names one that is not there."""


def is_run(command: str) -> bool:
    """Whether a command is one that :func:`run_command` runs."""
    bare = re.sub(r"^([A-Z_0-9]+=\S* )+", "", command)
    return not f"{bare} ".startswith(tuple(f"{word} " for word in NOT_RUN)) and not starts_workers(command)


def starts_workers(command: str) -> bool:
    """Whether a command has tests of its own, with ``--run-cluster``."""
    return any(word in command for word in WORKERS)


def run_page(page: Path, folder: Path) -> list[str]:
    """Run the Python and shell blocks of a page in a folder.

    Returns:
        What was left out: the command and the reason.
    """
    skipped = []
    for language, group in groupby(pages.blocks(page, "python", "bash"), key=lambda block: block.language):
        if language == "python":
            texts = [block.text for block in group]
            if reason := missing("\n".join(texts)):
                skipped.append(f"a Python block: {reason}")
            else:
                _run_python(texts, folder)
            continue
        for command in (command for block in group for command in block.commands()):
            if not is_run(command):
                continue
            reason = missing(command)
            if reason:
                skipped.append(f"{command}: {reason}")
            else:
                run_command(command, folder)
    return skipped


def missing(command: str) -> str:
    """Reason why a command cannot run here; an empty string if it can."""
    for word, (there, reason) in NEEDS.items():
        if word in command and not there():
            return reason
    return next((f"{file} is not where SEQMEM_DATA points" for file in _data_files(command) if not file.exists()), "")


def _data_files(command: str) -> Iterator[Path]:
    folder = Path(os.environ.get("SEQMEM_DATA", "data")).resolve()
    names = re.search(r"\bdataset=([\w,]+)", command)
    for name in names[1].split(",") if names else ():
        if name in DATA_FILES:
            yield folder / DATA_FILES[name]
    for experiment, name in (("hippo/pmnist", "mnist"), ("hippo/ct", "ct"), ("text8", "text8")):
        if re.search(rf"experiment=\S*{experiment}", command):
            yield folder / DATA_FILES[name]


def words_of(command: str) -> tuple[dict[str, str], list[str]]:
    """Variables before a command, or before COMMAND in ``export NAME="$(COMMAND)..."``, and what follows ``python``."""
    words = shlex.split(re.sub(r"^export \w+=\"\$\((.*)\)\$\{.*\}\"$", r"\1", command))
    variables = {}
    while re.fullmatch(r"[A-Z_0-9]+=.*", words[0]):
        key, _, variables[key] = words.pop(0).partition("=")
    if words[0] == "seqmem":
        words = ["-m", *words]
    elif words[0] == "python":
        words = words[1:]
    else:
        raise AssertionError(f"{command}: not a kind of command that tests/docs/commands.py can run")
    return variables, words


def run_command(command: str, folder: Path) -> str:
    """Run a command in a folder; its standard output.

    Raises:
        AssertionError: it failed.
    """
    variables, words = words_of(command)
    _make_files(words, folder)
    words = [TRIAL.sub(lambda found: _trial(found[1], found[2] or "", folder), word) for word in words]
    start = _training_words(words)
    training = start > 0
    if training and not {"--help", "--cfg"} & set(words):
        words = [*words[:start], *small(words[start:], folder)]
    done = program.run(words, folder, {"XDG_CACHE_HOME": str(folder / ".cache")} | variables)
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr}"
    assert not (training and done.stderr), f"{command}\n{done.stderr}"
    assert "Traceback" not in done.stderr, f"{command}\n{done.stderr}"
    assert done.stdout, command
    return done.stdout


def _training_words(words: list[str]) -> int:
    """Number of words before the arguments of a training; 0 for other commands."""
    return next((len(start) for start in (["train.py"], ["-m", "seqmem", "train"]) if words[: len(start)] == start), 0)


def arguments_of(command: str) -> list[str]:
    """Return the arguments of a training command.

    Raises:
        AssertionError: it is not one.
    """
    _, words = words_of(command)
    start = _training_words(words)
    assert start, command
    return words[start:]


def small(arguments: list[str], folder: Path) -> list[str]:
    """Arguments of train.py for one small trial of each job, in the folder's ``runs``."""
    changed = ["smoke_test=True", "runner.ntrials=1", "train.batch_size=8"]
    changed += ["hydra.sweeper.n_trials=2"] * ("hydra/sweeper=optuna" in arguments)
    has_place = any(re.match(r"hydra\.(run|sweep)\.dir=", word) for word in arguments)
    changed += [f"output_dir={folder}/runs"] * (not has_place)
    if not {"-m", "--multirun"} & set(arguments) and not any("plugins=" in word for word in arguments):
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            config = commandline.compose(overrides.split_flags(arguments)[1])
        if config["dataset"].get("name") in {*DATA_FILES, "uea"} and "data_dir" in config["dataset"]:
            changed.append(f"dataset.data_dir={Path(os.environ.get('SEQMEM_DATA', 'data')).resolve()}")
    replaced = {key.partition("=")[0] for key in changed}
    return [argument for argument in arguments if argument.partition("=")[0] not in replaced] + changed


def _make_files(words: list[str], folder: Path) -> None:
    for name in {name for word in words for name in re.findall(r"[\w./-]+", word)} & FILES.keys():
        if not (folder / name).exists():
            FILES[name](folder / name)


def _trial(stem: str, seed: str, folder: Path) -> str:
    """Path of the latest trial of DATASET_MODEL, or of its config's folder; a trial is trained if there is none."""
    found = sorted(folder.glob(f"runs/{stem}_*/seed_*/record.json"), key=lambda path: path.stat().st_mtime)
    if not found:
        splits = [(stem[:at], stem[at + 1 :]) for at, letter in enumerate(stem) if letter == "_"]
        [(data, model)] = [(data, model) for data, model in splits if data in datasets.names()]
        run_command(f"python train.py dataset={data} model={model} model.preset=tiny", folder)
        return _trial(stem, seed, folder)
    trial = found[-1].parent
    return str((trial if seed else trial.parent).relative_to(folder))


def _run_python(blocks: list[str], folder: Path) -> None:
    script = folder / "blocks.py"
    script.write_text("import warnings\nwarnings.simplefilter('error')\n" + "\n".join(blocks), encoding="utf-8")
    done = program.run([str(script)], folder)
    assert done.returncode == 0, done.stderr
    script.unlink()


def dry_run(command: str) -> None:
    """Check a make target without running it."""
    done = subprocess.run(
        [*shlex.split(command), "--dry-run"], capture_output=True, text=True, timeout=60, cwd=program.ROOT, check=False
    )
    assert done.returncode == 0, done.stderr


def build_the_originals_way(folder: Path) -> None:
    """``cd csrc && python setup.py install`` in a copy, so that the library of this checkout is left alone."""
    for name in ("csrc", "src"):
        shutil.copytree(program.ROOT / name, folder / name, ignore=shutil.ignore_patterns("*.so", "build", "*.egg-info"))
    for name in ("setup.py", "pyproject.toml", "README.md"):
        shutil.copy(program.ROOT / name, folder)
    build = [sys.executable, "setup.py", "install"]
    done = subprocess.run(build, capture_output=True, text=True, timeout=1800, cwd=folder / "csrc", check=False)
    assert done.returncode == 0, done.stderr
    assert (folder / "src/seqmem/ops/_extension.so").exists()
