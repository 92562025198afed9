"""The keys of a model with their defaults and meaning, from ``cfg/model/NAME.yaml``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from benchmarks.pages.blocks import table
from benchmarks.reference.configuration import leaves
from seqmem.cli import choices

CONFIGS = choices.CONFIGS / "model"

USED_FIRST = (
    "mixer",
    "model_size",
    "hidden_size",
    "encoding_size",
    "hidden_sizes",
    "layer_sizes",
    "nb_patches",
    "nb_filters_conv1d",
    "memory",
    "order",
    "memory_order",
    "theta",
    "dt",
    "measure",
    "boundary",
    "method",
    "num_layers",
    "dropout",
    "preset",
)
"""Last parts of the keys that a user changes first, in this order; the others follow in the order of the file."""


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
        for path, value in sorted(leaves(config), key=_place)
        if path not in (("network",), ("cell",))
    ]
    others = "Other keys: [training and runs](../reference/configuration.md), [data sets](../reference/data-sets.md)."
    return f"{table(['key', 'default', 'meaning'], lines, numbers=0)}\n\n{_presets(presets, comments)}\n\n{others}"


def _place(leaf: tuple[tuple[str, ...], Any]) -> int:
    name = leaf[0][-1]
    return USED_FIRST.index(name) if name in USED_FIRST else len(USED_FIRST)


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
