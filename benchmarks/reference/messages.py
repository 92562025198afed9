"""Messages that users meet, as the commands print them now, with what to do."""

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from benchmarks.reference.markdown import generated, table
from seqmem.cli import commandline
from seqmem.errors import UserError

ROOT = Path(__file__).parents[2]

TOP = """# Messages

After this page you can act on the messages that commands end with. Every message below was printed by the command above it.

A message is one line, `KEY: got X, expected Y; did you mean Z?`. The key is what you typed, and the way out comes last.
`traceback=true` on the command line also shows where in the code it was raised.
"""


class Case(NamedTuple):
    """A command that is refused."""

    command: str
    mend: str
    composes: bool = False  # the config is valid, and the refusal comes from the data, the model or a file
    file: tuple[str, str] | None = None  # name and content of a file that is there


CASES = {
    "A name or key that does not exist": [
        Case("seqmem train dataset=digitss", "Take one of the names of the group; `seqmem train --help` lists them."),
        Case("seqmem train model=lsmt dataset=digits", "The same for a model."),
        Case("seqmem train experiment=hippo/ct_100to200_leg", "Experiments are files of `cfg/experiment/`."),
        Case(
            "seqmem train dataset=copying dataset.lenght=5",
            "Correct the key. [Keys of data sets](data-sets.md) has all of them.",
        ),
        Case("seqmem train dataset=digits trian.lr=0.1", "Correct the section's name."),
        Case(
            "seqmem train dataset=digits model=lstm model.cell_args.memory_order=5",
            "Take a model that has this key, or leave the key out.",
        ),
        Case("seqmem train dataset=digits model=legs model.preset=huge", "Take one of the presets, or none."),
        Case("seqmem train --unknown", "Flags come from Hydra; keys are written without dashes, `KEY=VALUE`."),
    ],
    "A value that a key does not take": [
        Case("seqmem train dataset=digits train.lr=fast", "Give a number."),
        Case("seqmem train dataset=digits train.epochs=-1", "Give a number within the limits."),
        Case("seqmem train dataset=digits train.optimizer=adamm", "Take a registered optimiser."),
        Case("seqmem train dataset=digits model=legs model.cell_args.gate=X", "Take one of the values."),
        Case("seqmem train dataset=digits train.precision=16", "Take one of Lightning's names that are supported."),
        Case("seqmem train dataset=digits runner.accelerator=tpu", "Leave the key out for the default, `auto`."),
        Case(
            "seqmem train dataset=digits train.limit_train_batches=2.5",
            "An integer counts batches; a float up to 1 is a fraction of them.",
        ),
        Case(
            "seqmem train dataset=digits train.schedule_args.decay=0.1",
            "Name the schedule too, `train.schedule=inverse_time`.",
        ),
        Case(
            "seqmem train dataset=digits model=hmlstm model.cell_args.num_layers=2 'model.cell_args.hidden_size=[3,4,5]'",
            "Give one size, or one for each layer.",
        ),
    ],
    "The command line itself": [
        Case("seqmem train dataset=digits train.lr", "Write the key with a value."),
        Case("seqmem train dataset=digits model=legs,gru", "Add `-m` for a [sweep](../guides/sweep.md)."),
    ],
    "Data sets, models and files that do not fit": [
        Case("seqmem train dataset=digits model=tlsi", "Take a data set with timestamps, or a cell without them.", True),
        Case(
            "seqmem train dataset=sinusoids model=conv_lstm_ae",
            "Take one of the data sets that the message names.",
            True,
        ),
        Case("seqmem train dataset=text dataset.path=missing.txt", "Correct the path.", True),
        Case("seqmem train dataset=digits model=gru train.resume=runs/none", "Give the folder of a trial.", True),
        Case(
            "seqmem train dataset=files dataset.path=walks.csv model=gru",
            "Correct the cell, or write an empty cell, `?` or `NA` for a missing value.",
            True,
            ("walks.csv", "id,time,x,label\na,0,1.5,run\na,1,n.a.?,run\nb,0,2,walk\n"),
        ),
        Case(
            "seqmem train dataset=files dataset.path=values.csv model=gru",
            "Name the column with the labels, or give `dataset.task=forecasting` or `reconstruction`, which need none.",
            True,
            ("values.csv", "id,time,x\na,0,1.5\na,1,1\nb,0,2\n"),
        ),
        Case("seqmem evaluate runs/none", "Give the folder of a finished trial; `seqmem train` prints it at the end.", True),
        Case("seqmem report runs", "Give a folder with trials below it.", True),
        Case("seqmem encode missing.csv", "Correct the path.", True),
    ],
}

HEADINGS = ("message", "what to do")

RUNNING = [
    (
        "the training loss became",
        "The loss is not finite. Try a smaller `train.lr` or `train.gradient_clip_val=1`; "
        "[the guide](../guides/not-finite.md) says how to find the layer.",
    ),
    (
        "the slower reference operators are in use",
        "Everything works, more slowly. The line names the command that builds them.",
    ),
    (
        "build it again with: cd",
        "The sources of the compiled operators have changed. Give the command, or set `SEQMEM_REFERENCE=1`.",
    ),
    ("is not installed; install it with: pip install", "An optional package is missing; the line has the command."),
    (
        "or set dataset.data_dir to the folder that has",
        "Files of a data set are missing, and no server was reached. Put them there.",
    ),
    ("was not read from its official files", "The files have other content. Tables use another name for the data."),
    ("; the same command resumes", "The training was stopped. Give the command again."),
    ("another process trains", "Two commands have the same trial. This one waits, and takes over the result."),
    (
        "; the trial starts again, and the file is now damaged.ckpt",
        "A checkpoint could not be read, after a full disk for example.",
    ),
    (
        "was trained on different data of the name",
        "`train.resume` needs the data of the first training. Give the same keys and files.",
    ),
    ("torch finds no GPU here", "Leave out `runner.accelerator=gpu`, or install a torch with CUDA for your driver."),
    ("which exists already; expected the name of a new file", "No existing file is overwritten. Give another name."),
    ("no finite value in any epoch", "Validation was never finite. Try a smaller `train.lr`."),
]
"""Parts of messages of running commands, as in the source, and what to do."""


def page() -> str:
    """Return the page."""
    sections = []
    for heading, cases in CASES.items():
        entries = [_entry(case) for case in cases]
        sections.append(f"## {heading}\n\n" + "\n".join(entries))
    rows = [(f"... {part.strip('; ')} ...", mend) for part, mend in RUNNING]
    sections.append(
        "## While a command runs\n\nThese lines have names and numbers around the part shown.\n\n" + table(HEADINGS, rows)
    )
    return f"{generated()}{TOP}\n" + "\n".join(sections)


def _entry(case: Case) -> str:
    """The file, the command, the message and the mend."""
    file = f"With `{case.file[0]}`:\n\n```text\n{case.file[1]}```\n\n" if case.file else ""
    return f"{file}```text\n$ {case.command}\n{message(case)}\n```\n\n{case.mend}\n"


def message(case: Case) -> str:
    """Return the message with which a command is refused.

    Raises:
        AssertionError: it is not refused, or not in one line.
    """
    found = _of_the_command(case) if case.composes else _of_the_config(case.command)
    assert len(found.splitlines()) == 1, (case.command, found)
    return found


def _of_the_config(command: str) -> str:
    """The message of a training's config, without a process of its own."""
    try:
        commandline.compose(shlex.split(command)[2:])
    except UserError as error:
        return f"error: {error}"
    return ""


def _of_the_command(case: Case) -> str:
    """What a command prints as the last line, in a folder with the case's file alone."""
    with tempfile.TemporaryDirectory() as folder:
        if case.file:
            Path(folder, case.file[0]).write_text(case.file[1], encoding="utf-8")
        run = [sys.executable, "-m", *shlex.split(case.command)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
        done = subprocess.run(run, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode, case.command
    return (done.stderr or done.stdout).strip().splitlines()[-1].replace(folder, "FOLDER")
