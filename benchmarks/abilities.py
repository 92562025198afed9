"""The README's table of what each cell can do, found by trying it: ``python -m benchmarks.abilities``.

It lies between the lines ``<!-- cells: python -m benchmarks.abilities -->`` and ``<!-- end of cells -->``. Cells that can do
the same share a row. ``yes`` means that the call was made and its result compared.
"""

from pathlib import Path

import torch
from torch import Tensor

from benchmarks.gpu import paths
from benchmarks.pages import blocks
from seqmem import sequence
from seqmem.ops import extension
from seqmem.sequence import SequenceLayer

PAGE = Path(__file__).parents[1] / "README.md"
PART = ("cells", "benchmarks.abilities")
HEADINGS = ("`model=`", "CPU", "GPU", "lengths", "timestamps", "carried state", "one step", "export")


def main() -> None:
    """Update the README."""
    PAGE.write_text(updated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


def updated(text: str, *, exports: bool = True) -> str:
    """Return a text with the table of this version.

    Args:
        text: with the block.
        exports: export each cell, which takes seconds; otherwise all are taken to export.
    """
    return blocks.replaced(text, *PART, table(exports=exports))


def table(*, exports: bool = True) -> str:
    """Return the table as Markdown."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for name in sequence.names():
        if name in paths.own_names():
            rows.setdefault(abilities(name, exports=exports), []).append(name)
    lines = [[", ".join(names), *found] for found, names in sorted(rows.items(), key=_size, reverse=True)]
    return blocks.table(HEADINGS, lines, numbers=0)


def abilities(name: str, *, exports: bool = True) -> tuple[str, ...]:
    """Return the cells of a row, from the path on the CPU on."""
    torch.manual_seed(0)
    layer = sequence.get(name)(input_size=3, hidden_size=16).eval().requires_grad_(False)
    inputs = torch.randn(2, 6, 3)
    inputs[..., 0] = torch.arange(1.0, 7.0)  # increasing, for cells that take the first channel as the time
    found = [_lengths(layer, inputs), layer.timed, _carries(layer, inputs), _steps(layer, inputs)]
    found.append(_exports(layer, inputs) if exports else True)
    return _cpu_path(layer, inputs), paths.path(name), *("yes" if each else "" for each in found)


def _cpu_path(layer: SequenceLayer, inputs: Tensor) -> str:
    """The path with the compiled operators, without the reason of a slower one."""
    assert not extension.REASON, "the table is that of the compiled operators: python setup.py build_ext --inplace"
    return layer.choose(inputs).path.partition(" (")[0]


def _lengths(layer: SequenceLayer, inputs: Tensor) -> bool:
    """Whether padding changes nothing."""
    short = layer(inputs[:, :4])[0]
    padded = layer(inputs, lengths=torch.tensor([4, 4]))[0]
    return torch.allclose(padded[:, :4], short, atol=1e-5) and not padded[:, 4:].any()


def _carries(layer: SequenceLayer, inputs: Tensor) -> bool:
    """Whether two halves with the carried state are the whole."""
    first, state = layer(inputs[:, :3])
    return torch.allclose(torch.cat([first, layer(inputs[:, 3:], state)[0]], 1), layer(inputs)[0], atol=1e-5)


def _steps(layer: SequenceLayer, inputs: Tensor) -> bool:
    """Whether single steps are the whole."""
    outputs, state = [], None
    for step in inputs.unbind(1):
        output, state = layer.step(step, state)
        outputs.append(output)
    return torch.allclose(torch.stack(outputs, 1), layer(inputs)[0], atol=1e-5)


def _exports(layer: SequenceLayer, inputs: Tensor) -> bool:
    """Whether a program of any length agrees with the layer."""
    program = torch.export.export(layer, (inputs,), dynamic_shapes=({1: torch.export.Dim.DYNAMIC},), strict=False)
    return torch.allclose(program.module()(inputs[:, :4])[0], layer(inputs[:, :4])[0], atol=1e-5)


def _size(row: tuple[tuple[str, ...], list[str]]) -> tuple[bool, int]:
    return "compiled" in row[0][0], len(row[1])


if __name__ == "__main__":
    main()
