"""The keys of a model with their defaults and meaning, from ``cfg/model/NAME.yaml``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from benchmarks.pages.blocks import table
from benchmarks.reference.configuration import leaves
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
        [f"`model.{'.'.join(path)}`", f"`{choices.on_one_line(value)}`", _escaped(comments.get(path, ""))]
        for path, value in leaves(config)
        if path not in (("network",), ("cell",))
    ]
    shown = table(["key", "default", "meaning"], lines, numbers=0)
    source = f"Source: `cfg/model/{name}.yaml`; keys of the other groups: [configuration](../reference/configuration.md)."
    return f"{shown}\n\n{_presets(presets, comments)}\n\n{source}"


def _presets(presets: Mapping[str, Any], comments: choices.Comments) -> str:
    lines = []
    for name, settings in presets.items():
        comment = comments.get(("presets", name))
        changes = ", ".join(f"`model.{'.'.join(path)}={choices.on_one_line(value)}`" for path, value in leaves(settings))
        lines.append(f"- `model.preset={name}`{f' ({_escaped(comment)})' if comment else ''}: {changes}")
    return "\n".join(["Presets:", "", *lines])


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*")


def _path(name: str) -> Path:
    return CONFIGS / f"{name}.yaml"
