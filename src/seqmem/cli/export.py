"""``python -m seqmem.export``: export a trained model as a program of torch.export or ONNX, which runs without this project."""

import argparse
import json
import re
import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from seqmem import models
from seqmem.cli import export_onnx
from seqmem.cli.export_program import Program
from seqmem.errors import UserError
from seqmem.io.files import check_new_file, replacing
from seqmem.io.terminal import Parser, at_least
from seqmem.models.function_approximation import FunctionApproximation
from seqmem.ops import extension
from seqmem.training.checkpoints.files import Checkpoint, read_checkpoint, restore
from seqmem.training.config import model_arguments

DESCRIPTION = """\
Write the model of a checkpoint as a program that torch.export.load reads:

  program = torch.export.load("model.pt2").module()
  outputs = program(inputs)                     # logits or values, (B, K), (B, k, K) or (B, T, K) as in training

or, with --format onnx, as a model that onnxruntime and others run without torch:

  session = onnxruntime.InferenceSession("model.onnx")
  [outputs] = session.run(None, {"inputs": inputs})

CHECKPOINT is a file that seqmem train wrote, or the folder of a finished trial for its best checkpoint. A program takes inputs
at the sampling rate of the training (Batch.rate is 1). It starts each sequence from the initial state, or with --state from one
that it takes and returns, so that a stream is read piece by piece:

  outputs, *state = program(inputs, *state)     # the command prints shapes and initial values

It is compared with the model on random inputs, and the file is written only if they agree.
"""

DECOMPOSED = "an exported program must consist of torch's own operators"


class Sizes(NamedTuple):
    """Sizes of the inputs that a program takes: the least and the most of rows B and of steps T."""

    rows: tuple[int, float]
    steps: tuple[int, float]


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and run."""
    _parser().run(run, arguments)


def run(given: argparse.Namespace) -> None:
    """Export a checkpoint's model, compare the program with the model, and write it.

    Raises:
        UserError: the checkpoint cannot be read, the file cannot be written, or the model cannot be exported.
    """
    in_onnx = given.format == "onnx"
    if in_onnx:
        export_onnx.check_packages()
        if given.operators == "required":
            raise UserError("--operators: got required, expected decomposed, since ONNX has no operators of seqmem")
    checkpoint = read_checkpoint(given.checkpoint)
    path = given.out or checkpoint.folder / f"model.{given.format}"
    _check_path(path, given.format)
    label, dataset = models.label(model_arguments(checkpoint.config)), checkpoint.spec.name
    if given.state:
        _refuse_without_state(checkpoint, label)
    program = _program(checkpoint, given.lengths, given.state)
    exported, sizes = export(program, label, given.operators == "required", given.batch, given.length)
    needs_operators = any("seqmem" in str(node.target) for part in _graphs(exported) for node in part.graph.nodes)
    inputs = _describe_inputs(program, sizes)
    description = {
        "model": label,
        "dataset": dataset,
        "checkpoint": str(checkpoint.path),
        "epoch": checkpoint.epoch,
        "inputs": inputs,
        "initial state": {name: tensor[0].tolist() for name, tensor in program.initial.items() if tensor.any()},
        "import first": "seqmem.ops" if needs_operators else None,
        "torch": torch.__version__,
    }
    with replacing(path) as temporary:
        if in_onnx:
            export_onnx.save(exported, label, program.names, program.outputs, description, temporary)
            loaded = export_onnx.load(temporary)
        else:
            loaded = _saved(exported, description, temporary)
        difference = compare(program, loaded, sizes)
    print(f"{label}, trained on {dataset}, epoch {checkpoint.epoch + 1}: {path}, {path.stat().st_size / 2**10:,.0f} KiB")
    print(f"inputs: {'; '.join(inputs)}")
    alone = f"runs without seqmem{' and torch' if in_onnx else ''}"
    print("import seqmem.ops before loading it" if needs_operators else alone)
    if checkpoint.config["train"].get("precision") == "bf16-mixed":
        print("trained with train.precision=bf16-mixed; the program computes in float32, so its outputs differ by rounding")
    print(f"greatest difference from the model on random inputs: {difference:.1e}")


def _saved(exported: ExportedProgram, description: Mapping[str, Any], path: Path) -> Any:
    """Save a program, and return it as loaded from the file."""
    torch.export.save(exported, path, extra_files={"seqmem.json": json.dumps(description)})
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given buffer is not writable")  # torch before 2.13, of its own buffer
        return torch.export.load(path).module()


def _check_path(path: Path, kind: str) -> None:
    other = {"pt2": "onnx", "onnx": "pt2"}[kind]
    if path.suffix == f".{other}":
        raise UserError(f"--out: got {path}, expected a name that ends in .{kind}; --format {other} writes such a file")
    check_new_file(path, "--out", [f".{kind}"])


def _refuse_without_state(checkpoint: Checkpoint, label: str) -> None:
    """Refuse a model whose outputs for a sequence are not those for its pieces with a carried state.

    Raises:
        UserError: with the reason.
    """
    spec = replace(checkpoint.spec, contiguous=True)
    try:
        with torch.device("meta"):
            models.build(model_arguments(checkpoint.config), spec)
    except UserError as error:
        reason = str(error).removesuffix(f": the batches of {spec.name} continue each other")  # which only this check says
        raise UserError(f"--state: {label}, trained on {spec.name}, carries no state ({reason})") from None


def _program(checkpoint: Checkpoint, lengths: bool, state: bool = False) -> Program:
    """The checkpoint's model in evaluation mode, in the type of its weights."""
    train = {**checkpoint.config["train"], "compile": False}  # torch.export needs the plain model
    model = restore(checkpoint, train, checkpoint.spec).model
    return Program(model, checkpoint.spec, lengths, state).eval().requires_grad_(False)


def export(
    program: Program, label: str, required: bool = False, rows: int | None = None, steps: int | None = None
) -> tuple[ExportedProgram, Sizes]:
    """Export a program with torch.export.

    Args:
        program: in evaluation mode.
        label: name of the model in messages.
        required: keep the compiled operators, instead of the torch operators that they fuse.
        rows: B, the only batch size that it takes; None for any.
        steps: T, the only length that it takes; None for any if the model allows it, else the longest of its training data.

    Raises:
        UserError: the model cannot be exported, or there are no compiled operators.
    """
    if isinstance(program.model, FunctionApproximation):
        raise UserError(f"{label} cannot be exported: it is a memory without weights; use seqmem.hippo.project")
    if required and extension.REASON:
        raise UserError(f"--operators: got required, but {extension.REASON}; {extension.BUILD}")
    length = steps or program.spec.max_length
    example = program.example(rows or 3, length)
    with torch.no_grad():
        program(*example)  # a buffer that the model makes at its first use becomes a constant of the program
    free = [] if steps or length < 2 else [True]
    for any_length in [*free, False]:
        shapes = _dynamic(program, rows is None, any_length)
        torch.compiler.reset()  # it traces scans, and takes sizes of earlier exports in the process for constants
        operators = nullcontext() if required else extension.reference_only(DECOMPOSED)
        try:
            with torch.no_grad(), warnings.catch_warnings(), operators:
                warnings.simplefilter("ignore")  # torch warns about its own internals
                exported = torch.export.export(program, example, dynamic_shapes=(shapes,), strict=False)
            sizes = _sizes(program, exported)
            if rows is None and sizes.rows[0] == sizes.rows[1]:
                raise UserError(f"only for batches of {sizes.rows[0]} rows; --batch B chooses others")
            if excluded := _excluded(exported, sizes):
                raise UserError(f"not for all sizes: {excluded}")
            return exported, sizes
        except Exception as error:  # torch raises many types
            reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
    raise UserError(f"{label} cannot be exported ({reason})")


def compare(program: Program, loaded: Any, sizes: Sizes) -> float:
    """Return the greatest difference between an exported program and its model, on random inputs of several sizes.

    Raises:
        UserError: the difference exceeds rounding, or the program fails.
    """
    longest = program.spec.max_length
    rows = _within((1, 2, 5), sizes.rows)
    steps = _within((1, longest // 2, longest + 3), sizes.steps)
    return max(_difference(program, loaded, *size) for size in product(rows, steps))


def _within(sizes: Sequence[int], bounds: tuple[int, float]) -> list[int]:
    return sorted({int(min(max(size, bounds[0]), bounds[1])) for size in sizes})


def _difference(program: Program, loaded: Any, rows: int, steps: int) -> float:
    example = program.example(rows, steps)
    with torch.no_grad():
        expected = _tuple(program(*example))
        try:
            got = _tuple(loaded(*example))
        except Exception as error:  # torch raises many types
            reason = str(error).strip().partition("\n")[0]
            raise UserError(f"the program fails for {rows} rows of {steps} steps ({reason})") from None
    greatest = 0.0
    for name, found, right in zip(program.outputs, got, expected, strict=True):
        difference = (found.double() - right.double()).abs().max().item()
        tolerance = 1e-4 if right.dtype == torch.float32 else 1e-9
        if not difference <= tolerance * max(1.0, right.abs().max().item()):
            where = f" in {name}" if len(expected) > 1 else ""
            raise UserError(f"the program differs from the model by {difference:.1e}{where} for {rows} rows of {steps} steps")
        greatest = max(greatest, difference)
    return greatest


def _tuple(outputs: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]:
    return (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)


def _dynamic(program: Program, any_rows: bool, any_steps: bool) -> tuple[dict[int, Any], ...]:
    """The dynamic dimensions of each input."""
    free_rows = Dim.AUTO if program.initial else Dim.DYNAMIC  # AUTO allows the state to have as many rows as the inputs
    row, step = free_rows if any_rows else Dim.STATIC, Dim.DYNAMIC if any_steps else Dim.STATIC
    return tuple({0: row, 1: step} if name in ("inputs", "times") else {0: row} for name in program.names)


def _sizes(program: Program, exported: ExportedProgram) -> Sizes:
    """The sizes that an exported program takes, from torch's range constraints."""
    names = exported.graph_signature.user_inputs
    [inputs] = [node.meta["val"] for node in exported.graph.nodes if node.name == names[0]]
    found = []
    for size in inputs.shape[:2]:
        if isinstance(size, int):
            found.append((size, float(size)))
        else:
            bounds = exported.range_constraints[size.node.expr]
            # torch notes at least 2 for a size that it did not specialise; compare() finds out whether 1 works.
            least = 1 if bounds.lower <= 2 else int(bounds.lower)
            found.append((least, float(bounds.upper) if bounds.upper < 2**31 else float("inf")))
    rows, (least, most) = found
    if program.spec.output_steps and least < most:
        sliced = "lengths" not in program.names  # torch specialises on T > k when the last k steps are sliced
        least = max(least, program.spec.output_steps + sliced)
    return Sizes(rows, (least, most))


def _excluded(exported: ExportedProgram, sizes: Sizes) -> str:
    """Return a condition of an exported program that excludes one size within its ranges; empty for none."""
    for guard in getattr(exported, "_guards_code", None) or ():
        # For example (4*L['inputs'].size()[1]) != 12, which is T != 3.
        found = re.fullmatch(r"\(?(?:(\d+)\*)?L\[.+\]\.size\(\)\[([01])\]\)? != (\d+)", guard)
        if "!=" in guard and not (found and int(found[3]) / int(found[1] or 1) < sizes[int(found[2])][0]):
            return str(guard)
    return ""


def _describe_inputs(program: Program, sizes: Sizes) -> list[str]:
    """Name, shape and type of each input."""
    dtype = str(program.dtype).removeprefix("torch.")
    channels, ranges = program.spec.input_size, f"{_range('B', sizes.rows)}, {_range('T', sizes.steps)}"
    values = f"(B, T) int64 from 0 to {channels - 1}" if program.spec.tokens else f"(B, T, {channels}) {dtype}"
    shapes = {
        "inputs": f"{values}, {ranges}",
        "lengths": "(B,) int64, the valid steps of each row",
        "times": f"(B, T) {dtype}, non-decreasing along a row",
    } | {name: _describe_state(tensor) for name, tensor in program.initial.items()}
    return [f"{name} {shapes[name]}" for name in program.names]


def _describe_state(initial: Tensor) -> str:
    shape = ", ".join(["B", *map(str, initial.shape[1:])]) + ("," if initial.ndim == 1 else "")
    start = "initial values in the file's description" if initial.any() else "zeros at first"
    return f"({shape}) {str(initial.dtype).removeprefix('torch.')}, {start}"


def _range(name: str, bounds: tuple[int, float]) -> str:
    least, most = bounds
    if least == most:
        return f"{name}={least}"
    limits = [*([f"at least {least}"] if least > 1 else []), *([f"at most {most:.0f}"] if most < float("inf") else [])]
    return f"{name} {' and '.join(limits) or 'any'}"


def _graphs(exported: ExportedProgram) -> list[torch.fx.GraphModule]:
    return [part for part in exported.graph_module.modules() if isinstance(part, torch.fx.GraphModule)]


def _parser() -> Parser:
    parser = Parser("python -m seqmem.export", DESCRIPTION)
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="a checkpoint, or the folder of a finished trial")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="a new file (default model.pt2 or .onnx in the trial's folder)"
    )
    parser.add_argument(
        "--format", choices=("pt2", "onnx"), default="pt2", help="pt2 (default): torch.export; onnx: pip install 'seqmem[onnx]'"
    )
    parser.add_argument(
        "--operators",
        choices=("decomposed", "required"),
        default="decomposed",
        help="decomposed (default): torch's own operators only; required: the compiled operators of seqmem, which are faster; "
        "import seqmem.ops before loading the file",
    )
    parser.add_argument("--batch", type=at_least(1), metavar="B", help="take batches of B rows only (default: any)")
    parser.add_argument(
        "--length",
        type=at_least(1),
        metavar="T",
        help="take sequences of T steps only (default: any if the model allows it, else the longest in training)",
    )
    parser.add_argument(
        "--state", action="store_true", help="take the state and return the next one after the outputs, for streams in pieces"
    )
    parser.add_argument("--lengths", action="store_true", help="take the valid steps of each row as a second input")
    return parser
