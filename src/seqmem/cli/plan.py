"""The plan of a sweep: all of its jobs are composed and checked before the first one begins."""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice, product
from math import prod
from typing import Any

from hydra.core.override_parser.types import IntervalSweep, Override, Transformer
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from seqmem.cli import choices, engines, places, sweeps
from seqmem.cli.commandline import compose
from seqmem.cli.jobs import manifest_entry
from seqmem.cli.messages import explain
from seqmem.cli.overrides import composed_config, config_folders, is_group, parse, translate_overrides
from seqmem.errors import UserError
from seqmem.io.files import file_name

MODE = "hydra.mode=MULTIRUN"
_most_jobs = 10_000
_many_jobs = 20

# Overrides that say how a search is run, not what is searched: they do not change the sweep's folder.
_not_of_a_search = (
    "output_dir=",
    "hydra.mode=",
    "hydra/launcher=",
    "hydra.launcher.",
    "hydra.sweeper.n_trials=",
    "hydra.sweeper.n_jobs=",
    "hydra.sweeper.storage=",
    "hydra.sweeper.timeout_minutes=",
    "runner.workers=",
    *(f"runner.{tracker}" for tracker in ("tensorboard=", "wandb", "mlflow")),
)


def hydra_section(overrides: Sequence[str], flags: Sequence[str]) -> DictConfig:
    """Return Hydra's own section of the config, which ``hydra.`` keys and the choices of groups determine.

    Of several choices of a group the first counts. Other overrides are left out, since not every choice need have their keys.

    Args:
        overrides: of the command line.
        flags: of the command line, without ``-m``.

    Raises:
        UserError: they do not compose.
    """
    chosen = [_choices(override)[0] for override in parse(overrides) if override.is_hydra_override() or is_group(override)]
    arguments = [*flags, *chosen]
    try:
        return composed_config(arguments, with_hydra=True).hydra
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(explain(error, arguments)) from None


def plan(overrides: Sequence[str], flags: Sequence[str], section: DictConfig | None = None) -> list[str]:
    """Check every job of a sweep, note those that are known by now, and choose the sweep's folder.

    The folder's name is a checksum of the jobs, so the same command finds its sweep again.

    Args:
        overrides: of the command line.
        flags: of the command line, without ``-m``.
        section: what :func:`hydra_section` returns for them; None to compose it.

    Returns:
        The arguments from which Hydra composes the sweep's own config: those of the first job. Hydra itself would leave out
        keys with several values, and so refuse keys that only those choices have.

    Raises:
        UserError: a job's config is wrong, or the jobs do not make a sweep.
    """
    section = hydra_section(overrides, flags) if section is None else section
    of_hydra, of_jobs = places.sweep_overrides(section, overrides)
    overrides = [*overrides, *of_jobs]
    sweep = _requested(overrides, flags, section)
    engines.check(sweep.section)
    jobs = [(job, compose([*flags, *sweep.of_hydra, *job])) for job in _job_overrides(sweep)]
    for _, config in jobs:
        devices = config["runner"]["devices"]
        if devices > 1:
            raise UserError(f"runner.devices: got {devices} with -m, expected 1: several devices train one job at a time")
    entries = [manifest_entry(config, job) for job, config in jobs]
    _refuse_duplicates(entries, [config for _, config in jobs])
    current = sweeps.current
    current.overrides = [_line(override) for override in parse(overrides) if not override.is_hydra_override()]
    current.settings = _settings(sweep)
    current.swept = _swept(sweep, overrides)
    current.has_subfolders = places.has_subfolders(sweep.section)
    by_file = requests_sweep(sweep.section) and not any(line.lstrip("+").startswith("hydra.mode=") for line in overrides)
    current.alone = ["hydra.mode=RUN"] if by_file else []
    identity: list[Any]
    if sweep.is_grid:
        current.jobs, current.batch = entries, [job for job, _ in jobs]
        identity = [
            (entry["group"], entry["seeds"], *([entry["requested"]] if entry["requested"] else [])) for entry in entries
        ]
    else:
        if engines.is_search(sweep.section):
            current.search, current.settings = _search(sweep, [config for _, config in jobs])
        identity = sorted(line for line in [*overrides, *sweep.parameters] if not line.startswith(_not_of_a_search))
    os.environ["SEQMEM_SWEEP"] = _folder_name(entries, identity)
    return [*flags, "-m", *sweep.of_hydra, *of_hydra, MODE, *jobs[0][0]]


@dataclass(frozen=True)
class _Sweep:
    """A sweep as the command line describes it.

    Attributes:
        section: Hydra's section of the config.
        of_hydra: overrides of that section.
        parameters: overrides of ``hydra.sweeper.params`` that the command line does not replace.
        grids: overrides to combine, for each experiment, with its own parameters.
    """

    section: DictConfig
    of_hydra: list[str]
    parameters: list[str]
    grids: list[list[Override]]

    @property
    def is_grid(self) -> bool:
        """Every combination is a job. Otherwise a search chooses its jobs while it runs."""
        return self.section.sweeper._target_.endswith((".PlannedSweeper", ".BasicSweeper"))


def may_set_mode(overrides: Sequence[str], flags: Sequence[str]) -> bool:
    """Return whether the command line or a file may set ``hydra.mode``, which saves composing it, 0.2 s."""
    given = any(override.lstrip("+").startswith(("hydra.mode", "hydra.searchpath")) for override in overrides)
    return given or any(re.search(rb"\bmode\b\s*:", path.read_bytes()) for path in choices.files(config_folders(flags)))


def requests_sweep(section: DictConfig) -> bool:
    """Return whether a config's section of Hydra requests a sweep: ``hydra.mode=MULTIRUN``."""
    return bool(section.mode == RunMode.MULTIRUN)


def _requested(overrides: Sequence[str], flags: Sequence[str], section: DictConfig) -> _Sweep:
    given = parse(overrides)
    of_hydra = [_line(override) for override in given if override.is_hydra_override()]
    of_hydra = [line for line in of_hydra if not line.lstrip("+").startswith("hydra.mode=")]
    of_jobs = [override for override in given if not override.is_hydra_override()]
    parameters = _parameters(section, of_jobs, flags)
    swept = [override for override in of_jobs if override.key_or_group == "experiment" and override.is_sweep_override()]
    sweep = _Sweep(section, of_hydra, parameters, [_combined(parameters, of_jobs)])
    if not swept or not sweep.is_grid:
        return sweep
    others = [override for override in of_jobs if override.key_or_group != "experiment"]
    grids = []
    for experiment in _choices(swept[-1]):
        chosen = [*parse([experiment]), *others]
        its_own = hydra_section([*map(_line, chosen), *of_hydra], flags)
        grids.append(_combined(_parameters(its_own, chosen, flags), chosen))
    return replace(sweep, grids=grids)


def _swept(sweep: _Sweep, overrides: Sequence[str]) -> list[str]:
    """The keys that have several values."""
    several = (override for part in [parse(overrides), *sweep.grids] for override in part if override.is_sweep_override())
    return list(dict.fromkeys(override.key_or_group for override in several))


def _combined(parameters: Sequence[str], overrides: Sequence[Override]) -> list[Override]:
    """The parameters, then the overrides; of several for one key the last."""
    return list({override.get_key_element(): override for override in [*parse(parameters), *overrides]}.values())


def _parameters(section: DictConfig, overrides: Sequence[Override], flags: Sequence[str]) -> list[str]:
    """The overrides that ``hydra.sweeper.params`` describes, except for keys that the command line has."""
    params: Any = section.sweeper.get("params")
    if params is None:
        return []
    if not OmegaConf.is_dict(params):
        raise UserError(f"hydra.sweeper.params: got {params}, expected KEY: VALUES pairs such as {{seed: '1,2'}}")
    plain: Any = OmegaConf.to_container(params, resolve=True)
    lines = [f"{key}={value if isinstance(value, str) else Transformer.str(value)}" for key, value in plain.items()]
    keys = {override.key_or_group for override in overrides}
    translated = translate_overrides(lines, config_folders(flags))
    return [line for line, override in zip(translated, parse(translated), strict=True) if override.key_or_group not in keys]


def _job_overrides(sweep: _Sweep) -> list[list[str]]:
    """The overrides of each job to check: all jobs of a grid, each choice of a search once.

    Raises:
        UserError: too many jobs, or an interval in a grid.
    """
    grids = [[_choices(override) for override in overrides] for overrides in sweep.grids]
    count = sum((prod if sweep.is_grid else sum)(map(len, values)) for values in grids)
    if count > _most_jobs:
        raise UserError(
            f"-m: got over {_most_jobs:,} jobs, expected at most {_most_jobs:,}; give fewer values, or several commands"
        )
    for override in (override for overrides in sweep.grids for override in overrides):
        if sweep.is_grid and override.is_interval_sweep():
            raise UserError(
                f"{override.key_or_group}: got an interval, expected values; hydra/sweeper=optuna searches intervals"
            )
    if count > _many_jobs:
        print(f"checking {count} jobs before the first begins")
    return [list(job) for values in grids for job in (product(*values) if sweep.is_grid else _one_at_a_time(values))]


def _choices(override: Override) -> list[str]:
    """The overrides that a sweep puts in the place of one; for an interval, its ends."""
    if not override.is_sweep_override():
        return [_line(override)]
    key, _, text = _line(override).partition("=")
    value = override.value()
    try:
        ends = [value.start, value.end] if isinstance(value, IntervalSweep) else override.sweep_string_iterator()
        found = [f"{key}={end}" for end in islice(ends, _most_jobs + 1)]
    except (ValueError, HydraException) as error:
        raise UserError(f"{key}: got {text}, which gives no values: {error}") from None
    if not found:
        raise UserError(f"{key}: got {text}, which has no value")
    return found


def _line(override: Override) -> str:
    """The override as it was given; the parser always notes it."""
    return override.input_line or ""


def _one_at_a_time(values: Sequence[Sequence[str]]) -> Iterator[list[str]]:
    """The first of all values, then each other value of a key with the first of the rest."""
    first = [several[0] for several in values]
    yield first
    for k, several in enumerate(values):
        yield from ([*first[:k], value, *first[k + 1 :]] for value in several[1:])


def _refuse_duplicates(entries: Sequence[Mapping[str, Any]], configs: Sequence[Mapping[str, Any]]) -> None:
    """Refuse two jobs with equal settings, seeds and device but different configs, which one table cannot separate."""
    first: dict[tuple[Any, ...], int] = {}
    for k, entry in enumerate(entries):
        other = first.setdefault((entry["group"], entry["requested"], *entry["seeds"]), k)
        if configs[k] != configs[other]:
            mine, theirs = set(entry["overrides"]), set(entries[other]["overrides"])
            pair = f"{' '.join(sorted(theirs - mine))} and {' '.join(sorted(mine - theirs))}"
            raise UserError(f"-m: got {pair}, which have the same settings and seeds; give them as two commands")


def _settings(sweep: _Sweep) -> dict[str, Any]:
    """Settings of the sweeper that follow from the plan."""
    if sweep.is_grid:
        return {"_target_": "hydra_plugins.seqmem_sweeper.PlannedSweeper"}
    params = {override.get_key_element(): _line(override).partition("=")[2] for override in parse(sweep.parameters)}
    return {"params": params} if params else {}


def _search(sweep: _Sweep, configs: Sequence[Mapping[str, Any]]) -> tuple[sweeps.Search, dict[str, Any]]:
    """Return the search that a command line describes, and the settings of its sweeper that follow from the plan.

    Raises:
        UserError: it cannot be run.
    """
    from seqmem.cli.search import study
    from seqmem.cli.search.space import space_of

    settings = engines.check_search(sweep.section)
    metric, direction = engines.objective(configs, settings)
    [overrides] = sweep.grids
    space = space_of(overrides)
    study.check_arguments(settings, space)
    sizes = [size for size in (settings.n_trials, space.size() if settings.sampler == "grid" else None) if size is not None]
    points = min(sizes, default=None)
    trials = (points or _most_jobs) * configs[0]["runner"]["ntrials"]
    return sweeps.Search(overrides, metric, points, trials), {"direction": direction, "params": None}


def _folder_name(entries: Sequence[Mapping[str, Any]], identity: list[Any]) -> str:
    checksum = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:12]
    different = {key: list(dict.fromkeys(entry[key] for entry in entries)) for key in ("dataset", "model")}
    names = ["-".join(found) if len(found) < 5 else f"{len(found)}_{key}s" for key, found in different.items()]
    return "_".join(["sweep", *map(file_name, names), checksum])
