"""Compare implementations of one training step: ``python -m benchmarks.run`` or ``make bench`` (seven minutes, idle cores).

The implementations ("sides") of a case are measured in turns, A B A B ..., and a ratio is the median over the turns that both
have; a slow side has a single turn. A turn repeats a fast call for half a second. The results of a call are freed before the
next one, as in training. No ratio is reported if the sides disagree in value or gradient. Peak memory is that of a process that
runs one side alone.

The rows are written to ``benchmarks/latest/``, which git ignores. ``--keep`` writes to ``benchmarks/results/``, from which
``python -m benchmarks.pages`` makes the tables of the pages.
"""

import argparse
import csv
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from benchmarks import trial_rows
from benchmarks.cases import Case, Result, Side, builders, sides
from benchmarks.output import add_output, output
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
    Case("lstm", 256, 784, loss="last", flush=True),
    Case("gru", 256, 784),
    Case("gru", 256, 784, loss="last"),
    Case("gru", 256, 784, loss="last", flush=True),
    Case("rnn", 256, 784),
    Case("lstm", 256, 30),
    Case("gru", 256, 30),
    Case("hmlstm", 50, 200, 10),
    Case("hmlstm", 256, 100, 32),
    Case("hmlstm", 512, 100, 64),
    Case("igloo", 5, 10_000, 128),
    Case("s4d", 128, 1024, 64),
    Case("selective_scan", 256, 1024, 16),
    *(Case("diagonal_scan", 256, 784, pairs=pairs, constant=constant) for pairs in (False, True) for constant in (False, True)),
    Case("slstm", 256, 784),
    Case("lstm_ae", 64, 150),
    Case("projection", 256, 1_000_000, 1, torch.float64),
    Case("projection", 256, 1_000_000, 1, torch.float32),
    Case("projection", 256, 100_000, 8, torch.float32),
]
COLUMNS = ("case", "side", "seconds", "times_ours", "processor_seconds", "agreement", "peak_memory_mib")
# Largest relative norm of the difference of two sides, from the rounding of T steps.
TOLERANCE = {torch.bfloat16: 5e-2, torch.float32: 1e-3, torch.float64: 1e-9}
# In 10^6 float32 steps the rounding error of the sequential kernel is 3e-3 (seqmem: 2e-5, both against float64).
PROJECTION_TOLERANCE = {**TOLERANCE, torch.float32: 1e-2}
# Cases and sides with a measurement of peak memory.
MEMORY_OF = (Case("legs", 512, 784), Case("igloo", 5, 10_000, 128))
MEMORY_SIDES = ("seqmem", "seqmem, step by step", "original (dense)", "all patches gathered")
# Most seconds of a side of a case: beyond it the side gets no further turn. A first call as long is the only one.
MAX_SECONDS = 6.0
# Seconds of a turn, unless a single call is longer.
TURN_SECONDS = 0.5


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--only", default="", help="run the cases whose title contains this text; keep the other rows of the CSV"
    )
    parser.add_argument("--turns", type=int, default=3, help="turns of each side; a slow side gets fewer")
    parser.add_argument("--no-memory", action="store_true", help="skip the measurement of peak memory")
    add_output(parser, "speed.csv")
    parser.add_argument("--one", nargs=2, metavar=("TITLE", "SIDE"), help=argparse.SUPPRESS)
    parser.add_argument("--rows", metavar="TITLE", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print_peak_memory(*arguments.one)
        return
    if arguments.rows:
        print_rows(arguments.rows, arguments.turns)
        return
    selected = [case for case in CASES if arguments.only in case.title]
    with freed_memory_kept():
        rows = [row for case in selected for row in (flushed if case.flush else measure)(case, arguments.turns)]
    path = output(arguments, "speed.csv")
    kept = other_rows(path, selected)
    save(rows, kept, path)
    if not arguments.no_memory:
        titles = [case.title for case in MEMORY_OF]
        for row in rows:
            if row["case"] in titles and row["side"] in MEMORY_SIDES:
                row["peak_memory_mib"] = peak_memory(row["case"], row["side"])
        save(rows, kept, path)
    show(rows)
    print(f"all rows: {path}")


def measure(case: Case, turns: int) -> list[dict]:
    """Measure one case; one row per side, seqmem first."""
    console = Console(stderr=True)
    with console.status(f"{case.title}: preparing"):
        calls = sides(case)
    agreements: dict[str, str] = {}
    times: dict[str, list[float]] = {}
    processor_times: dict[str, list[float]] = {}
    tolerance = (PROJECTION_TOLERANCE if case.kind == "projection" else TOLERANCE)[case.dtype]
    first: Result | None = None
    for name, call in calls.items():
        with console.status(f"{case.title}: {name}"):
            result, seconds, processor = timed(call)
        first = result if name == "seqmem" else first
        agreements[name] = compare(first, result, tolerance)
        is_slow = seconds > MAX_SECONDS  # otherwise the first call is warm-up
        times[name], processor_times[name] = ([seconds], [processor]) if is_slow else ([], [])
    first = result = None
    for _ in range(turns):
        for name, call in calls.items():
            if sum(times[name]) < MAX_SECONDS:
                seconds, processor = timed(call, TURN_SECONDS)[1:]
                times[name].append(seconds)
                processor_times[name].append(processor)
    rows = []
    for name in calls:
        ratios = [time / our_time for time, our_time in zip(times[name], times["seqmem"], strict=False)]
        rows.append(
            {
                "case": case.title,
                "side": name,
                "seconds": statistics.median(times[name]),
                "times_ours": statistics.median(ratios) if agreements[name] != "DISAGREES" else None,
                "processor_seconds": statistics.median(processor_times[name]),
                "agreement": agreements[name],
                "peak_memory_mib": None,
            }
        )
    return rows


def flushed(case: Case, turns: int) -> list[dict]:
    """Measure one case in a process whose threads all flush denormals, since the setting is one of each thread."""
    command = [sys.executable, "-m", "benchmarks.run", "--rows", case.title, "--turns", str(turns)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def print_rows(title: str, turns: int) -> None:
    """Measure one case for :func:`flushed`, and print its rows as JSON."""
    [case] = [case for case in CASES if case.title == title]
    torch.set_flush_denormal(case.flush)  # before there are other threads, which inherit it
    with freed_memory_kept():
        print(json.dumps(measure(case, turns)))


def print_peak_memory(title: str, side: str) -> None:
    """Run one side once, and print the peak resident memory of this process in MiB."""
    [case] = [case for case in CASES if case.title == title]
    builders(case)[side]()()
    # Not getrusage: its peak includes that of the parent process.
    [peak] = [line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    print(int(peak) / 1024)


def timed(call: Side, turn_seconds: float = 0.0) -> tuple[Result | None, float, float]:
    """Return the result of a call, its wall time and its processor time in seconds.

    The times are means over the calls of a turn, at least one. Processor time, of all threads, depends less on other programs.
    """
    start, processor_start = time.perf_counter(), time.process_time()
    calls = 0
    while calls == 0 or time.perf_counter() - start < turn_seconds:
        result = None  # frees the last one
        result = call()
        calls += 1
    return result, (time.perf_counter() - start) / calls, (time.process_time() - processor_start) / calls


def compare(ours: Result | None, other: Result | None, tolerance: float) -> str:
    """Return the largest relative difference of outputs and gradients, ``DISAGREES``, or ``no values``."""
    if ours is None or other is None:
        return "no values"
    pairs = [(ours[0], other[0]), *zip(ours[1], other[1], strict=True)]
    errors = [((a - b).norm() / b.norm().clamp(min=1e-30)).item() for a, b in pairs]
    return f"{max(errors):.0e}" if all(error <= tolerance for error in errors) else "DISAGREES"  # NaN disagrees


def peak_memory(title: str, side: str) -> float | None:
    """Measure the peak resident memory, in MiB, of a process that runs one side once."""
    command = [sys.executable, "-m", "benchmarks.run", "--one", title, side]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return round(float(done.stdout)) if done.returncode == 0 else None


def environment() -> dict[str, object]:
    """Columns that describe the environment of a measurement."""
    found = provenance()
    return {
        "processor": found["machine"]["processor"],
        "threads": found["machine"]["threads"],
        "commit": found["commit"],
        "date": time.strftime("%Y-%m-%d"),
        "torch": found["versions"]["torch"],
        "operators": ops.paths()["legs_trapezoidal"],
    }


def other_rows(path: Path, selected: list[Case]) -> list[dict]:
    """Read the rows of an earlier run for the cases that are not selected."""
    if not path.exists():
        return []
    titles = {case.title for case in CASES} - {case.title for case in selected}
    with open(path, newline="") as file:
        return [row for row in csv.DictReader(file) if row["case"] in titles]


def save(rows: list[dict], kept: list[dict], path: Path) -> None:
    """Write the rows, each with the environment of its measurement."""
    where = environment()
    order = [case.title for case in CASES]
    merged = sorted([*kept, *({**row, **where} for row in rows)], key=lambda row: order.index(row["case"]))
    trial_rows.write(path, [*COLUMNS, *where], merged)


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
