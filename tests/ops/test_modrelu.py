"""The sequence of a network with modReLU at the borders of its activation."""

import pytest
import torch
from torch.testing import assert_close

from seqmem.ops.modrelu import modrelu_reference, modrelu_sequence
from tests.ops.sequences import needs_compiled

pytestmark = needs_compiled

SUMS = [-2.0, -1.0, -0.5, -0.0, 0.0, 0.25, 0.5, 1.5, torch.inf, -torch.inf, torch.nan]
BIASES = [-1.0, -0.5, 0.0, 0.5]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_values_and_gradients_at_zero_at_the_threshold_and_beyond(dtype):
    """Sums of both signs, zero, |z| + b = 0, infinity and NaN; a single step, so that each unit is on its own."""
    z, bias = (part.flatten() for part in torch.meshgrid(torch.tensor(SUMS), torch.tensor(BIASES), indexing="ij"))
    results = []
    for run in (modrelu_sequence, modrelu_reference):
        inputs, hidden = torch.ones(1, 1, 1, dtype=dtype), torch.zeros(1, len(z), dtype=dtype)
        weights = [z[:, None].to(dtype).requires_grad_(), torch.zeros(len(z), len(z), dtype=dtype), None]
        own = bias.to(dtype).requires_grad_()
        outputs, after = run(inputs, hidden, None, *weights, own)
        gradients = torch.autograd.grad((outputs * torch.arange(1, len(z) + 1)).sum(), [weights[0], own])
        results.append((outputs, after, *gradients))
    fused, reference = results
    assert_close(fused[:2], reference[:2], rtol=0, atol=0, equal_nan=True)
    finite = z.isfinite()
    for given, expected in zip(fused[2:], reference[2:], strict=True):
        assert_close(given.flatten()[finite], expected.flatten()[finite], rtol=0, atol=0)
