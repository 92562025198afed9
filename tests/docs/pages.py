"""The pages of the documentation: their blocks, commands, sentences and links."""

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

from tests.program import ROOT

DOCS = ROOT / "docs"
ALL = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md") if (ROOT / name).exists()),
    *sorted(path for path in DOCS.rglob("*.md") if ".site" not in path.parts),
]
"""Every page, as a path."""

BY_DEFAULT = [path for path in ALL if path.name == "README.md" or path.parent.name == "tutorials"]
"""Pages whose blocks run in the default tests; those of the others run in the long tests."""

_fence = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```", re.DOTALL | re.MULTILINE)
_end = re.compile(r"(?<=[.!?:;])\s+(?=[A-Z`\"'(\[0-9])")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language (an empty string without one), its text without indentation."""

    language: str
    text: str

    def commands(self) -> list[str]:
        """Commands of a shell block, without comments, each on one line."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [command for line in lines if (command := " ".join(re.split(r"(?:^|\s)#", line)[0].split()))]


def name(page: Path) -> str:
    """Path of a page in the repository."""
    return page.relative_to(ROOT).as_posix()


def text(page: Path) -> str:
    """Content of a page."""
    return page.read_text(encoding="utf-8")


def blocks(page: Path, *languages: str) -> list[Block]:
    """Fenced blocks in order: all, or those in the given languages."""
    found = [Block(language, textwrap.dedent(body)) for _, language, body in _fence.findall(text(page))]
    return [block for block in found if not languages or block.language in languages]


def commands(*pages: Path) -> list[str]:
    """Commands in the shell blocks of pages (by default all), in order."""
    return [command for page in pages or ALL for block in blocks(page, "bash") for command in block.commands()]


def without_code(page: Path) -> str:
    """Text of a page without fenced blocks and comments."""
    return re.sub(r"<!--.*?-->", "", _fence.sub("", text(page)), flags=re.DOTALL)


def sentences(page: Path) -> list[list[str]]:
    """Words of each sentence of paragraphs and lists; headings, tables, pictures and code blocks are left out.

    A code span counts as one word, and so does the address of a link.
    """
    prose = re.sub(r"!\[[^\]]*\]\([^)]*\)", "", without_code(page))
    prose = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", prose)
    prose = re.sub(r"`[^`]+`", "`code`", prose)
    paragraphs: list[list[str]] = [[]]
    for line in prose.splitlines():
        stripped = line.strip()
        if not stripped or stripped.startswith(("#", "|", "!!!", ":::")):
            paragraphs.append([])
        elif re.match(r"([-*]|\d+\.) ", stripped):
            paragraphs.append([re.sub(r"^([-*]|\d+\.) ", "", stripped)])
        else:
            paragraphs[-1].append(stripped)
    joined = [" ".join(lines) for lines in paragraphs if lines]
    return [words for paragraph in joined for part in _end.split(paragraph) if (words := re.findall(r"[^\s]*\w[^\s]*", part))]


def links(page: Path) -> list[tuple[str, str]]:
    """Path and anchor of each link and picture that is not an address of the web; both may be empty."""
    found = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]+`", "", without_code(page)))
    return [(path, anchor) for link in found if "://" not in link for path, _, anchor in [link.partition("#")]]


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings: those on which GitHub and the site agree."""
    headings = re.findall(r"^#+ (.+)$", without_code(page), re.MULTILINE)
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)|`", r"\1", heading).strip().lower() for heading in headings]
    github = [re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in plain]
    site = [re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip()) for heading in plain]
    return set(github) & set(site)
