"""Outcomes of tests as rows of a CSV file, written as they come. Needs Python alone."""

import csv
from pathlib import Path

TESTS = "tests.csv"
COLUMNS = ("test", "outcome", "seconds", "message")


def append_outcome(folder: Path, test: str, outcome: str, seconds: float, message: str) -> None:
    """Append the outcome of a test: passed, failed or skipped, with the first line of its message."""
    path = folder / TESTS
    is_new = not path.exists()
    with open(path, "a", newline="") as file:
        writer = csv.writer(file)
        if is_new:
            writer.writerow(COLUMNS)
        writer.writerow([test, outcome, f"{seconds:.3f}", message])


def outcomes(folder: Path) -> list[dict[str, str]]:
    """Return the outcomes that have been written."""
    path = folder / TESTS
    if not path.exists():
        return []
    with open(path, newline="") as file:
        return list(csv.DictReader(file))
