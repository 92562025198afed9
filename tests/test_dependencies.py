"""What is installed: ranges that the tested versions lie in, a hash for every file, a licence for every package."""

import ast
import csv
import re
import sys
import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
LOCKED = (ROOT / "requirements.txt").read_text()


def ranges():
    lines = (ROOT / "requirements/ranges.txt").read_text().splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def locked():
    """Name -> version, condition and hashes."""
    pattern = r"^([A-Za-z0-9._-]+)==([^ ;\\]+)(.*)\\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)"
    found = re.findall(pattern, LOCKED, re.MULTILINE)
    return {name.lower(): (version, condition.strip(" ;"), hashes) for name, version, condition, hashes in found}


def test_every_locked_package_has_its_hashes():
    names = re.findall(r"^([A-Za-z0-9._-]+)==", LOCKED, re.MULTILINE)
    assert [name.lower() for name in names] == list(locked())


def test_each_locked_version_is_within_its_range():
    missing = [str(each) for each in ranges() if each.name.lower() not in locked()]
    assert not missing, "not locked: make requirements.txt again"
    outside = [str(each) for each in ranges() if not each.specifier.contains(locked()[each.name.lower()][0])]
    assert not outside


def test_the_package_asks_for_what_is_tested():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    tested = {wanted.name.lower(): wanted.specifier for wanted in ranges()}
    for text in project["project"]["dependencies"]:
        asked = Requirement(text)
        assert asked.specifier == tested[asked.name.lower()], text


DISTRIBUTIONS = {
    "hydra": "hydra-core",
    "sklearn": "scikit-learn",
    "yaml": "PyYAML",
    "mlflow": "mlflow-skinny",
    "lightning_utilities": "pytorch-lightning",
    "markupsafe": "jinja2",
    "typing_extensions": "torch",
    "triton": "torch",
}
"""What to install for a package of a different name, or for one that comes with a dependency."""


def test_every_import_of_the_package_is_asked_for():
    """A wheel that is installed by itself brings all that it imports, or an extra does."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *(each for extra in project["optional-dependencies"].values() for each in extra)]
    names = {Requirement(text).name.lower() for text in asked}
    known = {*sys.stdlib_module_names, "seqmem", "hydra_plugins"}
    for path in [*(ROOT / "src").rglob("*.py"), *(ROOT / "datasets").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            for package in {module.partition(".")[0] for module in modules} - known:
                found = DISTRIBUTIONS.get(package, package).replace("_", "-").lower()
                assert found in names, f"{path}: {package}"


def test_every_licence_is_listed_and_lets_us_be_used():
    with (ROOT / "requirements/licences.csv").open() as file:
        rows = {row["package"]: row for row in csv.DictReader(file)}
    here = {name: entry for name, entry in locked().items() if entry[1] != "sys_platform == 'win32'"}
    assert {name: row["version"] for name, row in rows.items()} == {name: entry[0] for name, entry in here.items()}
    for row in rows.values():
        assert row["licence"], row["package"]
        assert not re.search(r"(?<!L)GPL|General Public", row["licence"]), row


def test_the_job_runs_every_set_of_versions():
    job = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text())["jobs"]["test"]
    known = re.findall(r"^flags_(\w+) :=", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {entry["versions"] for entry in job["strategy"]["matrix"]["include"]} == set(known) - {"kept_torch"}
