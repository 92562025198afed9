"""The measures' O(N) updates against dense matrices, and the matrices against what they are made for."""

import math

import pytest
import torch
from scipy.linalg import expm
from torch.testing import assert_close

from seqmem import cells
from seqmem.errors import UserError
from seqmem.ops import discretize, extension, generators, memory_update, reference, transition
from seqmem.ops.transition import MEASURES

EVERY = [*((name, {}) for name in MEASURES), ("lagt", {"beta": 0.3}), ("tlagt", {"beta": 2.5}), ("glagt", {"alpha": 0.4})]

every_measure = pytest.mark.parametrize(("measure", "arguments"), EVERY, ids=str)
compiled = pytest.mark.skipif(bool(extension.REASON), reason=f"no compiled operators: {extension.REASON}")


def random(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@every_measure
@pytest.mark.parametrize("order", [1, 2, 9, 40])
def test_generators_make_the_transition(measure, arguments, order):
    p, q, d, g, h, b = generators(measure, order, **arguments)
    A, B = transition(measure, order, **arguments)
    made = -torch.tril(torch.outer(p, q), -1) - torch.diag(d) - torch.triu(torch.outer(g, h), 1)
    assert_close(made, A, rtol=1e-13, atol=0)
    assert_close(b, B, rtol=1e-13, atol=0)


def test_laguerre_matrices_of_order_three():
    A, B = transition("lagt", 3)
    assert_close(A, torch.tensor([[-0.5, 0, 0], [-1, -0.5, 0], [-1, -1, -0.5]], dtype=torch.float64))
    assert_close(B, torch.ones(3, dtype=torch.float64))
    A, B = transition("tlagt", 3, beta=1.5)
    assert_close(A, torch.tensor([[-1.25, 0, 0], [-1, -1.25, 0], [-1, -1, -1.25]], dtype=torch.float64))
    assert_close(B, torch.full((3,), 1.5, dtype=torch.float64))
    # W = 1, sqrt(3/2), sqrt(15/8) for alpha = 1/2 but for a common factor, which A does not see.
    A, _ = transition("glagt", 3, alpha=0.5, beta=0.2)
    ratio = [math.sqrt(2 / 3), math.sqrt(8 / 15), math.sqrt(4 / 5)]
    assert_close(A, torch.tensor([[-0.6, 0, 0], [-ratio[0], -0.6, 0], [-ratio[1], -ratio[2], -0.6]], dtype=torch.float64))


def test_glagt_without_alpha_is_tlagt_with_another_input():
    A, B = transition("glagt", 7, beta=0.4)
    C, _ = transition("tlagt", 7, beta=0.4)
    assert_close(A, C)
    assert_close(B, torch.full((7,), 0.4**0.5, dtype=torch.float64))


@pytest.mark.parametrize("order", [20, 101])
def test_lmu_is_legt_in_another_basis(order):
    n = torch.arange(order, dtype=torch.float64)
    scale = (1 - 2 * (n % 2)) * torch.sqrt(2 * n + 1)
    (A, B), (C, D) = transition("lmu", order), transition("legt", order)
    assert_close(scale[:, None] * C / scale, A)
    assert_close(scale * D, B)


@pytest.mark.parametrize(("measure", "eigenvalues"), [("legs", None), ("lagt", -0.5), ("tlagt", -1.0), ("glagt", -0.505)])
def test_triangular_transitions_have_the_eigenvalues_of_their_diagonal(measure, eigenvalues):
    A, _ = transition(measure, 50)
    assert not torch.triu(A, 1).any()
    n = torch.arange(50, dtype=torch.float64)
    assert_close(A.diagonal(), -(n + 1) if eigenvalues is None else torch.full_like(n, eigenvalues))


@pytest.mark.parametrize("measure", ["legs", "legt", "lagt", "tlagt"])
def test_no_state_grows_by_itself(measure):
    """-(A + A^T) is positive semidefinite, so that |c| falls where f = 0, and the O(N) elimination needs no pivots."""
    A, _ = transition(measure, 120)
    if measure == "legs":
        A = A + torch.eye(120, dtype=A.dtype) / 2  # c' = A c / t: a signal that goes on at 0 is spread thinner
    assert torch.linalg.eigvalsh(-(A + A.T)).min() > -1e-9


def test_legt_remembers_its_window_and_forgets_what_is_before():
    """A pulse leaves the window of length 1 behind it: the rational approximation of a delay, of order N."""
    A, B = (matrix.numpy() for matrix in transition("legt", 30))
    inside, outside = expm(0.5 * A) @ B, expm(1.5 * A) @ B
    assert abs(outside).max() < 1e-2 * abs(inside).max()


@every_measure
@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize(("batch", "size", "order"), [(1, 1, 1), (3, 2, 7), (5, 3, 16), (2, 9, 33)])
def test_update_equals_dense_matrices(measure, arguments, share, batch, size, order):
    x, u = random(batch, size, order), random(batch, size, seed=1)
    dt = torch.linspace(0.0, 0.5, batch, dtype=torch.float64)
    wanted = reference.update(measure, x, u, dt, share, **arguments)
    assert_close(memory_update(x, u, dt, measure, share, **arguments), wanted, rtol=1e-10, atol=1e-10)
    wanted = reference.update(measure, x, u, 0.2, share, **arguments)
    assert_close(memory_update(x, u, 0.2, measure, share, **arguments), wanted, rtol=1e-10, atol=1e-10)


@every_measure
@pytest.mark.parametrize("share", [0.0, 0.5, 0.8])
def test_gradients(measure, arguments, share):
    x, u = random(3, 2, 5).requires_grad_(), random(3, 2, seed=1).requires_grad_()
    dt = torch.tensor([0.0, 0.1, 0.3], dtype=torch.float64, requires_grad=True)

    def update(x, u, dt):
        return memory_update(x, u, dt, measure, share, **arguments)

    assert torch.autograd.gradcheck(update, (x, u, dt))
    assert torch.autograd.gradgradcheck(update, (x, u, dt))


@pytest.mark.parametrize("measure", list(MEASURES))
def test_an_infinite_step_starts_and_an_empty_one_leaves(measure):
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
@pytest.mark.parametrize("measure", ["legt", "lmu"])
@pytest.mark.parametrize("order", [256, 512])
def test_elimination_without_pivots_is_stable(measure, order):
    """Long steps and high orders, where the obvious recurrence along n would grow as exp(dt N^2)."""
    x, u = random(2, 1, order), random(2, 1, seed=1)
    for dt in (0.001, 0.01, 1.0):
        wanted = reference.update(measure, x, u, dt, 0.5)
        scale = wanted.abs().max().item()
        assert_close(memory_update(x, u, dt, measure), wanted, rtol=0, atol=1e-10 * scale)
        assert_close(memory_update(x.float(), u.float(), dt, measure).double(), wanted, rtol=0, atol=1e-4 * scale)


@compiled
def test_cost_is_linear_in_the_order():
    """32 times the order must not take anywhere near 32^2 times as long."""
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
    numbers = generators("legt", 5)
    torch.library.opcheck(torch.ops.seqmem.quasiseparable_update.default, (x, u, dt, numbers, 0.5))
    torch.library.opcheck(torch.ops.seqmem.quasiseparable_update_adjoint.default, (x, dt, numbers, 0.5))
    with pytest.raises(ValueError, match="generators must be"):
        torch.ops.seqmem.quasiseparable_update(x, u, dt, numbers[:, :4], 0.5)


@every_measure
@pytest.mark.parametrize("method", ["forward", "backward", "bilinear", "zoh", 0.3])
def test_a_fixed_step_discretised_once_equals_an_update(measure, arguments, method):
    A, B = discretize(*transition(measure, 6, **arguments), 0.1, method)
    x, u = random(2, 3, 6), random(2, 3, seed=1)
    wanted = reference.update(measure, x, u, 0.1, method, **arguments)
    assert_close(x @ A.T + u[..., None] * B, wanted, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(
    ("measure", "arguments", "message"),
    [
        ("legz", {}, "there is no measure 'legz'; did you mean"),
        ("legs", {"beta": 1.0}, "takes no argument 'beta'"),
        ("lagt", {"beta": -1.0}, "beta: got -1.0, expected greater than 0"),
        ("glagt", {"alpha": 1.0}, "alpha: got 1.0, expected above -1 and below 1"),
    ],
)
def test_wrong_measures_are_named(measure, arguments, message):
    with pytest.raises(UserError, match=message):
        transition(measure, 4, **arguments)


@pytest.mark.parametrize("alpha", [-0.1, 1.5])
def test_alpha_is_a_share(alpha):
    with pytest.raises(UserError, match="alpha must be between 0"):
        memory_update(random(1, 1, 2), random(1, 1), 0.1, "legs", alpha)


@pytest.mark.parametrize("kind", [cells.LMU, cells.LegT, cells.LegTS])
def test_what_is_kept_from_inference_serves_training(kind):
    size = 6 + torch.randint(0, 1000, ()).item()  # not kept yet
    cell = kind(2, 3, memory_order=size)
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
