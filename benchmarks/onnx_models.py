"""The models of cfg/model that can be exported to ONNX, as a table of the guide.

    python -m benchmarks.onnx_models            # writes the table in docs/guides/onnx.md
    python -m benchmarks.onnx_models legs gru   # prints the rows of some models

Each model is built in its tiny preset with random weights, exported, and compared in onnxruntime at several sizes.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from benchmarks.pages import blocks
from seqmem import models
from seqmem.cli import commandline, export, export_onnx
from seqmem.data.spec import DataSpec
from seqmem.errors import UserError

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/guides/onnx.md"
PART = ("models", "benchmarks.onnx_models")

CLASSES = DataSpec("series", 2, 3, "classification", output_steps=0, max_length=12)
TIMED = DataSpec("timed", 2, 3, "classification", output_steps=0, max_length=12, times=True)
RECONSTRUCTED = DataSpec("series", 2, 2, "reconstruction", output_steps=None, max_length=12)
IMAGES = DataSpec("images", 144, 144, "reconstruction", output_steps=None, max_length=6, frame=(12, 12))
SIGNALS = DataSpec("signals", 1, 1, "reconstruction", output_steps=None, max_length=12)
SPECS = {"function_approximation": SIGNALS, "tlsi": TIMED, "tlti": TIMED, "conv_lstm_ae": IMAGES} | dict.fromkeys(
    ("linear_ae", "lstm_ae", "seq2seq_ae"), RECONSTRUCTED
)


@dataclass(frozen=True)
class Result:
    """Outcome of one model.

    Attributes:
        model: its file in cfg/model.
        lengths: whether the export also takes the valid steps of each row.
        steps: numbers of steps that it takes.
        difference: greatest difference from the model.
        reason: why it cannot be exported; empty if it can.
    """

    model: str
    lengths: bool = False
    steps: str = ""
    difference: float = 0.0
    reason: str = ""

    def row(self) -> list[str]:
        """Return the cells of its row of the table."""
        if self.reason:
            return [f"`{self.model}`", "no", self.reason]
        return [f"`{self.model}`", "yes", f"{self.steps}{', lengths' if self.lengths else ''}"]


def names() -> list[str]:
    """Return the models of cfg/model."""
    return sorted(path.stem for path in (ROOT / "cfg/model").glob("*.yaml"))


def tried(name: str) -> Result:
    """Export a model, with lengths if it takes them, and compare it."""
    spec = SPECS.get(name, CLASSES)
    section = dict(commandline.compose(["dataset=digits", f"model={name}", "model.preset=tiny"])["model"])
    section.pop("preset", None)
    reason = ""
    for lengths in (True, False):
        torch.manual_seed(0)
        try:
            program = export.Program(models.build(section, spec), spec, lengths).eval().requires_grad_(False)
            exported, sizes = export.export(program, name)
            with TemporaryDirectory() as folder:
                path = Path(folder) / "model.onnx"
                export_onnx.save(exported, name, program.names, program.outputs, {}, path)
                difference = export.compare(program, export_onnx.load(path), sizes)
        except UserError as error:
            reason = str(error)
            continue
        least, most = sizes.steps
        return Result(name, lengths, _steps(least, most, spec.max_length), difference)
    return Result(name, reason=reason)


def _steps(least: int, most: float, longest: int) -> str:
    """Return the numbers of steps that a program takes, of a model that was trained on at most ``longest`` steps."""
    if least < most:
        return "any length" if most > longest else "up to the longest length in training"
    return f"sequences of {'the longest length in training' if least == longest else f'{least} steps'}"


def main() -> None:
    """Print some rows, or write all of them."""
    chosen = sys.argv[1:]
    results = []
    for name in chosen or names():
        results.append(tried(name))
        print(*results[-1].row(), f"{results[-1].difference:.1e}", sep=" | ", flush=True)
    if not chosen:
        found = blocks.table(["model", "ONNX", "sequences, or why not"], [result.row() for result in results], numbers=0)
        PAGE.write_text(blocks.replaced(PAGE.read_text(encoding="utf-8"), *PART, found), encoding="utf-8")


if __name__ == "__main__":
    main()
