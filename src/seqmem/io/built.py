"""Origin of an installed package: the commit that it was built from, and a hash of its modules and configs.

Standard library only: setup.py runs this file where the package is not installed.
"""

import hashlib
import json
import subprocess
from pathlib import Path

_FILE = "built_from.json"
_no_sources = ("benchmarks/results", "README.md", "docs")
_sources = ("src", "cfg", "csrc", "datasets")
"""Folders whose untracked files run, too: modules of the package and of data sets, configs, and sources of the operators."""


def write(package: Path, checkout: Path) -> None:
    """Write ``built_from.json`` into a built package.

    Args:
        package: folder of the built package.
        checkout: the sources that it was built from.
    """
    content = {"commit": commit(checkout), "sources": source_hash(package)}
    (package / _FILE).write_text(json.dumps(content) + "\n", encoding="utf-8")


def read(package: Path) -> dict[str, str | None]:
    """Return ``commit`` and ``sources`` of an installed package.

    ``sources`` is the hash of the files as they are now. The commit ends in ``-dirty`` if they were changed after the build, or
    the checkout was at the build. It is None if there was no repository.
    """
    found: str | None = None
    now = source_hash(package)
    try:
        before = json.loads((package / _FILE).read_text(encoding="utf-8"))
        found = before["commit"]
        if found and before["sources"] != now and not found.endswith("-dirty"):
            found += "-dirty"
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return {"commit": found, "sources": now}


def source_hash(package: Path) -> str:
    """Return the sha256 over names and bytes of all modules and configs of a package, in name order."""
    digest = hashlib.sha256()
    for path in sorted(path for suffix in ("py", "yaml") for path in package.rglob(f"*.{suffix}")):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(package).as_posix()} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def commit(folder: Path) -> str | None:
    """Return the commit of the repository that tracks files of a folder.

    It ends in ``-dirty`` if tracked files were changed other than pages and kept results, which no measurement depends on, or
    if the folders of sources have files that git neither tracks nor ignores. It is None outside of a repository, for a package
    that was installed into a folder of a different project, and where git fails.
    """
    tracked = [":/", *(f":(top,exclude){path}" for path in _no_sources)]
    untracked = [f":(top){path}" for path in _sources]
    try:
        if not _git(folder, "ls-files").stdout:
            return None
        found = _git(folder, "rev-parse", "--verify", "HEAD")
        changed = _git(folder, "diff", "--quiet", "--no-ext-diff", "HEAD", "--", *tracked)
        new = _git(
            folder, "ls-files", "--others", "--exclude-standard", "--directory", "--no-empty-directory", "--", *untracked
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    if found.returncode or changed.returncode not in (0, 1) or new.returncode:
        return None
    return f"{found.stdout.strip()}{'-dirty' if changed.returncode or new.stdout else ''}"


def _git(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
