"""Command lines about a finished trial: ``CHECKPOINT [KEY=VALUE ...]``."""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from copy import deepcopy
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from hydra.core.override_parser.types import Override, OverrideType, ValueType
from omegaconf import OmegaConf

from seqmem import arguments, plugins
from seqmem.cli import commandline, hints
from seqmem.cli.choices import on_one_line
from seqmem.cli.overrides import CONFIG_DIR, SECTIONS, check_overrides, composed_config, modules_of, parse, split_flags
from seqmem.errors import UserError

if TYPE_CHECKING:
    from seqmem.data import DataSet
    from seqmem.training.checkpoints.files import Checkpoint

Keys = TypeVar("Keys")

SOURCES = ("path", "validation_path", "test_path", "problem")
"""Keys of data sets that choose the files which sequences are read from."""


def read(command: Sequence[str], own: type[Keys]) -> tuple["Checkpoint", dict[str, Any], Keys]:
    """Read the checkpoint that a command line names, and the config that its keys change.

    Args:
        command: the command line's arguments.
        own: a dataclass of the command's own keys; any other key changes the trial's config, except its model. A field whose
            metadata have a ``separator`` is a list, also of a single value.

    Returns:
        The checkpoint, the changed config, and the command's own keys.

    Raises:
        UserError: no checkpoint, an unknown key or a wrong value.
    """
    lists = [field.name for field in fields(own) if "separator" in field.metadata]  # type: ignore[arg-type]
    file, overrides, flags = _parse(command, lists)
    plugins.load(modules_of(overrides))

    from seqmem.training.checkpoints.files import read_checkpoint

    checkpoint = read_checkpoint(file)
    names = [field.name for field in fields(own)]  # type: ignore[arg-type]
    values = {override.key_or_group: _value(override, override.key_or_group in lists) for override in overrides}
    keys = own(**arguments.check(own, {key: value for key, value in values.items() if key in names}))
    changes = {key: value for key, value in values.items() if key not in names}
    return checkpoint, _changed(checkpoint.config, changes, names, flags), keys


def load_data(checkpoint: "Checkpoint", config: Mapping[str, Any]) -> "DataSet":
    """Load the data of a finished trial.

    Args:
        checkpoint: of the trial.
        config: the trial's config with the changes of the command line.

    Raises:
        UserError: as in :func:`seqmem.datasets.load`; or the same files are drawn into other splits than in the training.
    """
    from seqmem import datasets

    preparation = checkpoint.preparation if _is_same(checkpoint.config, config) else None
    data = datasets.load(config["dataset"], preparation).of_trial(config["seed"])
    if config["dataset"] == checkpoint.config["dataset"] and config["seed"] == checkpoint.config["seed"]:
        _refuse_other_draws(checkpoint.folder, data)
    return data


def _refuse_other_draws(trial: Path, data: "DataSet") -> None:
    """Refuse splits of other sizes than in the training, from the same files, as earlier versions drew them.

    Raises:
        UserError: sequences of the training may be in the other splits.
    """
    from seqmem.results.record import RunFolder

    try:
        before = RunFolder(trial).read_data()
    except UserError:  # a checkpoint outside of its trial's folder
        return
    known = before.get("sizes")
    if not isinstance(known, Mapping) or not all(isinstance(size, int) for size in known.values()):
        return
    sizes = {str(split): size for split, size in data.sizes.items() if split in known}
    trained = {split: known[split] for split in sizes}
    if sizes != trained and before.get("files") == data.describe()["files"]:
        raise UserError(
            f"{trial}: got splits of {_shown(sizes)} sequences, expected {_shown(trained)} as in the training; "
            "this version draws them differently, so that its test may hold sequences of that training; train again"
        )


def _shown(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{size:,} ({split})" for split, size in sizes.items())


def file_suffix(changes: Mapping[str, Any]) -> str:
    """Return what distinguishes the files of a measurement with other settings than the training's; empty without changes."""
    return f"_{hashlib.sha256(json.dumps(changes, sort_keys=True).encode()).hexdigest()[:6]}" if changes else ""


def _parse(command: Sequence[str], lists: Collection[str]) -> tuple[Path, list[Override], list[str]]:
    flags, given = split_flags(command)
    if flags and flags[0] not in CONFIG_DIR:
        raise UserError(f"got {flags[0]}, expected CHECKPOINT [KEY=VALUE ...]; --help lists the keys")
    if not given or ("=" in given[0] and not Path(given[0]).exists()):
        raise UserError("expected a checkpoint or the folder of a finished trial first: CHECKPOINT [KEY=VALUE ...]")
    check_overrides(given[1:])
    overrides = parse(given[1:])
    for override in overrides:
        is_sweep = override.is_sweep_override() and override.key_or_group not in lists
        if override.type != OverrideType.CHANGE or is_sweep:
            raise UserError(f"got '{override.input_line}', expected KEY=VALUE with one value")
    return Path(given[0]), overrides, flags


def _value(override: Override, is_list: bool) -> Any:
    """Return the value of an override; of a list the values that commas separate, or that ``range(A,B,STEP)`` gives."""
    if is_list and override.is_sweep_override():
        if not override.is_discrete_sweep() or override.value_type == ValueType.GLOB_CHOICE_SWEEP:
            raise UserError(f"got '{override.input_line}', expected {override.key_or_group}=A,B,...")
        return list(override.sweep_iterator(transformer=lambda value: value))
    value = override.value()
    return [value] if is_list and not isinstance(value, list) else value


def _changed(config: Mapping[str, Any], changes: Mapping[str, Any], own: Sequence[str], flags: Sequence[str]) -> dict[str, Any]:
    """The checked config of a finished trial with other values; ``dataset=NAME`` takes all values of that file."""
    # Plain values: a checkpoint from elsewhere must not interpolate anything.
    changed = {"seqmem": {"plugins": []}, **deepcopy(dict(config))}
    for key, value in sorted(changes.items(), key=lambda change: change[0].count(".")):
        section = key.partition(".")[0]
        if section == "model":
            shown = on_one_line(value)
            raise UserError(f"{key}: got {shown}, but a finished trial's model cannot be changed; train with {key}={shown}")
        if section not in changed:
            raise UserError(f"{key}: no such key{hints.unknown_key(key, {**dict.fromkeys(own), **config}, {})}")
        if key in SECTIONS:
            composed: Any = OmegaConf.to_container(composed_config([*flags, f"{key}={value}"]), resolve=True)
            changed[key] = composed[key]
            if key == "dataset" and _is_same(config, changed):
                changed[key] |= _of_training(config) | _of_splits(config)
        else:
            _update(changed, key, value)
    if _is_same(config, changed):
        _refuse_different_training(config, changed)
        _refuse_different_splits(config, changed)
    return commandline.check(changed)


def _is_same(config: Mapping[str, Any], changed: Mapping[str, Any]) -> bool:
    """Return whether two configs name the same data set."""
    return bool(changed["dataset"].get("name") == config["dataset"].get("name"))


def _of_training(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys ``train_X`` of the data set that have a twin ``eval_X``, such as its rates in training."""
    section = config["dataset"]
    return {key: section[key] for key in section if key.startswith("train_") and f"eval_{key[6:]}" in section}


def _refuse_different_training(config: Mapping[str, Any], changed: Mapping[str, Any]) -> None:
    """Refuse values that would describe a different training: ``Batch.rate`` is relative to the one that took place."""
    for key, value in _of_training(config).items():
        given = changed["dataset"][key]
        if given != value:
            raise UserError(
                f"dataset.{key}: got {given}, expected {value} as in the trial's training; did you mean dataset.eval_{key[6:]}?"
            )


def _of_splits(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of the data set that choose which sequences are in which split."""
    from seqmem import datasets
    from seqmem.data.splits import SPLITTING

    section = config["dataset"]
    chosen = {*SPLITTING, *datasets.get(section["name"]).splitting}
    return {key: section[key] for key in section if key in chosen or key.endswith("_fraction")}


def _refuse_different_splits(config: Mapping[str, Any], changed: Mapping[str, Any]) -> None:
    """Refuse values that would move sequences of the training into the other splits; other files have none of them."""
    from seqmem import datasets

    if any(changed["dataset"].get(key) != config["dataset"].get(key) for key in SOURCES):
        return
    moves = datasets.get(config["dataset"]["name"]).moves
    splits = {f"dataset.{key}": (value, changed["dataset"][key]) for key, value in _of_splits(config).items()}
    if config["dataset"].get("split_seed", 0) is None:
        splits["seed"] = (config["seed"], changed["seed"])
    for key, (value, given) in splits.items():
        if moves(key.rpartition(".")[2], value, given):
            raise UserError(
                f"{key}: got {given}, expected {value} as in the trial's training, whose sequences would be in other splits"
            )


def _update(config: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    node: Any = config
    for parent in parents:
        node = node.setdefault(parent, {})
        if not isinstance(node, dict):
            raise UserError(f"{key}: no such key; {parent} is a single value")
    plain: Any = OmegaConf.to_container(OmegaConf.create({last: value}), resolve=True)
    node[last] = plain[last]
