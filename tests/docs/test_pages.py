"""Size, sentences and links of the pages, and what belongs on which; the site builds."""

import os
import re
import subprocess
import sys
import tomllib
from importlib.util import find_spec

import pytest
import yaml

from tests.docs import pages
from tests.program import ROOT

LONGEST_AVERAGE = 20
"""Words of a sentence, on average over a page."""

README_BYTES = 9 * 1024

WRITTEN = ("guides", "tutorials", "models", "results", "explanations", "migration")
INSTRUCTIVE = [page for page in pages.ALL if page.name in ("README.md", "CONTRIBUTING.md") or page.parent.name in WRITTEN]


@pytest.mark.parametrize("page", INSTRUCTIVE, ids=pages.name)
def test_sentences_are_short(page):
    lengths = [len(words) for words in pages.sentences(page)]
    assert lengths, "a page has sentences"
    longest = sorted(pages.sentences(page), key=len)[-3:]
    shown = "\n".join(" ".join(words) for words in longest)
    assert sum(lengths) / len(lengths) <= LONGEST_AVERAGE, (
        f"{sum(lengths) / len(lengths):.1f} words on average; longest:\n{shown}"
    )
    assert len(longest[-1]) <= 50, shown


def test_the_counter_of_words_counts():
    """Of a page with known sentences; without this, an empty list would pass."""
    found = pages.sentences(pages.DOCS / "guides" / "text.md")
    assert " ".join(found[0]).startswith("After this page you can train a character model on text8 or")
    assert len(found[0]) == 20
    assert len(found) > 10


def test_the_readme_is_short():
    assert len(pages.text(ROOT / "README.md").encode()) <= README_BYTES


def _is_result(page):
    """Signs of a measurement: a deviation, a column of trials, or the commit that was measured."""
    return re.findall(r"\d \+/- \d|\| n \||commit `[0-9a-f]{10}|on two threads of|AMD EPYC|Intel Xeon", pages.text(page))


@pytest.mark.parametrize(
    "page", [page for page in INSTRUCTIVE if page.parent.name in ("guides", "explanations")], ids=pages.name
)
def test_guides_hold_no_results(page):
    assert not _is_result(page)


def test_results_are_recognised():
    assert all(_is_result(pages.DOCS / "results" / f"{name}.md") for name in ("hippo", "hmlstm", "igloo", "speed"))


def test_pages_of_results_hold_no_instructions():
    """A command that was measured stands with its commit; how to measure is in CONTRIBUTING.md."""
    for page in (pages.DOCS / "results").glob("*.md"):
        assert not pages.blocks(page), page


# These begin with what the project is, or with the docstring of a package.
BEGIN_OTHERWISE = re.compile(r"README\.md|CHANGELOG\.md|docs/index\.md|docs/reference/api/seqmem.*")


@pytest.mark.parametrize(
    "page", [page for page in pages.ALL if not BEGIN_OTHERWISE.fullmatch(pages.name(page))], ids=pages.name
)
def test_a_page_says_first_what_the_reader_can_do(page):
    lines = [line for line in pages.without_code(page).splitlines() if line.strip()]
    assert lines[0].startswith("# ")
    assert re.match(r"After (this page|this tutorial|these pages),? ", lines[1]), lines[1]


@pytest.mark.parametrize("page", pages.ALL, ids=pages.name)
def test_links_lead_somewhere(page):
    for path, anchor in pages.links(page):
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), path
        assert target.is_relative_to(ROOT), path
        assert not anchor or anchor in pages.anchors(target), f"{path}#{anchor}"


@pytest.mark.parametrize("page", pages.ALL, ids=pages.name)
def test_files_that_a_page_names_exist(page):
    """Paths in code spans; names in capitals and those of the modules that guides add are examples."""
    examples = re.compile(r"[A-Z]{3}|leaky|decay|majority|robust_regression|benchmarks/latest|\*")
    for name in re.findall(r"`((?:cfg|src|csrc|datasets|tests|benchmarks|notebooks|docs)/[\w./*-]+)`", pages.text(page)):
        assert examples.search(name) or (ROOT / name).exists(), name


def test_every_page_is_in_the_navigation_once():
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    found = []

    def collect(entry):
        if isinstance(entry, str):
            found.append(entry)
        else:
            for part in entry.values() if isinstance(entry, dict) else entry:
                collect(part)

    collect(settings["nav"])
    assert sorted(found) == sorted(
        page.relative_to(pages.DOCS).as_posix() for page in pages.ALL if page.is_relative_to(pages.DOCS)
    )


@pytest.mark.slow
def test_the_site_builds(tmp_path):
    """Strictly, as ``make docs`` does; links and the navigation are checked above."""
    if find_spec("mkdocs") is None or find_spec("mkdocstrings") is None:
        pytest.skip("mkdocs is not installed: pip install -r requirements/docs.txt")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    assert (tmp_path / "site" / "index.html").exists()
    assert (tmp_path / "site" / "files" / "benchmarks" / "results" / "speed.csv").exists()


def test_the_table_of_rooms_has_every_folder():
    rooms = {path.name for path in (ROOT / "src" / "seqmem").iterdir() if (path / "__init__.py").exists()}
    table = pages.text(ROOT / "CONTRIBUTING.md").partition("## Where things are")[2]
    assert rooms - {"datasets"} == set(re.findall(r"^\| `src/seqmem/(\w+)/`", table, re.MULTILINE))


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert citation["cff-version"] == "1.2.0"
    assert {"title", "message", "authors"} <= citation.keys()
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])


def test_issue_templates_have_their_headings():
    templates = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.md"))
    assert len(templates) >= 2
    for template in templates:
        _, heading, text = template.read_text().split("---\n", 2)
        assert {"name", "about"} <= yaml.safe_load(heading).keys()
        assert text.strip()
