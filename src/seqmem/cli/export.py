"""``python -m seqmem.export``: a trained model as a program of torch.export, which runs without this project."""

import argparse
import json
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from seqmem import models
from seqmem.data.batch import Batch
from seqmem.data.spec import DataSpec
from seqmem.errors import UserError
from seqmem.io.files import replacing
from seqmem.io.terminal import Parser, at_least
from seqmem.models import SequenceModel
from seqmem.models.function_approximation import FunctionApproximation
from seqmem.ops import extension
from seqmem.training.checkpoints.checkpoints import read_checkpoint, restore
from seqmem.training.config import model_arguments

DESCRIPTION = """\
Write the model of a checkpoint as a program that torch.export.load reads:

  program = torch.export.load("model.pt2").module()
  outputs = program(inputs)                     # logits or values, (B, K), (B, k, K) or (B, T, K) as in training

CHECKPOINT is a file that train.py wrote, or the folder of a finished trial for its best one. A program begins each sequence
anew. It is compared with the model on fresh random inputs before the file takes its place; if they differ there is none.
"""

DECOMPOSED = "an exported program is to be of torch's own operators"


class Sizes(NamedTuple):
    """What a program takes: rows B and steps T of its inputs, the least and the most of each."""

    rows: tuple[int, float]
    steps: tuple[int, float]


class Program(nn.Module):
    """A model whose inputs are tensors instead of a batch: inputs, then lengths and times if it takes them."""

    def __init__(self, model: SequenceModel, spec: DataSpec, lengths: bool):
        super().__init__()
        self.model, self.spec = model, spec
        self.dtype = next((value.dtype for value in model.parameters() if value.is_floating_point()), torch.float32)
        self.names = ["inputs", *(["lengths"] if lengths else []), *(["times"] if spec.times else [])]

    def forward(self, *tensors: Tensor) -> Tensor:
        """The model's outputs."""
        given = dict(zip(self.names, tensors, strict=True))
        inputs = given["inputs"]
        # Of targets, models that give back a sequence read how long it is.
        return self.model(Batch(targets=inputs.new_empty(*inputs.shape[:2], self.spec.output_size), **given))

    def example(self, rows: int, steps: int) -> tuple[Tensor, ...]:
        """Random inputs of B rows and T steps."""
        if self.spec.tokens:
            inputs = torch.randint(self.spec.input_size, (rows, steps))
        else:
            inputs = torch.randn(rows, steps, self.spec.input_size, dtype=self.dtype)
        made = {"inputs": inputs}
        made["lengths"] = torch.randint(1, steps + 1, (rows,))
        made["times"] = torch.rand(rows, steps, dtype=self.dtype).cumsum(1)
        return tuple(made[name] for name in self.names)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and run."""
    parser = _parser()
    given = parser.parse_args(arguments)
    with parser.one_line_errors():
        run(given)


def run(given: argparse.Namespace) -> None:
    """Export, check and write."""
    checkpoint = read_checkpoint(given.checkpoint)
    path = given.out or checkpoint.folder / "model.pt2"
    if path.suffix != ".pt2":
        raise UserError(f"--out: got {path}, expected a name that ends in .pt2")
    if not path.parent.is_dir():
        raise UserError(f"--out: got {path}, but there is no folder {path.parent}")
    if path.exists():
        raise UserError(f"{path} is there already; give another name by --out FILE.pt2, or remove it")
    spec = checkpoint.spec
    label = models.label(model_arguments(checkpoint.config))
    module = restore(checkpoint, checkpoint.config["train"], spec)
    kinds = [value.dtype for value in checkpoint.weights.values() if value.is_floating_point()]
    model = module.model.to(kinds[0]) if kinds else module.model  # as precise as it was trained
    program = Program(model, spec, given.lengths).eval().requires_grad_(False)
    exported, sizes = export(program, label, given.operators == "required", given.batch, given.length)
    needed = any("seqmem" in str(node.target) for part in _graphs(exported) for node in part.graph.nodes)
    inputs = _inputs(program, sizes)
    described = {
        "model": label,
        "dataset": spec.name,
        "checkpoint": str(checkpoint.path),
        "epoch": checkpoint.epoch,
        "inputs": inputs,
        "import first": "seqmem.ops" if needed else None,
        "torch": torch.__version__,
    }
    with replacing(path) as temporary:
        torch.export.save(exported, temporary, extra_files={"seqmem.json": json.dumps(described)})
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given buffer is not writable")  # torch before 2.13, of its own buffer
            loaded = torch.export.load(temporary)
        difference = compare(program, loaded.module(), sizes)
    print(f"{label}, trained on {spec.name}, epoch {checkpoint.epoch + 1}: {path}, {path.stat().st_size / 2**10:,.0f} KiB")
    print(f"inputs: {'; '.join(inputs)}")
    print("before it is loaded: import seqmem.ops" if needed else "it runs without seqmem")
    print(f"greatest difference from the model on fresh inputs: {difference:.1e}")


def export(
    program: Program, label: str, required: bool = False, rows: int | None = None, steps: int | None = None
) -> tuple[ExportedProgram, Sizes]:
    """The program as torch.export has it.

    Args:
        program: in evaluation mode.
        label: what messages call the model.
        required: keep the compiled operators, instead of the steps that they stand for.
        rows: B, the only one that it will take; None for any.
        steps: T, the only one that it will take; None for any where the model allows it, else that of its training data.

    Raises:
        UserError: the model cannot be exported, or there are no compiled operators.
    """
    if isinstance(program.model, FunctionApproximation):
        raise UserError(
            f"{label} cannot be exported: it is the memory alone, which seqmem.hippo.project is without a checkpoint"
        )
    if required and extension.REASON:
        raise UserError(f"--operators required: {extension.REASON}; {extension.BUILD}")
    length = steps or program.spec.max_length
    example = program.example(rows or 3, length)
    with torch.no_grad():
        program(*example)  # what a model keeps after its first use is a constant of the program
    free = [] if steps or length < 2 else [True]
    for any_length in [*free, False]:
        try:
            with (
                torch.no_grad(),
                warnings.catch_warnings(),
                nullcontext() if required else extension.reference_only(DECOMPOSED),
            ):
                warnings.simplefilter("ignore")  # torch's own, about its insides
                exported = torch.export.export(
                    program, example, dynamic_shapes=(_dynamic(program, rows is None, any_length),), strict=False
                )
            return exported, _sizes(program, exported)
        except Exception as error:  # torch raises many kinds
            reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
    raise UserError(f"{label} cannot be exported ({reason})")


def compare(program: Program, loaded: Any, sizes: Sizes) -> float:
    """The greatest difference between a program and the model, on random inputs of several sizes.

    Raises:
        UserError: it is more than rounding makes.
    """
    greatest = 0.0
    usual = program.spec.max_length
    rows = sorted({int(min(max(count, sizes.rows[0]), sizes.rows[1])) for count in (1, 2, 5)})
    steps = sorted({int(min(max(count, sizes.steps[0]), sizes.steps[1])) for count in (1, usual // 2, usual + 3)})
    for size in product(rows, steps):
        example = program.example(*size)
        with torch.no_grad():
            wanted = program(*example)
            try:
                got = loaded(*example)
            except Exception as error:  # torch raises many kinds
                reason = str(error).strip().partition("\n")[0]
                raise UserError(f"the program refuses {size[0]} rows of {size[1]} steps ({reason})") from None
        difference = (got - wanted).abs().max().item()
        tolerance = 1e-4 if wanted.dtype == torch.float32 else 1e-9
        if not difference <= tolerance * max(1.0, wanted.abs().max().item()):
            raise UserError(f"the program differs from the model by {difference:.1e} at {size[0]} rows of {size[1]} steps")
        greatest = max(greatest, difference)
    return greatest


def _dynamic(program: Program, any_rows: bool, any_steps: bool) -> tuple[dict[int, Any], ...]:
    """Which dimensions of each input are free."""
    row, step = (Dim.DYNAMIC if free else Dim.STATIC for free in (any_rows, any_steps))
    return tuple({0: row} if name == "lengths" else {0: row, 1: step} for name in program.names)


def _sizes(program: Program, exported: ExportedProgram) -> Sizes:
    names = exported.graph_signature.user_inputs
    [inputs] = [node.meta["val"] for node in exported.graph.nodes if node.name == names[0]]
    found = []
    for size in inputs.shape[:2]:
        if isinstance(size, int):
            found.append((size, float(size)))
        else:
            bounds = exported.range_constraints[size.node.expr]
            # torch notes 2 for a size that it did not look at: whether 1 will do, compare() sees.
            least = 1 if bounds.lower <= 2 else int(bounds.lower)
            found.append((least, float(bounds.upper) if bounds.upper < 2**31 else float("inf")))
    rows, (least, most) = found
    if program.spec.output_steps and "lengths" not in program.names and least < most:
        least = max(least, program.spec.output_steps + 1)  # the last k of k steps are another case, which torch leaves out
    return Sizes(rows, (least, most))


def _inputs(program: Program, sizes: Sizes) -> list[str]:
    """A description of each input."""
    kind = str(program.dtype).removeprefix("torch.")
    channels, given = program.spec.input_size, f"{_range('B', sizes.rows)}, {_range('T', sizes.steps)}"
    values = f"(B, T) int64 from 0 to {channels - 1}" if program.spec.tokens else f"(B, T, {channels}) {kind}"
    shapes = {
        "inputs": f"{values}, {given}",
        "lengths": "(B,) int64, the valid steps of each row",
        "times": f"(B, T) {kind}, which do not decrease along a row",
    }
    return [f"{name} {shapes[name]}" for name in program.names]


def _range(name: str, bounds: tuple[int, float]) -> str:
    least, most = bounds
    if least == most:
        return f"{name}={least}"
    words = [*([f"at least {least}"] if least > 1 else []), *([f"at most {most:.0f}"] if most < float("inf") else [])]
    return f"{name} {' and '.join(words) or 'any'}"


def _graphs(exported: ExportedProgram) -> list[torch.fx.GraphModule]:
    return [part for part in exported.graph_module.modules() if isinstance(part, torch.fx.GraphModule)]


def _parser() -> Parser:
    parser = Parser("python -m seqmem.export", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="a checkpoint, or the folder of a finished trial")
    parser.add_argument("--out", type=Path, metavar="FILE.pt2", help="a new file (default model.pt2 in the trial's folder)")
    parser.add_argument(
        "--operators",
        choices=("decomposed", "required"),
        default="decomposed",
        help="decomposed (default): torch's own operators only; required: the compiled ones of seqmem, which must be imported "
        "(import seqmem.ops) before the file is loaded, and are faster",
    )
    parser.add_argument("--batch", type=at_least(1), metavar="B", help="take batches of B rows only (default: any)")
    parser.add_argument(
        "--length",
        type=at_least(1),
        metavar="T",
        help="take sequences of T steps only (default: any if the model can, else as long as the longest in training)",
    )
    parser.add_argument("--lengths", action="store_true", help="take the valid steps of each row, too, as a second input")
    return parser
