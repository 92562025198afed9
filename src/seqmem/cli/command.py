"""``seqmem SUBCOMMAND``: one command for all of the project's commands, each imported when it is called."""

import sys
from importlib import import_module
from importlib.util import find_spec

from seqmem.errors import suggestion
from seqmem.io import interrupts

SUBCOMMANDS = {
    "train": "train a model on a data set over several seeded trials, and print one table",
    "evaluate": "evaluate a finished trial again, on its own data or on other data",
    "predict": "predict targets of new files with a finished trial",
    "report": "make tables, pictures and one HTML page from the trials below a folder",
    "export": "export a finished trial's model to a program of torch.export",
    "publish": "write a finished trial and its card to a folder, in the layout of a model hub",
    "boundaries": "draw or write the boundaries that a trained HM-LSTM detects",
    "encode": "train an autoencoder on a file of series, and write their encodings",
    "decode": "reconstruct series from encodings",
}
"""Subcommands and what they do. Each is ``main`` of a module of the same name in this package, and reads ``sys.argv``."""

_diagnostics = """\
Diagnostics
  python -m seqmem.ops                     operators that this machine uses: compiled, GPU or reference, and why
  seqmem --version                         version of the package"""


def main() -> None:
    """Run the subcommand that ``sys.argv`` names."""
    interrupts.install()  # for the console script, which has imported little by now
    given = sys.argv[1:]
    if not given or given[0] in ("--help", "-h", "help"):
        print(text())
        sys.exit(0 if given else 2)
    if given[0] in ("--version", "-V"):
        import seqmem

        print(f"seqmem {seqmem.__version__}")
        return
    name = given[0]
    if name in ("-sc", "--shell-completion"):
        name, given = "train", ["train", *given]
    if name not in subcommands():
        _refuse(name)
    # Commands read their arguments from sys.argv[1:], and write the first element into messages and records.
    sys.argv = [f"seqmem {name}", *given[1:]]
    import_module(f"seqmem.cli.{name}").main()


def subcommands() -> dict[str, str]:
    """Return the subcommands whose module exists, and what they do."""
    return {name: purpose for name, purpose in SUBCOMMANDS.items() if find_spec(f"seqmem.cli.{name}") is not None}


def text() -> str:
    """Return the text of ``seqmem --help``."""
    found = subcommands()
    width = max(map(len, found))
    lines = "\n".join(f"  {name.ljust(width)}  {purpose}" for name, purpose in found.items())
    return f"""\
Train models that remember long sequences, compare them over seeded trials, and read one table.

  seqmem train dataset=digits model=legs        train, and print a table; runs/ in the current folder keeps the trials
  seqmem report runs                            one page with the tables and pictures of all trials below a folder

Subcommands (seqmem SUBCOMMAND --help describes one)
{lines}

{_diagnostics}"""


def _refuse(name: str) -> None:
    """End the program with one line about an unknown subcommand."""
    hint = "; did you mean 'train'?" if "=" in name else suggestion(name, subcommands())
    print(f"error: seqmem: got {name}, expected a subcommand{hint}", file=sys.stderr)
    sys.exit(2)
