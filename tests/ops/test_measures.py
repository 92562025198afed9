"""O(N) updates of every measure against the dense reference, and properties of the transition matrices."""

import math
from functools import partial

import pytest
import torch
from scipy.linalg import expm
from torch.testing import assert_close

from seqmem import cells
from seqmem.errors import UserError
from seqmem.ops import discretize, extension, generators, memory_update, reference, transition
from seqmem.ops.transition import MEASURES

SETTINGS = [*((name, {}) for name in MEASURES), ("lagt", {"beta": 0.3}), ("tlagt", {"beta": 2.5}), ("glagt", {"alpha": 0.4})]

every_measure = pytest.mark.parametrize(("measure", "arguments"), SETTINGS, ids=str)
compiled = pytest.mark.skipif(bool(extension.REASON), reason=f"no compiled operators: {extension.REASON}")


def random(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@every_measure
def test_generators_give_the_transition(measure, arguments):
    for order in (1, 2, 9, 40):
        p, q, d, g, h, b = generators(measure, order, **arguments)
        A, B = transition(measure, order, **arguments)
        product = -torch.tril(torch.outer(p, q), -1) - torch.diag(d) - torch.triu(torch.outer(g, h), 1)
        assert_close(product, A, rtol=1e-13, atol=0)
        assert_close(b, B, rtol=1e-13, atol=0)


def test_laguerre_matrices_of_order_three():
    A, B = transition("lagt", 3)
    assert_close(A, torch.tensor([[-0.5, 0, 0], [-1, -0.5, 0], [-1, -1, -0.5]], dtype=torch.float64))
    assert_close(B, torch.ones(3, dtype=torch.float64))
    A, B = transition("tlagt", 3, beta=1.5)
    assert_close(A, torch.tensor([[-1.25, 0, 0], [-1, -1.25, 0], [-1, -1, -1.25]], dtype=torch.float64))
    assert_close(B, torch.full((3,), 1.5, dtype=torch.float64))
    # W = 1, sqrt(3/2), sqrt(15/8) for alpha = 1/2, up to a common factor, which cancels in A.
    A, _ = transition("glagt", 3, alpha=0.5, beta=0.2)
    ratio = [math.sqrt(2 / 3), math.sqrt(8 / 15), math.sqrt(4 / 5)]
    assert_close(A, torch.tensor([[-0.6, 0, 0], [-ratio[0], -0.6, 0], [-ratio[1], -ratio[2], -0.6]], dtype=torch.float64))


def test_glagt_without_alpha_is_tlagt_with_another_input():
    A, B = transition("glagt", 7, beta=0.4)
    C, _ = transition("tlagt", 7, beta=0.4)
    assert_close(A, C)
    assert_close(B, torch.full((7,), 0.4**0.5, dtype=torch.float64))


def test_triangular_transitions_have_the_eigenvalues_of_their_diagonal():
    n = torch.arange(50, dtype=torch.float64)
    for measure, eigenvalues in (("legs", -(n + 1)), ("lagt", n * 0 - 0.5), ("tlagt", n * 0 - 1), ("glagt", n * 0 - 0.505)):
        A, _ = transition(measure, 50)
        assert not torch.triu(A, 1).any()
        assert_close(A.diagonal(), eigenvalues)


def test_states_do_not_grow_without_input():
    """-(A + A^T) is positive semidefinite: |c| decreases for f = 0, and the O(N) elimination needs no pivoting."""
    for measure in ("legs", "legt", "lagt", "tlagt"):
        A, _ = transition(measure, 120)
        if measure == "legs":
            A = A + torch.eye(120, dtype=A.dtype) / 2  # c' = A c / t: the coefficients of a zero extension decay as 1 / sqrt(t)
        assert torch.linalg.eigvalsh(-(A + A.T)).min() > -1e-9


def test_legt_forgets_inputs_before_its_window():
    """A pulse leaves the window of length 1: the transition is a rational approximation of a delay, of order N."""
    A, B = (matrix.numpy() for matrix in transition("legt", 30))
    inside, outside = expm(0.5 * A) @ B, expm(1.5 * A) @ B
    assert abs(outside).max() < 1e-2 * abs(inside).max()


@every_measure
def test_update_equals_the_dense_reference(measure, arguments):
    for discretization in (0.0, 0.3, 0.5, 1.0):
        for batch, size, order in ((1, 1, 1), (3, 2, 7), (5, 3, 16), (2, 9, 33)):
            x, u = random(batch, size, order), random(batch, size, seed=1)
            for dt in (0.2, torch.linspace(0.0, 0.5, batch, dtype=torch.float64)):
                expected = reference.update(measure, x, u, dt, discretization, **arguments)
                updated = memory_update(x, u, dt, measure, discretization, **arguments)
                assert_close(updated, expected, rtol=1e-10, atol=1e-10)


@every_measure
def test_gradients(measure, arguments):
    x, u = random(2, 2, 4).requires_grad_(), random(2, 2, seed=1).requires_grad_()
    dt = torch.tensor([0.0, 0.3], dtype=torch.float64, requires_grad=True)
    for discretization in (0.0, 0.5, 0.8):
        function = partial(memory_update, measure=measure, discretization=discretization, **arguments)
        assert torch.autograd.gradcheck(function, (x, u, dt))
    assert torch.autograd.gradgradcheck(function, (x, u, dt))


@pytest.mark.parametrize("measure", list(MEASURES))
def test_an_infinite_step_starts_the_memory_and_a_zero_step_keeps_it(measure):
    x, u = random(3, 2, 6), random(3, 2, seed=1)
    dt = torch.tensor([math.inf, 0.0, 0.5], dtype=torch.float64, requires_grad=True)
    y = memory_update(x, u, dt, measure)
    start = torch.nn.functional.pad(u[0, :, None], (0, 5))
    assert torch.equal(y[0], start)
    assert_close(y[1], x[1], rtol=0, atol=0)
    assert torch.equal(memory_update(x, u, math.inf, measure)[0], start)
    [gradient] = torch.autograd.grad(y.sum(), dt)
    assert gradient.isfinite().all()


@compiled
@pytest.mark.parametrize(("measure", "order"), [("legt", 256), ("lmu", 512)])
def test_elimination_without_pivoting_is_stable(measure, order):
    """Large steps and high orders, where a naive recurrence along n would grow as exp(dt N^2)."""
    x, u = random(2, 1, order), random(2, 1, seed=1)
    for dt in (0.001, 0.01, 1.0):
        expected = reference.update(measure, x, u, dt, 0.5)
        scale = expected.abs().max().item()
        assert_close(memory_update(x, u, dt, measure), expected, rtol=0, atol=1e-10 * scale)
        assert_close(memory_update(x.float(), u.float(), dt, measure).double(), expected, rtol=0, atol=1e-4 * scale)


@compiled
def test_cost_is_linear_in_the_order():
    """32 times the order takes far less than 32^2 times as long."""
    import time

    def seconds(order):
        x, u, dt = torch.zeros(256, 1, order), torch.zeros(256, 1), torch.full((256,), 0.1)
        memory_update(x, u, dt, "legt")
        best = math.inf
        for _ in range(5):
            start = time.perf_counter()
            memory_update(x, u, dt, "legt")
            best = min(best, time.perf_counter() - start)
        return best

    assert seconds(4096) < 200 * seconds(128)


@compiled
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")  # opcheck's own
def test_operators_are_well_formed():
    x, u = random(2, 3, 5).requires_grad_(), random(2, 3, seed=1).requires_grad_()
    dt = torch.tensor([0.1, 0.3], dtype=torch.float64, requires_grad=True)
    rows = generators("legt", 5)
    torch.library.opcheck(torch.ops.seqmem.quasiseparable_update.default, (x, u, dt, rows, 0.5))
    torch.library.opcheck(torch.ops.seqmem.quasiseparable_update_adjoint.default, (x, dt, rows, 0.5))
    with pytest.raises(
        ValueError, match=r"generators: got \[6, 4\] float64 on cpu, expected \(6, N\) float64 on cpu with N = 5"
    ):
        torch.ops.seqmem.quasiseparable_update(x, u, dt, rows[:, :4], 0.5)


@every_measure
def test_a_fixed_step_discretised_once_equals_an_update(measure, arguments):
    x, u = random(2, 3, 6), random(2, 3, seed=1)
    for method in ("forward", "backward", "bilinear", "zoh", 0.3):
        A, B = discretize(*transition(measure, 6, **arguments), 0.1, method)
        expected = reference.update(measure, x, u, 0.1, method, **arguments)
        assert_close(x @ A.T + u[..., None] * B, expected, rtol=1e-9, atol=1e-10)


def test_a_default_device_has_no_influence_on_a_discretization():
    for method in ("bilinear", "zoh"):
        given = (*transition("legs", 6), 0.1, method)
        expected = discretize(*given)
        with torch.device("meta"):
            assert_close(discretize(*given), expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("measure", "arguments", "message"),
    [
        ("legz", {}, "measure: got 'legz', expected .*; did you mean"),
        ("legs", {"beta": 1.0}, "takes no argument 'beta'"),
        ("lagt", {"beta": -1.0}, "beta: got -1.0, expected greater than 0"),
        ("glagt", {"alpha": 1.0}, "alpha: got 1.0, expected above -1 and below 1"),
    ],
)
def test_wrong_measures_are_named(measure, arguments, message):
    with pytest.raises(UserError, match=message):
        transition(measure, 4, **arguments)


def test_alpha_must_be_between_0_and_1():
    for alpha in (-0.1, 1.5):
        with pytest.raises(UserError, match=r"discretization: got .*, expected alpha between 0"):
            memory_update(random(1, 1, 2), random(1, 1), 0.1, "legs", alpha)


def test_tensors_cached_in_inference_mode_serve_training():
    for kind in (cells.LMU, cells.LegT, cells.LegTS):
        order = 6 + torch.randint(0, 100, ()).item()  # not cached yet
        cell = kind(2, 3, memory_order=order)
        inputs = torch.randn(2, 4, 2)
        with torch.inference_mode():
            cell(inputs)
            cell.step(inputs[:, 0])
        cell(inputs)[0].sum().backward()
        cell.step(inputs[:, 0])[0].sum().backward()


@compiled
@pytest.mark.parametrize("cell", [cells.LegS, cells.TLSI])
def test_float32_does_not_drift_over_long_sequences(cell):
    torch.manual_seed(0)
    network = cell(1 + cell.timed, 8, memory_order=64)
    inputs = torch.randn(2, 30_000, 1)
    times = torch.arange(1.0, 30_001).expand(2, -1) if cell.timed else None
    with torch.no_grad():
        single = network(inputs, times=times)[1].memory.double()
        double = network.double()(inputs.double(), times=None if times is None else times.double())[1].memory
    assert (single - double).abs().max() < 3e-5 * double.abs().max()
