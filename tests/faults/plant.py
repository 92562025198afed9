"""Plant the faults of faults.toml in a copy of this tree and report the test that finds each.

``python tests/faults/plant.py [NAME ...]`` runs, for each fault, its own tests and, where these pass, the whole default suite.
Without names it plants all faults, which takes an hour or two. It prints one row for each: the fault, the first test that fails
with it and passes without it, and the seconds until then. The exit status is 1 if a fault is not found.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EXTENSION = "src/seqmem/ops/_extension.so"


@dataclass(frozen=True)
class Fault:
    """One fault: in ``file``, the text ``old``, which occurs once, becomes ``new``; ``tests`` are those run first."""

    name: str
    what: str
    file: str
    old: str
    new: str
    tests: list[str]

    @property
    def compiled(self) -> bool:
        """Whether the extension must be built again."""
        return self.file.startswith("csrc/")

    def check(self, tree: Path) -> None:
        """Refuse a fault that does not fit the sources.

        Raises:
            SystemExit: its text does not occur exactly once.
        """
        found = (tree / self.file).read_text().count(self.old)
        if found != 1:
            sys.exit(f"{self.name}: got {found} occurrences of its text in {self.file}, expected 1")

    @contextmanager
    def planted(self, tree: Path) -> Iterator[None]:
        """The tree holds the fault within."""
        path, extension = tree / self.file, tree / EXTENSION
        sound = path.read_text()
        path.write_text(sound.replace(self.old, self.new))
        if self.compiled:
            shutil.copy2(extension, tree / "sound.so")
            build(tree)
        try:
            yield
        finally:
            path.write_text(sound)
            if self.compiled:
                shutil.copy2(tree / "sound.so", extension)


def copy_tree(tree: Path, to: Path) -> None:
    """Copy what git tracks or would track, and the compiled extension."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=tree, check=True, capture_output=True
    ).stdout.decode()
    for name in [*listed.split("\0"), EXTENSION]:
        if name and (tree / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(tree / name, to / name)


def build(tree: Path) -> None:
    """Compile the extension of a tree again.

    Raises:
        SystemExit: it does not compile.
    """
    done = subprocess.run([sys.executable, "setup.py", "build_ext", "--inplace"], cwd=tree, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)


def first_failure(tree: Path, tests: Sequence[str], workers: int, without: Sequence[str] = ()) -> str:
    """The first test that fails, an error in collecting included; empty if all but those of ``without`` pass."""
    environment = os.environ | {"PYTHONPATH": str(tree / "src"), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-n", str(workers), "-p", "no:cacheprovider", "--tb=no", *tests]
    command += [option for test in without for option in ("--deselect", test)]
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)
    if done.returncode in (0, 5):
        return ""
    lines = [line for line in done.stdout.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    if not lines:
        sys.exit(f"pytest stopped without a failed test:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return lines[0].split(" ", 1)[1].split(" - ")[0]


def find(fault: Fault, tree: Path, workers: int, only_own: bool) -> tuple[str, bool]:
    """The test that finds a fault, empty if there is none, and whether it is one of the fault's own."""
    own = [name for name in fault.tests if (tree / name).exists()]
    failing: list[str] = []  # with or without the fault
    for tests in [own] if only_own else [own, []]:
        while True:
            with fault.planted(tree):
                failed = first_failure(tree, tests, workers, failing)
            if not failed or failed in failing:
                break
            if not first_failure(tree, [failed], 0):
                return failed, bool(tests)
            print(f"{failed} fails without the fault {fault.name}, too", file=sys.stderr)
            failing.append(failed)
    return "", False


def main() -> None:
    """Plant the faults that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="faults (default: all)")
    parser.add_argument("--faults", type=Path, default=Path(__file__).with_name("faults.toml"), help="their list")
    parser.add_argument("--tree", type=Path, default=ROOT, help="where they are planted, in a copy (default: this checkout)")
    parser.add_argument("--only-own", action="store_true", help="run the tests of each fault's own list, not the whole suite")
    parser.add_argument("--workers", type=int, default=0, help="processes that run tests (default 0: this one)")
    given = parser.parse_args()
    listed = {name: Fault(name, **entry) for name, entry in tomllib.loads(given.faults.read_text()).items()}
    if unknown := [name for name in given.names if name not in listed]:
        parser.error(f"NAME: got {unknown[0]}, expected one of {', '.join(listed)}")
    faults = [listed[name] for name in given.names or listed]
    for fault in faults:
        fault.check(given.tree)
    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        tree.chmod(0o755)  # some tests read it as another user
        copy_tree(given.tree, tree)
        print("| fault | found by | among its own tests | seconds |\n|---|---|---|---|", flush=True)
        for fault in faults:
            start = time.perf_counter()
            found, own = find(fault, tree, given.workers, given.only_own)
            missed += not found
            seconds = time.perf_counter() - start
            print(f"| {fault.name} | {found or 'no test'} | {'yes' if own else 'no'} | {seconds:.0f} |", flush=True)
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
