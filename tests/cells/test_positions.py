"""Positions of carried states, known on the host."""

import pytest
import torch
from torch.testing import assert_close

from seqmem.cells import LegS, positions
from tests.ops.gpu.chunks import make, use_on_cpu
from tests.pretended_gpu import PretendedGPU, moved, watched


def test_a_position_is_read_once():
    step = torch.full((3,), 5)
    assert positions.position_of(step) == 5
    assert positions.position_of(step[:2].detach()) == 5
    step.add_(torch.tensor([0, 1, 2]))  # a change in place
    assert positions.position_of(step) is None
    assert positions.position_of(torch.zeros(0, dtype=torch.int64)) == 0
    part = torch.tensor([4, 4, 7])
    assert positions.position_of(part[:2]) == 4
    assert positions.position_of(part) is None


def test_a_change_in_inference_mode_of_an_ordinary_tensor_is_noticed():
    step = torch.full((3,), 5)
    assert positions.position_of(step) == 5
    with torch.inference_mode():
        step.add_(1)
        assert positions.position_of(step) == 6


def test_a_change_of_a_state_made_in_inference_mode_is_noticed(monkeypatch):
    use_on_cpu(monkeypatch)
    cell = make("legs", 3, 6)
    inputs = torch.randn(3, 9, 3, dtype=torch.float64)
    with torch.inference_mode():
        _, state = cell(inputs)
        assert positions.position_of(state.step) == 9
        for change, path in ((lambda step: step.fill_(4), "chunks"), (lambda step: step[1:2].zero_(), "step by step")):
            change(state.step)
            outputs, _ = cell(inputs, state)
            assert cell.path.startswith(path)
            assert_close(outputs, cell.stepwise_forward(inputs, state, None, False)[0])


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_gpu_asserts_positions_that_may_have_changed_without_a_wait(monkeypatch, mode):
    asserted = []
    monkeypatch.setattr(torch, "_assert_async", lambda condition, message: asserted.append((condition.shape, message)))
    with PretendedGPU():
        cell, inputs = moved(LegS(3, 6)), moved(torch.randn(2, 9, 3))
        with mode(), watched() as waits:
            _, state = cell(inputs)
            cell(inputs, state)
    assert cell.path.startswith("chunks")
    assert not waits
    assert bool(asserted) == (mode is torch.inference_mode)
    assert all(shape == () and message.startswith("state.step: got values that were changed") for shape, message in asserted)
