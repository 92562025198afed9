"""docs/guides/gpu.md states what runs on a GPU; its commands compose."""

import re
import shlex

import pytest

from benchmarks.gpu import __main__ as command
from benchmarks.gpu import paths
from benchmarks.pages import blocks
from seqmem.cli import commandline

TEXT = paths.PAGE.read_text(encoding="utf-8")


def test_the_table_is_that_of_the_implementations():
    assert paths.updated(TEXT) == TEXT, "python -m benchmarks.gpu.paths updates docs/guides/gpu.md"
    lines = blocks.content(TEXT, *paths.PART).splitlines()[2:]
    listed = [name for line in lines for name in line.split("|")[2].strip().split(", ")]
    assert sorted(listed) == sorted(paths.own_names())


def test_the_limits_of_the_parts_are_those_of_the_command():
    rows = re.findall(r"^\| (\w+) \| .* \| (\d+) \|$", TEXT, re.MULTILINE)
    assert {name: float(seconds) for name, seconds in rows} == command.LIMITS
    assert list(dict(rows)) == list(command.LIMITS)


@pytest.mark.parametrize("line", re.findall(r"seqmem train (.*)", TEXT))
def test_commands_compose(line):
    assert commandline.compose(shlex.split(line, comments=True))["model"]["cell"] == "legs"
