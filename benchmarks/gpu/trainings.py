"""The part "trainings": permuted MNIST by ``train.py``, seconds an epoch and accuracy, and five trials next to one."""

import csv
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.gpu.digits import ROOT, data_folder
from benchmarks.gpu.session import Session

EPOCHS_OF_PAPER = 50
TF32 = {"TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1"}


class Training(NamedTuple):
    """A command of ``train.py``.

    Attributes:
        model: its cell.
        precision: number format in the table.
        overrides: keys of the command.
        variables: of its environment.
        hidden: H.
        epochs: number of epochs.
        trials: number of trials.
        limit: seconds.
    """

    model: str
    precision: str
    overrides: tuple[str, ...] = ()
    variables: tuple[tuple[str, str], ...] = ()
    hidden: int = 512
    epochs: int = 2
    trials: int = 1
    limit: float = 60.0

    @property
    def title(self) -> str:
        """Name of the case in tables."""
        trials = "1 trial" if self.trials == 1 else f"{self.trials} trials"
        epochs = "1 epoch" if self.epochs == 1 else f"{self.epochs} epochs"
        order = ", one after the other" if ONE_WORKER in self.overrides else ""
        return f"{self.model}, hidden {self.hidden}, {trials} of {epochs}{order}"


BF16 = ("train.precision=bf16-mixed",)
ONE_WORKER = "runner.workers=1"
FEW = ("train.limit_train_batches=300", "train.limit_val_batches=10", "train.limit_test_batches=10")
TRAININGS = [
    Training("legs", "bf16", BF16, epochs=3),
    Training("legs", "bf16", (*BF16, *FEW), hidden=128, epochs=1, limit=30.0),
    Training("legs", "bf16", (*BF16, *FEW, ONE_WORKER), hidden=128, epochs=1, trials=5, limit=40.0),
    Training("legs", "bf16", (*BF16, *FEW), hidden=128, epochs=1, trials=5, limit=40.0),
    Training("legs", "tf32", variables=tuple(TF32.items())),
    Training("lstm", "bf16", BF16, epochs=1),
]
"""What matters most comes first."""
SMOKE = ("train.batch_size=2", *(f"train.limit_{split}_batches=1" for split in ("train", "val", "test")))


def main() -> None:
    """Train until the time is up."""
    session = Session("trainings")
    data, content = data_folder(session.folder, session.smoke)
    trainings = TRAININGS
    if session.smoke:
        trainings = [Training("legs", "float32", SMOKE, hidden=4, epochs=2, trials=trials) for trials in (1, 2)]
    for training in trainings:
        run = partial(_train, session, training, data, content)
        session.item(run, case=training.title, precision=training.precision, limit=training.limit + 20.0)


def command_of(training: Training, device: str, data: Path, runs: Path) -> list[str]:
    """Return the command line of a training."""
    accelerator = {"cuda": "gpu"}.get(device, device)
    overrides = [
        "dataset=mnist",
        "dataset.permute=true",
        f"dataset.data_dir={data.resolve()}",
        f"model={training.model}",
        f"model.cell_args.hidden_size={training.hidden}",
        f"train.epochs={training.epochs}",
        "train.batch_size=100",
        "train.lr=0.001",
        f"runner.accelerator={accelerator}",
        f"runner.ntrials={training.trials}",
        f"output_dir={runs.resolve()}",
    ]
    given = {override.split("=")[0] for override in training.overrides}
    return [
        sys.executable,
        str(ROOT / "train.py"),
        *(o for o in overrides if o.split("=")[0] not in given),
        *training.overrides,
    ]


def _train(session: Session, training: Training, data: Path, content: str) -> None:
    runs = session.folder / "runs" / re.sub(r"\W+", "_", f"{training.title} {training.precision}")
    command = command_of(training, session.device, data, runs)
    print(" ".join(command), flush=True)
    described: dict[str, Any] = {"case": training.title, "side": "train.py", "precision": training.precision}
    note = f"{content}; {' '.join(training.overrides)}"
    seen: dict[Path, int] = {}
    begun = time.perf_counter()
    limit = min(training.limit, session.left())
    with _process(command, {**os.environ, **dict(training.variables)}) as process:
        while process.poll() is None and time.perf_counter() - begun < limit:
            time.sleep(0.2)
            _write_epochs(session, described, note, runs, seen)
        code = process.poll()
    taken = time.perf_counter() - begun
    _write_epochs(session, described, note, runs, seen)
    if code:
        raise RuntimeError(f"exit status {code}, see the log")
    session.row(
        **described,
        quantity="wall time" if code == 0 else "wall time, ended at its limit",
        value=f"{taken:.1f}",
        unit="s",
        note=f"{note}; with the start of Python",
    )
    records = [json.loads(path.read_text()) for path in sorted(runs.glob("*/seed_*/record.json"))]
    for record in records:
        if "test/accuracy" in (record.get("result") or {}):
            value = f"{record['result']['test/accuracy']:.4f}"
            session.row(**described, quantity="test accuracy", value=value, note=note)
    if code == 0:
        seconds = span(records)
        together = max(record["machine"].get("workers", 1) for record in records)
        session.row(
            **described,
            quantity="trials",
            value=f"{3600 * training.trials / seconds:.0f}",
            unit="an hour",
            note=f"{together} at a time, in {seconds:.0f} s from the start of the first trial to the end of the last; {note}",
        )
    epochs = [float(row["seconds"]) for path in seen for row in _epochs(path)]
    if epochs and training.trials == 1 and content == "MNIST" and training.hidden == 512:
        session.row(
            **described,
            quantity=f"{EPOCHS_OF_PAPER} epochs, extrapolated",
            value=f"{EPOCHS_OF_PAPER * epochs[-1]:.0f}",
            unit="s",
            note=f"{EPOCHS_OF_PAPER} times the last epoch, not run; {note}",
        )


@contextmanager
def _process(command: list[str], environment: dict[str, str]) -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen(command, cwd=ROOT, env=environment)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def _write_epochs(session: Session, described: dict[str, Any], note: str, runs: Path, seen: dict[Path, int]) -> None:
    """Write a row of the time and one of the validation accuracy of each new epoch of each trial."""
    for path in sorted(runs.glob("*/seed_*/metrics.csv")):
        found = _epochs(path)
        for row in found[seen.get(path, 0) :]:
            of = f"epoch {row['epoch']}, {path.parent.name}; {note}"
            session.row(**described, quantity="time of an epoch", value=f"{float(row['seconds']):.2f}", unit="s", note=of)
            if row.get("val/accuracy"):
                value = f"{float(row['val/accuracy']):.4f}"
                session.row(**described, quantity="validation accuracy", value=value, note=of)
        seen[path] = len(found)


def _epochs(path: Path) -> list[dict[str, str]]:
    """Return the rows of a trial's metrics that are whole."""
    with open(path, newline="") as file:
        return [row for row in csv.DictReader(file) if None not in row.values()]


def span(records: list[dict[str, Any]]) -> float:
    """Return the seconds from the start of the first trial, which records have to the second, to the end of the last."""
    starts = [datetime.strptime(record["started"], "%Y-%m-%dT%H:%M:%S%z").timestamp() for record in records]
    ends = [start + record["seconds"] for start, record in zip(starts, records, strict=True)]
    return max(ends) - min(starts)


if __name__ == "__main__":
    main()
