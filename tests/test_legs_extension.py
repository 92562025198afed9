"""Compiled LegS and LegT operators: ``pytest`` compares them with the float64 reference, ``python`` on this file times them.

The benchmark compares them with dense matrices in torch, computed once and used for every row.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from seqmem.ops import extension, legs_update, reference, transition

REFERENCES = {
    "legs_euler_forward": ("legs", "forward"),
    "legs_euler_backward": ("legs", "backward"),
    "legs_trapezoidal": ("legs", "bilinear"),
    "legs_zoh": ("legs", "zoh"),
    "legt_euler_forward": ("lmu", "forward"),
}
SHAPES = [(1, 1, 1), (3, 5, 2), (7, 1, 63), (17, 2, 64), (2, 9, 65), (33, 1, 100)]
LARGE = (10, 23, 587)
DT = 0.27

pytestmark = pytest.mark.skipif(bool(extension.REASON), reason=f"no compiled operators: {extension.REASON}")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small tensors do not profit from threads, and parallel tests compete for the cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def operator(name: str):
    return getattr(torch.ops.seqmem, name)


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)


def error(given: Tensor, exact: Tensor) -> float:
    return ((given.double() - exact).norm() / exact.norm()).item()


@pytest.mark.parametrize("name", REFERENCES)
@pytest.mark.parametrize("per_row", [False, True], ids=["number", "tensor"])
def test_values_and_gradients(name, per_row):
    for shape in SHAPES:
        check_values_and_gradients(name, shape, per_row)


@pytest.mark.parametrize("name", REFERENCES)
def test_values_and_gradients_of_a_large_memory(name):
    check_values_and_gradients(name, (10, 23, 147) if name == "legs_zoh" else LARGE, per_row=False)


def check_values_and_gradients(name: str, shape: tuple[int, int, int], per_row: bool) -> None:
    """Compare in float64 to rounding, and in float32 to a few roundings of the largest terms."""
    x, u, g = random(*shape), random(*shape[:2], seed=1), random(*shape, seed=2)
    dt = DT * (0.5 + torch.arange(shape[0], dtype=torch.float64) / shape[0]) if per_row else DT
    tensors = [x.requires_grad_(), u.requires_grad_()] + ([dt.requires_grad_()] if per_row else [])
    exact = reference.update(REFERENCES[name][0], x, u, dt, REFERENCES[name][1])
    exact = [exact.detach(), *torch.autograd.grad((exact * g).sum(), tensors)]

    def compiled(dtype: torch.dtype) -> list[Tensor]:
        given = [tensor.detach().to(dtype).requires_grad_() for tensor in tensors]
        updated = operator(name)(*given) if per_row else operator(name)(*given, dt)
        return [updated.detach(), *torch.autograd.grad((updated * g.to(dtype)).sum(), given)]

    for dtype, tolerance in ((torch.float64, 1e-11), (torch.float32, 2e-5)):
        for result, expected in zip(compiled(dtype), exact, strict=True):
            assert result.dtype == dtype
            assert error(result, expected) < tolerance, shape


@pytest.mark.parametrize("name", REFERENCES)
def test_gradcheck(name):
    x, u = random(2, 2, 4).requires_grad_(), random(2, 2, seed=1).requires_grad_()
    dt = torch.tensor([0.1, 0.9], dtype=torch.float64, requires_grad=True)
    for arguments in ((x, u, dt), (x, u, dt[:1].item())):
        assert torch.autograd.gradcheck(operator(name), arguments)
        assert torch.autograd.gradgradcheck(operator(name), arguments)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # opcheck reads it
@pytest.mark.parametrize("name", REFERENCES)
def test_opcheck(name):
    x, u = random(3, 2, 5).requires_grad_(), random(3, 2, seed=1).requires_grad_()
    dt = torch.tensor([0.1, 0.4, 0.9], dtype=torch.float64, requires_grad=True)
    transpose = operator(f"{name}_adjoint")
    torch.library.opcheck(operator(name).default, (x, u, 0.3))
    torch.library.opcheck(operator(name).tensor, (x, u, dt))
    torch.library.opcheck(transpose.default, (x, 0.3))
    torch.library.opcheck(transpose.tensor, (x, dt))


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
def test_opcheck_of_function_approximation():
    signal = random(2, 9).requires_grad_()
    torch.library.opcheck(torch.ops.seqmem.legs_function_approx_trapezoidal.default, (signal, 4))
    torch.library.opcheck(torch.ops.seqmem.legs_function_approx_trapezoidal_adjoint.default, (signal, 4))


@pytest.mark.parametrize("name", REFERENCES)
def test_zero_sizes(name):
    for shape in ((0, 2, 3), (2, 0, 3), (2, 3, 0), (0, 0, 0)):
        for dt in (DT, torch.full(shape[:1], DT, requires_grad=True)):
            x, u = torch.randn(shape, requires_grad=True), torch.randn(shape[:2], requires_grad=True)
            updated = operator(name)(x, u, dt)
            updated.sum().backward()
            assert updated.shape == shape
            assert torch.equal(x.grad, torch.zeros(shape))
            assert torch.equal(u.grad, torch.zeros(shape[:2]))


@pytest.mark.parametrize("name", REFERENCES)
def test_any_strides(name):
    x, u = random(19, 4, 6).permute(2, 1, 0), random(4, 6, seed=1).t()
    dt = random(12, seed=2).abs()[::2]
    assert not x.is_contiguous()
    assert torch.equal(operator(name)(x, u, DT), operator(name)(x.contiguous(), u.contiguous(), DT))
    assert torch.equal(operator(name)(x, u, dt), operator(name)(x.contiguous(), u.contiguous(), dt.contiguous()))
    row, inputs = x[:1].expand(6, 4, 19), u[:1].expand(6, 4)
    assert torch.equal(operator(name)(row, inputs, DT), operator(name)(row.contiguous(), inputs.contiguous(), DT))
    ones = torch.ones((), dtype=torch.float64).expand(6, 4, 19)
    transpose = operator(f"{name}_adjoint")
    for result, expected in zip(transpose(ones, DT), transpose(ones.contiguous(), DT), strict=True):
        assert torch.equal(result, expected)


@pytest.mark.parametrize("name", [name for name in REFERENCES if name != "legs_zoh"])
def test_rows_do_not_depend_on_their_neighbours(name):
    for dtype in (torch.float32, torch.float64):
        x, u = random(37, 1, 21, dtype=dtype), random(37, 1, seed=1, dtype=dtype)
        together = operator(name)(x, u, DT)
        for rows in (slice(0, 1), slice(5, 22), slice(36, 37)):
            assert torch.equal(operator(name)(x[rows], u[rows], DT), together[rows])


def test_threads_do_not_change_the_result():
    x, u = random(40, 33, 77), random(40, 33, seed=1)
    for name in REFERENCES:
        torch.set_num_threads(1)
        single = operator(name)(x, u, DT), *operator(f"{name}_adjoint")(x, DT)
        torch.set_num_threads(3)
        several = operator(name)(x, u, DT), *operator(f"{name}_adjoint")(x, DT)
        for one, three in zip(single, several, strict=True):
            torch.testing.assert_close(one, three, rtol=1e-14, atol=1e-12 if name == "legs_zoh" else 0)


@pytest.mark.slow
@pytest.mark.parametrize("instruction_set", ["baseline", "avx2", "avx512"])
def test_every_instruction_set(instruction_set):
    """The tests of values and strides, in a process limited to an instruction set."""
    script = "import torch, seqmem.ops; print(torch.ops.seqmem.instruction_set())"
    environment = os.environ | {"SEQMEM_INSTRUCTION_SET": instruction_set, "OMP_NUM_THREADS": "1"}
    run = {"env": environment, "capture_output": True, "text": True, "check": False}
    if subprocess.run([sys.executable, "-c", script], **run).stdout.strip() != instruction_set:
        pytest.skip(f"this processor has no {instruction_set}")
    selected = "test_values_and_gradients and not large or test_any_strides or test_function_approximation"
    tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", selected, __file__]
    done = subprocess.run(tests, cwd=Path(__file__).parents[1], **run)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    "sizes",
    [[(1, 3), (2, 1), (17, 5), (64, 33), (301, 16), (70, 100)], pytest.param([(1000, 256)], marks=pytest.mark.slow)],
    ids=["small", "large"],
)
def test_function_approximation(sizes):
    for length, order in sizes:
        signal = random(2, length)
        exact = reference.legs_function_approximation(signal, order)
        for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
            both = torch.ops.seqmem.legs_function_approx_trapezoidal(signal.to(dtype), order)
            assert error(both, exact) < tolerance, (length, order)
            one = torch.ops.seqmem.legs_function_approx_trapezoidal(signal[1].to(dtype), order)
            assert torch.equal(one, both[1])


def test_function_approximation_of_strided_signals():
    signals = random(50, 3).t()
    approximation = torch.ops.seqmem.legs_function_approx_trapezoidal
    assert torch.equal(approximation(signals, 8), approximation(signals.contiguous(), 8))


def test_function_approximation_gradient_is_the_transpose():
    signal, direction = random(3, 41), random(3, 9, seed=1)
    forth = torch.ops.seqmem.legs_function_approx_trapezoidal(signal, 9)
    back = torch.ops.seqmem.legs_function_approx_trapezoidal_adjoint(direction, 41)
    torch.testing.assert_close((forth * direction).sum(), (signal * back).sum())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(2, 3), torch.zeros(2, 3), 0.1), r"legs_trapezoidal: mem: got shape \[2, 3\], expected \(B, M, N\)"),
        ((torch.zeros(2, 3, 4), torch.zeros(3, 2), 0.1), r"input: got shape \[3, 2\], expected \[2, 3\]"),
        ((torch.zeros(2, 3, 4), torch.zeros(2, 3), torch.zeros(3)), r"dt: got shape \[3\], expected \[2\]"),
        ((torch.zeros(2, 3, 4).half(), torch.zeros(2, 3).half(), 0.1), "mem: got float16, expected float32 or float64"),
        ((torch.zeros(2, 3, 4), torch.zeros(2, 3).double(), 0.1), "input: got float64, expected float32"),
        ((torch.zeros(2, 3, 4), torch.zeros(2, 3), torch.zeros(2).double()), "dt: got float64, expected float32"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        torch.ops.seqmem.legs_trapezoidal(*arguments)


def test_another_device_is_refused():
    with pytest.raises((NotImplementedError, ValueError)):
        torch.ops.seqmem.legs_trapezoidal(torch.zeros(2, 3, 4), torch.zeros(2, 3, device="meta"), 0.1)


def test_compile_without_a_graph_break():
    x, u = random(3, 2, 5).requires_grad_(), random(3, 2, seed=1).requires_grad_()
    dt = torch.tensor([0.1, 0.4, 0.9], dtype=torch.float64)

    def two_steps(x, u):
        return legs_update(legs_update(x, u, DT), u, dt, "euler")

    eager = two_steps(x, u)
    operators = []

    def backend(graph, examples):
        operators.extend(str(node.target) for node in graph.graph.nodes if "seqmem" in str(node.target))
        return torch._dynamo.lookup_backend("aot_eager")(graph, examples)

    compiled = torch.compile(two_steps, fullgraph=True, backend=backend)(x, u)
    assert len(operators) == 2
    torch.testing.assert_close(compiled, eager)
    for one, other in zip(*(torch.autograd.grad(y.square().sum(), (x, u)) for y in (compiled, eager)), strict=True):
        torch.testing.assert_close(one, other)


def test_export():
    class Step(torch.nn.Module):
        def forward(self, x: Tensor, u: Tensor) -> Tensor:
            return legs_update(x, u, DT)

    x, u = random(3, 2, 5), random(3, 2, seed=1)
    batch = torch.export.Dim("batch", min=2, max=64)
    program = torch.export.export(Step(), (x, u), dynamic_shapes=({0: batch}, {0: batch}))
    x, u = random(7, 2, 5), random(7, 2, seed=1)
    assert torch.equal(program.module()(x, u), legs_update(x, u, DT))


def dense(name: str, order: int) -> Callable[[Tensor, Tensor, float], Tensor]:
    """The update with dense matrices for the fixed step size DT, computed once."""
    measure, discretization = REFERENCES[name]
    A, B = transition(measure, order)
    eye = torch.eye(order, dtype=torch.float64)
    if discretization == "zoh":
        A_d = torch.matrix_exp(DT * A)
        B_d = torch.linalg.solve(A, (A_d - eye) @ B)
    else:
        alpha = {"forward": 0.0, "backward": 1.0, "bilinear": 0.5}[discretization]
        A_d = torch.linalg.solve(eye - alpha * DT * A, eye + (1 - alpha) * DT * A)
        B_d = torch.linalg.solve(eye - alpha * DT * A, DT * B)
    A_d, B_d = A_d.T.float(), B_d.float()
    return lambda x, u, _: x @ A_d + u[..., None] * B_d


def seconds(function: Callable[[], object]) -> float:
    """Minimum of several timings, each over enough calls to last a twentieth of a second."""
    function()
    calls, best = 1, float("inf")
    for _ in range(12):
        start = time.perf_counter()
        for _ in range(calls):
            function()
        elapsed = time.perf_counter() - start
        best = min(best, elapsed / calls)
        calls = max(calls, min(100_000, int(0.05 / best)))
    return best


def times(step: Callable[[Tensor, Tensor, float], Tensor], shape: tuple[int, int, int]) -> tuple[float, float]:
    """Microseconds of a step without gradients, and of a step with backward."""
    x, u, grad = torch.randn(shape, requires_grad=True), torch.randn(shape[:2], requires_grad=True), torch.randn(shape)
    with torch.no_grad():
        forward = seconds(lambda: step(x, u, DT))
    return 1e6 * forward, 1e6 * seconds(lambda: torch.autograd.grad(step(x, u, DT), (x, u), grad))


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "unknown processor")


def benchmark() -> None:
    """Print the table."""
    if extension.REASON:
        sys.exit(f"no compiled operators: {extension.REASON}; {extension.BUILD}")
    sizes = [(100, 1, 64), (100, 1, 256), (10, 23, 587)]
    instructions = torch.ops.seqmem.instruction_set()
    print(f"{processor()}, {instructions} instructions, {torch.get_num_threads()} threads, torch {torch.__version__}, float32")
    print("microseconds per step: compiled / dense torch\n")
    print(f"{'operator':22}{'(B, M, N)':16}{'forward':>20}{'forward + backward':>24}")
    for name in REFERENCES:
        for shape in sizes:
            compiled, matrices = (times(step, shape) for step in (operator(name).default, dense(name, shape[2])))
            columns = [f"{fast:.1f} / {slow:.1f}" for fast, slow in zip(compiled, matrices, strict=True)]
            print(f"{name:22}{shape!s:16}{columns[0]:>20}{columns[1]:>24}", flush=True)
    print()
    for dtype in (torch.float32, torch.float64):
        signal = torch.randn(1_000_000, dtype=dtype)
        start = time.perf_counter()
        torch.ops.seqmem.legs_function_approx_trapezoidal(signal, 256)
        elapsed = time.perf_counter() - start
        kind = str(dtype).removeprefix("torch.")
        print(f"legs_function_approx_trapezoidal, N = 256, {kind}: 10^6 steps in {elapsed:.2f} s, {1 / elapsed:.1f}M steps/s")


if __name__ == "__main__":
    benchmark()
