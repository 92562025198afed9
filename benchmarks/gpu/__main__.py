"""Test, time and train on the GPU of this machine: ``python -m benchmarks.gpu`` or ``make gpu`` (at most eight minutes).

It needs one GPU, torch 2.11 or newer and the packages of requirements/ranges.txt; no network, no compiler and no C++ library.
MNIST is looked for where SEQMEM_DATA points, in ``data/``, and beside the checkout; without it, digits are made, as rows say.

Each part is a process with a time limit of its own, and none stops the others. Rows are written as they come.
"""

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.gpu.outcomes import outcomes
from benchmarks.gpu.parts import FINISHED, Part, run_parts
from benchmarks.gpu.rows import ENVIRONMENT, LOG, ROWS, read
from benchmarks.gpu.table import table
from benchmarks.output import add_output, output

ROOT = Path(__file__).parents[2]
SECONDS = 470.0
"""Time limit of a run; a table takes no time, and ten seconds are left to end processes."""

LIMITS = {"environment": 30.0, "tests": 115.0, "speed": 150.0, "trainings": 125.0, "operators": 50.0}
"""Parts in their order, each with its time limit in seconds."""

RESTARTED = ("tests", "speed", "operators", "trainings")
"""Parts that leave out what an earlier process began with."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0 if every part has finished and no test failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"), help="cpu tries the command where there is no GPU")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, few tests, no repetitions")
    parser.add_argument("--parts", default=",".join(LIMITS), help="parts to run, separated by commas (default all)")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="time limit of the run (default %(default).0f)")
    parser.add_argument("--commit", help="commit of the sources, where there is no git repository")
    add_output(parser, "gpu/CARD")
    given = parser.parse_args(arguments)
    names = given.parts.split(",")
    unknown = [name for name in names if name not in LIMITS]
    if unknown:
        parser.error(f"--parts: got {unknown[0]}, expected some of {','.join(LIMITS)}")

    environment = variables()
    name = card(given.device, environment)
    if not name:
        parser.error("--device: got cuda, but neither nvidia-smi nor torch finds a GPU; try --device cpu --smoke")
    folder = _new_folder(output(given, f"gpu/{name}"))
    if given.commit:
        (folder / ENVIRONMENT).write_text(f'{{"commit": "{given.commit}"}}\n')
    print(f"results: {folder}", flush=True)
    outcome = run_parts([part(name, folder, given) for name in names], folder, given.seconds, environment, _report)
    text = table(folder)
    (folder / "table.txt").write_text(text + "\n")
    print(f"\n{text}\n\nrows: {folder / ROWS}\nlog: {folder / LOG}", flush=True)
    is_red = any(row["outcome"] == "failed" for row in outcomes(folder)) or any(
        row["note"].startswith("failed") for row in read(folder)
    )
    return int(is_red or any(end != FINISHED for end in outcome.values()))


def part(name: str, folder: Path, given: argparse.Namespace) -> Part:
    """Return a part; it begins with nothing new in its last seconds."""
    seconds = LIMITS[name]
    command = [sys.executable, "-m", f"benchmarks.gpu.{name}", "--folder", str(folder.resolve()), "--device", given.device]
    command += ["--seconds", f"{max(seconds - 10, seconds / 2):.0f}", *(["--smoke"] if given.smoke else [])]
    return Part(name, command, seconds, restarts=name in RESTARTED)


def variables() -> dict[str, str]:
    """Return the environment of the parts: the sources of this checkout come first, one thread where none are chosen."""
    paths = [str(ROOT), str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}


def card(device: str, environment: dict[str, str]) -> str:
    """Return the name of the device for a folder; empty if there is no GPU."""
    if device == "cpu":
        return "cpu"
    driver = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    program = [sys.executable, "-c", "import torch; print(torch.cuda.get_device_name())"]
    for line in (driver, program):  # torch takes seconds
        try:
            done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=60, check=False)
        except (OSError, subprocess.TimeoutExpired):
            continue
        if done.returncode == 0 and done.stdout.strip():
            return re.sub(r"\W+", "_", done.stdout.splitlines()[0].strip())
    return ""


def _new_folder(folder: Path) -> Path:
    """Return the folder without the files of an earlier run, which move into a folder beside it."""
    if (folder / LOG).exists():
        number = next(k for k in range(1, 10_000) if not folder.with_name(f"{folder.name}.{k}").exists())
        folder.rename(folder.with_name(f"{folder.name}.{number}"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _report(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
