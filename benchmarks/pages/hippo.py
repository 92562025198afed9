"""HiPPO's table 3, the approximation of a signal, from ``benchmarks/results/function_approximation``."""

from benchmarks.pages.blocks import table
from benchmarks.pages.files import link, processor, read, rounded

FILE = "function_approximation/table.csv"


def approximation() -> str:
    """Return the table, and where it was measured."""
    rows = read(FILE)
    lines = [
        [
            row["model"],
            row["how"],
            f"{float(row['mean_squared_error']):.4f}",
            _rate(row["steps_per_second"]),
            row["published_error"],
            _rate(row["published_steps_per_second"]),
        ]
        for row in rows
    ]
    headings = ["memory", "how", "mean squared error", "steps/s", "published error", "published steps/s"]
    first = rows[0]
    where = f"commit `{first['commit'][:10]}`; {first['date']}; {processor(first['processor'])}, {first['threads']} thread"
    sizes = f"{int(first['length']):,} steps, order {first['order']}, seed {first['seed']}"
    return (
        f"{table(headings, lines, numbers=4)}\n\n"
        f"Command: `python -m seqmem.hippo table` ({sizes}, n = 1); {where}; torch {first['torch']}. File: {link(FILE)}."
    )


def approximations(model: str) -> list[list[str]]:
    """Return the rows of a memory, for the pages of models; of all memories for ``function_approximation``."""
    rows, lines = read(FILE), []
    [best] = [f"best polynomial {float(row['mean_squared_error']):.4f}" for row in rows if row["model"] == "best"]
    for row in rows:
        memory = row["model"].split(",")[0]
        if memory != "best" and model in (memory, "function_approximation"):
            task = f"function approximation, {row['model']}: mean squared error"
            error = f"{float(row['mean_squared_error']):.4f}"
            lines.append([task, "1", error, "", best, "[hippo](../results/hippo.md)"])
    return lines


def _rate(value: str) -> str:
    return rounded(float(value)) if value else ""
