"""All pages with generated parts."""

from pathlib import Path

from benchmarks.pages import models, results


def texts() -> dict[Path, str]:
    """Return the text of every page with generated parts, by its path, as the files determine it."""
    return models.pages() | results.pages()


def changed() -> dict[Path, str]:
    """Return those texts that differ from the pages."""
    return {path: text for path, text in texts().items() if path.read_text(encoding="utf-8") != text}


def update() -> list[Path]:
    """Write the pages that differ, and return their paths."""
    found = changed()
    for path, text in found.items():
        path.write_text(text, encoding="utf-8")
    return list(found)
