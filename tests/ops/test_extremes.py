"""Extreme values in the memory updates: their effect stays in the same row and memory."""

import math

import pytest
import torch

from seqmem.errors import UserError
from seqmem.ops import DISCRETIZATIONS, legs_function_approximation, memory_update
from seqmem.ops.reference import update

UPDATES = [*(("legs", name) for name in DISCRETIZATIONS), ("lmu", "forward"), ("legt", "bilinear"), ("lagt", "zoh")]

every_update = pytest.mark.parametrize(("measure", "discretization"), UPDATES)


@every_update
def test_an_extreme_value_stays_in_its_row_and_memory(measure, discretization):
    torch.manual_seed(0)
    memory, inputs = torch.randn(3, 2, 5), torch.randn(3, 2)
    expected = memory_update(memory, inputs, 0.1, measure, discretization)
    for value in (math.nan, math.inf, -1e30):
        extreme_inputs, extreme_memory = inputs.clone(), memory.clone()
        extreme_inputs[1, 0] = value
        extreme_memory[1, 0, 2] = value
        for given in ((memory, extreme_inputs), (extreme_memory, inputs)):
            after = memory_update(*given, 0.1, measure, discretization)
            assert torch.equal(after[[0, 2]], expected[[0, 2]])
            assert torch.equal(after[1, 1], expected[1, 1])
            assert not torch.equal(after[1, 0], expected[1, 0])
            if math.isfinite(value):
                assert (after[1, 0].double() / abs(value)).abs().max() < 10
            exact = update(measure, *given, 0.1, discretization)
            assert torch.equal(after.isfinite().all(-1), exact.isfinite().all(-1))


@every_update
def test_an_extreme_step_size_stays_in_its_row(measure, discretization):
    torch.manual_seed(0)
    memory, inputs = torch.randn(4, 2, 5), torch.randn(4, 2)
    steps = torch.tensor([0.1, math.nan, math.inf, 0.0])
    after = memory_update(memory, inputs, steps, measure, discretization)
    torch.testing.assert_close(after[:1], memory_update(memory[:1], inputs[:1], steps[:1], measure, discretization))
    assert after[1].isnan().all()
    assert torch.equal(after[2], torch.nn.functional.pad(inputs[2, :, None], (0, 4)))
    torch.testing.assert_close(after[3], memory[3])


def test_extreme_signals():
    with pytest.raises(UserError, match="with T > 0"):
        legs_function_approximation(torch.ones(2, 0), 3)
    assert torch.equal(legs_function_approximation(torch.full((2, 1), 3.0), 3), torch.tensor([[3.0, 0.0, 0.0]] * 2))
    assert legs_function_approximation(torch.ones(0, 4), 3).shape == (0, 3)
    signal = torch.randn(3, 50)
    expected = legs_function_approximation(signal, 4)
    for value in (math.nan, math.inf):
        signal[1, 20] = value
        after = legs_function_approximation(signal, 4)
        assert torch.equal(after[[0, 2]], expected[[0, 2]])
        assert not after[1].isfinite().any()
    constant = legs_function_approximation(torch.full((1, 1000), 1e30), 4)
    torch.testing.assert_close(constant, torch.tensor([[1e30, 0.0, 0.0, 0.0]]), rtol=1e-5, atol=1e25)
