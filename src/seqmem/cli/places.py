"""Folders of runs and sweeps that ``hydra.run.dir``, ``hydra.sweep.dir`` and ``hydra.sweep.subdir`` choose."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from seqmem.errors import UserError

USUAL_SWEEP = "${output_dir}/${oc.env:SEQMEM_SWEEP,sweep}"
"""``hydra.sweep.dir`` of cfg/hydra/default.yaml; run.dir and sweep.subdir are "." there."""

_keys = ("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir")


def check(overrides: Sequence[str], sweeps: bool) -> None:
    """Refuse a folder of a command line that Hydra would ignore.

    Args:
        overrides: of the command line.
        sweeps: it describes a sweep.

    Raises:
        UserError: a folder without a name, one of a run in a sweep, or one of a sweep in a run.
    """
    for override in overrides:
        key, _, value = override.lstrip("+").partition("=")
        if key not in _keys:
            continue
        if value in ("", "null", "''", '""'):
            raise UserError(f"{key}: got {value or 'nothing'}, expected a folder")
        if key == "hydra.run.dir" and Path(value) == Path("."):
            raise UserError(f"{key}: got {value}, expected a folder of its own, such as hydra.run.dir=first")
        if sweeps and key == "hydra.run.dir":
            raise UserError(f"{key}: got {value} for a sweep, expected hydra.sweep.dir={value}")
        if not sweeps and key != "hydra.run.dir":
            raise UserError(f"{key}: got {value} for a single run, expected hydra.run.dir={value}, or -m")


def job_folder(hydra: Any) -> Path | None:
    """Return the folder that was chosen for the trials of a job; None for one in ``output_dir``, with a name of its own.

    Args:
        hydra: Hydra's section of the job's config.
    """
    sweeps = hydra.mode == RunMode.MULTIRUN
    if (hydra.sweep.subdir if sweeps else hydra.run.dir) == ".":
        return None
    if hydra.job.chdir:
        return Path(hydra.runtime.output_dir)
    return Path(hydra.sweep.dir, hydra.sweep.subdir) if sweeps else Path(hydra.run.dir)


def sweep_overrides(section: DictConfig, overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return overrides by which a sweep and its trials lie in the folder that was chosen; none for the usual folder.

    Args:
        section: Hydra's section of the sweep's config.
        overrides: of the command line; one of ``output_dir`` keeps the trials there.

    Returns:
        Overrides of Hydra's section and of the jobs.

    Raises:
        UserError: the folder's name refers to something that does not exist.
    """
    plain: Any = OmegaConf.to_container(section.sweep, resolve=False)
    if plain["dir"] == USUAL_SWEEP:
        return [], []
    try:
        folder = str(section.sweep.dir)  # resolved once: ${now:...} would differ a second later
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise UserError(f"hydra.sweep.dir: got {plain['dir']}: {error}") from None
    has_own = any(override.lstrip("+").startswith("output_dir=") for override in overrides)
    return [assigned("hydra.sweep.dir", folder)], [] if has_own else [assigned("output_dir", folder)]


def has_subfolders(section: DictConfig) -> bool:
    """Return whether ``hydra.sweep.subdir`` chooses the folder of each job."""
    plain: Any = OmegaConf.to_container(section.sweep, resolve=False)
    return bool(plain["subdir"] != ".")


def assigned(key: str, folder: str) -> str:
    """Return the override that sets a key to a folder, with quotes if Hydra's grammar requires them: its letters are ASCII."""
    plain = re.fullmatch(r"(\.{0,2}/|[A-Za-z_])[A-Za-z0-9_./-]*", folder)
    is_other = folder.lower() in ("true", "false", "null", "nan", "inf")  # values of a different type
    return f"{key}={folder if plain and not is_other else QuotedString(folder, Quote.single).with_quotes()}"
