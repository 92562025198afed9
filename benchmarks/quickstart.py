"""The README's quickstart, measured: ``python -m benchmarks.quickstart`` (one minute, idle cores).

Trains ``experiment=quickstart`` in a temporary folder and writes its table, its picture and the environment of the measurement
to ``benchmarks/latest/quickstart/``, which git ignores. ``--keep`` writes to ``benchmarks/results/quickstart/`` instead and
updates the pages.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import trial_rows
from benchmarks.output import add_output, output
from benchmarks.pages import every_page
from benchmarks.run import environment

ROOT = Path(__file__).parents[1]
COMMAND = ("train.py", "-m", "experiment=quickstart")


def main() -> None:
    """Run the command line: train, copy what it wrote, and update the pages if the results are kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_output(parser, "quickstart")
    arguments = parser.parse_args()
    folder = output(arguments, "quickstart")
    folder.mkdir(exist_ok=True)
    where = environment() | {"load": round(os.getloadavg()[0], 2)}
    with tempfile.TemporaryDirectory() as runs:
        subprocess.run([sys.executable, *COMMAND, f"output_dir={runs}"], cwd=ROOT, check=True)
        [table] = Path(runs).glob("sweep*/table.md")
        machine = json.loads(next(Path(runs).glob("*/seed_*/record.json")).read_text())["machine"]
        where |= {"threads": machine["threads"], "at_a_time": machine.get("workers", 1)}
        for name in ("table.md", "table.csv", "curves.png"):
            shutil.copy(table.with_name(name), folder)
    trial_rows.write(folder / "environment.csv", list(where), [where])
    if arguments.keep:
        every_page.update()
    print(f"results: {folder}")


if __name__ == "__main__":
    main()
