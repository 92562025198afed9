"""Projection and reconstruction against integrals, differential equations and polynomials."""

import doctest
import importlib
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.polynomial.laguerre import laggauss
from scipy.integrate import solve_ivp
from scipy.special import eval_genlaguerre, eval_legendre, gamma, gammaln

from seqmem.errors import UserError
from seqmem.hippo import Memory, OnlineProjection, least_squares, project, reconstruct
from seqmem.hippo.signals import white_noise
from seqmem.ops import transition

WINDOWED = [("legt", {}), ("lmu", {})]
FADING = [
    ("lagt", {}),
    ("lagt", {"beta": 0.5}),
    ("tlagt", {}),
    ("tlagt", {"beta": 0.3}),
    ("glagt", {}),
    ("glagt", {"alpha": 0.4, "beta": 0.2}),
    ("glagt", {"alpha": -0.3}),
]
EVERY_MEASURE = [("legs", {}), *WINDOWED, *FADING]


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def theta_of(measure: str, theta: float) -> float | None:
    return None if measure == "legs" else theta


def noise(seed: int, length: int, frequency: int = 5) -> torch.Tensor:
    return white_noise(length, frequency, seed)


def solve(derivative: Callable, span: tuple[float, float], state: np.ndarray) -> np.ndarray:
    """A differential equation's state at the end of the span."""
    return solve_ivp(derivative, span, state, rtol=1e-10, atol=1e-12, method="DOP853").y[:, -1]


def mean_squared_error(made: torch.Tensor, signal: torch.Tensor) -> float:
    return (made - signal).square().mean().item()


@pytest.mark.parametrize("module", ["projection", "reconstruction", "measures", "signals"])
def test_examples(module):
    module = importlib.import_module(f"seqmem.hippo.{module}")
    names = {"torch": torch, "project": project, "reconstruct": reconstruct}
    assert doctest.testmod(module, extraglobs=names).failed == 0


@pytest.mark.parametrize("seed", range(8))
def test_noise_is_reconstructed_wherever_it_is_asked_for(seed):
    """A thousand samples, order 64: where the samples lie in time matters a hundredfold, and the start more."""
    signal = noise(seed, 1000)
    coefficients = project(signal, 64)
    error = mean_squared_error(reconstruct(coefficients, 1000), signal)
    assert error < 1e-7

    end_to_end = torch.linspace(0, 999.5, 1000, dtype=torch.float64)  # the samples on [0, 1], both ends included
    assert mean_squared_error(reconstruct(coefficients, 1000, at=end_to_end), signal) < 5e-5

    from_zeros = OnlineProjection(64)
    from_zeros.step(0.0)
    from_zeros.update(signal)
    assert mean_squared_error(reconstruct(from_zeros.coefficients, 1000), signal) > max(2e-5, 100 * error)


def test_longer_noise_at_a_higher_order():
    signal = noise(3, 2000)
    assert mean_squared_error(reconstruct(project(signal, 128), 2000), signal) < 1e-8


def test_between_two_samples():
    fine = noise(1, 3000)
    coarse = fine[::3]
    made = reconstruct(project(coarse, 64), 1000, at=torch.arange(0, 2998) / 3)
    torch.testing.assert_close(made, fine[:2998], rtol=0, atol=2e-3)


@pytest.mark.parametrize("length", [1, 2, 3, 17, 100, 1023])
@pytest.mark.parametrize("discretization", ["bilinear", "forward", "backward", "zoh", 0.3])
def test_a_constant_is_exact_at_any_length(length, discretization):
    """From one sample on, with no regard to a maximum length."""
    signal = torch.full((2, length), 1.0, dtype=torch.float64) * torch.tensor([[3.7], [-0.2]])
    order = 4 if discretization == "forward" else 9  # its first steps grow with the order
    coefficients = project(signal, order, discretization=discretization)
    torch.testing.assert_close(coefficients, torch.nn.functional.pad(signal[:, :1], (0, order - 1)), rtol=0, atol=1e-11)
    made = reconstruct(coefficients, length, discretization=discretization)
    torch.testing.assert_close(made, signal, rtol=0, atol=1e-10)


@pytest.mark.parametrize("degree", range(1, 8))
def test_a_polynomial_to_an_error_that_falls_with_the_length(degree):
    """Below degree / length by a wide margin, and by its square; by least squares to rounding."""

    def errors(length: int) -> tuple[float, float]:
        signal = torch.linspace(-1, 1, length, dtype=torch.float64) ** degree
        online = reconstruct(project(signal, 8), length) - signal
        fitted = reconstruct(least_squares(signal, 8), length) - signal
        return online.abs().max().item(), fitted.abs().max().item()

    (shorter, fitted_shorter), (longer, fitted_longer) = errors(201), errors(2001)
    assert longer < 0.05 * degree / 2001
    assert shorter / longer > 80  # of 100 for the second order
    assert max(fitted_shorter, fitted_longer) < 1e-13


@pytest.mark.parametrize(("measure", "arguments"), [("legs", {}), *WINDOWED, ("tlagt", {})])
@pytest.mark.parametrize("length", [23, 200])
def test_least_squares_has_every_polynomial(measure, arguments, length):
    signal = torch.stack([torch.linspace(-1, 1, length, dtype=torch.float64) ** degree for degree in range(5)])
    theta = theta_of(measure, 40)
    made = reconstruct(least_squares(signal, 5, measure, theta, **arguments), length, measure, theta, **arguments)
    torch.testing.assert_close(made, signal[:, -made.shape[1] :], rtol=0, atol=1e-10)


def test_least_squares_is_the_minimum():
    """No other coefficients have a smaller error, measured with the measure's weights."""
    for measure, arguments in EVERY_MEASURE:
        theta, signal = theta_of(measure, 12.5), random(61)
        memory = Memory(5, measure, theta, measure_args=arguments)
        weights = memory.weights(memory.ages(61, memory.samples(61)))
        best = least_squares(signal, 5, measure, theta, **arguments).requires_grad_()
        made = reconstruct(best, 61, measure, theta, **arguments)
        (slope,) = torch.autograd.grad((weights * (made - signal[-len(made) :]).square()).sum(), best)
        curvature = weights.sum() * sum(f.square().max() for f in memory.functions(memory.ages(61, memory.samples(61))))
        assert slope.abs().max() < 1e-10 * curvature, measure


@pytest.mark.parametrize(("length", "order"), [(1, 4), (2, 5), (3, 3)])
def test_least_squares_of_fewer_samples_than_coefficients(length, order):
    signal = random(2, length)
    torch.testing.assert_close(reconstruct(least_squares(signal, order), length), signal, rtol=0, atol=1e-12)


def test_an_online_projection_comes_close_to_the_best():
    """To an error that falls with the square of the step, where the signal has more than the order holds."""
    signal = noise(2, 4000, 20)
    made = reconstruct(project(signal, 32), 4000)
    best = reconstruct(least_squares(signal, 32), 4000)
    assert mean_squared_error(best, signal) > 0.05
    assert mean_squared_error(made, best) < 1e-5


@pytest.mark.parametrize("factor", [2, 3])
@pytest.mark.parametrize("frequency", [2, 7])
def test_timescale_equivariance(factor, frequency):
    """The same signal sampled more densely has the same LegS coefficients, to the error of discretisation."""
    coarse, middle, fine = (project(noise(3, length, frequency), 16) for length in (500, 500 * factor, 500 * factor**2))
    assert (fine - middle).norm() < 2e-2 * fine.norm()
    assert (fine - middle).norm() < (middle - coarse).norm() / factor**0.9  # the first sample stands for half a step less


@pytest.mark.parametrize("length", [1, 2, 5, 301])
@pytest.mark.parametrize(("measure", "arguments"), FADING)
def test_laguerre_coefficients_are_integrals(measure, arguments, length):
    """Of the held signal, by zero-order hold: c_n = kappa / W_n int f(s) exp(-(1 + tilt) s / 2) L_n^(alpha)(s) ds."""
    order, theta, signal = 7, 20.0, random(length)
    alpha = arguments.get("alpha", 0.0)
    beta = arguments.get("beta", 0.01 if measure == "glagt" else 1.0)
    tilt = 0.0 if measure == "lagt" else beta
    kappa = np.sqrt(beta ** (1 - alpha) / gamma(1 - alpha)) if measure == "glagt" else beta
    nodes, weights = np.polynomial.legendre.leggauss(20)
    ages = (length - 1 - np.arange(length)[:, None] + (nodes + 1) / 2) / theta
    held = signal.numpy()[:, None] * weights / 2 / theta * np.exp(-(1 + tilt) / 2 * ages)
    wanted = [
        kappa * np.exp((gammaln(n + 1) - gammaln(n + alpha + 1)) / 2) * np.sum(held * eval_genlaguerre(n, alpha, ages))
        for n in range(order)
    ]
    torch.testing.assert_close(project(signal, order, measure, theta, **arguments), torch.tensor(wanted), rtol=0, atol=1e-10)


@pytest.mark.parametrize(("measure", "arguments"), FADING)
def test_laguerre_functions_are_orthonormal(measure, arguments):
    """Under the measure, and but for the scale of B: the weighted products integrate to 1 / kappa^2 times the identity."""
    memory = Memory(9, measure, 1.0, measure_args=arguments)
    alpha = arguments.get("alpha", 0.0)
    if alpha:  # a power of s is not a polynomial: substitute s = x^10, whose powers then are
        x, weights = np.polynomial.legendre.leggauss(400)
        x, weights = 1.25 * (x + 1), 1.25 * weights
        ages, weights = x**10, weights * 10 * x**9
    else:
        ages, weights = laggauss(60)
        weights = np.exp(np.log(weights, where=weights > 0, out=np.full(60, -np.inf)) + ages)
    ages = torch.from_numpy(ages)
    functions = torch.stack(list(memory.functions(ages)))
    products = functions * (memory.weights(ages) * torch.from_numpy(weights)) @ functions.T
    torch.testing.assert_close(products / products[0, 0], torch.eye(9, dtype=torch.float64), rtol=0, atol=1e-9)
    if measure != "glagt":
        assert products[0, 0].item() == pytest.approx(arguments.get("beta", 1.0) ** -2)


def test_laguerre_functions_of_a_high_order_reach_far():
    """At s = 2000 the factor exp(-s / 2) underflows, and the function does not."""
    *_, last = Memory(600, "lagt", 1.0).functions(torch.tensor([2000.0, 1600.0], dtype=torch.float64))
    s = np.array([2000.0, 1600.0])
    scaled = [np.zeros(2), np.exp(-s / 4)]  # the other half of the factor is put in on the way
    for n in range(599):
        scaled.append(((2 * n + 1 - s) * scaled[-1] - n * scaled[-2]) / (n + 1))
        if n == 100:
            scaled[-2:] = [value * np.exp(-s / 4) for value in scaled[-2:]]
    assert abs(scaled[-1]).max() > 1e-4
    np.testing.assert_allclose(last.numpy(), scaled[-1], rtol=1e-8)


@pytest.mark.parametrize(("measure", "arguments"), [*WINDOWED, *FADING])
def test_zoh_is_the_differential_equation_of_a_held_signal(measure, arguments):
    order, theta, signal = 5, 6.5, random(13)
    A, B = (matrix.numpy() for matrix in transition(measure, order, **arguments))
    state = np.zeros(order)
    for value in signal.tolist():
        state = solve(lambda t, c, f=value: (A @ c + B * f) / theta, (0, 1), state)
    torch.testing.assert_close(project(signal, order, measure, theta, **arguments), torch.from_numpy(state), rtol=0, atol=1e-8)


@pytest.mark.parametrize("discretization", ["bilinear", "zoh", "backward", 0.7])
@pytest.mark.parametrize("measure", ["legs", "legt", "lagt"])
def test_steps_converge_to_the_differential_equation(measure, discretization):
    """f(t) = cos(5 t) on [0, 1], sampled more and more densely; from the first order on, or the second."""
    order, window = 4, 0.4
    A, B = (matrix.numpy() for matrix in transition(measure, order))

    def derivative(t: float, c: np.ndarray) -> np.ndarray:
        return (A @ c + B * np.cos(5 * t)) / (t if measure == "legs" else window)

    nodes, weights = np.polynomial.legendre.leggauss(30)
    early = 0.01  # LegS starts at its projection there, since 1 / t has no value at 0
    first_part = weights / 2 * np.cos(5 * early * (nodes + 1) / 2)
    start = [np.sqrt(2 * n + 1) * np.sum(first_part * eval_legendre(n, nodes)) for n in range(order)]
    begin, state = (early, np.array(start)) if measure == "legs" else (0.0, np.zeros(order))
    exact = torch.from_numpy(solve(derivative, (begin, 1.0), state))

    def error(length: int) -> float:
        # The samples lie in the middle of their steps; of LegS with bilinear steps, the first begins the signal.
        span, first = (length - 0.5, 0.0) if measure == "legs" and discretization != "zoh" else (length, 0.5)
        times = (torch.arange(length, dtype=torch.float64) + first) / span
        theta = theta_of(measure, window * length)
        return (project(torch.cos(5 * times), order, measure, theta, discretization=discretization) - exact).norm().item()

    assert error(400) < 0.02
    accuracy = 2 if discretization in ("bilinear", "zoh") else 1
    assert error(400) / error(1600) > 3**accuracy  # 4^accuracy in the limit


@pytest.mark.parametrize("measure", ["legt", "lmu"])
@pytest.mark.parametrize(("length", "theta"), [(1500, 300), (1500, 300.5), (301, 100)])
def test_a_window_is_reconstructed(measure, length, theta):
    signal = noise(4, 3 * length, 12)[:length]
    made = reconstruct(project(signal, 24, measure, theta), length, measure, theta)
    window = signal[-int(theta + 0.5) :]
    assert mean_squared_error(made, window) < 1e-5
    # The other way round the error is that of an unrelated signal.
    assert mean_squared_error(made.flip(0), window) > 1e-2


@pytest.mark.parametrize("measure", ["legt", "lmu"])
def test_a_constant_fills_the_window_exactly(measure):
    signal = torch.full((900,), 2.5, dtype=torch.float64)
    made = reconstruct(project(signal, 6, measure, 30), 900, measure, 30)
    torch.testing.assert_close(made, signal[:30], rtol=0, atol=1e-10)


def test_legt_and_lmu_are_the_same_function():
    n = torch.arange(8)
    legt, lmu = project(random(77), 8, "legt", 20), project(random(77), 8, "lmu", 20)
    torch.testing.assert_close(lmu, legt * (-1.0) ** n * torch.sqrt(2 * n + 1.0))


@pytest.mark.parametrize(("measure", "arguments"), FADING)
def test_a_fading_past_is_reconstructed(measure, arguments):
    """A signal that rises from 0 and that the order resolves."""
    length, theta = 801, 20.0
    signal = torch.exp(-(((torch.arange(length, dtype=torch.float64) - 650) / 70) ** 2))
    memory = Memory(40, measure, theta, measure_args=arguments)
    made = reconstruct(project(signal, 40, measure, theta, **arguments), length, measure, theta, **arguments)
    weights = memory.weights(memory.ages(length, memory.samples(length)))
    error = (weights * (made - signal).square()).sum() / (weights * signal.square()).sum()
    assert error < (1e-2 if arguments.get("alpha") else 1e-4)


@pytest.mark.parametrize("discretization", [None, "backward"])
@pytest.mark.parametrize(("measure", "arguments"), EVERY_MEASURE)
@pytest.mark.parametrize("length", [1, 2, 7, 300])
def test_a_stream_is_a_chain_of_steps(measure, arguments, length, discretization):
    """Chunks of any size, single steps, all coefficients on the way: one recurrence."""
    signal, theta = random(3, length), theta_of(measure, 9.0)
    settings = dict(theta=theta, discretization=discretization, **arguments)
    final = project(signal, 6, measure, **settings)
    each = project(signal, 6, measure, every=1, **settings)
    torch.testing.assert_close(each[:, -1], final, rtol=1e-9, atol=1e-10)
    assert each.shape == (3, length, 6)

    by_steps, by_chunks = (OnlineProjection(6, measure, **settings) for _ in range(2))
    for t in range(length):
        torch.testing.assert_close(by_steps.step(signal[:, t]), each[:, t], rtol=1e-9, atol=1e-10)
    for chunk in signal.split([length // 3, length - length // 3] if length > 2 else 1, dim=1):
        by_chunks.update(chunk)
    torch.testing.assert_close(by_chunks.coefficients, final, rtol=1e-9, atol=1e-10)
    assert by_chunks.length == by_steps.length == length
    torch.testing.assert_close(by_steps.reconstruct(), reconstruct(final, length, measure, **settings))

    alone = project(signal[1], 6, measure, **settings)
    torch.testing.assert_close(alone, final[1])


@pytest.mark.parametrize("measure", ["legs", "legt"])
@pytest.mark.parametrize("every", [1, 3, 7, 50, 300, 1000])
def test_every(measure, every):
    signal, theta = random(700), theta_of(measure, 40)
    each = project(signal, 5, measure, theta, every=1)
    torch.testing.assert_close(project(signal, 5, measure, theta, every=every), each[every - 1 :: every], rtol=1e-9, atol=1e-10)

    stream = OnlineProjection(5, measure, theta)
    parts = [stream.update(chunk, every) for chunk in signal.split(133)]
    torch.testing.assert_close(torch.cat(parts), each[every - 1 :: every], rtol=1e-9, atol=1e-10)


def test_coefficients_on_the_way_are_reconstructed_at_their_own_length():
    signal = noise(0, 600, 3)
    for k, row in enumerate(project(signal, 40, every=200), start=1):
        assert mean_squared_error(reconstruct(row, 200 * k), signal[: 200 * k]) < 1e-7


def test_many_signals_and_types():
    signal = random(2, 50)
    coefficients = project(signal, 4, every=10)
    made = reconstruct(coefficients, 50, at=[0, 3.5, 49])
    assert made.shape == (2, 5, 3)
    torch.testing.assert_close(made[1, 2], reconstruct(coefficients[1, 2], 50, at=[0, 3.5, 49]))
    for dtype in (torch.float32, torch.bfloat16):
        single = project(signal.to(dtype), 4)
        assert single.dtype == dtype == reconstruct(single, 50).dtype == least_squares(signal.to(dtype), 4).dtype
        torch.testing.assert_close(single, project(signal.to(dtype).double(), 4).to(dtype))
    torch.testing.assert_close(project(signal.numpy(), 4), project(signal, 4))


@pytest.mark.parametrize(("measure", "arguments"), EVERY_MEASURE)
def test_gradients(measure, arguments):
    theta = theta_of(measure, 5.0)
    signal = random(2, 11).requires_grad_()

    def back_and_forth(signal):
        return reconstruct(project(signal, 3, measure, theta, **arguments), 11, measure, theta, **arguments)

    assert torch.autograd.gradcheck(back_and_forth, signal)


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda: project(torch.zeros(0), 3), r"the signal must be \(T,\) or \(B, T\).*got \(0,\)"),
        (lambda: project(torch.arange(4), 3), r"the signal must be .* got \(4,\) int64"),
        (lambda: project(torch.zeros(4), 0), "order must be positive, got 0|order must be a positive whole number, got 0"),
        (lambda: project(torch.zeros(4), 3, "legz"), "no measure 'legz'; did you mean"),
        (lambda: project(torch.zeros(4), 3, "legt"), r"legt needs theta > 0, its window in samples, got None"),
        (lambda: project(torch.zeros(4), 3, "lagt", -1.0), r"lagt needs theta > 0, its time scale in samples, got -1"),
        (lambda: project(torch.zeros(4), 3, theta=10), "legs remembers all of the past and takes no theta, got 10"),
        (lambda: project(torch.zeros(4), 3, every=0), "'every' must be a positive number of samples, got 0"),
        (lambda: project(torch.zeros(4), 3, discretization="zho"), "no discretization 'zho'; did you mean 'zoh'"),
        (lambda: project(torch.zeros(4), 3, "lagt", 9, alpha=2.0), "lagt takes no argument 'alpha'"),
        (lambda: project(torch.zeros(4), 30, "legt", 50, discretization="forward"), "grows without bound .* choose zoh"),
        (lambda: reconstruct(torch.tensor(1.0), 5), r"coefficients must be \(\.\.\., N\) floating point, got \(\)"),
        (lambda: reconstruct(torch.zeros(3), 0), "at least 1, got 0"),
        (lambda: reconstruct(torch.zeros(3), 5, at=[[1.0]]), r"'at' must be \(P,\), got \(1, 1\)"),
        (lambda: reconstruct(torch.zeros(3), 5, at=[1.0, 5.0]), "after 5 samples legs remembers the moments 0 to 4.5, got 5"),
        (lambda: reconstruct(torch.zeros(3), 50, "legt", 10, at=[39]), "legt remembers the moments 39.5 to 49.5, got 39"),
        (lambda: reconstruct(torch.zeros(3), 5, at=[float("nan")]), "got nan"),
        (lambda: OnlineProjection(3).coefficients, "no coefficients before its first sample"),
    ],
)
def test_bad_input_is_one_line(call, line):
    with pytest.raises(UserError, match=line) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_chunks_that_do_not_fit():
    stream = OnlineProjection(3)
    stream.update(torch.zeros(2, 5))
    with pytest.raises(UserError, match=r"the chunks so far were \(2, T\), got \(3, 5\)"):
        stream.update(torch.zeros(3, 5))
    with pytest.raises(UserError, match=r"the chunks so far were \(2, T\), got \(1,\)"):
        stream.step(0.0)
    assert stream.length == 5
