"""From a command line to a checked, resolved config; what the user can mend ends in one line."""

import hashlib
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields
from itertools import pairwise, product
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, OverrideType, Quote, QuotedString
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, flag_override
from omegaconf.errors import OmegaConfBaseException

from seqmem.arguments import check
from seqmem.errors import UserError, not_installed, suggestion

if TYPE_CHECKING:
    import pandas as pd

    from seqmem.results import Experiment
    from seqmem.training.checkpoints import Checkpoint

Keys = TypeVar("Keys")

_sections = ("dataset", "model", "train", "runner")
_groups = ("dataset", "model", "train", "runner", "experiment", "debug", "scale", "hydra")
_switches = ("--help", "-h", "--hydra-help", "--version", "--resolve", "--multirun", "-m", "--shell-completion", "-sc")
_shown = ("job", "hydra", "all")
_switches_with_value = ("--cfg", "-c", "--config-dir", "-cd")
_flags = (*_switches, *_switches_with_value)
_no_name = re.compile(
    r"\s*([-+]?(\d[\d_]*\.?|\.\d)[\d_]*(e[-+]?\d+)?|[-+]?(inf|nan)|true|false|null|\[.*[\[{].*|{.*)\s*", re.IGNORECASE
)

# What a plugin of Hydra's comes with, by where its config would lie.
_extras = {
    "hydra/launcher/joblib": "joblib",
    "hydra/launcher/submitit_local": "slurm",
    "hydra/launcher/submitit_slurm": "slurm",
    "hydra/sweeper/optuna": "optuna",
}

# What of a search's command line says how it is run, not what is searched.
_not_of_a_search = (
    "output_dir=",
    "hydra/launcher=",
    "hydra.launcher.",
    "hydra.sweeper.n_trials=",
    "hydra.sweeper.n_jobs=",
    "hydra.sweeper.storage=",
)


@dataclass
class _Sweeping:
    """The sweep of this process, if it is the one that the command was given to, and not a worker.

    Attributes:
        command: the command line; empty in a worker.
        jobs: what the sweep is known to consist of before it begins.
        settings: of the sweeper, that the command line leaves open.
        folder: of the sweep, once it has begun and until it has been reported.
        failed: exit statuses of jobs that failed while the others went on.
    """

    command: list[str] = field(default_factory=list)
    jobs: list[dict[str, Any]] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    folder: Path | None = None
    failed: list[int] = field(default_factory=list)


_sweep = _Sweeping()


def run(main: Callable[[], Any]) -> None:
    """Run a function decorated with hydra.main on ``sys.argv``.

    An error that the user can mend is printed as one line on stderr, with exit status 2; any other as one line with exit status
    1. With ``traceback=True`` on the command line it is raised instead.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises what it would otherwise print
    with one_line_errors():
        sys.argv[1:] = translate(sys.argv[1:])
        _sweep.command = list(sys.argv)
        _check(sys.argv[1:])
        try:
            main()
        finally:  # a worker that was killed ends the sweep by an exception
            _report_sweep()
    if _sweep.failed:
        sys.exit(_sweep.failed[0])


@contextmanager
def one_line_errors() -> Iterator[None]:
    """End the program, or the job of a sweep, with one line on stderr if an error arises within."""
    wants_traceback = any(re.fullmatch(r"\+*traceback=(true|yes|on|1)", argument, re.IGNORECASE) for argument in sys.argv)
    try:
        yield
    except KeyboardInterrupt:
        _end("interrupted", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # whoever read our output has gone
        sys.exit(1)
    except Exception as error:
        if wants_traceback:
            raise
        message, status = _described(error)
        hydra = HydraConfig.instance().cfg
        if hydra is None or hydra.hydra.mode != RunMode.MULTIRUN or "num" not in hydra.hydra.job:
            _end(message, status)
        print(f"error: job {hydra.hydra.job.num} ({hydra.hydra.job.override_dirname}): {message}", file=sys.stderr)


def _described(error: Exception) -> tuple[str, int]:
    """What to print of an error, in one line of bearable length, and the exit status."""
    message, status = _explained(error)
    message = "".join(letter if letter.isprintable() else f"\\x{ord(letter):02x}" for letter in message)
    return message if len(message) <= 1000 else f"{message[:600]} ... {message[-300:]}", status


def _explained(error: Exception) -> tuple[str, int]:
    if isinstance(error, UserError | HydraException | OmegaConfBaseException):
        return explain(error, sys.argv[1:]), 2
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'output'}: {error.strerror}", 2
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    if isinstance(error, MemoryError) or "allocate memory" in reason or "out of memory" in reason:
        return f"not enough memory for this data set or model ({reason})", 2
    return f"{reason} (probably a fault of seqmem's; traceback=True shows where it arose)", 1


def translate(arguments: Sequence[str]) -> list[str]:
    """Put flags first, and rewrite ``model.cell=NAME`` as ``model=NAME``, the group that holds all arguments of the cell.

    Raises:
        UserError: both are given and differ, or a flag does not exist.
    """
    flags, overrides = _split_flags(arguments)
    overrides = _with_cell_as_group(overrides)
    _check_overrides(overrides)
    return [*flags, *overrides]


def _split_flags(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    flags: list[str] = []
    overrides: list[str] = []
    for argument in arguments:
        flag, _, value = argument.partition("=")
        if flags and flags[-1] in _switches_with_value:
            flags.append(argument)
        elif not argument.startswith("-"):
            overrides.append(argument)
        elif flag in _switches_with_value and value:
            flags += [flag, value]
        elif argument in _flags:
            flags.append(argument)
        else:
            raise UserError(f"there is no flag {argument}{suggestion(argument, _flags)}")
    if flags and flags[-1] in _switches_with_value:
        raise UserError(f"{flags[-1]}: a value is required after it")
    shown = _value_of(flags, "--cfg", "-c")
    if shown is not None and shown not in _shown:
        raise UserError(f"--cfg: there is no config '{shown}'{suggestion(shown, _shown)}")
    if shown is not None and {"-m", "--multirun"} & set(flags):
        raise UserError("--cfg shows the config of one job; leave out -m")
    if shown is None and "--resolve" in flags:
        raise UserError("--resolve goes with --cfg job")
    return flags, overrides


def _value_of(flags: Sequence[str], *names: str) -> str | None:
    return next((value for flag, value in pairwise(flags) if flag in names), None)


def _check_overrides(overrides: Sequence[str]) -> None:
    for override in overrides:
        key, equals, value = override.partition("=")
        if override.startswith("="):
            raise UserError(f"cannot read '{override}': wanted KEY=VALUE")
        if (key in _sections and equals and not re.match(r"[A-Za-z_]", value)) or (value == "null" and key in _sections):
            raise UserError(f"{key}: got {value or 'nothing'}, wanted the name of a file in cfg/{key}/")
        group = key.lstrip("+~")
        if (group in _groups or "/" in group) and any(map(_no_name.fullmatch, [value, *value.split(",")])):
            raise UserError(f"{key}: got {value}, wanted the name of a file of the group, or a list of names")
        if re.search(r"\d{1000}", override):
            raise UserError(f"{key}: got a number of more than a thousand digits")
        if key.lstrip("+~").startswith(("hydra.run", "hydra.sweep.", "hydra.output_subdir")):
            raise UserError(f"{key}: run folders are made by seqmem; give output_dir=FOLDER")


def _with_cell_as_group(arguments: list[str]) -> list[str]:
    cells = [argument.partition("=")[2] for argument in arguments if argument.lstrip("+").startswith("model.cell=")]
    groups = [argument.partition("=")[2] for argument in arguments if argument.startswith("model=")]
    if not cells:
        return arguments
    different = sorted({*cells, *groups})
    if len(different) > 1:
        raise UserError(f"model= and model.cell= mean the same, got {' and '.join(different)}; give one of them")
    others = [argument for argument in arguments if not argument.lstrip("+").startswith(("model.cell=", "model="))]
    return [*others, f"model={cells[0]}"]


def compose(overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The checked config that ``python train.py OVERRIDES`` would train, for programs, notebooks and tests.

    Raises:
        UserError: as on the command line.
    """
    arguments = translate(overrides)
    _, changes = _split_flags(arguments)
    try:
        return settle(_composed(arguments), changes)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(explain(error, arguments)) from None


def settle(composed: DictConfig, overrides: Sequence[str] | None = None) -> dict[str, Any]:
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
    for section in _sections:
        if not OmegaConf.is_dict(composed.get(section)):
            raise UserError(f"{section}: got {composed.get(section)}, wanted a section of keys, as {section}=NAME selects one")
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
    flags, given = _split_flags(arguments)
    if flags:
        raise UserError(f"got {flags[0]}, wanted CHECKPOINT [KEY=VALUE ...]; --help tells the keys")
    if not given or "=" in given[0]:
        raise UserError("wanted a checkpoint or the folder of a finished trial first: CHECKPOINT [KEY=VALUE ...]")
    _check_overrides(given[1:])
    overrides = OverridesParser.create().parse_overrides(given[1:])
    for override in overrides:
        if override.type != OverrideType.CHANGE or override.is_sweep_override():
            raise UserError(f"cannot read '{override.input_line}': wanted KEY=VALUE, one value to a key")

    from seqmem.training.checkpoints import read_checkpoint

    checkpoint = read_checkpoint(Path(given[0]))
    names = [field.name for field in fields(own)]  # type: ignore[arg-type]
    mine = {override.key_or_group: override.value() for override in overrides if override.key_or_group in names}
    changes = {override.key_or_group: override.value() for override in overrides if override.key_or_group not in names}
    keys = own(**check(own, mine))
    return checkpoint, _changed(checkpoint.config, changes, names), keys


def _changed(config: Mapping[str, Any], changes: Mapping[str, Any], others: Sequence[str]) -> dict[str, Any]:
    """The config of a finished trial with other values, checked; ``dataset=NAME`` takes all of that file's."""
    changed = OmegaConf.create(dict(config))
    for key, value in sorted(changes.items(), key=lambda change: change[0].count(".")):
        section = key.partition(".")[0]
        if section == "model":
            raise UserError(f"{key}: the model of a finished trial stays as it was trained")
        if section not in changed:
            raise UserError(f"there is no key '{key}'{suggestion(key, [*others, *config])}")
        if key in _sections:
            changed[key] = _composed([f"{key}={value}"])[key]
        else:
            OmegaConf.update(changed, key, value, force_add=True)
    resolved: Any = OmegaConf.to_container(changed, resolve=True)
    return _checked(resolved)


def _checked(config: dict[str, Any]) -> dict[str, Any]:
    import datasets
    from seqmem import training

    datasets.check(config["dataset"])
    return training.check_config(config)


@contextmanager
def reported(config: dict[str, Any], experiment: "Experiment") -> Iterator[Callable[[], "pd.DataFrame"]]:
    """Within, the trials of a job are run; what came of them is reported then, however it ends.

    The table of a job of its own is shown and lies beside its trials. A sweep's job is noted in the sweep's manifest, for the
    one table that the sweep ends with.

    Yields:
        The job's row of the table, once there is one.
    """
    from seqmem import results

    trials = [experiment.trial(seed) for seed in _seeds(config)]
    hydra = HydraConfig.get()
    sweep = results.Sweep(Path(hydra.sweep.dir)) if hydra.mode == RunMode.MULTIRUN else None
    job = {
        **_planned(config, hydra.overrides.task),
        "folder": experiment.folder,
        "code": experiment.code,
        "failure": None,
    }
    if sweep:
        sweep.add([job])

    def report() -> None:
        begun = [trial for trial in trials if (trial.path / "record.json").exists()]
        if not sweep and begun:
            results.report(experiment.folder, begun)

    try:
        yield lambda: results.summarize(results.group_trials(results.read_run(trial) for trial in trials))
    except BaseException as error:
        with suppress(UserError):  # where the disk is full, what failed first is what to tell
            if sweep and isinstance(error, Exception):
                reason, status = _described(error)
                sweep.add([{**job, "failure": reason, "status": status}])
            report()
        raise
    report()


def _planned(config: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """What a sweep's manifest says of a job before it begins."""
    from seqmem import models
    from seqmem.results.record import digest
    from seqmem.training.config import model_arguments

    return {
        "overrides": list(overrides),
        "dataset": config["dataset"]["name"],
        "model": models.label(model_arguments(config)),
        "group": digest(config),
        "seeds": list(_seeds(config)),
    }


def _seeds(config: Mapping[str, Any]) -> range:
    return range(config["seed"], config["seed"] + config["runner"]["ntrials"])


def explain(error: Exception, arguments: Sequence[str]) -> str:
    """What is wrong with a command line, in one line with the nearest valid choice."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file in _extras:
        extra = _extras[error.missing_cfg_file]
        return f"{error.missing_cfg_file} {not_installed(extra)}"
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, choice = error.missing_cfg_file.removesuffix(".yaml").partition("/")
        choices = [option for option in error.options or () if option != "default"]
        if "/" in choice:  # Hydra gives the options of the group's own folder alone
            folder = Path(__file__).parent / group
            choices = sorted(str(path.relative_to(folder).with_suffix("")) for path in folder.glob("*/*.yaml"))
        return f"{group}={choice}: there is no {group} of that name{suggestion(choice, choices)}"
    if isinstance(error, OverrideParseException):
        return f"cannot read '{error.override}': wanted KEY=VALUE, with quotes around a VALUE of several words"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    several = re.match(r"Ambiguous value for argument '(.*)'", lines[0])
    if several:
        return f"{several.group(1)}: got several values; add -m to try each of them"
    refused = re.search(r"Could not override[^']*'(.*?)'", lines[0])
    key = getattr(error.__cause__, "full_key", None) or (refused.group(1).partition("@")[0] if refused else None)
    if key and (near := _nearest_key(key, arguments)) is not None:
        return f"there is no key '{key}'{near}"
    key = getattr(error, "full_key", None)
    return f"{key}: {lines[0]}" if key and key not in lines[0] else lines[0]


class SweepTable(Callback):
    """Notes what a sweep consists of; at its end prints and saves one table of all jobs, and names those that failed."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Called by Hydra, before it makes the sweeper and the launcher of this config."""
        from seqmem.results import Sweep

        _sweep.folder = Path(config.hydra.sweep.dir)
        with suppress(UserError):  # Hydra makes a warning of it; if the folder cannot be written, the jobs say so
            Sweep(_sweep.folder).add(_sweep.jobs, _sweep.command)
        # A worker elsewhere composes its job from these and may not have this process's environment.
        folder = QuotedString(str(_sweep.folder), Quote.single).with_quotes()
        with flag_override(config, ["struct", "readonly"], False):
            config.hydra.overrides.hydra.append(f"hydra.sweep.dir={folder}")
            config.hydra.sweeper.update(_sweep.settings)
        _prepare_workers(config.hydra.launcher._target_)

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Called by Hydra in the process that runs the job; a worker's own arguments tell nothing of it."""
        if not _sweep.command:
            sys.argv = ["train.py", *config.hydra.overrides.task]

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Called by Hydra."""
        _report_sweep()


def _prepare_workers(launcher: str) -> None:
    """Set what worker processes of a launcher find in their environment."""
    if launcher.endswith(".BasicLauncher"):
        return
    import torch

    paths = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")]
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    if not launcher.endswith(".SlurmLauncher"):  # the jobs of which have processors of their own
        # As many threads as in this process: sums in another order are other numbers.
        for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
            os.environ[variable] = str(torch.get_num_threads())


def _report_sweep() -> None:
    """Show the table of the sweep that has begun, and name the jobs that failed, once."""
    folder, _sweep.folder = _sweep.folder, None
    if folder is None:
        return
    from seqmem import report, results

    jobs = results.Sweep(folder).jobs()
    if results.find_runs(folder):
        results.show_table(report.write(folder))
        found = folder / "optimization_results.yaml"
        if found.exists():  # a search has left it
            print(f"best of the search: {dict(OmegaConf.load(found))}")
    failed = [job for job in jobs if job["failure"]]
    if failed:
        print(f"error: {len(failed)} of {len(jobs)} jobs failed", file=sys.stderr)
    for job in failed:
        print(f"error: {' '.join(job['overrides'])}: {job['failure']}", file=sys.stderr)
        _sweep.failed.append(job["status"])


def _composed(arguments: Sequence[str], with_hydra: bool = False) -> DictConfig:
    flags, overrides = _split_flags(arguments)
    own_groups = _value_of(flags, "--config-dir", "-cd")
    if own_groups is not None:
        if not Path(own_groups).is_dir():
            raise UserError(f"--config-dir: there is no folder {own_groups}")
        overrides = [*overrides, f"hydra.searchpath=[file://{Path(own_groups).resolve()}]"]
    GlobalHydra.instance().clear()
    with initialize_config_dir(version_base="1.3", config_dir=str(Path(__file__).parent)):
        return hydra_compose("config", overrides=overrides, return_hydra_config=with_hydra)


def _with_preset(composed: DictConfig, overrides: Sequence[str]) -> DictConfig:
    config = composed.copy()
    model = config.model
    presets: Any = OmegaConf.to_container(model).get("presets")  # type: ignore[union-attr]
    if not isinstance(presets, dict):
        raise UserError(f"model.presets: got {presets}, wanted the presets of cfg/model/")
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


def _check(arguments: Sequence[str]) -> None:
    """Settle every job of a sweep before the first one is trained, and what ``--cfg`` would show."""
    flags, overrides = _split_flags(arguments)
    own_groups = [argument for argument in flags if argument not in ("-m", "--multirun")]
    if {"-m", "--multirun"} & set(flags):
        _plan(overrides, own_groups)
    elif {"--cfg", "-c"} & set(flags):
        compose(arguments)


def _plan(overrides: Sequence[str], flags: Sequence[str]) -> None:
    """Check the jobs of a sweep, note those that are known by now, and choose its folder, the same for the same jobs."""
    parser = OverridesParser.create()
    fixed = [override.input_line for override in parser.parse_overrides(list(overrides)) if not override.is_sweep_override()]
    sweeper = _composed([*flags, *fixed], with_hydra=True).hydra.sweeper
    given = {override.key_or_group for override in parser.parse_overrides(list(overrides))}
    params = [f"{key}={value}" for key, value in (sweeper.get("params") or {}).items() if key not in given]
    choices = [_choices(override) for override in parser.parse_overrides([*overrides, *params])]
    every = sweeper._target_.endswith(".BasicSweeper")
    for override in parser.parse_overrides([*overrides, *params]):
        if every and override.is_interval_sweep():
            raise UserError(f"{override.input_line}: an interval is searched; wanted hydra/sweeper=optuna beside it, or values")
    jobs = [(list(job), compose([*flags, *job])) for job in (product(*choices) if every else _one_at_a_time(choices))]
    for _, config in jobs:
        devices = config["runner"]["devices"]
        if devices > 1:
            raise UserError(f"runner.devices: got {devices} with -m, wanted 1: several devices are for one job at a time")
    planned = [_planned(config, job) for job, config in jobs]
    identity: list[Any]
    if every:
        _sweep.jobs = planned
        identity = [(job["group"], job["seeds"]) for job in planned]
    else:
        identity = sorted(text for text in [*overrides, *params] if not text.startswith(_not_of_a_search))
    if sweeper._target_.endswith(".OptunaSweeper"):
        _sweep.settings = _search_settings(jobs[0][1], given)
    checksum = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:12]
    several = {key: list(dict.fromkeys(job[key] for job in planned)) for key in ("dataset", "model")}
    names = ["-".join(found) if len(found) < 5 else f"{len(found)}_{key}s" for key, found in several.items()]
    os.environ["SEQMEM_SWEEP"] = "_".join(["sweep", *names, checksum])


def _choices(override: Override) -> list[str]:
    """What a sweep may put in the place of an override; of an interval its ends."""
    if not override.is_sweep_override():
        return [override.input_line]
    key = override.input_line.partition("=")[0]
    value = override.value()
    ends = [value.start, value.end] if isinstance(value, IntervalSweep) else override.sweep_string_iterator()
    return [f"{key}={end}" for end in ends]


def _one_at_a_time(choices: Sequence[Sequence[str]]) -> Iterator[list[str]]:
    """The first of all choices, then each other one beside the first of the rest."""
    first = [values[0] for values in choices]
    yield first
    for k, values in enumerate(choices):
        yield from ([*first[:k], value, *first[k + 1 :]] for value in values[1:])


def _search_settings(config: Mapping[str, Any], given: set[str]) -> dict[str, Any]:
    """What a search should be told and was not: in which direction the metric is better, and that it survives a failed job."""
    import optuna

    import datasets
    from seqmem.tasks import task_for

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    settings: dict[str, Any] = {}
    if "hydra.sweeper.direction" not in given:
        best = task_for(datasets.load(config["dataset"]).spec).best
        settings["direction"] = {"max": "maximize", "min": "minimize"}[best]
    if "hydra.sweeper.max_failure_rate" not in given:
        settings["max_failure_rate"] = 1.0
    return settings


def _nearest_key(key: str, arguments: Sequence[str]) -> str | None:
    """What to say of a key that does not exist: the nearest that does; None if the key exists after all."""
    flags, overrides = _split_flags(arguments)
    selecting = [override for override in overrides if override.partition("=")[0] in _groups and "," not in override]
    try:
        node: Any = _composed([*(flag for flag in flags if flag not in _switches), *selecting])
    except (HydraException, OmegaConfBaseException):
        return ""
    *above, last = key.lstrip("+~").split(".")
    parents: list[str] = []
    for part in above:
        if not isinstance(node, DictConfig) or part not in node:
            last = part
            break
        node = node[part]
        parents.append(part)
    if not isinstance(node, DictConfig):
        return f"; {'.'.join(parents)} holds a single value"
    if last in node:
        return None
    found = suggestion(
        last, [str(name) for name in node if name != "presets"] + ([] if parents else ["experiment", "debug", "scale"])
    )
    return found.replace("mean '", f"mean '{'.'.join([*parents, ''])}") if parents else found


def _end(message: str, status: int) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(status)
