"""LinOSS: golden vectors of both methods, initialisation and energy."""

import re

import pytest
import torch
from torch.testing import assert_close

from seqmem.errors import UserError
from seqmem.layers import LinOSS
from tests.layers.golden import assert_golden, assert_steps_agree
from tests.successors import assert_near, case


def renamed(arrays):
    """Arrays of an original layer by the names of this project."""
    names = {"stiffness": "A_diag", "step_size": "steps", "weight_in": "B", "weight_out": "C", "weight_skip": "D"}
    return {own: arrays[original] for own, original in names.items()}


@pytest.mark.parametrize("name", ["linoss_im", "linoss_imex", "linoss_im_clamped"])
def test_it_is_the_original(name):
    golden = case(name)
    layer = LinOSS(4, 4, state_size=6, method=golden.settings["discretization"].lower()).double()
    state = assert_golden(layer, golden, renamed, layer)
    assert_near(state.oscillators.flatten(1, 2), golden["state_final.zy"])
    assert_steps_agree(layer, golden["x"].detach())
    assert (layer.stiffness.min() < 0) == (name == "linoss_im_clamped")


def test_imex_keeps_the_energy_that_im_loses():
    """Without inputs, of oscillators in the middle of their motion."""
    torch.manual_seed(0)
    amplitudes = {}
    for method in ("im", "imex"):
        layer = LinOSS(1, 1, state_size=8, method=method).double()
        start = torch.randn(1, 2, 8, 2, dtype=torch.float64)
        _, state = layer(torch.zeros(1, 2000, 1, dtype=torch.float64), (start,))
        amplitudes[method] = (state.oscillators.norm() / start.norm()).item()
    assert amplitudes["im"] < 1e-6
    assert 0.1 < amplitudes["imex"] < 10


@pytest.mark.parametrize(("stiffness", "largest"), [(15.9, 1.0), (17.0, 1.64), (1.0, 1.0)])
def test_imex_is_stable_while_the_squared_step_times_the_stiffness_is_below_four(stiffness, largest):
    """The largest modulus of an eigenvalue of a step; im damps any stiffness. The step is 1/2."""
    moduli = {}
    for method in ("im", "imex"):
        layer = LinOSS(1, 1, state_size=1, method=method).double().requires_grad_(False)
        layer.stiffness.fill_(stiffness)
        layer.step_size.zero_()
        starts = torch.eye(2, dtype=torch.float64)[:, :, None, None] * torch.tensor([1.0, 0.0])
        columns = layer.step(torch.zeros(2, 1).double(), (starts,))[1].oscillators[..., 0, 0]
        moduli[method] = torch.linalg.eigvals(columns.T).abs().max().item()
    assert moduli["imex"] == pytest.approx(largest, abs=1e-2)
    assert moduli["im"] == pytest.approx((1 + stiffness / 4) ** -0.5)


@pytest.mark.parametrize("own", [1.0, 2.0])
def test_a_rate_at_which_imex_is_unstable_is_refused_with_the_largest_one(own):
    torch.manual_seed(0)
    inputs = torch.randn(1, 300, 3)
    layer = LinOSS(3, 4, state_size=64, method="imex", rate=own)
    for run in (lambda rate: layer(inputs, rate=rate), lambda rate: layer.step(inputs[:, 0], rate=rate)):
        with pytest.raises(
            UserError, match=r"^LinOSS: got rate=\d+.*, expected at most .*; method=im takes any rate$"
        ) as error:
            run(4.0)
        assert ("2 of the layer times 4 of the call" in str(error.value)) == (own == 2)
    largest = float(re.search(r"at most ([\d.]+)", str(error.value))[1]) / own
    assert layer(inputs, rate=largest)[0].abs().max() < 1e4
    with pytest.raises(UserError, match="at most"):
        layer(inputs, rate=1.002 * largest)
    assert LinOSS(3, 4, state_size=64, rate=own)(inputs, rate=4.0)[0].isfinite().all()
    with torch.no_grad():
        layer.stiffness.fill_(100)
    if own == 1:  # the bound of a rate alone: training at rate 1 reads no parameter
        layer(inputs)


def test_the_initial_parameters_are_uniform():
    torch.manual_seed(0)
    layer = LinOSS(4, 4, state_size=20_000)
    for parameter, low, high in (
        (layer.stiffness, 0, 1),
        (layer.step_size, 0, 1),
        (layer.weight_in, -0.5, 0.5),
        (LinOSS(400, 400, state_size=100).weight_out, -0.1, 0.1),
    ):
        assert low <= parameter.min() <= low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) <= parameter.max() <= high
        assert_close(parameter.mean().item(), (low + high) / 2, atol=0.02 * (high - low), rtol=0)
    assert_close(LinOSS(40_000, 40_000, state_size=1).weight_skip.std().item(), 1.0, atol=0.02, rtol=0)


def test_the_number_of_parameters():
    assert sum(parameter.numel() for parameter in LinOSS(5, 5, state_size=7).parameters()) == 2 * 7 + 4 * 7 * 5 + 5
