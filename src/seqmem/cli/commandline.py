"""From a command line to a checked, resolved config."""

from collections.abc import Sequence
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from seqmem.cli import hints, origins
from seqmem.cli.messages import explain
from seqmem.cli.overrides import SECTIONS, composed_config, own_overrides, parse, split_flags, translate
from seqmem.errors import UnknownArgumentError, UserError, suggestion


def compose(overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Compose the checked config that ``seqmem train OVERRIDES`` trains, for programs, notebooks and tests.

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

    A smoke test has one trial unless the overrides say how many.

    Args:
        composed: the config that Hydra composed from cfg/ and the command line.
        overrides: the command line's overrides, which win over a preset; None for those of the running job.

    Returns:
        The config as plain dicts, without ``model.presets``.

    Raises:
        UserError: naming the key, its value and the values that it can have.
    """
    from seqmem import training

    if overrides is None:
        overrides = list(HydraConfig.get().overrides.task)
    overrides = own_overrides(overrides)
    for section in SECTIONS:
        if not OmegaConf.is_dict(composed.get(section)):
            raise UserError(f"{section}: got {composed.get(section)}, expected a section; {section}=NAME selects one")
    config: Any = OmegaConf.to_container(_with_preset(composed, overrides), resolve=True)
    config.pop("hydra", None)
    try:
        checked = check(config)
    except UnknownArgumentError as error:
        raise origins.explained(error, config, overrides, check) from None
    if checked["smoke_test"] and not any(override.lstrip("+").startswith("runner.ntrials=") for override in overrides):
        checked["runner"]["ntrials"] = 1
    training.check_installed(checked["runner"])
    return checked


def check(config: dict[str, Any]) -> dict[str, Any]:
    """Check every section of a resolved config.

    Returns:
        The config with the defaults of ``train`` and ``runner`` filled in.

    Raises:
        UserError: naming the key, its value and the values that it can have.
    """
    from seqmem import datasets, plugins, training

    given = (config.get("seqmem") or {}).get("plugins")
    plugins.load(given if isinstance(given, list) else ())
    try:
        datasets.check(config["dataset"])
        return training.check_config({**config, "dataset": datasets.as_declared(config["dataset"])})
    except UnknownArgumentError as error:
        found = hints.elsewhere(error.keys[0], config) if error.fact else ""
        if not found:
            raise
        raise UnknownArgumentError(error.fact + found, error.keys, error.fact) from None


def _with_preset(composed: DictConfig, overrides: Sequence[str]) -> DictConfig:
    config = composed.copy()
    OmegaConf.set_struct(config, False)
    model = config.model
    # A file of the user's own may leave out both keys; what it leaves out of the others are the defaults.
    presets: Any = OmegaConf.to_container(model).get("presets", {})  # type: ignore[union-attr]
    preset = model.get("preset")
    if not isinstance(presets, dict):
        raise UserError(f"model.presets: got {presets}, expected the presets of cfg/model/")
    if preset is not None:
        if preset not in presets:
            raise UserError(f"model.preset: got {preset}, expected a preset{suggestion(preset, presets)}")
        config.model = OmegaConf.merge(OmegaConf.to_container(model), presets[preset])
        for override in parse(overrides):
            if override.key_or_group.startswith("model.") and not override.is_sweep_override():
                _apply(override, config)
    config.model.pop("presets", None)
    return config


def _apply(override: Override, config: DictConfig) -> None:
    """Set or drop a key, which may have been dropped before."""
    if not override.is_delete():
        OmegaConf.update(config, override.key_or_group, override.value())
        return
    parent, _, key = override.key_or_group.rpartition(".")
    section = OmegaConf.select(config, parent)
    if isinstance(section, DictConfig):
        section.pop(key, None)
