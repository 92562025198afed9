"""HTML page of a report: a single file that needs no server and no network."""

import json
import math
import shlex
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from seqmem.io.figures import Figure
from seqmem.results import formats
from seqmem.results.aggregate import Trials
from seqmem.results.curves import Curve, thinned
from seqmem.results.labels import short_version, varying
from seqmem.results.length_rows import LengthTable
from seqmem.results.page_pairs import MOST_ROWS, picked_pairs
from seqmem.results.plots import svg
from seqmem.results.published import Comparison
from seqmem.results.published import columns as published_columns
from seqmem.results.reading import Run
from seqmem.results.table import INTERVAL, cells, number, smoke_note

WIDTH, HEIGHT = 320, 90
"""Size of the picture of a row's trials, in units of the SVG."""
MOST_POINTS = 100


def page(
    title: str,
    groups: Sequence[Trials],
    summary: pd.DataFrame,
    trials: Sequence[Mapping[str, Any]],
    curves: Mapping[Path, Curve],
    comparisons: Sequence[Comparison],
    figures: Mapping[str, Figure | None],
    lengths: Sequence[LengthTable] = (),
) -> str:
    """Return the HTML of the page.

    Args:
        title: title of the page.
        groups: trials, a row each.
        summary: their table, with any published values.
        trials: the single trials, see :func:`seqmem.results.trial_rows.trial_rows`, with folders relative to the page's.
        curves: learning curves by the run's folder.
        comparisons: comparisons with published values; empty for none.
        figures: "curves", "bars" and "by_length", each None if there is nothing to draw.
        lengths: results by length, a table for each data set.
    """
    differing = varying(group.settings for group in groups)
    known = [group.settings for group in groups if group.settings is not None]
    of_row: dict[int, list[Mapping[str, Any]]] = {}
    for trial in trials:
        of_row.setdefault(trial["row"], []).append(trial)
    columns, picked = cells(summary), picked_pairs(groups)
    rows = [
        {
            "name": f"{group.model} on {group.dataset}",
            "cells": line,
            "metric": group.metric,
            "settings": {key: value for key, value in (group.settings or {}).items() if key in differing},
            "trials": of_row[k],
            "commands": _commands(group.runs),
            "picture": _picture(group.runs, curves),
        }
        for k, (group, line) in enumerate(zip(groups, formats.rows(columns), strict=True))
    ]
    return (
        _environment()
        .get_template("page.html")
        .render(
            title=title,
            width=WIDTH,
            height=HEIGHT,
            written=time.strftime("%Y-%m-%d %H:%M"),
            states=Counter(trial["status"] for trial in trials),
            columns=columns,
            interval=INTERVAL,
            words=formats.LEFT,
            rows=rows,
            differing=differing,
            common={key: value for key, value in (known[0] if known else {}).items() if key not in differing},
            problems=[trial for trial in trials if trial["reason"]],
            figures={name: figure and Markup(svg(figure, name)) for name, figure in figures.items()},
            lengths=[{"table": each, "lines": formats.rows(each.columns)} for each in lengths],
            compared=published_columns(comparisons, groups),
            matched={line: comparison.row for line, comparison in enumerate(comparisons) if comparison.row is not None},
            smoke_note=smoke_note(summary),
            picked=picked and _embedded(picked),
            most_picked=MOST_ROWS,
            unmatched=[line for line, comparison in enumerate(comparisons) if comparison.row is None],
        )
    )


def _embedded(value: Any) -> Markup:
    """A value as JSON for a script element, which "</script>" in a name would end."""
    return Markup(json.dumps(value).replace("<", "\\u003c"))


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("page_parts")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "signs": _with_signs,
        "number": lambda value: "-" if value is None else number(value),
        "known": lambda value: "-" if value is None else value,
        "version": lambda value: "-" if value is None else short_version(value),
        "link": quote,
    }
    return environment


def _with_signs(cell: str) -> Markup:
    """A cell with the signs that ASCII does not have."""
    return Markup(str(escape(cell)).replace("+/-", "&plusmn;"))


def _commands(runs: Sequence[Run]) -> list[str]:
    """The command lines of the runs, each once, as they can be pasted into a shell."""
    given = [run.record.get("command") for run in runs]
    return list(dict.fromkeys(_pasted(command) for command in given if isinstance(command, list) and command))


def _pasted(command: Sequence[Any]) -> str:
    words = list(map(str, command))
    return shlex.join(["python", *words] if words[0].endswith(".py") else words)


def _picture(runs: Sequence[Run], curves: Mapping[Path, Curve]) -> dict[str, Any] | None:
    """The learning curve of each of a row's trials as the points of a polyline, and the limits of both axes."""
    drawn = [(run.record["seed"], thinned(curves.get(run.folder.path, []), MOST_POINTS)) for run in runs]
    drawn = [(seed, [point for point in curve if math.isfinite(point[1])]) for seed, curve in drawn]
    values = [value for _, curve in drawn for _, value in curve]
    if not values:
        return None
    low, high = min(values), max(values)
    last = max(epoch for _, curve in drawn for epoch, _ in curve)
    across, up = WIDTH / max(last - 1, 1), HEIGHT / ((high - low) or 1)
    return {
        "low": number(low),
        "high": number(high),
        "last": last,
        "lines": [
            {
                "seed": seed,
                "points": " ".join(f"{(epoch - 1) * across:.1f},{(high - value) * up:.1f}" for epoch, value in curve),
            }
            for seed, curve in drawn
            if curve
        ],
    }
