"""The rectified GRU against its equations; ``tests/ops`` compares its compiled sequence with the loop."""

import numpy as np
import torch
from torch.testing import assert_close

from seqmem.cells.relu_gru import ReLUGRU


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_a_step_is_its_equations():
    """Gates [r, u] of [x; h], the candidate of [x; r h], and u keeps the old state."""
    torch.manual_seed(0)
    cell = ReLUGRU(3, 5).double()
    x, h = np.random.default_rng(0).normal(size=(2, 4, 5))
    x = x[:, :3]
    w, v, b = (each.detach().numpy() for each in (cell.weight_ih, cell.weight_hh, cell.bias))
    r = sigmoid(x @ w[:5].T + h @ v[:5].T + b[:5])
    u = sigmoid(x @ w[5:10].T + h @ v[5:10].T + b[5:10])
    new = np.maximum(x @ w[10:].T + (r * h) @ v[10:].T + b[10:], 0)
    output, state = cell.step(torch.from_numpy(x), type(cell.initial_state(4))(torch.from_numpy(h)))
    assert_close(output, torch.from_numpy(u * h + (1 - u) * new))
    assert torch.equal(output, state.hidden)


def test_weights_start_glorot_uniform_and_biases_between_minus_one_and_one():
    torch.manual_seed(0)
    cell = ReLUGRU(70, 50)
    for rows, fan_out in ((slice(0, 100), 100), (slice(100, 150), 50)):
        bound = (6 / (70 + 50 + fan_out)) ** 0.5
        for weight in (cell.weight_ih, cell.weight_hh):
            assert 0.98 * bound < weight[rows].abs().max() <= bound
    assert -1 <= cell.bias.min() < -0.9
    assert 0.9 < cell.bias.max() < 1
