"""Contract of the public memory updates, on both paths: the reference and the compiled operators."""

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from scipy.special import eval_legendre

from seqmem.errors import UserError
from seqmem.ops import (
    DISCRETIZATIONS,
    legs_function_approximation,
    legs_update,
    legt_update,
    memory,
    memory_update,
    transition,
)
from seqmem.ops.discretization import ALIASES

PAIRS = [*(("legs", name) for name in DISCRETIZATIONS), ("lmu", "forward"), ("legt", "bilinear")]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small tensors do not profit from threads, and parallel tests compete for the cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=["reference", "compiled"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Path of the updates."""
    if request.param == "reference":
        monkeypatch.setattr(memory, "_is_compiled", lambda tensor, is_update=False: False)
    elif memory.extension.REASON:
        pytest.skip(memory.extension.REASON)


both_paths = pytest.mark.usefixtures("path")


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@both_paths
@pytest.mark.parametrize("discretization", DISCRETIZATIONS)
def test_a_constant_is_remembered_exactly(discretization):
    level = random(3, 2)
    for order in (1, 6, 19):
        constant = torch.nn.functional.pad(level[..., None], (0, order - 1))
        for dt in (0.3, torch.tensor([0.0, 0.2, 1.0], dtype=torch.float64)):
            torch.testing.assert_close(legs_update(constant, level, dt, discretization), constant, rtol=0, atol=1e-12)


@both_paths
@pytest.mark.parametrize(("discretization", "accuracy"), [("forward", 1), ("backward", 1), ("bilinear", 2)])
def test_steps_converge_to_the_differential_equation(discretization, accuracy):
    """The error of a step is O(dt^(1+p)): half the step size divides it by 2^(1+p)."""
    order = 5
    A, B = transition("legs", order)
    x, u = random(1, 1, order), random(1, 1, seed=1)

    def error(dt: float) -> float:
        exact = torch.matrix_exp(dt * A) @ (x[0, 0] + torch.linalg.solve(A, B * u[0, 0])) - torch.linalg.solve(A, B * u[0, 0])
        return (legs_update(x, u, dt, discretization)[0, 0] - exact).norm().item()

    assert error(1e-3) / error(5e-4) == pytest.approx(2 ** (1 + accuracy), rel=0.05)


@both_paths
def test_zoh_composes():
    """exp((s + t) A) = exp(s A) exp(t A) for a constant input."""
    for order in (1, 4, 9, 64):
        x, u = random(2, 3, order), random(2, 3, seed=1)
        two = legs_update(legs_update(x, u, 0.2, "zoh"), u, 0.5, "zoh")
        torch.testing.assert_close(legs_update(x, u, 0.7, "zoh"), two, rtol=1e-10, atol=1e-10)


@both_paths
def test_zoh_is_the_projection_of_a_constant_extension():
    """f(x) = x on [0, 1], then 0 until t = 1.5: its LegS coefficients are integrals."""
    order = 31
    nodes, weights = np.polynomial.legendre.leggauss(40)
    nodes, weights = (nodes + 1) / 2, weights / 2
    scale = np.sqrt(2 * np.arange(order) + 1)

    def project(stretch: float) -> torch.Tensor:
        return torch.tensor(
            [s * np.sum(weights * nodes * stretch * eval_legendre(n, 2 * nodes * stretch - 1)) for n, s in enumerate(scale)]
        )

    moved = legs_update(project(1.0)[None, None], torch.zeros(1, 1, dtype=torch.float64), math.log(1.5), "zoh")
    torch.testing.assert_close(moved[0, 0], project(1 / 1.5), rtol=1e-10, atol=1e-12)


@both_paths
def test_lmu_update_is_euler():
    for order in (1, 2, 7, 40):
        A, B = transition("lmu", order)
        x, u = random(3, 2, order), random(3, 2, seed=1)
        torch.testing.assert_close(legt_update(x, u, 0.01), x + 0.01 * (x @ A.T + u[..., None] * B))


@both_paths
@pytest.mark.parametrize("discretization", DISCRETIZATIONS)
def test_a_step_size_for_each_row(discretization):
    for order in (1, 5, 18):
        x, u, dt = random(4, 3, order), random(4, 3, seed=1), torch.tensor([0.0, 0.1, 0.5, 1.0], dtype=torch.float64)
        rows = [legs_update(x[b : b + 1], u[b : b + 1], dt[b].item(), discretization) for b in range(4)]
        torch.testing.assert_close(legs_update(x, u, dt, discretization), torch.cat(rows))
        torch.testing.assert_close(legs_update(x, u, dt[2], discretization), legs_update(x, u, 0.5, discretization))


@both_paths
@pytest.mark.parametrize("discretization", ["bilinear", "zoh"])
def test_gradients(discretization):
    """Of the public function; test_measures.py and test_legs_extension.py check every operator."""
    x, u = random(3, 2, 5).requires_grad_(), random(3, 2, seed=1).requires_grad_()
    dt = torch.tensor([0.1, 0.4, 0.9], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, u, dt: legs_update(x, u, dt, discretization), (x, u, dt))
    assert torch.autograd.gradcheck(lambda x, u: legs_update(x, u, 0.3, discretization), (x, u))


def test_aliases():
    x, u = random(2, 2, 3), random(2, 2, seed=1)
    assert len(ALIASES) == 12
    for alias, name in ALIASES.items():
        assert torch.equal(legs_update(x, u, 0.3, alias), legs_update(x, u, 0.3, name)), alias
    assert (ALIASES["euler"], ALIASES["backward_diff"], ALIASES["tustin"]) == ("forward", "backward", "bilinear")


def test_unknown_discretization_names_the_nearest():
    with pytest.raises(UserError, match=r"discretization: got 'bilinar', expected .*; did you mean 'bilinear'"):
        legs_update(random(1, 1, 2), random(1, 1), 0.1, "bilinar")
    with pytest.raises(UserError, match="discretization: got 'zoh', expected 'forward'"):
        legt_update(random(1, 1, 2), random(1, 1), 0.1, "zoh")


@pytest.mark.parametrize("discretization", DISCRETIZATIONS)
def test_half_precision_keeps_its_type(discretization):
    for dtype in (torch.float16, torch.bfloat16):
        x, u = random(3, 2, 6).to(dtype), random(3, 2, seed=1).to(dtype)
        updated = legs_update(x, u, 0.25, discretization)
        exact = legs_update(x.double(), u.double(), 0.25, discretization)
        assert updated.dtype == dtype
        torch.testing.assert_close(updated, exact.to(dtype))


@both_paths
def test_inputs_are_cast_to_the_type_of_the_memory():
    x, u = random(2, 2, 3), random(2, 2, seed=1).bfloat16()
    assert torch.equal(legs_update(x, u, 0.5), legs_update(x, u.double(), 0.5))
    for dt in (torch.tensor(0.5), torch.full((2,), 0.5)):  # float32
        torch.testing.assert_close(legs_update(x, u, dt), legs_update(x, u, 0.5), rtol=1e-13, atol=1e-13)


@both_paths
@pytest.mark.parametrize(
    ("memory_shape", "inputs_shape", "dt_shape"),
    [
        ((2, 3), (2, 3), ()),
        ((2, 3, 4), (2,), ()),
        ((2, 3, 4), (3, 2), ()),
        ((2, 3, 4), (2, 3), (3,)),
        ((2, 3, 4), (2, 3), (2, 1)),
    ],
)
def test_inconsistent_shapes(memory_shape, inputs_shape, dt_shape):
    with pytest.raises(ValueError, match=r": got .*, expected"):
        legs_update(torch.zeros(memory_shape), torch.zeros(inputs_shape), torch.ones(dt_shape))


@pytest.mark.parametrize("dt", [math.inf, torch.tensor(math.inf)], ids=["number", "tensor"])
def test_an_infinite_step_size_checks_its_arguments(dt):
    memory, inputs = torch.zeros(2, 1, 3), torch.ones(2, 1)
    assert torch.equal(memory_update(memory, inputs.double(), dt), torch.tensor([1.0, 0.0, 0.0]).expand(2, 1, 3))
    with pytest.raises(ValueError, match=r": got .*, expected"):
        memory_update(memory, torch.ones(5, 7), dt)
    with pytest.raises(UserError, match="measure: got 'nonsense'"):
        memory_update(memory, inputs, dt, "nonsense")
    with pytest.raises(UserError, match="discretization: got 'typo'"):
        memory_update(memory, inputs, dt, "legs", "typo")


@both_paths
@pytest.mark.parametrize(("measure", "discretization"), PAIRS)
def test_empty_batches_and_memories(measure, discretization):
    for shape in ((0, 2, 3), (2, 0, 3), *([(2, 3, 0)] if measure == "legs" else [])):
        x, u = torch.zeros(shape, requires_grad=True), torch.zeros(shape[:2], requires_grad=True)
        for dt in (0.1, torch.full(shape[:1], 0.1, requires_grad=True)):
            updated = memory_update(x, u, dt, measure, discretization)
            assert updated.shape == shape
            for gradient, tensor in zip(torch.autograd.grad(updated.sum(), (x, u)), (x, u), strict=True):
                assert gradient.shape == tensor.shape


@both_paths
def test_function_approximation_is_a_chain_of_updates():
    for length, order in ((1, 4), (2, 1), (5, 9), (40, 7)):
        signal = random(3, length)
        chained = torch.nn.functional.pad(signal[:, :1, None], (0, order - 1))
        for t in range(1, length):
            chained = legs_update(chained, signal[:, t, None], 1 / t)
        torch.testing.assert_close(legs_function_approximation(signal, order), chained[:, 0])
        torch.testing.assert_close(legs_function_approximation(signal[1], order), chained[1, 0])


@both_paths
def test_function_approximation_gradients():
    signal = random(2, 6).requires_grad_()
    assert torch.autograd.gradcheck(lambda signal: legs_function_approximation(signal, 4), signal)
    assert torch.autograd.gradgradcheck(lambda signal: legs_function_approximation(signal[0], 4), signal)


def test_function_approximation_checks_its_arguments():
    for signal in (torch.zeros(0), torch.zeros(1, 2, 3), torch.zeros(4, dtype=torch.int64)):
        with pytest.raises(UserError, match=r"signal: got .*, expected \(T,\) or \(B, T\)"):
            legs_function_approximation(signal, 3)
    with pytest.raises(UserError, match="order: got 0, expected greater than 0"):
        legs_function_approximation(torch.zeros(4), 0)


def band_limited_noise(seed: int, length: int, highest: int) -> np.ndarray:
    """One second of noise with frequencies of 1 .. highest Hz and variance 1/4."""
    generator = np.random.default_rng(seed)
    spectrum = np.zeros(length // 2 + 1, dtype=complex)
    spectrum[1 : highest + 1] = generator.normal(size=highest) + 1j * generator.normal(size=highest)
    noise = np.fft.irfft(spectrum, length)
    return noise * 0.5 / noise.std()


def reconstruction_error(coefficients: torch.Tensor, signal: np.ndarray) -> float:
    x = np.linspace(0, 1, len(signal))
    terms = [c * math.sqrt(2 * n + 1) * eval_legendre(n, 2 * x - 1) for n, c in enumerate(coefficients.tolist())]
    return float(np.mean((sum(terms) - signal) ** 2))


@both_paths
@pytest.mark.parametrize("seed", [0, 5])
def test_band_limited_noise_is_reconstructed(seed):
    """The first sample, at time 0, initialises the memory; from zeros the error is far above the bound."""
    signal = band_limited_noise(seed, 1000, 5)
    assert reconstruction_error(legs_function_approximation(torch.from_numpy(signal), 64), signal) < 2e-5

    from_zeros = torch.zeros(1, 1, 64, dtype=torch.float64)
    for t, value in enumerate(signal, start=1):
        from_zeros = legs_update(from_zeros, torch.full((1, 1), value), 1 / t)
    assert reconstruction_error(from_zeros[0, 0], signal) > 4e-5


def test_timescale_equivariance():
    """A signal sampled at twice the rate has the same coefficients, up to the discretisation error."""
    fine = torch.from_numpy(band_limited_noise(3, 2000, 3))
    coarse = fine[::2]
    difference = legs_function_approximation(fine, 16) - legs_function_approximation(coarse, 16)
    assert difference.norm() < 0.01 * legs_function_approximation(fine, 16).norm()
