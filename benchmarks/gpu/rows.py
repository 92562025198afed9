"""Measurements as rows of a CSV file, each with the environment, written as they come. Needs Python alone."""

import csv
import json
from pathlib import Path
from typing import Any

ROWS = "measurements.csv"
ENVIRONMENT = "environment.json"
LOG = "log.txt"

MEASURED = ("part", "case", "side", "precision", "quantity", "value", "unit", "note")
ENVIRONMENT_COLUMNS = ("device", "driver", "cuda", "cudnn", "torch", "triton", "python", "commit", "date")
COLUMNS = (*MEASURED, *ENVIRONMENT_COLUMNS, "command")


def append(folder: Path, command: str, **measured: Any) -> None:
    """Append a row to the measurements of a folder.

    Args:
        folder: of the run.
        command: what measured it.
        **measured: columns of :data:`MEASURED`; those left out are empty.

    Raises:
        ValueError: a column that is not one of them.
    """
    unknown = set(measured) - set(MEASURED)
    if unknown:
        raise ValueError(f"got the columns {sorted(unknown)}, expected some of {MEASURED}")
    environment = environment_of(folder)
    row = {**{key: environment.get(key) for key in ENVIRONMENT_COLUMNS}, "command": command, **measured}
    path = folder / ROWS
    is_new = not path.exists()
    with open(path, "a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if is_new:
            writer.writeheader()
        writer.writerow(row)


def read(folder: Path) -> list[dict[str, str]]:
    """Return the rows that have been written."""
    path = folder / ROWS
    if not path.exists():
        return []
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def environment_of(folder: Path) -> dict[str, Any]:
    """Return the environment of a run; empty if that part failed."""
    path = folder / ENVIRONMENT
    return json.loads(path.read_text()) if path.exists() else {}
