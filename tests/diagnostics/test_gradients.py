"""Gradient of the last state by lag, against whole Jacobians and against closed forms; the effective memory length."""

import math

import pytest
import torch
from torch.autograd.functional import jacobian
from torch.testing import assert_close

from seqmem import cells, sequence
from seqmem.cells import GRU, LegS, LegT
from seqmem.diagnostics import effective_memory_length, flat_state, gradient_norms, parts_left
from seqmem.errors import UserError
from seqmem.ops import discretize, transition
from tests.cells import test_battery as cell_battery
from tests.layers import test_battery as layer_battery

F64 = torch.float64
ALONE = {"ux": True, "uh": False, "um": False, "hx": True, "hm": True, "hh": False, "bias": False}
"""The memory of a HiPPO cell as a linear function of the input alone."""


def brute_force(state_of, inputs, lengths):
    """Norm of each row's Jacobian from that of the whole batch, (B, T) by lag."""
    whole = jacobian(lambda given: flat_state(state_of(given)), inputs)  # (B, d, B, T, C)
    norms = torch.full(inputs.shape[:2], torch.nan, dtype=F64)
    for row, length in enumerate(lengths.tolist()):
        for lag in range(length):
            norms[row, lag] = torch.linalg.matrix_norm(whole[row, :, row, length - 1 - lag])
    return norms


def made(name):
    """A layer in float64, and inputs (2, 5, 3)."""
    if name in cells.names():
        return cell_battery.make(name), cell_battery.sample(name, 2, 5)
    return layer_battery.make(name), torch.randn(2, 5, 3, dtype=F64)


@pytest.mark.parametrize("name", [name for name in sequence.names() if sequence.get(name).causal])
def test_the_norm_of_every_cell_and_layer_is_that_of_its_jacobian(name):
    layer, inputs = made(name)
    lengths = torch.tensor([5, 2])

    def state_of(given):
        return layer(given, lengths=lengths)[1]

    norms = gradient_norms(state_of, inputs, lengths)
    assert_close(norms, brute_force(state_of, inputs, lengths), equal_nan=True, rtol=1e-9, atol=1e-12)
    assert norms.isnan().sum(1).tolist() == [0, 3]


def test_a_leaky_integrator_decays_by_its_factor():
    decay, weight = 0.9, torch.tensor([3.0, 4.0], dtype=F64)

    def state_of(inputs):
        state = inputs.new_zeros(len(inputs))
        for step in inputs.unbind(1):
            state = decay * state + step @ weight
        return state[:, None]

    norms = gradient_norms(state_of, torch.randn(2, 200, 2, dtype=F64))
    assert_close(norms, (5 * decay ** torch.arange(200, dtype=F64)).expand(2, -1))
    length = math.ceil(math.log(0.01) / math.log(decay)) - 1
    assert effective_memory_length(norms[0]) == length == 43


def test_the_memory_of_a_window_has_powers_of_its_matrix():
    cell = LegT(2, hidden_size=3, memory_order=5, dt=0.1, architecture=ALONE).double()
    A, B = discretize(*transition("legt", 5), 0.1, "zoh")
    norms = gradient_norms(lambda inputs: cell(inputs)[1].memory, torch.randn(1, 30, 2, dtype=F64))
    expected = [(torch.linalg.matrix_power(A, lag) @ B).norm() * cell.weight_ux.norm() for lag in range(30)]
    assert_close(norms[0], torch.stack(expected))


def test_the_memory_of_the_whole_past_has_products_of_its_matrices():
    """Bilinear steps of size 1 / t; the first input becomes the projection of one value, with the norm of W_ux."""
    cell = LegS(2, hidden_size=3, memory_order=4, architecture=ALONE).double()
    A, B = transition("legs", 4)
    steps, eye = 20, torch.eye(4, dtype=F64)
    after = [torch.zeros(4, dtype=F64) for _ in range(steps)]
    after[0][0] = 1
    for t in range(1, steps):
        half = A / (2 * t)
        step = torch.linalg.solve(eye - half, eye + half)
        after = [step @ value for value in after]
        after[t] = torch.linalg.solve(eye - half, B / t)
    norms = gradient_norms(lambda inputs: cell(inputs)[1].memory, torch.randn(1, steps, 2, dtype=F64))
    expected = torch.stack([value.norm() for value in reversed(after)]) * cell.weight_ux.norm()
    assert_close(norms[0], expected)


def test_random_directions_are_unbiased_with_the_stated_deviation():
    """For a Jacobian of rank 1, which has the largest one; rows are independent draws."""
    rows, size, probes = 40_000, 12, 3
    direction = torch.randn(size, dtype=F64)
    exact = direction.square().sum()

    squares = (
        gradient_norms(
            lambda inputs: inputs[:, 0] * direction,
            torch.randn(rows, 1, 1, dtype=F64),
            probes=probes,
            generator=torch.Generator().manual_seed(1),
        )[:, 0]
        ** 2
        / exact
    )
    deviation = (2 * (size - probes) / (probes * (size + 2))) ** 0.5
    assert abs(squares.mean() - 1) < 4 * deviation / rows**0.5
    assert squares.std() == pytest.approx(deviation, rel=0.1)
    norms = squares.sqrt()
    assert norms.std() == pytest.approx(deviation / 2, rel=0.1)
    assert 1 - norms.mean() == pytest.approx(deviation**2 / 8, rel=0.25)
    assert 1 - norms.mean() < 1 / (4 * probes)


def test_random_directions_estimate_the_norms_of_a_cell():
    torch.manual_seed(0)
    cell, inputs = GRU(3, hidden_size=20).double(), torch.randn(300, 6, 3, dtype=F64)
    given = {"state_of": lambda values: cell(values)[1], "inputs": inputs}
    exact, estimated = gradient_norms(**given), gradient_norms(**given, probes=8)
    assert not torch.allclose(exact, estimated, rtol=0.01)
    assert_close(estimated.square().mean(0), exact.square().mean(0), rtol=0.08, atol=0)
    assert_close(gradient_norms(**given, probes=20), exact)
    assert_close(gradient_norms(**given, probes=8), estimated, rtol=0, atol=0)


def test_complex_numbers_count_as_pairs_and_integers_do_not_count():
    decay = torch.tensor([0.8 + 0.1j, 0.2 - 0.5j], dtype=torch.complex128)

    def state_of(inputs):
        state = torch.zeros(len(inputs), 2, dtype=torch.complex128)
        for step in inputs.unbind(1):
            state = decay * state + step
        return [(state, torch.zeros(len(inputs), dtype=torch.int64)), None]

    assert flat_state(state_of(torch.ones(3, 2, 1, dtype=F64))).shape == (3, 4)
    norms = gradient_norms(state_of, torch.randn(2, 9, 1, dtype=F64))
    expected = (decay.abs()[:, None] ** torch.arange(9)).square().sum(0).sqrt()
    assert_close(norms, expected.expand(2, -1))


def test_the_effective_length_is_where_a_part_of_the_sum_is_left():
    assert effective_memory_length(torch.ones(100)) == 98  # 1 of 100 is left
    assert effective_memory_length(torch.ones(100), left=0.5) == 49
    assert effective_memory_length(torch.tensor([5.0])) == 0
    norms = torch.rand(50, generator=torch.Generator().manual_seed(0))
    for left in (0.01, 0.1, 0.9):
        found = effective_memory_length(norms, left)
        assert norms[found + 1 :].sum() <= left * norms.sum() < norms[found:].sum()
    assert_close(parts_left(torch.tensor([2.0, 1.0, 1.0])), torch.tensor([0.5, 0.25, 0.0], dtype=F64))


def test_mistakes_are_named():
    inputs = torch.randn(2, 3, 1)
    for arguments, message in (
        ((lambda given: given, inputs, None, 0), "probes: got 0, expected at least 1"),
        ((lambda given: given.detach(), inputs), "state_of: got a state without a gradient"),
        ((lambda given: torch.ones(2, 1, requires_grad=True) * 2, inputs), "got a state that does not depend on the inputs"),
        ((lambda given: (None, torch.zeros(2, dtype=torch.int64)), inputs), "got a state without real or complex numbers"),
    ):
        with pytest.raises(UserError, match=message):
            gradient_norms(*arguments)
    for norms, left, message in (
        (torch.ones(3), 1.0, "left: got 1.0, expected a part above 0 and below 1"),
        (torch.zeros(3), 0.01, "one of them above 0"),
        (torch.tensor([1.0, torch.nan]), 0.01, "finite norms"),
        (torch.ones(3, 2), 0.01, r"expected \(K \+ 1,\)"),
        (torch.ones(0), 0.01, r"expected \(K \+ 1,\)"),
    ):
        with pytest.raises(UserError, match=message):
            effective_memory_length(norms, left)
