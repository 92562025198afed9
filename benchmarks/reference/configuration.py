"""Every key of cfg/ with its default and its comment."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from benchmarks.reference.markdown import code, generated, table
from seqmem.cli import choices
from seqmem.cli.choices import CONFIGS

TOP = """# Configuration: keys of every training

After this page you know every key of a command line that does not belong to one data set or model.

```bash
seqmem train --help                        # the keys of a choice, with their values
seqmem train dataset=digits model=gru train.lr=0.01 runner.ntrials=3
```

Keys of data sets are in [Keys of data sets](data-sets.md), and those of models in [their pages](../models/index.md). A default
in this page is that of the file in `cfg/`.
"""
DATA = """# Keys of data sets

After this page you can set every key of `dataset=NAME`. Each table is a file of `cfg/dataset/`.
"""


def pages() -> dict[str, str]:
    """Return the pages of the groups."""
    parts = [
        ("## The whole command", "", CONFIGS / "config.yaml"),
        ("## `train`: the training", "train.", CONFIGS / "train" / "default.yaml"),
        ("## `runner=pl`: trials on this machine", "runner.", CONFIGS / "runner" / "pl.yaml"),
        ("## `runner=ray`: trials on a Ray cluster", "runner.", CONFIGS / "runner" / "ray.yaml"),
        ("## `hydra/sweeper=optuna`: a search", "hydra.sweeper.", CONFIGS / "hydra" / "sweeper" / "optuna.yaml"),
    ]
    groups = "\n".join(f"{heading}\n\n{keys(path, prefix)}" for heading, prefix, path in parts)
    return {
        "configuration.md": f"{generated()}{TOP}\n{groups}\n{_choices()}",
        "data-sets.md": f"{generated()}{DATA}\n{_files('dataset')}",
    }


def _files(group: str) -> str:
    """A section for each file of a group: its heading comment, and its keys."""
    sections = []
    for path in sorted((CONFIGS / group).glob("*.yaml")):
        heading = re.match(r"# (.*)\n", path.read_text(encoding="utf-8"))
        said = f"{heading[1]}\n\n" if heading else ""
        sections.append(f"## {path.stem}\n\n{said}{keys(path, f'{group}.')}")
    return "\n".join(sections)


def keys(path: Path, prefix: str) -> str:
    """Return the table of a file's keys, those within others too; choices of groups are left out."""
    comments = choices.comments(path)
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    rows = [
        (code(prefix + ".".join(here)), code(choices.on_one_line(value)), comments.get(here, ""))
        for here, value in leaves(values)
        if here[0] not in ("defaults", "name", "_target_")
    ]
    return table(("key", "default", "meaning"), rows)


def _choices() -> str:
    """A section for each group whose choices set keys of other groups: the comment of each choice."""
    sections = []
    for group, heading in (
        ("experiment", "choices under one name"),
        ("debug", "does it run"),
        ("scale", "size of a whole table"),
    ):
        rows = [(code(f"{group}={name}"), _comment(CONFIGS / group / f"{name}.yaml")) for name in choices.names(group)]
        sections.append(f"## `{group}`: {heading}\n\n{table(('choice', 'meaning'), rows)}")
    return "\n".join(sections)


def _comment(path: Path) -> str:
    """The first line of a file's comment, after the line about the package."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return next(line.removeprefix("#").strip() for line in lines if not line.startswith("# @package"))


def leaves(config: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield each key that has a value of its own, as a path, and the value."""
    for name, value in config.items():
        here = (*path, str(name))
        if isinstance(value, dict) and value:
            yield from leaves(value, here)
        else:
            yield here, value
