"""Files of a config group: its choices, their keys and their comments."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

_packaged = Path(__file__).parents[1] / "cfg"
CONFIGS = _packaged if _packaged.is_dir() else Path(__file__).parents[3] / "cfg"
"""The configs: in a checkout cfg/, of which the build puts a copy into the package."""

own_folders: list[Path] = []
"""Folders that Hydra searches before it; ``src/hydra_plugins/seqmem_search_path.py`` adds them."""

GROUPS = ("dataset", "model", "train", "runner", "experiment", "debug", "scale", "hydra")
Comments = dict[tuple[str, ...], str]

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where PyYAML was built with libyaml


def groups(folders: Sequence[Path] = (CONFIGS,)) -> list[str]:
    """Return the groups that have files, Hydra's own excepted."""
    return sorted(group for group in GROUPS if group != "hydra" and names(group, folders))


def files(folders: Sequence[Path] = (CONFIGS,)) -> Iterator[Path]:
    """Yield every file that a config may be composed from."""
    for folder in folders:
        yield from folder.glob("*.yaml")
        for group in GROUPS:
            yield from (folder / group).rglob("*.yaml")


def names(group: str, folders: Sequence[Path] = (CONFIGS,)) -> list[str]:
    """Return the choices of a group in alphabetical order, those of its subfolders as ``hippo/pmnist_legs``.

    Args:
        group: for example ``"experiment"``.
        folders: that hold the group.
    """
    roots = [folder / group for folder in folders]
    return sorted({path.relative_to(root).with_suffix("").as_posix() for root in roots for path in root.rglob("*.yaml")})


def file(group: str, name: str, folders: Sequence[Path] = (CONFIGS,)) -> Path | None:
    """Return the file of a choice; None if none of the folders has it."""
    return next((path for folder in folders if (path := folder / group / f"{name}.yaml").is_file()), None)


def comments(path: Path) -> Comments:
    """Return the comment behind each key of a file, by the path of keys to it."""
    text, node = _read(path)
    return dict(_comments(node, text.splitlines())) if node else {}


def keys(path: Path) -> set[str]:
    """Return the keys of a file as ``cell_args.hidden_size``."""
    _, node = _read(path)
    return {".".join(here) for here, _, _ in _nodes(node)} if node else set()


def lines(path: Path) -> dict[str, int]:
    """Return the line, from 1, of each key of a file as ``model.cell_args.hidden_size``."""
    _, node = _read(path)
    return {".".join(here): key.start_mark.line + 1 for here, key, _ in _nodes(node)} if node else {}


def on_one_line(value: Any) -> str:
    """Return a value of a config as YAML on one line; a tuple is written as a list."""
    plain = list(value) if isinstance(value, tuple) else value
    return yaml.safe_dump(plain, default_flow_style=True, width=10_000).removesuffix("...\n").strip()


def _read(path: Path) -> tuple[str, yaml.MappingNode | None]:
    """The text of a file and its mapping; None for a file that has none or is damaged, since it only serves hints."""
    try:
        text = path.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=_Loader)
    except (OSError, ValueError, yaml.YAMLError):
        return "", None
    return text, node if isinstance(node, yaml.MappingNode) else None


def _comments(node: yaml.MappingNode, lines: Sequence[str]) -> Iterator[tuple[tuple[str, ...], str]]:
    for here, key, value in _nodes(node):
        nested = isinstance(value, yaml.CollectionNode) and not value.flow_style
        end = key.end_mark if nested else value.end_mark
        between, sign, comment = lines[end.line][end.column :].partition("#") if end.line < len(lines) else ("", "", "")
        if sign and not between.strip(" :"):
            yield here, comment.strip()


def _nodes(node: yaml.MappingNode, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], yaml.ScalarNode, yaml.Node]]:
    """Yield each key of a mapping and of those within, with its path and its value."""
    for key, value in node.value:
        here = (*path, str(key.value))
        yield here, key, value
        if isinstance(value, yaml.MappingNode):
            yield from _nodes(value, here)
