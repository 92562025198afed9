"""The equations of the pages of memories, written out as they stand there, give what the cells give."""

from math import sqrt

import pytest
import torch

from seqmem import cells

UNITS, ORDER, STEPS = 5, 4, 6


def legs(n, k):
    return -sqrt((2 * n + 1) * (2 * k + 1)) if n > k else -(n + 1.0) if n == k else 0.0


def legt(n, k):
    return -sqrt((2 * n + 1) * (2 * k + 1)) * (1 if n >= k else (-1) ** (n - k))


def lagt(n, k):
    return -1.0 if n > k else -0.5 if n == k else 0.0


def lmu(n, k):
    return (2 * n + 1.0) * (-1 if n < k else (-1) ** (n - k + 1))


INPUTS = {
    legs: lambda n: sqrt(2 * n + 1),
    legt: lambda n: sqrt(2 * n + 1),
    lagt: lambda n: 1.0,
    lmu: lambda n: (2 * n + 1.0) * (-1) ** n,
}
"""B_n of each A_nk."""


def matrices(entry):
    double = {"dtype": torch.float64}
    A = torch.tensor([[entry(n, k) for k in range(ORDER)] for n in range(ORDER)], **double)
    return A, torch.tensor([INPUTS[entry](n) for n in range(ORDER)], **double)


def bilinear(A, B, size, memory, u):
    identity = torch.eye(ORDER, dtype=A.dtype)
    return torch.linalg.solve(identity - size / 2 * A, (identity + size / 2 * A) @ memory + size * B * u)


def hold(A, B, size, memory, u):
    exponential = torch.matrix_exp(A * size)
    return exponential @ memory + torch.linalg.solve(A, (exponential - torch.eye(ORDER, dtype=A.dtype)) @ B) * u


def whole_past(A, B, t, cell, times, memory, u):
    return u * torch.eye(ORDER, dtype=A.dtype)[0] if t == 0 else bilinear(A, B, 1 / t, memory, u)


def fixed_step(A, B, t, cell, times, memory, u):
    return hold(A, B, cell.dt, memory, u)


def relative_times(A, B, t, cell, times, memory, u):
    before = times[t - 1] if t else 0.0
    return bilinear(A, B, (times[t] - before) / times[t], memory, u)


def scaled_times(A, B, t, cell, times, memory, u):
    return bilinear(A, B, cell.dt * (times[t] - (times[t - 1] if t else 0.0)), memory, u)


CELLS = {
    "legs": (legs, whole_past, {}),
    "legts": (legt, whole_past, {}),
    "lagts": (lagt, whole_past, {}),
    "legt": (legt, fixed_step, {}),
    "lagt": (lagt, fixed_step, {}),
    "legst": (legs, fixed_step, {}),
    "lmut": (lmu, fixed_step, {}),
    "lmu": (lmu, fixed_step, {}),
    "lmu_plain": (lmu, fixed_step, {}),
    "tlsi": (legs, relative_times, {}),
    "tlti": (legt, scaled_times, {"measure": "legt", "dt": 0.3}),
}


@pytest.mark.parametrize("name", CELLS)
def test_the_equations_are_those_of_the_cell(name):
    entry, update, arguments = CELLS[name]
    torch.manual_seed(0)
    timed = cells.get(name).timed
    cell = cells.get(name)(input_size=2 + timed, hidden_size=UNITS, memory_order=ORDER, **arguments).double()
    for parameter in cell.parameters():
        torch.nn.init.normal_(parameter)
    inputs, times = torch.randn(STEPS, 2, dtype=torch.float64), torch.rand(STEPS, dtype=torch.float64).cumsum(0) + 0.3
    with torch.no_grad():
        outputs, _ = cell(inputs[None], times=times[None] if timed else None)
        expected = _computed(cell, matrices(entry), update, inputs, times)
    torch.testing.assert_close(outputs[0], expected, rtol=1e-9, atol=1e-9)


def _computed(cell, pair, update, inputs, times):
    hidden, memory, outputs = inputs.new_zeros(UNITS), inputs.new_zeros(ORDER), []
    for t, x in enumerate(inputs):
        u = sum(_terms(cell, "u", x, hidden, memory))
        memory = update(*pair, t, cell, times, memory, u)
        candidate, *gate = sum(_terms(cell, "h", x, hidden, memory)).split(UNITS)
        g = torch.sigmoid(gate[0]) if gate else 1
        hidden = (1 - g) * hidden + g * torch.tanh(candidate)
        outputs.append(hidden)
    return torch.stack(outputs)


def _terms(cell, target, x, hidden, memory):
    """Products and bias of one target, those of connections that the cell has."""
    for source, value in (("x", x), ("h", hidden), ("m", memory)):
        weight = getattr(cell, f"weight_{target}{source}")
        if weight is not None:
            yield weight @ value
    bias = getattr(cell, f"bias_{target}")
    if bias is not None:
        yield bias
