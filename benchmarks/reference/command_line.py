"""The help of every command, as it prints it."""

import os
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from unittest.mock import patch

import yaml

from benchmarks.reference.markdown import generated
from seqmem.cli import command
from seqmem.cli.choices import CONFIGS

TOP = """# Command line

After this page you know every command and its arguments. `seqmem SUBCOMMAND --help` prints the text of one.

```bash
seqmem --help
```
"""


def page() -> str:
    """Return the page."""
    sections = [f"## {title}\n\n```text\n{text}\n```\n" for title, text in _helps()]
    return f"{generated()}{TOP}\n" + "\n".join(sections)


def _helps() -> Iterator[tuple[str, str]]:
    yield "seqmem", command.text()
    for name in command.SUBCOMMANDS:
        yield f"seqmem {name}", _train() if name == "train" else help_of(name)


def _train() -> str:
    """The text of ``seqmem train --help`` around its lists, which are pages of their own."""
    template = yaml.safe_load((CONFIGS / "hydra" / "default.yaml").read_text(encoding="utf-8"))["help"]["template"]
    text = template.replace("$APP_CONFIG_GROUPS", "...").replace("$CONFIG", "...").replace("$$", "$")
    return text.strip()


def help_of(name: str) -> str:
    """Return what a command prints with ``--help`` in a terminal of 110 columns."""
    printed, arguments = StringIO(), ["seqmem", name, "--help"]
    with patch.object(sys, "argv", arguments), patch.dict(os.environ, COLUMNS="110"), redirect_stdout(printed):
        try:
            command.run()
        except SystemExit as end:
            if end.code:
                raise
    return "\n".join(line.rstrip() for line in printed.getvalue().strip().splitlines())
