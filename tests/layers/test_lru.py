"""The LRU: golden vectors, initialisation, other sampling rates, and its settings for an optimiser."""

import math

import pytest
import torch
from torch.testing import assert_close

from seqmem.data.spec import DataSpec
from seqmem.errors import UserError
from seqmem.layers import LRU
from seqmem.models import StackNetwork
from seqmem.training.optimisation.groups import parameter_groups
from tests.layers.golden import assert_golden, assert_steps_agree
from tests.successors import assert_near, case

SPEC = DataSpec("made", 1, 10, "classification", output_steps=0, max_length=784)


def renamed(arrays):
    """Arrays of an original LRU by the names of this project."""
    return {
        "nu": arrays["nu_log"],
        "theta": arrays["theta_log"],
        "gamma": arrays["gamma_log"],
        "weight_in": torch.stack([arrays["B_re"], arrays["B_im"]], -1),
        "weight_out": torch.stack([arrays["C_re"], arrays["C_im"]], -1),
        "weight_skip": arrays["D"],
    }


def renamed_block(arrays):
    """Arrays of an original block; out1 computes the values of the gated linear unit, out2 the gates."""
    mixer = renamed({name.removeprefix("seq."): array for name, array in arrays.items() if name.startswith("seq.")})
    return {f"mixer.{name}": array for name, array in mixer.items()} | {
        "norm.norm.weight": arrays["normalization.scale"],
        "norm.norm.bias": arrays["normalization.bias"],
        "mixing.weight": torch.cat([arrays["out1.kernel"].T, arrays["out2.kernel"].T]),
        "mixing.bias": torch.cat([arrays["out1.bias"], arrays["out2.bias"]]),
    }


def test_it_is_the_original():
    golden = case("lru")
    layer = LRU(4, 4, state_size=6).double()
    state = assert_golden(layer, golden, renamed, layer)
    assert_near(state.hidden, golden["state_final.h"])
    assert_steps_agree(layer, golden["x"])


def test_its_block_is_the_original():
    golden = case("lru_block")
    settings = {"norm": "layer", "norm_eps": 1e-6, "gelu_form": "tanh", "feed_forward": "glu"}
    model = StackNetwork(SPEC, "lru", {"state_size": 6}, model_size=4, num_layers=1, **settings).double().eval()
    block = model.blocks[0]
    assert_golden(block, golden, renamed_block, lambda inputs: block(inputs, None, None, None))


@pytest.mark.parametrize("rate", [0.5, 0.3, 2.0])
def test_a_rate_is_an_exact_zero_order_hold(rate):
    """Of a sampled exponential system, an input that is held gives the same states at other times."""
    torch.manual_seed(0)
    layer = LRU(3, 4, state_size=6).double()
    factors, weights = (torch.view_as_complex(part) for part in layer.recurrence())
    a, b = (torch.view_as_complex(part) for part in layer.recurrence(rate))
    assert_close(a, factors**rate)  # numpy's and torch's power: the angle is between -pi and pi
    assert_close(b, ((1 - a) / (1 - factors))[:, None] * weights)
    assert_steps_agree(layer, torch.randn(2, 9, 3, dtype=torch.float64), {"rate": rate})


def test_half_the_rate_takes_twice_the_steps():
    torch.manual_seed(0)
    layer, inputs = LRU(3, 4, state_size=6).double(), torch.randn(2, 9, 3, dtype=torch.float64)
    outputs, last = layer(inputs)
    twice, after = layer(inputs.repeat_interleave(2, 1), rate=0.5)
    assert_close(twice[:, 1::2], outputs)
    assert_close(after, last)
    gradients = torch.autograd.grad(twice.square().sum(), list(layer.parameters()))
    assert all(gradient.isfinite().all() and gradient.any() for gradient in gradients)


def test_the_initial_eigenvalues_are_uniform_on_a_ring():
    torch.manual_seed(0)
    layer = LRU(4, 4, state_size=40_000, r_min=0.5, r_max=0.9, max_phase=1.5)
    factors, weights = layer.recurrence()
    square = factors.square().sum(-1)
    assert square.min() >= 0.25 - 1e-6
    assert square.max() <= 0.81 + 1e-6
    assert_close(square.mean().item(), 0.53, atol=0.003, rtol=0)  # uniform in area
    angle = torch.atan2(factors[:, 1], factors[:, 0])
    assert angle.min() >= 0
    assert_close([angle.mean().item(), angle.std().item()], [0.75, 1.5 / math.sqrt(12)], atol=0.01, rtol=0)
    assert_close(layer.gamma.exp(), (1 - square).sqrt(), atol=1e-6, rtol=1e-5)
    assert_close(layer.weight_in.std().item(), 8**-0.5, atol=0.002, rtol=0)
    assert_close(LRU(4, 200, state_size=50).weight_out.std().item(), 50**-0.5, atol=0.002, rtol=0)
    assert_close(LRU(1, 40_000, state_size=1).weight_skip.std().item(), 1.0, atol=0.02, rtol=0)
    assert weights.isfinite().all()


@pytest.mark.parametrize("drawn", [0.0, 1.0])
def test_the_ends_of_the_ring_are_finite(drawn, monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda *size, dtype: torch.full(size, drawn, dtype=dtype))
    layer = LRU(2, 2, state_size=3)
    assert all(parameter.isfinite().all() for parameter in layer.parameters())
    assert layer(torch.ones(1, 5, 2))[0].isfinite().all()


def test_an_optimiser_has_two_groups():
    layer = LRU(4, 4, state_size=6, lr_factor=0.25)
    special, others = parameter_groups(layer, 0.01)
    assert (special["lr"], special["weight_decay"], len(special["params"])) == (0.0025, 0.0, 4)
    assert (others["lr"], len(others["params"])) == (0.01, 2)


def test_the_number_of_parameters():
    assert sum(parameter.numel() for parameter in LRU(5, 5, state_size=7).parameters()) == 3 * 7 + 4 * 7 * 5 + 5


def test_mistakes_are_named():
    with pytest.raises(UserError, match=r"r_max: got 0\.5, expected at least r_min=0\.9"):
        LRU(4, 4, r_min=0.9, r_max=0.5)
    with pytest.raises(UserError, match=r"r_min: got 1\.0, expected"):  # gamma would be infinite
        LRU(4, 4, r_min=1.0, r_max=1.0)
