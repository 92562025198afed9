"""The tables of ``docs/results``: one page a paper, and one each for speed and the quickstart."""

from collections.abc import Callable
from pathlib import Path

from benchmarks import memory_tasks, successor_tasks
from benchmarks.pages import hippo, repeated, table_2
from benchmarks.pages import measured as times
from benchmarks.pages.blocks import DOCS, table, updated
from benchmarks.pages.files import read
from benchmarks.pages.papers import PAPERS, PARAMETERS, PARTS
from benchmarks.pages.published import published
from benchmarks.pages.trials import ENOUGH, Column, Trial, Trials
from benchmarks.trial_rows import environment

_AUTOENCODER = (
    "python train.py dataset=ct dataset.reconstruction=true dataset.padding=mask model=lstm_ae model.growth_epochs=15 "
    "train.epochs=30 train.lr=0.003 train.schedule=cosine train.gradient_clip_val=1 train.batch_size=50"
)

AUTOENCODERS = Trials(
    page="autoencoders",
    file="autoencoders/trials.csv",
    settings=lambda trial: {"data": "CharacterTrajectories", "model": trial["model"]},
    metric=Column("test error (mse)", "test"),
    command=f"`{_AUTOENCODER} runner.ntrials=3`",
    others=[
        Column("accuracy of a linear classifier", "linear_probe_accuracy"),
        Column("validation error", "validation"),
        Column("seconds", "seconds", digits=0, timed=True),
        PARAMETERS,
    ],
    task="{data}, reconstruction, test error (mse)",
    level="variance 1",
    again=lambda trial: _of_one_seed(_AUTOENCODER, trial),
)

SUCCESSORS = Trials(
    page="successors",
    file="successors/trials.csv",
    settings=lambda trial: {"task": trial["task"], "model": trial["model"], "step size": trial["step_size"]},
    metric=Column("test accuracy", "test_accuracy"),
    command="`make table-successors`",
    others=[
        Column("at the rate of training", "test_accuracy_unshifted"),
        Column("validation accuracy", "val_accuracy"),
        Column("epochs", "epochs", digits=0, spread=False),
        Column("seconds", "seconds", digits=0, spread=False, timed=True),
        Column("sequences/s", "sequences_per_second", digits=0, spread=False, timed=True),
        Column("peak memory, MiB", "peak_memory_mib", digits=0, spread=False, timed=True),
        Column("parameters", "parameters", digits=0, spread=False),
    ],
    task="{task}, 100,000 parameters, step size {step size}, test accuracy",
    level=lambda settings: "chance 0.100" if "MNIST" in settings["task"] else "chance 0.050",
    waiting=successor_tasks.waiting,
    again=lambda trial: _of_one_seed(
        f"python train.py experiment={successor_tasks.experiment(trial['task'], trial['model'])}", trial
    ),
)


def _memory(task: memory_tasks.Task) -> Trials:
    return Trials(
        page="memory",
        file=f"memory/{task.name}.csv",
        settings=lambda trial: {"task": task.title, "model": trial["model"]},
        metric=Column("test accuracy", "test_accuracy"),
        command=f"`{task.command}`",
        others=[
            *(Column(each.heading, each.key) for each in task.conditions),
            *_whole(task),
            Column("validation accuracy", "val_accuracy"),
            Column("epochs", "epochs", digits=0, spread=False),
            Column("seconds", "seconds", digits=0, spread=False, timed=True),
            PARAMETERS,
        ],
        task="{task}, test accuracy",
        level=task.level,
        waiting=lambda trials: [name for name in memory_tasks.MODELS if name not in {trial["model"] for trial in trials}],
        again=lambda trial: _of_one_seed(f"python train.py experiment={task.folder}/{task.name} model={trial['model']}", trial),
    )


def _of_one_seed(command: str, trial: Trial) -> str:
    """Return the command of a table for one of its trials, with the environment of that trial."""
    return f"{environment(trial['processor'], trial.get('threads', ''))}{command} seed={trial['seed']} runner.ntrials=1"


def _whole(task: memory_tasks.Task) -> list[Column]:
    """Return the columns of the accuracy of whole sequences, none if the task has none."""
    if not task.whole:
        return []
    others = [Column(f"{task.whole} {each.heading}", memory_tasks.whole_key(each.key)) for each in task.conditions]
    return [Column(task.whole, memory_tasks.whole_key("test")), *others]


MEMORY = {task.name: _memory(task) for task in (*memory_tasks.MEMORY, *memory_tasks.UEA)}

TRIALS = [*PAPERS, AUTOENCODERS, SUCCESSORS, *MEMORY.values()]
"""The tables of trained models, in the order in which the pages of models show them."""

PAGES: dict[str, dict[str, Callable[[], str]]] = {
    "index": {"repeated": repeated.repeated},
    "hippo": PARTS["hippo"]
    | {
        "shifts": table_2.shifts,
        "approximation": hippo.approximation,
        "published": lambda: published("HiPPO"),
    },
    "hmlstm": PARTS["hmlstm"] | {"published": lambda: published("HM-LSTM")},
    "igloo": PARTS["igloo"] | {"published": lambda: published("IGLOO")},
    "lmu": PARTS["lmu"]
    | {
        "measured_plain": lambda: measured("lmu_plain"),
        "measured": lambda: measured("lmu"),
        "published": lambda: published("LMU"),
    },
    "successors": {"successors": SUCCESSORS.markdown, "epochs": times.epochs},
    "memory": {name: of.markdown for name, of in MEMORY.items()},
    "autoencoders": {"trials": AUTOENCODERS.markdown},
    "speed": {
        "speed": times.speed,
        "operators": times.operators,
        "hmlstm": times.hmlstm,
        "trials": times.trials,
        "mkl": times.mkl_kernels,
    },
    "quickstart": {"quickstart": times.quickstart},
}
"""The generated parts of each page."""


def pages() -> dict[Path, str]:
    """Return the text of each page of results, and of the README, by its path."""
    folder, readme = DOCS / "results", DOCS.parent / "README.md"
    texts = {folder / f"{name}.md": updated(folder / f"{name}.md", makers) for name, makers in PAGES.items()}
    return texts | {readme: updated(readme, PAGES["quickstart"] | {"numbers": times.numbers})}


def measured(model: str) -> str:
    """Return every row of a model in every table, each with a link to its page in this folder."""
    lines = [*trained(model), *hippo.approximations(model), *_quickstart(model)]
    if not lines:
        return f"No trial of `{model}` is in a table yet."
    return table(["task, metric", "n", "result", "95 % interval", "for comparison", "all rows"], lines, numbers=0)


def trained(model: str) -> list[list[str]]:
    """Return the rows of a model in the tables of trained models."""
    lines = []
    for of in TRIALS:
        for row in of.rows():
            if row.settings["model"] != model:
                continue
            interval = row.interval() if row.count >= ENOUGH else ""
            link = f"[{of.page}](../results/{of.page}.md)"
            lines.append([row.title(), str(row.count), row.shown(of.metric), interval, row.comparison(), link])
    return lines


def _quickstart(model: str) -> list[list[str]]:
    rows = read("quickstart/table.csv")
    others = [f"{row['model']} {float(row['test_mean']):.3f}" for row in rows if row["model"] != model]
    return [
        [
            "permuted 8x8 digits, test accuracy",
            row["n"],
            f"{float(row['test_mean']):.3f} +/- {float(row['test_std']):.3f}",
            f"{float(row['test_low']):.3f} to {float(row['test_high']):.3f}",
            ", ".join([*others, "chance 0.100"]),
            "[quickstart](../results/quickstart.md)",
        ]
        for row in rows
        if row["model"] == model
    ]
