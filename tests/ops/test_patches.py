"""Products with patches: the sparse implementation against the reference, in value and in every gradient."""

import pytest
import torch
from torch.testing import assert_close

from seqmem.ops import patches
from seqmem.ops.patches import patch_index, patch_products, patch_products_reference

SIZES = [(31, 3, 4, 17, 4), (1, 1, 1, 1, 1), (5, 7, 9, 40, 2), (3, 2, 4, 12, 5), (300, 2, 13, 1001, 5), (64, 16, 32, 9, 1)]


def arguments(length, channels, rows, count, size, dtype=torch.float64):
    random = torch.Generator().manual_seed(0)
    indices = torch.randint(0, length, (count, size), dtype=torch.int32, generator=random)
    values = [
        torch.randn(*shape, dtype=dtype, generator=random, requires_grad=True)
        for shape in ((length, channels, rows), (count, size, channels), (count,))
    ]
    return values[0], indices, *values[1:]


def sparse(features, indices, weight, bias):
    return patch_products(features, patch_index(indices, *features.shape[:2]), weight, bias)


def test_the_reference_is_the_formula():
    features, indices, weight, bias = arguments(5, 2, 3, 4, 3)
    expected = torch.zeros(4, 3, dtype=torch.float64)
    for n in range(4):
        for b in range(3):
            expected[n, b] = bias[n]
            for q in range(3):
                for k in range(2):
                    expected[n, b] += weight[n, q, k] * features[indices[n, q], k, b]
    assert_close(patch_products_reference(features, indices, weight, bias), expected)


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_values_and_gradients_equal_the_reference(sizes):
    for dtype in (torch.float32, torch.float64):
        features, indices, weight, bias = arguments(*sizes, dtype)
        results = [f(features, indices, weight, bias) for f in (sparse, patch_products_reference)]
        assert_close(*results)
        cotangent = torch.randn_like(results[0])
        gradients = [torch.autograd.grad(result, (features, weight, bias), cotangent) for result in results]
        for one, other in zip(*gradients, strict=True):
            assert_close(one, other)


def test_gradients_equal_finite_differences():
    features, indices, weight, bias = arguments(6, 2, 3, 5, 4)
    assert torch.autograd.gradcheck(lambda *values: sparse(values[0], indices, *values[1:]), (features, weight, bias))


def test_gradients_of_a_step_in_no_patch_and_twice_in_a_patch():
    features, _, weight, bias = arguments(4, 2, 3, 1, 2)
    indices = torch.tensor([[2, 2]], dtype=torch.int32)
    sparse(features, indices, weight, bias).sum().backward()
    assert not features.grad[[0, 1, 3]].any()
    assert_close(features.grad[2], weight.detach().sum(1).T.expand(2, 3))


def test_only_required_gradients_are_computed():
    features, indices, weight, bias = arguments(31, 3, 4, 17, 4)
    sparse(features.detach(), indices, weight, bias).sum().backward()
    assert features.grad is None
    assert_close(weight.grad, features.detach()[indices.long()].sum(-1))


@pytest.mark.parametrize("piece", [1, 700, 10**6])
def test_products_of_gathered_columns_are_those_of_the_sparse_matrix(monkeypatch, piece):
    """A GPU gathers patches in pieces."""
    monkeypatch.setattr(patches, "PIECE", piece)
    features, indices, weight, _ = (value.detach() for value in arguments(31, 3, 5, 17, 4))
    index = patch_index(indices, 31, 3)
    grad, columns = torch.randn(17, 5, dtype=torch.float64), features.flatten(0, 1).t()
    results = torch.randn_like(weight).expand(2, -1, -1, -1).clone()
    patches._add_sampled_products(results[0], grad, columns, index.rows)
    patches._add_gathered_products(results[1], grad, columns, index.rows)
    assert_close(*results)
