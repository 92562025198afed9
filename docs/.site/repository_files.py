"""MkDocs hook: files of the repository that pages link to are part of the site, under ``files/``.

Links to them work on GitHub as they are. A link to a folder becomes its name, since a site has no listings. Roles in docstrings
are shown as code.
"""

import re
from pathlib import Path
from posixpath import normpath, relpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#\s:]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add each file outside of docs/ that a page links to."""
    for file in list(files.documentation_pages()):
        for _, _, target, _ in LINK.findall(file.content_string):
            path = _outside(file.src_uri, target)
            if path and (ROOT / path).is_file() and f"files/{path}" not in files.src_uris:
                files.append(File.generated(config, f"files/{_name(path)}", abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point the links of a page at these files."""

    def changed(link: re.Match) -> str:
        mark, text, target, anchor = link.groups()
        path = _outside(page.file.src_uri, target)
        if not path or not (ROOT / path).exists():
            return link[0]
        if (ROOT / path).is_dir():
            return text
        return f"{mark}[{text}]({relpath(f'files/{_name(path)}', Path(page.file.src_uri).parent.as_posix())}{anchor or ''})"

    return LINK.sub(changed, markdown)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Show the roles and literal blocks of docstrings, which are written in reStructuredText, as plain code."""
    return re.sub(r":(?:class|func|meth|mod|attr|data):(?=<code>)", "", html).replace("::</p>", ":</p>")


def _outside(page: str, target: str) -> str | None:
    """Path in the repository of a link that leaves docs/; None for other links."""
    path = normpath(f"docs/{Path(page).parent.as_posix()}/{target}")
    return None if path.startswith(("docs/", "..")) or path == "docs" else path


def _name(path: str) -> str:
    """Name of a copy; a Markdown file would become a page, whose own links lead nowhere."""
    return f"{path}.txt" if path.endswith(".md") else path
