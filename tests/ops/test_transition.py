"""Transition matrices against the papers, and against the projections that they are derived from."""

import numpy as np
import pytest
import torch
from numpy.polynomial.legendre import leggauss
from scipy.special import eval_legendre

from seqmem.errors import UserError
from seqmem.ops import (
    canonical_discretization,
    discretize,
    generators,
    legs_function_approximation,
    memory_update,
    transition,
)

NODES, WEIGHTS = (torch.from_numpy(values) for values in leggauss(40))
NODES, WEIGHTS = (NODES + 1) / 2, WEIGHTS / 2


def legendre(order: int, x: torch.Tensor) -> torch.Tensor:
    """P_n(2x - 1) for n < order, (order, len(x))."""
    return torch.from_numpy(np.stack([eval_legendre(n, 2 * x.numpy() - 1) for n in range(order)]))


def test_legs_of_order_four():
    A, B = transition("legs", 4)
    r = torch.tensor([1.0, 3.0, 5.0, 7.0], dtype=torch.float64).sqrt()
    expected = torch.tensor([[-1, 0, 0, 0], [-1, -2, 0, 0], [-1, -1, -3, 0], [-1, -1, -1, -4]], dtype=torch.float64)
    expected[1:, 0] *= r[1:]
    expected[2:, 1] *= r[2:] * r[1]
    expected[3, 2] *= r[3] * r[2]
    torch.testing.assert_close(A, expected)
    torch.testing.assert_close(B, r)


def test_legt_of_order_three():
    A, B = transition("legt", 3)
    a, b, c = 3**0.5, 5**0.5, 15**0.5
    torch.testing.assert_close(A, -torch.tensor([[1, -a, b], [a, 3, -c], [b, c, 5]], dtype=torch.float64))
    torch.testing.assert_close(B, torch.tensor([1, a, b], dtype=torch.float64))


def test_lmu_of_order_three():
    A, B = transition("lmu", 3)
    torch.testing.assert_close(A, torch.tensor([[-1, -1, -1], [3, -3, -3], [-5, 5, -5]], dtype=torch.float64))
    torch.testing.assert_close(B, torch.tensor([1, -3, 5], dtype=torch.float64))


def test_lmu_is_legt_in_another_normalisation():
    for order in (1, 2, 7, 16, 101):
        n = torch.arange(order, dtype=torch.float64)
        scale = (-1) ** n * (2 * n + 1).sqrt()
        A, B = transition("legt", order)
        lmu_A, lmu_B = transition("lmu", order)
        torch.testing.assert_close(lmu_A, scale[:, None] * A / scale)
        torch.testing.assert_close(lmu_B, scale * B)


@pytest.mark.parametrize(("order", "power"), [(1, 0), (1, 3), (5, 1), (5, 8), (12, 0), (12, 8)])
def test_legs_projects_powers_of_time(order, power):
    """c(t) = t^p c(1) for f = t^p: t c' = A c + B f becomes p c(1) = A c(1) + B."""
    A, B = transition("legs", order)
    c = (legendre(order, NODES) * NODES**power * WEIGHTS).sum(1) * B
    torch.testing.assert_close(power * c, A @ c + B, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("order", "power"), [(1, 0), (5, 4), (12, 7)])
def test_lmu_projects_a_window_of_powers(order, power):
    """A polynomial of degree below N in the window is exact: f(t - x) = sum_n c_n P_n(2x - 1) for 0 <= x <= 1."""
    A, B = transition("lmu", order)
    t = 1.3

    def project(values: torch.Tensor) -> torch.Tensor:
        return (2 * torch.arange(order) + 1) * (legendre(order, NODES) * values * WEIGHTS).sum(1)

    c = project((t - NODES) ** power)
    derivative = project(power * (t - NODES) ** (power - 1)) if power else torch.zeros(order, dtype=torch.float64)
    torch.testing.assert_close(derivative, A @ c + B * t**power, rtol=1e-9, atol=1e-9)


def test_unknown_measure_names_the_nearest():
    with pytest.raises(UserError, match="measure: got 'legss', expected a known measure; did you mean 'legs'"):
        transition("legss", 3)


def test_order_must_be_a_positive_whole_number():
    for order, expected in (
        (0, "greater than 0"),
        (3.5, "a valid integer"),
        ("3", "a valid integer"),
        (True, "a valid integer"),
    ):
        for function in (transition, generators):
            with pytest.raises(UserError, match=f"^order: got {order!r}, expected {expected}$"):
                function("legs", order)
        with pytest.raises(UserError, match=f"^order: got {order!r}, expected {expected}$"):
            legs_function_approximation(torch.zeros(4), order)
    assert torch.equal(transition("glagt", np.int32(3), beta=np.float32(0.5))[1], transition("glagt", 3, beta=0.5)[1])
    with pytest.raises(UserError, match=r"measure: got .*, expected a known measure"):
        transition(["legs"], 3)


def test_a_discretization_is_a_name_or_alpha():
    assert [canonical_discretization(alpha) for alpha in (np.float32(0.5), np.int64(1), 0.25)] == ["bilinear", "backward", 0.25]
    for given in (True, [0.5], None, torch.tensor(0.5)):
        for call in (
            lambda given: canonical_discretization(given),
            lambda given: memory_update(torch.zeros(1, 1, 3), torch.ones(1, 1), 0.5, discretization=given),
        ):
            with pytest.raises(UserError, match=r"^discretization: got .*, expected a known name or alpha from 0"):
                call(given)
    for method in ("zoh", "bilinear"):
        with pytest.raises(UserError, match=r"A, B: got shapes \(3, 3\) and \(4,\), expected \(N, N\) and \(N,\)"):
            discretize(torch.eye(3), torch.ones(4), 0.1, method)
