"""One table of ratios, each taken in one run: ``python -m benchmarks.run`` or ``make bench`` (seven minutes, on quiet cores).

Sides take turns, A B A B ..., and a ratio is the median over the turns that both took; a slow side takes one alone. In a turn a
fast side goes on for half a second, as a training would. No ratio is given where the sides disagree in value or gradient. Peak
memory is that of a process that runs one side alone.
"""

import argparse
import csv
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.sides import Case, Result, Side, builders, sides
from seqmem import ops
from seqmem.io.provenance import provenance
from seqmem.training.loop.freed_memory import freed_memory_kept

CASES = [
    Case("legs", 128, 784),
    Case("legs", 256, 784),
    Case("legs", 512, 784),
    Case("legs", 512, 784, dtype=torch.bfloat16),
    Case("tlsi", 256, 40),
    Case("lstm", 256, 784),
    Case("lstm", 256, 784, loss="last"),
    Case("gru", 256, 784),
    Case("gru", 256, 784, loss="last"),
    Case("lstm", 256, 30),
    Case("gru", 256, 30),
    Case("hmlstm", 50, 200, 10),
    Case("hmlstm", 256, 100, 32),
    Case("hmlstm", 512, 100, 64),
    Case("igloo", 5, 10_000, 128),
    Case("lstm_ae", 64, 150),
    Case("projection", 256, 1_000_000, 1, torch.float64),
    Case("projection", 256, 1_000_000, 1, torch.float32),
    Case("projection", 256, 100_000, 8, torch.float32),
]
COLUMNS = ("case", "side", "seconds", "times_ours", "processor_seconds", "agreement", "peak_memory_mib")
RESULTS = Path(__file__).parent / "results"
# Norm of the difference of two sides relative to that of one, over T steps of rounding.
TOLERANCE = {torch.bfloat16: 5e-2, torch.float32: 1e-3, torch.float64: 1e-9}
# The sequential kernel's own rounding in 10^6 steps of float32 is 3e-3 (ours is 2e-5, both against float64).
PROJECTION_TOLERANCE = {**TOLERANCE, torch.float32: 1e-2}
# The cases whose memory is measured too, and of which sides.
MEMORY_OF = (Case("legs", 512, 784), Case("igloo", 5, 10_000, 128))
MEMORY_SIDES = ("seqmem", "seqmem, step by step", "original (dense)", "all patches gathered")
# Seconds after which a side of a case gets no further turn; what takes as long in its first call is not called again.
PATIENCE = 6.0
# Seconds of a turn, if a call is shorter.
TURN = 0.5


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="run the cases whose title contains this, keep the CSV's others")
    parser.add_argument("--turns", type=int, default=3, help="turns of each side (a slow side gets fewer)")
    parser.add_argument("--no-memory", action="store_true", help="do not measure peak memory")
    parser.add_argument("--output", type=Path, default=RESULTS / "speed.csv", help="the CSV to write")
    parser.add_argument("--one", nargs=2, metavar=("TITLE", "SIDE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        title, side = arguments.one
        [case] = [case for case in CASES if case.title == title]
        builders(case)[side]()()
        # Not getrusage: a process starts with the peak of the one that started it.
        [peak] = [line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
        print(int(peak) / 1024)
        return
    chosen = [case for case in CASES if arguments.only in case.title]
    with freed_memory_kept():
        rows = [row for case in chosen for row in measure(case, arguments.turns)]
    kept = others(arguments.output, chosen)
    save(rows, kept, arguments.output)
    if not arguments.no_memory:
        titles = [case.title for case in MEMORY_OF]
        for row in rows:
            if row["case"] in titles and row["side"] in MEMORY_SIDES:
                row["peak_memory_mib"] = peak_memory(row["case"], row["side"])
        save(rows, kept, arguments.output)
    show(rows)


def measure(case: Case, turns: int) -> list[dict]:
    """The rows of one case, ours first."""
    console = Console(stderr=True)
    with console.status(f"{case.title}: getting ready"):
        calls = sides(case)
    results: dict[str, Result | None] = {}
    times: dict[str, list[float]] = {}
    busy: dict[str, list[float]] = {}
    for name, call in calls.items():
        with console.status(f"{case.title}: {name}"):
            results[name], first, worked = clocked(call)
        slow = first > PATIENCE  # else it was for warming up
        times[name], busy[name] = ([first], [worked]) if slow else ([], [])
    for _ in range(turns):
        for name, call in calls.items():
            if sum(times[name]) < PATIENCE:
                _, seconds, worked = clocked(call, TURN)
                times[name].append(seconds)
                busy[name].append(worked)
    ours = times["seqmem"]
    tolerance = (PROJECTION_TOLERANCE if case.kind == "projection" else TOLERANCE)[case.dtype]
    rows = []
    for name in calls:
        agreement = agrees(results["seqmem"], results[name], tolerance)
        ratios = [theirs / mine for theirs, mine in zip(times[name], ours, strict=False)]
        rows.append(
            {
                "case": case.title,
                "side": name,
                "seconds": statistics.median(times[name]),
                "times_ours": statistics.median(ratios) if agreement != "DISAGREES" else None,
                "processor_seconds": statistics.median(busy[name]),
                "agreement": agreement,
                "peak_memory_mib": None,
            }
        )
    return rows


def clocked(call: Side, turn: float = 0.0) -> tuple[Result | None, float, float]:
    """What a call gives, its seconds, and the processor's, of all threads, which other programs lengthen less.

    Means over as many calls, one at least, as a turn of so many seconds takes.
    """
    start, before = time.perf_counter(), time.process_time()
    calls = 0
    while calls == 0 or time.perf_counter() - start < turn:
        result = call()
        calls += 1
    return result, (time.perf_counter() - start) / calls, (time.process_time() - before) / calls


def agrees(ours: Result | None, theirs: Result | None, tolerance: float) -> str:
    """Whether outputs and every gradient agree, or that there is nothing to compare."""
    if ours is None or theirs is None:
        return "no values"
    pairs = [(ours[0], theirs[0]), *zip(ours[1], theirs[1], strict=True)]
    errors = [((a - b).norm() / b.norm().clamp(min=1e-30)).item() for a, b in pairs]
    return f"{max(errors):.0e}" if all(error <= tolerance for error in errors) else "DISAGREES"  # NaN disagrees


def peak_memory(title: str, side: str) -> float | None:
    """Peak resident memory in MiB of a process that runs one side once."""
    command = [sys.executable, "-m", "benchmarks.run", "--one", title, side]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return round(float(done.stdout)) if done.returncode == 0 else None


def surroundings() -> dict[str, object]:
    """What a measurement was taken on."""
    found = provenance()
    return {
        "processor": found["machine"]["processor"],
        "threads": found["machine"]["threads"],
        "commit": found["commit"],
        "date": time.strftime("%Y-%m-%d"),
        "torch": found["versions"]["torch"],
        "operators": ops.paths()["legs_trapezoidal"],
    }


def others(path: Path, chosen: list[Case]) -> list[dict]:
    """The rows of an earlier run for cases that this run does not measure."""
    if not path.exists():
        return []
    titles = {case.title for case in CASES} - {case.title for case in chosen}
    with open(path, newline="") as file:
        return [row for row in csv.DictReader(file) if row["case"] in titles]


def save(rows: list[dict], kept: list[dict], path: Path) -> None:
    """Write the rows, each with what it was measured on."""
    where = surroundings()
    order = [case.title for case in CASES]
    merged = sorted([*kept, *({**row, **where} for row in rows)], key=lambda row: order.index(row["case"]))
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, [*COLUMNS, *where])
        writer.writeheader()
        writer.writerows(merged)


def show(rows: list[dict]) -> None:
    """Print the table."""
    table = Table(title="forward and backward; 'x ours' above 1 is slower than seqmem")
    for name in ("case", "side", "seconds", "x ours", "processor", "difference", "peak MiB"):
        table.add_column(name, justify="left" if name in ("case", "side") else "right")
    previous = None
    for row in rows:
        if previous not in (None, row["case"]):
            table.add_section()
        title = row["case"] if row["case"] != previous else ""
        ratio = "-" if row["times_ours"] is None else f"{row['times_ours']:.2f}"
        memory = "-" if row["peak_memory_mib"] is None else f"{row['peak_memory_mib']:,.0f}"
        table.add_row(
            title, row["side"], f"{row['seconds']:.4f}", ratio, f"{row['processor_seconds']:.4f}", row["agreement"], memory
        )
        previous = row["case"]
    Console(width=None if Console().is_terminal else 160).print(table)


if __name__ == "__main__":
    main()
