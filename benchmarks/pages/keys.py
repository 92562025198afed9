"""The keys of a model with their defaults and meaning, from ``cfg/model/NAME.yaml``."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from benchmarks.pages.blocks import table
from seqmem.cli import choices

CONFIGS = choices.CONFIGS / "model"


def model_names() -> list[str]:
    """Return the names of all models, which are those of the files."""
    return choices.names("model")


def headline(name: str) -> str:
    """Return the first line of a model's file, its description in one sentence."""
    first = _path(name).read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# "), f"cfg/model/{name}.yaml: the first line is not a comment"
    return first.removeprefix("# ")


def keys(name: str) -> str:
    """Return the table of a model's keys, and the presets below it."""
    config = yaml.safe_load(_path(name).read_text(encoding="utf-8"))
    presets = config.pop("presets")
    comments = choices.comments(_path(name))
    lines = [
        [f"`model.{'.'.join(path)}`", f"`{_shown(value)}`", _escaped(comments.get(path, ""))]
        for path, value in _leaves(config)
        if path not in (("network",), ("cell",))
    ]
    shown = table(["key", "default", "meaning"], lines, numbers=0)
    source = f"Source: `cfg/model/{name}.yaml`; keys of the other groups: [configuration](../reference/configuration.md)."
    return f"{shown}\n\n{_presets(presets, comments)}\n\n{source}"


def _presets(presets: Mapping[str, Any], comments: choices.Comments) -> str:
    lines = []
    for name, settings in presets.items():
        comment = comments.get(("presets", name))
        changes = ", ".join(f"`model.{'.'.join(path)}={_shown(value)}`" for path, value in _leaves(settings))
        lines.append(f"- `model.preset={name}`{f' ({_escaped(comment)})' if comment else ''}: {changes}")
    return "\n".join(["Presets:", "", *lines])


def _leaves(config: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield each key that has a value of its own, as a path, and the value."""
    for name, value in config.items():
        here = (*path, str(name))
        if isinstance(value, dict) and value:
            yield from _leaves(value, here)
        else:
            yield here, value


def _shown(value: Any) -> str:
    """Return a value as a command line spells it."""
    return yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("\n").removesuffix("...").strip()


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*")


def _path(name: str) -> Path:
    return CONFIGS / f"{name}.yaml"
