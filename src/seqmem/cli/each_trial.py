"""Command lines about a folder of trials: one for each finished trial below it."""

from collections.abc import Sequence
from pathlib import Path

from seqmem.cli.overrides import split_flags
from seqmem.errors import UserError


def commands(command: Sequence[str]) -> list[list[str]] | None:
    """Return the command line for each trial below a folder.

    Args:
        command: the command line's arguments.

    Returns:
        None if the command names no folder, or that of a trial.

    Raises:
        UserError: no trial below the folder has finished.
    """
    from seqmem.results.reading import find_runs
    from seqmem.training.checkpoints.hub_folder import is_hub_folder

    flags, given = split_flags(command)
    if not given or not Path(given[0]).is_dir():
        return None
    folder = Path(given[0])
    if (folder / "checkpoints").is_dir() or is_hub_folder(folder):
        return None
    trials = [each.folder.path for each in find_runs(folder) if each.finished]
    if not trials:
        raise UserError(f"{folder}: got no finished trial below it, expected the folder of a trial or of trials")
    return [[*flags, str(trial), *given[1:]] for trial in trials]
