"""HiPPO's table 2 in the paper's layout: a line a setting, a column a model."""

from collections.abc import Mapping
from dataclasses import replace

from benchmarks.pages.blocks import table
from benchmarks.pages.papers import CHARACTERS
from benchmarks.pages.trials import ENOUGH, Row

MODELS = ("legs", "mgu", "gru", "lstm", "lmu", "lmu_plain")
"""Columns. Where times are given, the first is ``tlsi``, LegS by timestamps."""


def shifts() -> str:
    """Return the mean test accuracy of each model in each setting, with the published number in parentheses."""
    lines: dict[str, dict[str, Row]] = {}
    for row in CHARACTERS.rows():
        model = "legs" if row.settings["model"] == "tlsi" else row.settings["model"]
        lines.setdefault(row.settings["CharacterTrajectories"], {})[model] = row
    return table(
        ["setting", "steps and times", *("legs, tlsi" if name == "legs" else name for name in MODELS)],
        [[setting, _what(rows), *(_cell(rows, name) for name in MODELS)] for setting, rows in lines.items()],
        numbers=len(MODELS),
    )


def _what(rows: Mapping[str, Row]) -> str:
    return next(iter(rows.values())).settings["steps and times"]


def _cell(rows: Mapping[str, Row], model: str) -> str:
    row = rows.get(model)
    if not row:
        return ""
    mean = row.shown(replace(CHARACTERS.metric, spread=False))
    published = CHARACTERS.published.text(row.trials[0]) if CHARACTERS.published else ""
    few = f", n = {row.count}" if row.count < ENOUGH else ""
    return f"{mean}{few}{f' ({float(published):.3f})' if published else ''}"
