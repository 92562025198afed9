"""``python -m benchmarks.stable_abi``: build ``update.cpp``, compare it with the usual operator, and time both.

``python -m benchmarks.stable_abi LIBRARY`` uses a library that was built with a different version of torch.
"""

import csv
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.utils import cpp_extension

from benchmarks.output import RESULTS
from seqmem.io.provenance import provenance
from seqmem.ops import extension, reference, sources

ROOT = Path(__file__).parents[2]
TARGET = "0x020b000000000000"  # torch 2.11: later versions load the library
SHAPES = ((1, 1, 64), (32, 1, 128), (100, 4, 512))
KERNELS = ("kernels", "kernels_baseline", "kernels_avx2", "kernels_avx512")


def main() -> None:
    """Build or load the library, print what was found, and write the times to benchmarks/results/stable_abi.csv."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        library = Path(sys.argv[1]) if len(sys.argv) > 1 else build(Path(folder, "stable.so"))
        torch.ops.load_library(library)
    compare_with_reference()
    print(f"torch {torch.__version__}: agrees with the reference")
    if extension.REASON:
        print(f"no usual operators to time: {extension.REASON}")
        return
    rows = [*times()]
    for row in rows:
        print(*row.values(), sep=", ")
    with (RESULTS / "stable_abi.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def build(library: Path) -> Path:
    """Compile ``update.cpp`` and the kernels of csrc/ with the headers of the installed torch, for torch 2.11 and later."""
    files = [Path(__file__).with_name("update.cpp"), *(ROOT / f"csrc/{name}.cpp" for name in KERNELS)]
    includes = [part for path in cpp_extension.include_paths() for part in ("-isystem", path)]
    libraries = [f"-L{path}" for path in cpp_extension.library_paths()]
    flags = [*sources.FLAGS, "-fPIC", "-shared", f"-DTORCH_TARGET_VERSION={TARGET}", f"-I{ROOT / 'csrc'}"]
    command = ["g++", *flags, *includes, *map(str, files), *libraries, "-ltorch_cpu", "-o", str(library)]
    subprocess.run(command, check=True)
    return library


def compare_with_reference() -> None:
    """Compare the operator and its transpose with the reference.

    Raises:
        AssertionError: they differ by more than rounding.
    """
    stable = torch.ops.seqmem_stable
    for dtype, tolerance in ((torch.float32, 1e-4), (torch.float64, 1e-11)):
        memory = torch.randn(3, 5, 65, dtype=dtype, requires_grad=True)
        signal = torch.randn(3, 5, dtype=dtype, requires_grad=True)
        expected = reference.update("legs", memory, signal, 0.01)
        close = {"rtol": tolerance, "atol": tolerance}
        torch.testing.assert_close(stable.legs_trapezoidal(memory.detach(), signal.detach(), 0.01), expected.detach(), **close)
        grad = torch.randn_like(expected)
        gradients = torch.autograd.grad(expected, (memory, signal), grad)
        torch.testing.assert_close(stable.legs_trapezoidal_adjoint(grad, 0.01), gradients, **close)


def times() -> Iterator[dict[str, Any]]:
    """Yield a row for each shape: microseconds of a call, and of forward and backward of a gradient."""
    usual, stable = torch.ops.seqmem.legs_trapezoidal.default, torch.ops.seqmem_stable.legs_trapezoidal.default
    _register_gradient()
    where = {"processor": provenance()["machine"]["processor"], "threads": 1, "torch": torch.__version__}
    for shape in SHAPES:
        memory, signal = torch.randn(shape), torch.randn(shape[:2])
        with torch._C._AutoDispatchBelowAutograd():  # the usual operators have a gradient above their kernels
            assert torch.equal(stable(memory, signal, 0.01), usual(memory, signal, 0.01))
            forward = _timed(lambda call, m=memory, s=signal: call(m, s, 0.01), usual, stable)
        leaf, grad = torch.randn(shape, requires_grad=True), torch.randn(shape)
        both = _timed(lambda call, m=leaf, s=signal, g=grad: call(m, s, 0.01).backward(g), usual, stable)
        for what, found in (("call", forward), ("forward and backward", both)):
            usual_time, stable_time = (f"{seconds * 1e6:.2f}" for seconds in found)
            yield {"shape": "x".join(map(str, shape)), "what": what, "usual us": usual_time, "stable us": stable_time, **where}


def _register_gradient() -> None:
    """Register the gradient in Python: the stable ABI has no autograd."""

    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        return *torch.ops.seqmem_stable.legs_trapezoidal_adjoint.default(grad, ctx.dt), None

    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.dt = inputs[2]

    torch.library.register_autograd("seqmem_stable::legs_trapezoidal", backward, setup_context=setup_context)


def _timed(run: Callable[[Any], Any], *calls: Any, repeats: int = 41, count: int = 100) -> list[float]:
    """Return the median seconds of a run with each operator, measured in turns."""
    found: dict[Any, list[float]] = {call: [] for call in calls}
    for _ in range(repeats):
        for call in calls:
            start = time.perf_counter()
            for _ in range(count):
                run(call)
            found[call].append((time.perf_counter() - start) / count)
    return [median(found[call]) for call in calls]


if __name__ == "__main__":
    main()
