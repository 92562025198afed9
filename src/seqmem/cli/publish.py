"""``python -m seqmem.publish``: write a finished trial and its card to a folder, in the layout of a model hub."""

import argparse
import re
import shlex
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from seqmem.errors import UserError
from seqmem.io.files import make_folder
from seqmem.io.terminal import Parser
from seqmem.results.model_card import card, names_columns
from seqmem.results.record import RunFolder
from seqmem.training.checkpoints import hub_folder
from seqmem.training.checkpoints.files import Checkpoint, read_checkpoint, restore

DESCRIPTION = """\
Write the model of a finished trial to a folder in the layout of a model hub.

  README.md                  the model card: results, command, commit, machine, checksums of the data, licence
  config.json                settings of the model and of its training
  preprocessor_config.json   how inputs are prepared, and where the data came from
  model.safetensors          weights of the epoch that validation chose

seqmem.load(FOLDER) returns the model, and the commands that take a trial take the folder: evaluate, predict, export.
Nothing is sent over a network; `hf upload USER/NAME FOLDER` uploads it. Paths of this machine are left out.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and run."""
    _parser().run(run, arguments)


def run(given: argparse.Namespace) -> None:
    """Write a trial's model, read it again, and compare the weights.

    Raises:
        UserError: the trial has not finished, the folder cannot be written, or a package is missing.
    """
    hub_folder.check_package()
    licence = _checked_licence(given.licence)
    trial = RunFolder(given.trial)
    record = _finished(trial)
    checkpoint = read_checkpoint(given.trial)
    _check_folder(given.to)
    data = _data(trial)
    spec = asdict(checkpoint.spec)
    content = {
        "config": shared_config(checkpoint.config),
        "spec": spec,
        "data": checkpoint.data,
        "backend": checkpoint.backend,
        "epoch": checkpoint.epoch,
        "weights": checkpoint.weights,
        "preparation": checkpoint.preparation,
    }
    make_folder(given.to)
    hub_folder.write(content, card(record, data, spec, licence), data, given.to)
    _compare(checkpoint, given.to)
    print(f"{record['model']}, trained on {record['dataset']}, seed {record['seed']}: {given.to}")
    for name in (hub_folder.CARD, hub_folder.CONFIG, hub_folder.PREPROCESSING, hub_folder.WEIGHTS):
        print(f"  {name}  {(given.to / name).stat().st_size / 2**10:,.0f} KiB")
    print(f"load it: seqmem.load({str(given.to)!r}); upload it: hf upload USER/NAME {shlex.quote(str(given.to))}")


def shared_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a trial's config without the folders and trackers of this machine: an absolute path becomes its last part.

    Names of columns stay, which may begin with a slash.
    """
    shared = deepcopy(dict(config))
    shared["output_dir"] = "runs"
    shared["train"]["resume"] = None
    addresses = {"wandb", "mlflow", "address"} & shared["runner"].keys()  # which may have passwords
    shared["runner"] |= dict.fromkeys(addresses)
    shared["dataset"].pop("data_dir", None)
    shared["dataset"] = {key: value if names_columns(key) else _shared(value) for key, value in shared["dataset"].items()}
    return shared


def _shared(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_shared(item) for item in value]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def _finished(trial: RunFolder) -> dict[str, Any]:
    if not trial.path.is_dir():
        raise UserError(f"{trial.path} does not exist; expected the folder of a finished trial, as runs/NAME/seed_0")
    record = trial.finished()
    if record is None:
        trials = ", ".join(str(path) for path in sorted(trial.path.glob("seed_*"))[:3])
        raise UserError(
            f"{trial.path} is not the folder of a finished trial" + (f"; did you mean one of {trials}?" if trials else "")
        )
    return record


def _data(trial: RunFolder) -> dict[str, Any]:
    """Return the description of the trial's data.

    Raises:
        UserError: it is missing or damaged.
    """
    found = trial.read_data()
    files = {_shared(name): value for name, value in (found.get("files") or {}).items()}
    return {**found, "files": files}


def _checked_licence(licence: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", licence.lower()):
        raise UserError(f"--license: got {licence!r}, expected an identifier such as mit, apache-2.0, cc-by-4.0 or other")
    return licence.lower()


def _check_folder(folder: Path) -> None:
    if not folder.parent.is_dir():
        raise UserError(f"--to: got {folder}, but the folder {folder.parent} does not exist")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--to: got {folder}, which is a file; expected a folder")
    files = hub_folder.CONFIG, hub_folder.WEIGHTS, hub_folder.PREPROCESSING, hub_folder.CARD
    taken = [name for name in files if (folder / name).exists()]
    if taken and not (taken == [hub_folder.CARD] and hub_folder.is_card(folder / hub_folder.CARD)):
        raise UserError(f"--to: got {folder}, which holds {taken[0]} already; give a different folder, or remove its files")


def _compare(checkpoint: Checkpoint, folder: Path) -> None:
    """Check that the folder holds the checkpoint's model."""
    found = read_checkpoint(folder)
    restore(found, found.config["train"], found.spec)
    for name, value in checkpoint.weights.items():
        if not torch.equal(value, found.weights[name]):
            raise UserError(f"{folder} does not hold the weights of the trial: {name} differs")


def _parser() -> Parser:
    parser = Parser("python -m seqmem.publish", DESCRIPTION)
    parser.add_argument("trial", type=Path, metavar="TRIAL", help="the folder of a finished trial")
    parser.add_argument("--to", type=Path, required=True, metavar="FOLDER", help="a new or empty folder, or a clone of a hub's")
    parser.add_argument(
        "--license",
        dest="licence",
        required=True,
        metavar="NAME",
        help="licence of the weights as hubs name it, for example mit, apache-2.0 or cc-by-4.0",
    )
    return parser
