"""``seqmem SUBCOMMAND``: one command for all of the project's commands, each imported when it is called."""

import os
import sys
from importlib import import_module

from seqmem.errors import suggestion
from seqmem.io import interrupts

SUBCOMMANDS = {
    "train": "train a model on a data set over several seeded trials, and print one table",
    "evaluate": "evaluate a finished trial again, on its own data or on other data",
    "predict": "predict targets of new files with a finished trial",
    "report": "make tables, pictures and one HTML page from the trials below a folder",
    "compare": "say whether one row of a report is better than another, over seeds, test sequences and data sets",
    "export": "export a finished trial's model to a program of torch.export or ONNX",
    "publish": "write a finished trial and its card to a folder, in the layout of a model hub",
    "boundaries": "draw or write the boundaries that a trained HM-LSTM detects",
    "memory": "measure what the state of a trained model holds of its past inputs",
    "encode": "train an autoencoder on a file of series, and write their encodings",
    "decode": "reconstruct series from encodings",
}
"""Subcommands and what they do. Each is ``main`` of a module of the same name in this package, and reads ``sys.argv``."""

_completion = ("-sc", "--shell-completion")
_diagnostics = """\
Diagnostics
  python -m seqmem.ops                     operators that this machine uses: compiled, GPU or reference, and why
  seqmem --version                         version of the package

Completion of subcommands, keys and choices in bash and zsh
  eval "$(seqmem train -sc install=bash)"  in ~/.bashrc for every shell"""


def main() -> None:
    """Run the subcommand that ``sys.argv`` names, as a program."""
    interrupts.install()  # for the console script, which has imported little by now
    run()


def run() -> None:
    """Run the subcommand that ``sys.argv`` names; signals are the caller's."""
    given = sys.argv[1:]
    if not given or given[0] in ("--help", "-h", "help"):
        print(text())
        sys.exit(0 if given else 2)
    if given[0] in ("--version", "-V"):
        import seqmem

        print(f"seqmem {seqmem.__version__}")
        return
    if given[0] in _completion:
        given = _completed(given)
    name = given[0]
    if name not in SUBCOMMANDS:
        _refuse(name)
    # Commands read their arguments from sys.argv[1:], and write the first element into messages and records.
    is_asked = not set(_completion).isdisjoint(given)  # by the shell, which knows the name of the console script alone
    sys.argv = ["seqmem" if is_asked else f"seqmem {name}", *given[1:]]
    import_module(f"seqmem.cli.{name}").main()


def _completed(given: list[str]) -> list[str]:
    """Answer a completion script's question about the subcommand and its files, or return the arguments that ask train."""
    words = os.environ.get("COMP_LINE", "").split(maxsplit=2)
    if len(words) < 2 or (len(words) == 2 and not os.environ["COMP_LINE"][-1].isspace()):
        print(" ".join(name for name in SUBCOMMANDS if name.startswith("".join(words[1:]))))
        sys.exit()
    if words[1] != "train":
        sys.exit()  # the shell completes names of files
    os.environ["COMP_LINE"] = os.environ["COMP_LINE"].replace(" train", "", 1)
    return ["train", *given]


def text() -> str:
    """Return the text of ``seqmem --help``."""
    width = max(map(len, SUBCOMMANDS))
    lines = "\n".join(f"  {name.ljust(width)}  {purpose}" for name, purpose in SUBCOMMANDS.items())
    return f"""\
Train models that remember long sequences, compare them over seeded trials, and read one table.

  seqmem train dataset=digits model=legs        train, and print a table; runs/ in the current folder keeps the trials
  seqmem report runs                            one page with the tables and pictures of all trials below a folder

Subcommands (seqmem SUBCOMMAND --help describes one)
{lines}

{_diagnostics}"""


def _refuse(name: str) -> None:
    """End the program with one line about an unknown subcommand."""
    hint = "; did you mean 'train'?" if "=" in name else suggestion(name, SUBCOMMANDS)
    print(f"error: seqmem: got {name}, expected a subcommand{hint}", file=sys.stderr)
    sys.exit(2)
