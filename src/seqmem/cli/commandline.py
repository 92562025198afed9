"""From a command line to a checked, resolved config."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import OverrideType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from seqmem.arguments import check
from seqmem.cli.messages import explain
from seqmem.cli.overrides import SECTIONS, check_overrides, composed_config, split_flags, translate
from seqmem.errors import UserError, suggestion

if TYPE_CHECKING:
    from seqmem.training.checkpoints.checkpoints import Checkpoint

Keys = TypeVar("Keys")


def compose(overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The checked config that ``python train.py OVERRIDES`` would train, for programs, notebooks and tests.

    Raises:
        UserError: as on the command line.
    """
    arguments = translate(overrides)
    _, changes = split_flags(arguments)
    try:
        return resolve(composed_config(arguments), changes)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(explain(error, arguments)) from None


def resolve(composed: DictConfig, overrides: Sequence[str] | None = None) -> dict[str, Any]:
    """Resolve a composed config, apply the model's preset, and check every section.

    Args:
        composed: what Hydra made of cfg/ and the command line.
        overrides: the command line, whose values win over a preset; None for that of the running job.

    Returns:
        The config as plain dicts, without ``model.presets``.

    Raises:
        UserError: naming the key, what it holds and what it may hold.
    """
    from seqmem import training

    if overrides is None:
        overrides = list(HydraConfig.get().overrides.task)
    for section in SECTIONS:
        if not OmegaConf.is_dict(composed.get(section)):
            raise UserError(
                f"{section}: got {composed.get(section)}, expected a section of keys, as {section}=NAME selects one"
            )
    config: Any = OmegaConf.to_container(_with_preset(composed, overrides), resolve=True)
    config.pop("hydra", None)
    checked = _checked(config)
    training.check_installed(checked["runner"])
    return checked


def of_checkpoint(arguments: Sequence[str], own: type[Keys]) -> tuple["Checkpoint", dict[str, Any], Keys]:
    """What a command about a finished trial is asked, ``CHECKPOINT [KEY=VALUE ...]``.

    Args:
        arguments: the command line.
        own: a dataclass of the command's own keys; any other changes the trial's config, but for the model.

    Returns:
        The checkpoint, the changed config, and the command's own keys.

    Raises:
        UserError: no checkpoint, an unknown key or a wrong value.
    """
    flags, given = split_flags(arguments)
    if flags:
        raise UserError(f"got {flags[0]}, expected CHECKPOINT [KEY=VALUE ...]; --help tells the keys")
    if not given or "=" in given[0]:
        raise UserError("expected a checkpoint or the folder of a finished trial first: CHECKPOINT [KEY=VALUE ...]")
    check_overrides(given[1:])
    overrides = OverridesParser.create().parse_overrides(given[1:])
    for override in overrides:
        if override.type != OverrideType.CHANGE or override.is_sweep_override():
            raise UserError(f"cannot read '{override.input_line}': expected KEY=VALUE, one value to a key")

    from seqmem.training.checkpoints.checkpoints import read_checkpoint

    checkpoint = read_checkpoint(Path(given[0]))
    names = [field.name for field in fields(own)]  # type: ignore[arg-type]
    mine = {override.key_or_group: override.value() for override in overrides if override.key_or_group in names}
    changes = {override.key_or_group: override.value() for override in overrides if override.key_or_group not in names}
    keys = own(**check(own, mine))
    return checkpoint, _changed(checkpoint.config, changes, names), keys


def _changed(config: Mapping[str, Any], changes: Mapping[str, Any], others: Sequence[str]) -> dict[str, Any]:
    """The config of a finished trial with other values, checked; ``dataset=NAME`` takes all of that file's."""
    changed = deepcopy(dict(config))  # plain values: nothing of a stranger's config is interpolated
    for key, value in sorted(changes.items(), key=lambda change: change[0].count(".")):
        section = key.partition(".")[0]
        if section == "model":
            raise UserError(f"{key}: the model of a finished trial stays as it was trained")
        if section not in changed:
            raise UserError(f"there is no key '{key}'{suggestion(key, [*others, *config])}")
        if key in SECTIONS:
            composed: Any = OmegaConf.to_container(composed_config([f"{key}={value}"]), resolve=True)
            changed[key] = composed[key]
        else:
            _update(changed, key, value)
    return _checked(changed)


def _update(config: dict[str, Any], key: str, value: Any) -> None:
    *above, last = key.split(".")
    node: Any = config
    for part in above:
        node = node.setdefault(part, {})
        if not isinstance(node, dict):
            raise UserError(f"{key}: {part} holds a single value")
    given: Any = OmegaConf.to_container(OmegaConf.create({last: value}), resolve=True)
    node[last] = given[last]


def _checked(config: dict[str, Any]) -> dict[str, Any]:
    from seqmem import datasets, training

    datasets.check(config["dataset"])
    return training.check_config(config)


def _with_preset(composed: DictConfig, overrides: Sequence[str]) -> DictConfig:
    config = composed.copy()
    model = config.model
    presets: Any = OmegaConf.to_container(model).get("presets")  # type: ignore[union-attr]
    if not isinstance(presets, dict):
        raise UserError(f"model.presets: got {presets}, expected the presets of cfg/model/")
    if model.preset is not None:
        if model.preset not in presets:
            raise UserError(f"model.preset: there is no preset '{model.preset}'{suggestion(model.preset, presets)}")
        config.model = OmegaConf.merge(model, presets[model.preset])
        for override in OverridesParser.create().parse_overrides([text for text in overrides if "=" in text]):
            if override.key_or_group.startswith("model.") and not override.is_sweep_override():
                OmegaConf.update(config, override.key_or_group, override.value())
    OmegaConf.set_struct(config, False)
    del config.model["presets"]
    return config
