"""Write the pages of docs/reference/: ``python -m benchmarks.reference [PART ...]``; without a part, all of them (a minute)."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.reference import api, command_line, configuration, messages

FOLDER = Path(__file__).parents[2] / "docs" / "reference"

PARTS: dict[str, Callable[[], dict[str, str]]] = {
    "configuration": configuration.pages,
    "api": api.pages,
    "command-line": lambda: {"command-line.md": command_line.page()},
    "messages": lambda: {"messages.md": messages.page()},
}
"""Pages of each part, by their path in docs/reference/."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Write each page."""
    parser = argparse.ArgumentParser("python -m benchmarks.reference", description="Write the pages of docs/reference/.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} (default: all)")
    parts = parser.parse_args(arguments).parts
    unknown = [part for part in parts if part not in PARTS]
    if unknown:
        parser.error(f"PART: got {unknown[0]}, expected one of {', '.join(PARTS)}")
    for part in parts or PARTS:
        for name, text in PARTS[part]().items():
            path = FOLDER / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
