"""Arguments that an experiment's file sets, and that the chosen model or data set does not take."""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from os.path import relpath
from pathlib import Path
from typing import Any, NamedTuple

from seqmem.cli import choices
from seqmem.cli.overrides import parse
from seqmem.errors import UnknownArgumentError, UserError

_groups = ("experiment", "debug", "scale")  # whose files set keys of other groups


class _Origin(NamedTuple):
    """The line of a file that sets a key."""

    group: str
    choice: str
    file: Path
    line: int


def explained(
    error: UnknownArgumentError,
    config: Mapping[str, Any],
    overrides: Sequence[str],
    check: Callable[[dict[str, Any]], Any],
) -> UserError:
    """Return an error that names the lines of the experiment's file which set the unknown arguments, and how to drop them.

    Args:
        error: of the check of ``config``.
        config: the resolved config.
        overrides: of the command line.
        check: checks a config.

    Returns:
        The new error; ``error`` if no file of an experiment sets the arguments.
    """
    known = _origins(overrides)
    found: dict[str, _Origin] = {}
    left, latest = deepcopy(dict(config)), error
    while latest.keys and set(latest.keys) <= known.keys() - found.keys():
        found |= {key: known[key] for key in latest.keys}
        for key in latest.keys:
            _drop(left, key)
        try:
            check(left)
        except UnknownArgumentError as another:
            latest = another
        except UserError:
            break
        else:
            break
    return UserError(_message(found, config)) if found else error


def _message(found: Mapping[str, _Origin], config: Mapping[str, Any]) -> str:
    [first, *_] = found.values()
    places, file = [], None
    for key, origin in found.items():
        name = "" if origin.file == file else _shown(origin.file)
        places.append(f"{key} ({name}:{origin.line})")
        file = origin.file
    owners = " and ".join(dict.fromkeys(_owner(key, config) for key in found))
    dropped = " ".join(f"'~{key}'" for key in found)
    return (
        f"{first.group}: {first.choice} sets {', '.join(places)}, which {owners} does not take; "
        f"drop {'them' if len(found) > 1 else 'it'} with: {dropped}"
    )


def _owner(key: str, config: Mapping[str, Any]) -> str:
    section = key.partition(".")[0]
    settings = config[section]
    if section == "model":
        return str(settings.get("cell") or settings.get("network"))
    return str(settings.get("name", section))


def _origins(overrides: Sequence[str]) -> dict[str, _Origin]:
    """Return the origin of each key that a chosen experiment sets, and that the command line does not."""
    parsed = parse(overrides)
    given = {override.key_or_group for override in parsed}
    found: dict[str, _Origin] = {}
    for override in parsed:
        group = override.key_or_group
        names = override.value() if group in _groups else None
        for name in [names] if isinstance(names, str) else names if isinstance(names, list) else []:
            file = choices.file(group, str(name), [*reversed(choices.own_folders), choices.CONFIGS])
            lines = choices.lines(file) if file else {}
            found |= {key: _Origin(group, str(name), file, line) for key, line in lines.items() if file and key not in given}
    return found


def _drop(config: dict[str, Any], key: str) -> None:
    *parents, last = key.split(".")
    node: Any = config
    for parent in parents:
        node = node.get(parent, {})
    node.pop(last, None)


def _shown(file: Path) -> str:
    return relpath(file) if file.is_relative_to(Path.cwd()) else str(file)
