"""The maps to orthogonal matrices that do not wait for a GPU, against torch's."""

import pytest
import torch
from torch.testing import assert_close

from seqmem.ops.orthogonal import cayley, exponential, scaled_and_squared


def skew(size, scale, dtype=torch.float64):
    below = scale * torch.randn(size, size, dtype=torch.float64).tril(-1)
    return (below - below.T).to(dtype).requires_grad_()


@pytest.mark.parametrize("size", [1, 2, 7, 33])
@pytest.mark.parametrize("scale", [0.0, 1e-3, 0.3, 3.0, 50.0])
def test_the_exponential_agrees_with_torch(size, scale):
    matrix, cotangent = skew(size, scale), torch.randn(size, size, dtype=torch.float64)
    found, expected = scaled_and_squared(matrix), torch.matrix_exp(matrix)
    tolerance = 1e-14 * (1 + scale) * size
    assert_close(found, expected, rtol=0, atol=tolerance)
    assert_close(found.T @ found, torch.eye(size, dtype=torch.float64), rtol=0, atol=tolerance)
    gradients = [torch.autograd.grad(value, matrix, cotangent)[0] for value in (found, expected)]
    assert_close(*gradients, rtol=0, atol=10 * size * tolerance)


def test_the_exponential_in_float32_stays_orthogonal():
    found = scaled_and_squared(skew(128, 0.3, torch.float32))
    assert (found.T @ found - torch.eye(128)).abs().max() < 1e-4


def test_an_exponential_out_of_range_is_not_finite():
    assert scaled_and_squared(skew(4, 1e6)).isnan().all()
    assert scaled_and_squared(torch.full((2, 2), torch.nan)).isnan().all()


def test_on_the_cpu_the_values_are_those_of_torch():
    matrix = skew(9, 1.0)
    identity = torch.eye(9, dtype=torch.float64)
    assert torch.equal(exponential(matrix), torch.matrix_exp(matrix))
    assert torch.equal(cayley(matrix), torch.linalg.solve(identity - matrix / 2, identity + matrix / 2))
