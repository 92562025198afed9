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

from seqmem.data.signals import white_noise
from seqmem.errors import UserError
from seqmem.hippo import Memory, OnlineProjection, least_squares, project, reconstruct
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


def test_examples():
    names = {"torch": torch, "project": project, "reconstruct": reconstruct}
    for module in ("projection", "reconstruction"):
        found = doctest.testmod(importlib.import_module(f"seqmem.hippo.{module}"), extraglobs=names)
        assert (found.failed, found.attempted > 0) == (0, True)


def test_noise_is_reconstructed_at_any_moment():
    """A thousand samples, order 64: their positions in time change the error a hundredfold, the start even more."""
    for seed in [0, 5]:
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


def test_a_constant_is_exact_at_any_length():
    for length, discretization in [
        (1, "bilinear"),
        (2, "zoh"),
        (3, 0.3),
        (17, "forward"),
        (100, "backward"),
        (1023, "bilinear"),
        (1023, "zoh"),
    ]:
        signal = torch.full((2, length), 1.0, dtype=torch.float64) * torch.tensor([[3.7], [-0.2]])
        order = 4 if discretization == "forward" else 9  # its first steps grow with the order
        coefficients = project(signal, order, discretization=discretization)
        torch.testing.assert_close(coefficients, torch.nn.functional.pad(signal[:, :1], (0, order - 1)), rtol=0, atol=1e-11)
        made = reconstruct(coefficients, length, discretization=discretization)
        torch.testing.assert_close(made, signal, rtol=0, atol=1e-10)


@pytest.mark.parametrize("degree", [1, 4, 7])
def test_the_error_of_a_polynomial_falls_with_the_length(degree):
    """It is far below degree / length and falls with the square of the length; least squares is exact up to rounding."""

    def errors(length: int) -> tuple[float, float]:
        signal = torch.linspace(-1, 1, length, dtype=torch.float64) ** degree
        online = reconstruct(project(signal, 8), length) - signal
        fitted = reconstruct(least_squares(signal, 8), length) - signal
        return online.abs().max().item(), fitted.abs().max().item()

    (shorter, fitted_shorter), (longer, fitted_longer) = errors(201), errors(2001)
    assert longer < 0.05 * degree / 2001
    assert shorter / longer > 80  # of 100 for the second order
    assert max(fitted_shorter, fitted_longer) < 1e-13


def test_least_squares_reproduces_every_polynomial():
    for measure, arguments, length in [("legs", {}, 23), ("legt", {}, 200), ("lmu", {}, 23), ("tlagt", {}, 200)]:
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


def test_least_squares_of_fewer_samples_than_coefficients():
    for length, order in [(1, 4), (2, 5), (3, 3)]:
        signal = random(2, length)
        torch.testing.assert_close(reconstruct(least_squares(signal, order), length), signal, rtol=0, atol=1e-12)


@pytest.mark.parametrize("measure", ["legt", "lmu"])
def test_least_squares_names_the_shortest_window(measure):
    signal = torch.randn(2, 20, dtype=torch.float64)
    with pytest.raises(
        UserError, match=r"^theta: got 0\.3, expected at least 0\.5: the newest sample has an age of half a step$"
    ):
        least_squares(signal, 3, measure, theta=0.3)
    coefficients = least_squares(signal, 3, measure, theta=0.5)
    assert (reconstruct(coefficients, 20, measure, theta=0.5) - signal[:, -1:]).abs().max() < 1e-13


def test_an_online_projection_comes_close_to_the_best():
    """To an error that falls with the square of the step, where the signal has more than the order holds."""
    signal = noise(2, 4000, 20)
    made = reconstruct(project(signal, 32), 4000)
    best = reconstruct(least_squares(signal, 32), 4000)
    assert mean_squared_error(best, signal) > 0.05
    assert mean_squared_error(made, best) < 1e-5


def test_timescale_equivariance():
    """The same signal sampled more densely has the same LegS coefficients, to the error of discretisation."""
    for factor, frequency in [(2, 7), (3, 2)]:
        coarse, middle, fine = (project(noise(3, length, frequency), 16) for length in (500, 500 * factor, 500 * factor**2))
        assert (fine - middle).norm() < 2e-2 * fine.norm()
        assert (fine - middle).norm() < (middle - coarse).norm() / factor**0.9  # the first sample stands for half a step less


def test_laguerre_coefficients_are_integrals():
    """Of the held signal, by zero-order hold: c_n = kappa / W_n int f(s) exp(-(1 + tilt) s / 2) L_n^(alpha)(s) ds."""
    for length in [2, 301]:
        for measure, arguments in [FADING[1], FADING[3], FADING[5]]:
            order, theta, signal = 7, 20.0, random(length)
            alpha = arguments.get("alpha", 0.0)
            beta = arguments.get("beta", 0.01 if measure == "glagt" else 1.0)
            tilt = 0.0 if measure == "lagt" else beta
            kappa = np.sqrt(beta ** (1 - alpha) / gamma(1 - alpha)) if measure == "glagt" else beta
            nodes, weights = np.polynomial.legendre.leggauss(20)
            ages = (length - 1 - np.arange(length)[:, None] + (nodes + 1) / 2) / theta
            held = signal.numpy()[:, None] * weights / 2 / theta * np.exp(-(1 + tilt) / 2 * ages)
            expected = [
                kappa * np.exp((gammaln(n + 1) - gammaln(n + alpha + 1)) / 2) * np.sum(held * eval_genlaguerre(n, alpha, ages))
                for n in range(order)
            ]
            torch.testing.assert_close(
                project(signal, order, measure, theta, **arguments), torch.tensor(expected), rtol=0, atol=1e-10
            )


def test_laguerre_functions_are_orthonormal():
    """Under the measure, up to the scale of B: the weighted products integrate to 1 / kappa^2 times the identity."""
    for measure, arguments in FADING:
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
    scaled = [np.zeros(2), np.exp(-s / 4)]  # the other half of the factor is multiplied at n = 100
    for n in range(599):
        scaled.append(((2 * n + 1 - s) * scaled[-1] - n * scaled[-2]) / (n + 1))
        if n == 100:
            scaled[-2:] = [value * np.exp(-s / 4) for value in scaled[-2:]]
    assert abs(scaled[-1]).max() > 1e-4
    np.testing.assert_allclose(last.numpy(), scaled[-1], rtol=1e-8)


@pytest.mark.parametrize(("measure", "arguments"), [*WINDOWED, FADING[1], FADING[3], FADING[5]])
def test_zoh_is_the_differential_equation_of_a_held_signal(measure, arguments):
    order, theta, signal = 5, 6.5, random(13)
    A, B = (matrix.numpy() for matrix in transition(measure, order, **arguments))
    state = np.zeros(order)
    for value in signal.tolist():
        state = solve(lambda t, c, f=value: (A @ c + B * f) / theta, (0, 1), state)
    torch.testing.assert_close(project(signal, order, measure, theta, **arguments), torch.from_numpy(state), rtol=0, atol=1e-8)


@pytest.mark.parametrize(
    ("measure", "discretization"),
    [("legs", "bilinear"), ("legs", "zoh"), ("legs", 0.7), ("legt", "bilinear"), ("legt", "backward"), ("lagt", "zoh")],
)
def test_steps_converge_to_the_differential_equation(measure, discretization):
    """f(t) = cos(5 t) on [0, 1], sampled more and more densely; convergence of first or second order."""
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


def test_a_window_is_reconstructed():
    for measure, length, theta in [("legt", 1500, 300.5), ("legt", 301, 100), ("lmu", 1500, 300)]:
        signal = noise(4, 3 * length, 12)[:length]
        made = reconstruct(project(signal, 24, measure, theta), length, measure, theta)
        window = signal[-int(theta + 0.5) :]
        assert mean_squared_error(made, window) < 1e-5
        # Reversed in time the error is that of an unrelated signal.
        assert mean_squared_error(made.flip(0), window) > 1e-2


def test_a_constant_fills_the_window_exactly():
    signal = torch.full((900,), 2.5, dtype=torch.float64)
    for measure in ("legt", "lmu"):
        made = reconstruct(project(signal, 6, measure, 30), 900, measure, 30)
        torch.testing.assert_close(made, signal[:30], rtol=0, atol=1e-10)


def test_legt_and_lmu_are_the_same_function():
    n = torch.arange(8)
    legt, lmu = project(random(77), 8, "legt", 20), project(random(77), 8, "lmu", 20)
    torch.testing.assert_close(lmu, legt * (-1.0) ** n * torch.sqrt(2 * n + 1.0))


def test_a_fading_past_is_reconstructed():
    """A signal that rises from 0 and that the order resolves."""
    for measure, arguments in FADING[::2]:
        length, theta = 801, 20.0
        signal = torch.exp(-(((torch.arange(length, dtype=torch.float64) - 650) / 70) ** 2))
        memory = Memory(40, measure, theta, measure_args=arguments)
        made = reconstruct(project(signal, 40, measure, theta, **arguments), length, measure, theta, **arguments)
        weights = memory.weights(memory.ages(length, memory.samples(length)))
        error = (weights * (made - signal).square()).sum() / (weights * signal.square()).sum()
        assert error < (1e-2 if arguments.get("alpha") else 1e-4)


def check_stream(measure, arguments, length, discretization):
    """Chunks of any size, single steps and intermediate coefficients are the same recurrence."""
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


def test_a_stream_is_a_chain_of_steps():
    for measure, arguments in EVERY_MEASURE:
        check_stream(measure, arguments, 300, None)
        check_stream(measure, arguments, 7, "backward")


def test_a_stream_may_be_short():
    for length in [1, 2]:
        check_stream("legs", {}, length, None)
        check_stream("legt", {}, length, "backward")


@pytest.mark.slow
def test_streams_of_every_measure_length_and_discretization():
    for measure, arguments in EVERY_MEASURE:
        for length in (1, 2, 7, 300):
            for discretization in (None, "backward"):
                check_stream(measure, arguments, length, discretization)


def test_every():
    for measure, every in [("legs", 1), ("legs", 50), ("legt", 7), ("legt", 1000)]:
        signal, theta = random(700), theta_of(measure, 40)
        each = project(signal, 5, measure, theta, every=1)
        torch.testing.assert_close(
            project(signal, 5, measure, theta, every=every), each[every - 1 :: every], rtol=1e-9, atol=1e-10
        )

        stream = OnlineProjection(5, measure, theta)
        parts = [stream.update(chunk, every) for chunk in signal.split(133)]
        torch.testing.assert_close(torch.cat(parts), each[every - 1 :: every], rtol=1e-9, atol=1e-10)


def test_intermediate_coefficients_are_reconstructed_at_their_own_length():
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


@pytest.mark.parametrize(("measure", "arguments"), [("legs", {}), ("legt", {}), ("lmu", {}), FADING[5]])
def test_gradients(measure, arguments):
    theta = theta_of(measure, 5.0)
    signal = random(2, 11).requires_grad_()

    def projected_and_reconstructed(signal):
        return reconstruct(project(signal, 3, measure, theta, **arguments), 11, measure, theta, **arguments)

    assert torch.autograd.gradcheck(projected_and_reconstructed, signal)


BAD_INPUT = {
    r"signal.*got \(0,\)": lambda: project(torch.zeros(0), 3),
    r"signal.*got \(4,\) int64": lambda: project(torch.arange(4), 3),
    "order.*got 0": lambda: project(torch.zeros(4), 0),
    "measure: got 'legz', expected a known measure; did you mean": lambda: project(torch.zeros(4), 3, "legz"),
    "theta: got None, expected a number above 0, the window of legt": lambda: project(torch.zeros(4), 3, "legt"),
    "theta: got -1.0, .* the time scale of lagt in samples": lambda: project(torch.zeros(4), 3, "lagt", -1.0),
    "theta: got 10.0, expected none for legs": lambda: project(torch.zeros(4), 3, theta=10),
    "order: got 2.5, expected a valid integer": lambda: least_squares(torch.zeros(4), 2.5),
    "order: got '3', expected a valid integer": lambda: project(torch.zeros(4), "3"),
    "theta: got '5', expected a valid number": lambda: project(torch.zeros(4), 3, "legt", theta="5"),
    "theta: got inf, expected a finite number": lambda: project(torch.zeros(4), 3, "legt", theta=float("inf")),
    "every: got 0, expected greater than 0": lambda: project(torch.zeros(4), 3, every=0),
    "every: got 2.5, expected a valid integer": lambda: project(torch.zeros(4), 3, every=2.5),
    "every: got '3', expected a valid integer": lambda: project(torch.zeros(4), 3, every="3"),
    "every: got True, expected a valid integer": lambda: project(torch.zeros(4), 3, every=True),
    "discretization: got True, expected a valid string or": lambda: project(torch.zeros(4), 3, discretization=True),
    r"discretization: got \[0.5\], expected a valid string or": lambda: project(torch.zeros(4), 3, discretization=[0.5]),
    "discretization: got 'zho', expected a known name or alpha; did you mean 'zoh'": lambda: project(
        torch.zeros(4), 3, discretization="zho"
    ),
    "lagt takes no argument 'alpha'": lambda: project(torch.zeros(4), 3, "lagt", 9, alpha=2.0),
    "grows without bound .* choose zoh": lambda: project(torch.zeros(4), 30, "legt", 50, discretization="forward"),
    r"coefficients: got \(\) .*expected \(\.\.\., N\) floating point": lambda: reconstruct(torch.tensor(1.0), 5),
    "length: got 0, expected greater than 0": lambda: reconstruct(torch.zeros(3), 0),
    "length: got 10.5, expected a valid integer": lambda: reconstruct(torch.zeros(3), 10.5),
    "length: got True, expected a valid integer": lambda: reconstruct(torch.zeros(3), True),
    r"at: got \(1, 1\) .*expected moments \(P,\)": lambda: reconstruct(torch.zeros(3), 5, at=[[1.0]]),
    "at: got 5, expected 0 to 4.5, which legs remembers": lambda: reconstruct(torch.zeros(3), 5, at=[1.0, 5.0]),
    "at: got 39, expected 39.5 to 49.5": lambda: reconstruct(torch.zeros(3), 50, "legt", 10, at=[39]),
    "at: got nan": lambda: reconstruct(torch.zeros(3), 5, at=[float("nan")]),
    "no coefficients before its first sample": lambda: OnlineProjection(3).coefficients,
}


def test_bad_input_is_one_line():
    for line, call in BAD_INPUT.items():
        with pytest.raises(UserError, match=line) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_numbers_and_arrays_of_numpy_are_those_of_python():
    signal = np.random.default_rng(0).standard_normal(12)
    expected = project(torch.tensor(signal), 3, "glagt", 4.0, 2, 0.5, beta=0.5)
    for whole, real in ((np.int64, np.float64), (np.int32, np.float32)):
        given = (whole(3), "glagt", real(4), whole(2), real(0.5))
        assert torch.equal(project(signal, *given, beta=real(0.5)), expected)
        assert torch.equal(least_squares(signal, whole(3)), least_squares(signal, 3))
        assert torch.equal(OnlineProjection(whole(3)).update(signal), OnlineProjection(3).update(signal))
        assert torch.equal(reconstruct(expected[0], whole(12)), reconstruct(expected[0], 12))
    back, moments = signal[::-1], np.arange(5.0)
    assert torch.equal(project(back, 3), project(back.copy(), 3))
    assert torch.equal(reconstruct(expected[0], 12, at=moments[::-1]), reconstruct(expected[0], 12, at=moments).flip(0))


def test_chunks_of_a_different_number_of_signals():
    stream = OnlineProjection(3)
    stream.update(torch.zeros(2, 5))
    with pytest.raises(UserError, match=r"chunk: got \(3, 5\) .*expected \(2, T\) as before"):
        stream.update(torch.zeros(3, 5))
    with pytest.raises(UserError, match=r"chunk: got \(1,\) .*expected \(2, T\) as before"):
        stream.step(0.0)
    assert stream.length == 5
