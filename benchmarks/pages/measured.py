"""Tables of measured times, and of the quickstart, from ``benchmarks/results/``."""

import sys
from collections.abc import Callable, Mapping, Sequence

import torch
import yaml

from benchmarks import output
from benchmarks.cases import Case
from benchmarks.pages.blocks import table
from benchmarks.pages.files import letters, processor, read, rounded
from seqmem.cli import choices

SPEED = {
    "LegS, hidden 128": Case("legs", 128, 784),
    "LegS, hidden 256": Case("legs", 256, 784),
    "LegS, hidden 512": Case("legs", 512, 784),
    "LegS, hidden 512, bfloat16 (the original: float32)": Case("legs", 512, 784, dtype=torch.bfloat16),
    "LegS by timestamps, hidden 256, length 40": Case("tlsi", 256, 40),
    "LSTM, hidden 256": Case("lstm", 256, 784),
    "LSTM, hidden 256, loss on the last output": Case("lstm", 256, 784, loss="last"),
    "the same, denormals flushed": Case("lstm", 256, 784, loss="last", flush=True),
    "GRU, hidden 256": Case("gru", 256, 784),
    "GRU, hidden 256, loss on the last output": Case("gru", 256, 784, loss="last"),
    "the same, denormals flushed ": Case("gru", 256, 784, loss="last", flush=True),
    "plain network, hidden 256": Case("rnn", 256, 784),
    "LSTM, hidden 256, length 30": Case("lstm", 256, 30),
    "GRU, hidden 256, length 30": Case("gru", 256, 30),
    "LegS projection, order 256, 10^6 steps, one thread, float64": Case("projection", 256, 1_000_000, 1, torch.float64),
    "the same, float32": Case("projection", 256, 1_000_000, 1, torch.float32),
}
OPERATORS = {
    "S4D, 4 blocks of 128, length 1,024, batch 64": Case("s4d", 128, 1024, 64),
    "selective scan, 256 channels, N 16, length 1,024, batch 16": Case("selective_scan", 256, 1024, 16),
    "scan of 256 real numbers, constant factors": Case("diagonal_scan", 256, 784, constant=True),
    "the same, varying factors": Case("diagonal_scan", 256, 784),
    "scan of 256 complex numbers, constant factors": Case("diagonal_scan", 256, 784, pairs=True, constant=True),
    "the same, varying factors ": Case("diagonal_scan", 256, 784, pairs=True),
    "sLSTM, 256 units in 4 heads": Case("slstm", 256, 784),
}
"""What the successors of HiPPO run on."""
OPERATOR_SIDES = {
    "loop in torch": "loop over steps in torch",
    "parallel scan in torch": "parallel scan in torch",
    "JAX associative scan": "JAX associative scan",
    "convolution by FFT": "convolution by FFT",
    "copy of the same bytes": "copy of as many bytes",
}
"""Columns of the table of operators, and how the names of their sides begin."""

SIDES = {"torch.mm alone": "torch.mm alone", "original": "original", "torch.nn": "torch.nn", "JAX scan": "JAX scan"}
"""Columns of the speed table, and how the names of their sides begin."""

NUMBERS = [
    ("a training step of LegS, 256 units, 784 steps, batch 100", Case("legs", 256, 784), "original", "HiPPO's code"),
    ("the same of an LSTM", Case("lstm", 256, 784), "torch.nn", "`torch.nn.LSTM`"),
    (
        "projection of 10^6 steps on 256 Legendre polynomials, one thread, float64",
        Case("projection", 256, 1_000_000, 1, torch.float64),
        "original",
        "HiPPO's sequential C++ kernel",
    ),
]
"""The README's three cases: label, case, side to compare with, and its name."""

TRIALS = ("one after the other", "one after the other, one thread", "together")
"""Sides of the table of trials an hour."""

HMLSTM = [Case("hmlstm", 50, 200, 10), Case("hmlstm", 256, 100, 32), Case("hmlstm", 512, 100, 64)]


def quickstart() -> str:
    """The table of the quickstart, and how it was measured."""
    [where] = read("quickstart/environment.csv")
    several = int(where.get("at_a_time") or 1)
    beside = f", {several} trials at a time" if several > 1 else ""
    return (
        f"{(output.RESULTS / 'quickstart/table.md').read_text().strip()}\n\n{_still_rising()}"
        f"Command: `python train.py -m experiment=quickstart` (`make train` runs it); {_measured(where)}, load\n"
        f"average {where['load']} before it. `seconds` is the time of one trial, mean of the three{beside}."
    )


def _still_rising() -> str:
    """A paragraph that names the models of the quickstart whose best epoch is, on average, later than the last but one."""
    experiment = choices.file("experiment", "quickstart")
    epochs = yaml.safe_load(experiment.read_text(encoding="utf-8"))["train"]["epochs"]
    late = [row["model"] for row in read("quickstart/table.csv") if float(row["best_epoch"]) > epochs - 1]
    return f"Still rising at epoch {epochs}, the last one: {' and '.join(late)}.\n\n" if late else ""


def speed() -> str:
    """Seconds of a training step of seqmem, and how many times as long the other sides take.

    Raises:
        SystemExit: a case was not measured.
    """
    return _compared("network", SPEED, SIDES)


def operators() -> str:
    """The same of the operators of HiPPO's successors.

    Raises:
        SystemExit: a case was not measured.
    """
    return _compared("operator or network", OPERATORS, OPERATOR_SIDES)


def epochs() -> str:
    """Minutes of an epoch and memory of each model of the successors' table."""
    rows = read("successors/epochs.csv")
    lines = [
        (
            [
                f"`{row['model']}`",
                row["minutes_an_epoch"],
                rounded(float(row["sequences_per_second"])),
                rounded(float(row["peak_memory_mib"])),
            ],
            [row],
        )
        for row in sorted(rows, key=lambda row: float(row["minutes_an_epoch"]))
    ]
    headings = ["model", "minutes an epoch", "sequences/s", "peak memory, MiB"]
    return _marked(headings, lines, "Command: `python -m benchmarks.epoch_times`; ")


def mkl_kernels() -> str:
    """Sequences per second of a training on an AMD processor, by the kernels of MKL."""
    rows = read("mkl_kernels.csv")
    columns = ("sequences_per_second_AVX2", "sequences_per_second_AVX-512")
    lines = [
        (
            [
                f"`{row['model']}`",
                *(rounded(float(row[column])) for column in columns),
                f"{row['ratio']} ({row['smallest']} to {row['largest']})",
            ],
            [row],
        )
        for row in rows
    ]
    headings = ["model", "sequences/s, AVX2", "sequences/s, AVX-512", "times as fast (range of the turns)"]
    return _marked(headings, lines, "Command: `python -m benchmarks.mkl_kernels`; ")


def numbers() -> str:
    """Three numbers for the README: seconds of seqmem, and how many times as long another side takes."""
    rows = read("speed.csv")
    lines = []
    for label, case, other, name in NUMBERS:
        sides = {row["side"]: row for row in rows if row["case"] == case.title}
        seconds = f"{float(sides['seqmem']['seconds']):.2g} s"
        lines.append(f"- {label}: {seconds}, {_ratio(sides, SIDES[other])} times as fast as {name}")
    titles = {case.title for _, case, *_ in NUMBERS}
    found = dict.fromkeys(_measured(row) for row in rows if row["case"] in titles)
    return "\n".join([*lines, "", f"Measured: {'; '.join(found)}."])


def hmlstm() -> str:
    """Characters per second of the HM-LSTM and of torch.nn.LSTM."""
    rows = read("speed.csv")
    lines = []
    for case in HMLSTM:
        own = [row for row in rows if row["case"] == case.title]
        seconds = {row["side"]: float(row["seconds"]) for row in own}
        characters = case.batch_size * case.steps
        rates = [rounded(characters / seconds[side]) for side in ("seqmem", "seqmem, step by step", "torch.nn.LSTM")]
        lines.append(([f"{case.hidden_size}, {case.batch_size}, {case.steps}", *rates], own))
    headings = ["units, batch, length", "HM-LSTM, characters/s", "step by step", "torch.nn.LSTM of the same sizes"]
    return _marked(headings, lines, "Measured: ")


def trials() -> str:
    """Trials an hour, one after the other and together."""
    rows = read("trials_at_once.csv")
    lines = []
    for case in dict.fromkeys(row["case"] for row in rows):
        sides = {row["side"]: row for row in rows if row["case"] == case}
        rates = [float(sides[side]["trials_per_hour"]) if side in sides else None for side in TRIALS]
        shown = ["" if rate is None else rounded(rate) for rate in rates]
        cells = [case, *shown, sides["together"]["at_a_time"], f"{(rates[-1] or 0) / (rates[0] or 1):.2f}"]
        lines.append((cells, list(sides.values())))
    headings = ["trials an hour", *TRIALS, "at a time", "times as many"]

    def measured(row: Mapping[str, str], letter: str) -> str:
        return f"{_measured(row, letter)}, load average {row['load']} after it"

    return _marked(headings, lines, "Command: `python -m benchmarks.trials_at_once`; ", measured)


def _compared(first: str, cases: Mapping[str, Case], others: Mapping[str, str]) -> str:
    """A table of cases: seconds of seqmem, and how many times as long the other sides take."""
    rows = read("speed.csv")
    lines = []
    for label, case in cases.items():
        sides = {row["side"]: row for row in rows if row["case"] == case.title}
        if "seqmem" not in sides:
            command = f"python -m benchmarks.run --keep --only '{case.title}'"
            sys.exit(f"error: {output.RESULTS / 'speed.csv'} has no rows of '{case.title}'; measure it with: {command}")
        ratios = [_ratio(sides, start) for start in others.values()]
        lines.append(([label.strip(), f"{float(sides['seqmem']['seconds']):.3g}", *ratios], list(sides.values())))
    return _marked([first, "seqmem (s)", *others], lines, "Measured: ")


def _ratio(sides: dict[str, dict[str, str]], start: str) -> str:
    """How many times as long the side whose name begins so takes; empty if it was not measured or disagrees."""
    found = next((row for side, row in sides.items() if side.startswith(start)), None)
    if found is None or not found["times_ours"]:
        return ""
    ratio = float(found["times_ours"])
    return f"{ratio:.0f}" if ratio >= 10 else f"{ratio:.1f}" if ratio >= 0.995 else f"{ratio:.2f}"


def _measured(where: Mapping[str, str], letter: str = "") -> str:
    """Return commit, date and machine of a row, the machine with its letter if it has one."""
    threads = f"{where['threads']} thread{'' if int(where['threads']) == 1 else 's'}"
    machine = f"{f'({letter}) ' if letter else ''}{processor(where['processor'])}"
    return f"commit `{where['commit'][:10]}`, {where['date']}, {threads} on {machine}"


def _marked(
    headings: Sequence[str],
    lines: Sequence[tuple[list[str], Sequence[Mapping[str, str]]]],
    start: str,
    measured: Callable[[Mapping[str, str], str], str] = _measured,
) -> str:
    """Return a table, and below it where and when it was measured, each environment once.

    Args:
        headings: of the columns.
        lines: cells of each line, and the rows of the file that they are from. Where these are of several machines, a further
            column has their letters.
        start: of the text below.
        measured: returns the environment of a row with the letter of its machine.
    """
    rows = [row for _, own in lines for row in own]
    machines = letters(row["processor"] for row in rows)
    of_lines = [sorted({machines[processor(row["processor"])] for row in own}) for _, own in lines]
    shown = [
        [*cells, *([", ".join(of_line)] if len(machines) > 1 else [])]
        for (cells, _), of_line in zip(lines, of_lines, strict=True)
    ]
    found = dict.fromkeys(measured(row, machines[processor(row["processor"])]) for row in rows)
    return f"{table([*headings, *(['machine'] if len(machines) > 1 else [])], shown)}\n\n{start}{'; '.join(found)}."
