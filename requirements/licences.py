"""Write licences.csv, the licence that each package of requirements.txt states: ``python requirements/licences.py``."""

import csv
import re
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

HERE = Path(__file__).parent

# Packages that state it elsewhere than in their metadata.
ELSEWHERE = {"cuda-toolkit": "LicenseRef-NVIDIA-Proprietary"}


def locked() -> dict[str, str]:
    """Name -> version of every package in requirements.txt."""
    found = re.findall(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)", (HERE.parent / "requirements.txt").read_text(), re.MULTILINE)
    return {name.lower(): version for name, version in found}


def licence(name: str) -> str:
    """Licence of an installed package: its SPDX expression, else its short text, else its classifier."""
    stated = metadata(name)
    for text in (stated.get("License-Expression"), stated.get("License")):
        if text and "\n" not in text and len(text) < 120 and text != "UNKNOWN":
            return text
    classified = [value for value in stated.get_all("Classifier") or [] if value.startswith("License ::")]
    return classified[0].rpartition(" :: ")[2] if classified else ELSEWHERE[name]


def rows() -> Iterator[tuple[str, str, str]]:
    """Name, version and licence of each package that this platform installs."""
    for name, version in sorted(locked().items()):
        try:
            yield name, version, licence(name)
        except PackageNotFoundError:
            print(f"{name} {version} is not for this platform", file=sys.stderr)


if __name__ == "__main__":
    with (HERE / "licences.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["package", "version", "licence"])
        writer.writerows(rows())
