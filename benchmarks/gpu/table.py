"""The table that a run prints, from its rows. Needs Python alone."""

from collections import Counter
from pathlib import Path

from benchmarks.gpu.outcomes import outcomes
from benchmarks.gpu.rows import environment_of, read

ROW = "{:44} {:20} {:8} {:>12} {:>12} {:>9}  {}"


PARTS = ("speed", "trainings", "operators")


def table(folder: Path) -> str:
    """Return the environment, the outcome of the tests and the measurements of a run as text."""
    rows = read(folder)
    lines = [_environment(folder), "", *_tests(folder), ""]
    measured = {part: [row for row in rows if row["part"] == part and row["case"] != "part"] for part in PARTS}
    if measured["speed"]:
        lines += ["speed, us a step of a sequence", ROW.format("", "", "", "forward", "+ backward", "peak MiB", "")]
        lines += [*_speed(measured["speed"]), ""]
    for part in ("trainings", "operators"):
        lines += [part, *_grouped(measured[part]), ""] if measured[part] else []
    lines += ["parts", *(f"  {row['part']:14} {row['value']:>6} s  {row['note']}" for row in rows if row["case"] == "part")]
    return "\n".join(lines)


def _environment(folder: Path) -> str:
    found = environment_of(folder)
    names = ("device", "driver", "cuda", "cudnn", "torch", "triton", "commit", "date")
    return ", ".join(f"{name} {found[name]}" for name in names if found.get(name)) or "the environment is not known"


def _tests(folder: Path) -> list[str]:
    found = outcomes(folder)
    counts = Counter(row["outcome"] for row in found)
    failed = [f"  {row['test']}: {row['message']}" for row in found if row["outcome"] == "failed"]
    return [f"tests: {', '.join(f'{count} {outcome}' for outcome, count in sorted(counts.items())) or 'none'}", *failed]


def _speed(rows: list[dict[str, str]]) -> list[str]:
    """Return a line for each case, side and number format, with the ratio to cuDNN's LSTM of the same width and format."""
    cells = {(row["case"], row["side"], row["precision"]): {} for row in rows}
    for row in rows:
        measured = cells[row["case"], row["side"], row["precision"]]
        measured[row["quantity"] or "note"] = row["value"] or row["note"]
    training = "forward and backward"
    lstm = {
        precision: float(measured[training])
        for (_, side, precision), measured in cells.items()
        if side == "torch.nn.LSTM" and measured.get(training)
    }
    lines = []
    for (case, side, precision), measured in cells.items():
        memory = measured.get(f"peak memory, {training}", "")
        note = measured.get("note", "")
        if measured.get(training) and lstm.get(precision):
            note = f"{float(measured[training]) / lstm[precision]:.2f} x torch.nn.LSTM {note}"
        times = measured.get("forward", ""), measured.get(training, "")
        lines.append(ROW.format(case, side, precision, *times, memory, note).rstrip())
    return lines


def _grouped(rows: list[dict[str, str]]) -> list[str]:
    """Return a line for each case and number format: its quantities, each with the values in the order of the rows."""
    cases: dict[tuple[str, str], dict[str, list[str]]] = {}
    for row in rows:
        quantities = cases.setdefault((row["case"], row["precision"]), {})
        unit = f" [{row['unit']}]" if row["unit"] else ""
        name, value = (row["quantity"] + unit, row["value"]) if row["value"] else ("note", row["note"])
        quantities.setdefault(name, []).append(value)
    return [
        f"  {case} {precision}: " + "; ".join(f"{name} {', '.join(values)}" for name, values in quantities.items())
        for (case, precision), quantities in cases.items()
    ]
