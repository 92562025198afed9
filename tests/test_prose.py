"""The field's terms: words that this project once used in their place do not come back."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]

FORMER = {
    r"\bobstacles?\b": "fallback reason",
    r"\bway back\b|\bgoes back\b|\bon the way\b": "backward",
    r"\bg(?:one|oes|oing|o) on (?:from|with|where)\b|\bgo on\b|\bgoes on\b|\bwent on\b": "resume, continue",
    r"\bwhat came of\b|\bwhat comes of\b": "outcome",
    r"\bhow (?:tables|messages) call\b|\bwhat messages call\b": "name of ... in",
    r"\bruns? as it is\b": "runs eagerly",
    r"\bno finite number\b": "not finite",
    r"(?<!there )\b(?:is|are|was) no (?!longer\b|more\b|other\b)": "is not a",
    r"\btold\b|\btells?\b|\btelling\b": "reported, says, names",
    r"\bwayback\b|\bticks?\b(?!\w)|\bnamesakes?\b|\bkin\b": "a standard term",
    r"\bwhat .{1,30} reads?\b": "the inputs of",
    r"\basked for\b": "requested",
    r"\bat hand\b": "available",
    r"\bsettled?\b": "resolved",
    r"\bwanted\b": "expected",
}
"""Former words, as patterns, and what stands in their place (prose.md is the whole list)."""

PROSE = re.compile(r'"""[\s\S]*?"""|"(?:[^"\\\n]|\\.)*"|#.*|//.*')


def sentences() -> list[tuple[str, str]]:
    """Docstrings, messages and comments, each with its file; of pages every line."""
    found = []
    for pattern in (
        "src/**/*.py",
        "datasets/*.py",
        "*.py",
        "benchmarks/**/*.py",
        "csrc/*",
        "cfg/**/*.yaml",
        "*.md",
        "docs/**/*.md",
    ):
        for path in sorted(ROOT.glob(pattern)):
            text = path.read_text(encoding="utf-8")
            parts = text.splitlines() if path.suffix == ".md" else PROSE.findall(text)
            found += [(str(path.relative_to(ROOT)), part) for part in parts]
    return found


def test_former_words_do_not_come_back():
    used = [
        f"{file}: {found[0]!r} -> {better}: {' '.join(part.split())[:90]}"
        for file, part in sentences()
        for pattern, better in FORMER.items()
        if (found := re.search(pattern, part))
    ]
    assert not used, "\n".join(used[:40])
