"""Messages that users meet, as the commands print them now, with what to do."""

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from benchmarks.reference.markdown import generated
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
        Case("seqmem train dataset=digits model=tlsi", "Take a data set with time stamps, or a cell without them.", True),
        Case(
            "seqmem train dataset=sinusoids model=conv_lstm_ae",
            "Take one of the data sets that the message names.",
            True,
        ),
        Case("seqmem train dataset=text dataset.path=missing.txt", "Correct the path.", True),
        Case("seqmem train dataset=digits model=gru train.resume=runs/none", "Give the folder of a trial.", True),
        Case("seqmem evaluate runs/none", "Give the folder of a finished trial; `seqmem train` prints it at the end.", True),
        Case("seqmem report runs", "Give a folder with trials below it.", True),
        Case("seqmem encode missing.csv", "Correct the path.", True),
    ],
}


def page() -> str:
    """Return the page."""
    sections = []
    for heading, cases in CASES.items():
        entries = [f"```text\n$ {case.command}\n{message(case)}\n```\n\n{case.mend}\n" for case in cases]
        sections.append(f"## {heading}\n\n" + "\n".join(entries))
    return f"{generated()}{TOP}\n" + "\n".join(sections)


def message(case: Case) -> str:
    """Return the message with which a command is refused.

    Raises:
        AssertionError: it is not refused, or not in one line.
    """
    found = _of_the_command(case.command) if case.composes else _of_the_config(case.command)
    assert len(found.splitlines()) == 1, (case.command, found)
    return found


def _of_the_config(command: str) -> str:
    """The message of a training's config, without a process of its own."""
    try:
        commandline.compose(shlex.split(command)[2:])
    except UserError as error:
        return f"error: {error}"
    return ""


def _of_the_command(command: str) -> str:
    """What a command prints as the last line, in an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        run = [sys.executable, "-m", *shlex.split(command)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
        done = subprocess.run(run, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode, command
    return (done.stderr or done.stdout).strip().splitlines()[-1].replace(folder, "FOLDER")
