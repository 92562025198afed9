"""Ends of error lines about a key or a choice that does not exist: the nearest one at any depth and in any group."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from seqmem import arguments
from seqmem.cli import choices
from seqmem.cli.choices import CONFIGS
from seqmem.errors import UserError, meant, nearest, suggestion

_top_groups = ("experiment", "debug", "scale")
_close = 0.75  # similarity of names at different depths; difflib's default serves names at the same depth


def unknown_key(key: str, config: Mapping[str, Any], chosen: Mapping[str, Any], folders: Sequence[Path] = (CONFIGS,)) -> str:
    """Return the end of an error line about a key that does not exist, with the nearest one that does.

    A key of the same name at a different depth comes first, then a choice of the group that has the key, then a similar name,
    then a key whose name or comment has the same words.

    Args:
        key: as ``model.hidden_size``.
        config: the config of the command, as plain dicts.
        chosen: the choice of each group.
        folders: that hold the config groups.
    """
    known = list(_paths(config))
    *parents, last = key.split(".")
    same = [path for path in known if path.rpartition(".")[2] == last]
    if same:
        near = None if parents else nearest(key, [path for path in known if "." not in path])
        near_first = [near] if near else []
        return meant([path for path in same if path.startswith(f"{parents[0] if parents else ''}.")] or [*near_first, *same])
    owners = _owners(key, chosen, folders)
    if owners:
        others = f" and {len(owners) - 3} more have" if len(owners) > 3 else " have" if len(owners) > 1 else " has"
        return f"; {', '.join(owners[:3])}{others} it"
    return _similar(key, config, known, _meant_by_words(key, known, chosen, folders))


def exists(key: str, config: Mapping[str, Any]) -> bool:
    """Return whether a config has a key such as ``model.cell_args.hidden_size``."""
    node: Any = config
    for part in key.split("."):
        if not isinstance(node, Mapping) or part not in node:
            return False
        node = node[part]
    return True


def elsewhere(key: str, config: Mapping[str, Any]) -> str:
    """Return the end of an error line that names keys of the same name at a different depth; empty if there is none."""
    last = key.rpartition(".")[2]
    same = [path for path in _paths(config) if path.rpartition(".")[2] == last and path != key]
    return meant(same) if same else ""


def unknown_choice(group: str, given: str, folders: Sequence[Path] = (CONFIGS,)) -> str:
    """Return the end of an error line about a choice that a group does not have, with the nearest one of any group.

    Args:
        group: for example ``"experiment"``.
        given: the choice.
        folders: that hold the config groups.
    """
    known = choices.names(group, folders)
    within = [name for name in known if name.rpartition("/")[2].lower() == given.rpartition("/")[2].lower()]
    if within:
        return meant(within)
    inside = [name for name in known if name.startswith(f"{given}/")]
    if inside:
        return f"; choose from: {', '.join(inside)}"
    others = [f"{other}={given}" for other in choices.groups(folders) if given in choices.names(other, folders)]
    others += [f"{group}.preset={given}"] if group == "model" and given in _presets(folders) else []
    if others:
        return meant(others)
    last = {name.rpartition("/")[2]: name for name in reversed(known)}
    near = nearest(given, known) or last.get(nearest(given, last) or "")
    return suggestion(given, known) if near is None else meant([near])


def _similar(key: str, config: Mapping[str, Any], known: Sequence[str], others: Sequence[str]) -> str:
    """The end of an error line with a key of a similar name at the same depth, or else one of the others or at any depth."""
    parents, siblings, wrong, rest = _deepest(key, config)
    if siblings is None:
        return f"; {'.'.join(parents)} is a single value"
    if not parents:
        siblings = [*siblings, *_top_groups]
    near = nearest(wrong, siblings, _close) or (None if others else nearest(wrong, siblings))
    if near is not None:
        corrected = ".".join([*parents, near])
        whole = ".".join([corrected, *rest])
        return meant([whole if whole in known else corrected])
    if others:
        return meant(others)
    names = {path.rpartition(".")[2]: path for path in reversed(known)}
    far = nearest((rest or [wrong])[-1], names, _close)
    return meant([names[far]]) if far is not None else suggestion(wrong, siblings)


def _meant_by_words(key: str, known: Sequence[str], chosen: Mapping[str, Any], folders: Sequence[Path]) -> list[str]:
    """Up to three keys whose comment begins with the words of a key's name, or whose names have these words."""
    last = key.rpartition(".")[2].lower()
    files = {group: choices.file(group, name, folders) for group, name in chosen.items() if name is not None}
    comments = {(group, *path): text for group, file in files.items() if file for path, text in choices.comments(file).items()}
    described = [
        ".".join(path) for path, text in comments.items() if re.match(rf"{re.escape(last.replace('_', ' '))}\b", text.lower())
    ]
    found = [path for path in described if path in known]
    if not found:
        words = set(last.split("_"))
        found = [path for path in known if words <= set(path.rpartition(".")[2].split("_"))]
        found = [path for path in found if path.startswith(f"{key.partition('.')[0]}.")] or found
    return found if len(found) <= 3 else []


def _deepest(key: str, config: Mapping[str, Any]) -> tuple[list[str], list[str] | None, str, list[str]]:
    """Follow a key as far as it exists.

    Returns:
        The parts that exist, the names at the next depth (None if a single value is there), the first part that does not exist,
        and the parts after it.
    """
    node: Any = config
    parts = key.split(".")
    for depth, part in enumerate(parts):
        if not isinstance(node, Mapping):
            return parts[:depth], None, part, parts[depth + 1 :]
        if part not in node:
            return parts[:depth], [str(name) for name in node if name != "presets"], part, parts[depth + 1 :]
        node = node[part]
    return parts[:-1], None, parts[-1], []


def _paths(config: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield every key of a config as ``model.cell_args.hidden_size``, also those that only a signature lists."""
    for name, value in config.items():
        if name == "presets":
            continue
        path = f"{prefix}{name}"
        yield path
        if isinstance(value, Mapping):
            yield from _paths(value, f"{path}.")
        owner = _owner(path, config)
        if owner is not None:
            listed = value if isinstance(value, Mapping) else {}
            yield from (
                f"{path}.{argument}" for argument in arguments.parameters(owner, ("input_size",)) if argument not in listed
            )


def _owner(path: str, section: Mapping[str, Any]) -> Callable[..., Any] | None:
    """The class whose arguments an open section holds: of the mixer, the optimiser or the schedule."""
    if path not in ("model.mixer_args", "train.optimizer_args", "train.schedule_args"):
        return None
    from seqmem import sequence
    from seqmem.training.optimisation.optimizers import OptimizerSettings
    from seqmem.training.optimisation.schedules import Schedule

    named = {"mixer": sequence.get, "optimizer": OptimizerSettings.named, "schedule": Schedule.named}
    selector = path.partition(".")[2].removesuffix("_args")
    try:
        return named[selector](section[selector])
    except (UserError, KeyError, TypeError):
        return None


def _owners(key: str, chosen: Mapping[str, Any], folders: Sequence[Path]) -> list[str]:
    """The other choices of the key's group that have the key, as ``model=legs``."""
    group, _, rest = key.partition(".")
    if not rest or chosen.get(group) is None:
        return []
    files = ((name, choices.file(group, name, folders)) for name in choices.names(group, folders) if name != chosen[group])
    return [f"{group}={name}" for name, path in files if path is not None and rest in choices.keys(path)]


def _presets(folders: Sequence[Path]) -> set[str]:
    """The names of all models' presets."""
    files = (choices.file("model", name, folders) for name in choices.names("model", folders))
    found = (key.split(".") for path in files if path is not None for key in choices.keys(path))
    return {parts[1] for parts in found if parts[0] == "presets" and len(parts) == 2}
