"""Rounding errors over a million steps: each memory in float32 against float64, as the README states."""

import math

import pytest
import torch

from seqmem import cells
from seqmem.data.signals import white_noise
from seqmem.ops import extension

LENGTHS = (10**2, 10**3, 10**4, 10**5, 10**6)
EPSILON = torch.finfo(torch.float32).eps

# Bounds of the relative error of the memory, in norm, after a number of steps.
GROWING = {
    "legs": lambda steps: 2 * EPSILON * math.sqrt(steps),
    "lagts": lambda steps: 1e-6 + 1e-9 * steps,
}
BOUNDED = {"legt": 1e-4, "lmut": 1e-4, "lagt": 1e-2}
"""With windows of 1000 steps."""


def errors(name):
    """Largest error after each length over three inputs: white noise of 1000 oscillations, a constant, and a step."""
    steps = LENGTHS[-1]
    step = torch.arange(steps) >= steps // 2
    inputs = torch.stack([white_noise(steps, 1000, seed=0), torch.ones(steps), step], 1).T[..., None].float()
    cell_f32, cell_f64 = (memory(name).to(dtype) for dtype in (torch.float32, torch.float64))
    results, states = [], (None, None)
    for begin, end in zip((0, *LENGTHS), LENGTHS, strict=False):
        part = inputs[:, begin:end]
        states = cell_f32(part, states[0])[1], cell_f64(part.double(), states[1])[1]
        assert cell_f32.path == "one compiled call"
        memories = [state.memory[:, 0].double() for state in states]
        assert memories[0].isfinite().all()
        error, norm = (memories[0] - memories[1]).norm(dim=1), memories[1].norm(dim=1)
        results.append((error / norm)[norm > 0].max().item())
    return results


def memory(name):
    """A cell whose memory input, of order 32, is the input itself."""
    settings = {"dt": 1e-3} if name in BOUNDED else {}
    cell = cells.get(name)(1, hidden_size=1, memory_order=32, gate="N", architecture={"uh": False, "bias": False}, **settings)
    with torch.no_grad():
        cell.weight_ux.fill_(1.0)
    return cell.requires_grad_(False)


@pytest.mark.skipif(bool(extension.REASON), reason="there are no compiled operators")
def test_step_sizes_that_all_rows_share_are_eliminated_in_float64():
    """In float32 the same rounding error at every step would add up: 1e-4 after these steps."""
    inputs = white_noise(20_000, 1000, seed=0)[None, :, None]
    f32, f64 = (memory("legts").to(dtype)(inputs.to(dtype))[1].memory.double() for dtype in (torch.float32, torch.float64))
    assert (f32 - f64).norm() < 2e-5 * f64.norm()


@pytest.mark.slow
@pytest.mark.parametrize("name", GROWING)
def test_the_error_of_an_unbounded_memory_grows_slowly(name):
    # Without fused multiply-add each product is rounded as well.
    roundings = 8 if torch.ops.seqmem.instruction_set() == "baseline" else 1
    for steps, error in zip(LENGTHS, errors(name), strict=True):
        assert error < roundings * GROWING[name](steps)


@pytest.mark.slow
@pytest.mark.parametrize("name", BOUNDED)
def test_the_error_of_a_window_does_not_grow(name):
    *_, before, earlier, last = errors(name)
    assert last < BOUNDED[name]
    assert last < 2 * max(before, earlier)
