"""The HM-LSTM against numbers computed by hand, a loop that reads like the paper, and the definition of its gradients."""

import io
import math
from itertools import product

import pytest
import torch
from torch.testing import assert_close

from seqmem.cells import HMLSTM
from seqmem.errors import UserError

SIZES = [3, 5, 2]


def make(sizes=SIZES, channels=4, **arguments):
    """All parameters at random, gains and biases too, and detectors that fire about every other time."""
    torch.manual_seed(1)
    cell = HMLSTM(channels, list(sizes), len(sizes), **arguments).double()
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.normal_(std=0.7)
        for layer in cell.layers:
            if layer.detects and layer.bias is not None:
                layer.bias[-1] *= 0.1
    return cell


def sample(batch=3, steps=17, channels=4, seed=2):
    return torch.randn(batch, steps, channels, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


class Round(torch.autograd.Function):
    """The straight-through estimator as it is defined: round, with the gradient of the identity."""

    @staticmethod
    def forward(ctx, p):
        return (p > 0.5).to(p.dtype)

    @staticmethod
    def backward(ctx, grad):
        return grad


def normalized(values):
    return (values - values.mean()) / (values.var(unbiased=False) + 1e-5).sqrt()


def by_the_paper(cell, inputs):
    """One row after the other, each layer by its equations: outputs (B, T, D) and boundaries (B, T, L)."""
    soft, layers, count = cell.boundary == "soft", cell.layers, len(cell.sizes)
    outputs, boundaries = [], []
    for row in inputs:
        h, c = ([row.new_zeros(size) for size in cell.sizes] for _ in range(2))
        z = [row.new_zeros(()) for _ in cell.sizes]
        for x in row:
            old_h, old_c, old_z = list(h), list(c), list(z)
            below, z_below = x, row.new_ones(())
            for k, (layer, size) in enumerate(zip(layers, cell.sizes, strict=True)):
                above = [old_z[k] * old_h[k + 1]] if k + 1 < count else []
                if k == 0:
                    s = layer.weight_input @ x + layer.weight @ torch.cat([old_h[k], *above])
                else:
                    s = layer.weight @ torch.cat([old_h[k], *above, z_below * below])
                bias = 0 if layer.bias is None else layer.bias
                if layer.gain is None:
                    s = s + bias
                else:
                    gain = torch.cat([layer.gain, layer.gain.new_ones(len(s) - 4 * size)])
                    s = gain * torch.cat([*(normalized(gate) for gate in s[: 4 * size].split(size)), s[4 * size :]]) + bias
                f, i, o = torch.sigmoid(s[: 3 * size]).split(size)
                g = torch.tanh(s[3 * size : 4 * size])

                def hidden_of(memory, o=o, norm=layer.memory_norm):
                    if norm is not None:
                        memory = norm.weight * normalized(memory) + (0 if norm.bias is None else norm.bias)
                    return o * torch.tanh(memory)

                if soft:
                    update, kept, flush = (1 - old_z[k]) * z_below, (1 - old_z[k]) * (1 - z_below), old_z[k]
                    c[k] = update * (f * old_c[k] + i * g) + kept * old_c[k] + flush * (i * g)
                    h[k] = kept * old_h[k] + (update + flush) * hidden_of(c[k])
                elif old_z[k] == 1:
                    c[k] = i * g
                    h[k] = hidden_of(c[k])
                elif z_below == 1:
                    c[k] = f * old_c[k] + i * g
                    h[k] = hidden_of(c[k])
                else:
                    c[k], h[k] = old_c[k], old_h[k]
                if len(s) > 4 * size:
                    s = cell.slope * s[-1]
                    p = torch.sigmoid(s) if cell.boundary_activation == "sigmoid" else ((s + 1) / 2).clamp(0, 1)
                    z[k] = p if soft else Round.apply(p)
                below, z_below = h[k], z[k]
            outputs.append(torch.cat(h))
            boundaries.append(torch.stack(z))
    shape = inputs.shape[:2]
    return torch.stack(outputs).unflatten(0, shape), torch.stack(boundaries).unflatten(0, shape)


VARIANTS = {
    "paper": {},
    "reference": {"boundary_activation": "sigmoid", "top_detector": True, "bias": False, "layer_norm": False},
    "plain": {"layer_norm": False},
    "normalised without bias": {"bias": False, "top_detector": True},
    "steep": {"slope": 2.5, "top_detector": True, "layer_norm": False},
}


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def test_a_layer_of_one_unit_is_refused_under_its_norm():
    for sizes in (1, [8, 1, 8]):
        with pytest.raises(UserError, match=r"^hidden_size: got .*, expected at least 2 with layer_norm=true"):
            HMLSTM(3, sizes)
    HMLSTM(3, [8, 1, 8], layer_norm=False)


def test_copy_update_and_flush_by_hand():
    """The gates of the upper layer are constant, so that its c shows the branch of each step."""
    cell = HMLSTM(2, 1, 2, top_detector=True, layer_norm=False).double()
    lower, upper = cell.layers
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.zero_()
        lower.weight_input[3, 1] = 5.0  # its g has the sign of the second channel
        lower.weight_input[4, 0] = 1.0  # its z that of the first
        lower.bias[:4] = torch.tensor([-3.0, 2.0, 1.0, 0.0])
        upper.weight[4, 1] = 1.0  # z where z_1 h_1 is positive
        upper.bias[:4] = torch.tensor([0.3, -0.2, 0.5, 0.7])
    f, i, o, g = sigmoid(0.3), sigmoid(-0.2), sigmoid(0.5), math.tanh(0.7)
    steps = [  # z_1, sign of h_1, what the upper layer does, its c, its z
        (0, -1, "copy", 0.0, 0),
        (1, -1, "update", i * g, 0),
        (0, 1, "copy", i * g, 0),
        (1, -1, "update", f * i * g + i * g, 0),
        (1, 1, "update", f * (f * i * g + i * g) + i * g, 1),
        (0, 1, "flush", i * g, 0),
        (0, -1, "copy", i * g, 0),
        (1, 1, "update", f * i * g + i * g, 1),
        (1, 1, "flush", i * g, 1),
        (1, -1, "flush", i * g, 0),
        (1, -1, "update", f * i * g + i * g, 0),
    ]
    inputs = torch.tensor([[(2.0 * z - 1, sign) for z, sign, *_ in steps]], dtype=torch.float64)
    lower_c, flushes, state, hidden_2 = 0.0, False, None, 0.0
    for t, (z_1, sign, branch, upper_c, z_2) in enumerate(steps):
        output, state = cell.step(inputs[:, t], state)
        lower_c = (0 if flushes else sigmoid(-3) * lower_c) + sigmoid(2) * math.tanh(5 * sign)
        flushes = z_1 == 1
        hidden_2 = hidden_2 if branch == "copy" else o * math.tanh(upper_c)
        assert_close(state.memory, torch.tensor([[lower_c, upper_c]], dtype=torch.float64), msg=f"step {t}")
        assert_close(output, torch.tensor([[sigmoid(1) * math.tanh(lower_c), hidden_2]], dtype=torch.float64), msg=f"step {t}")
        assert state.boundary.tolist() == [[z_1, z_2]], f"step {t}"
    assert_close(cell(inputs)[0][:, -1], output)
    assert cell.boundaries(inputs).tolist() == [[[z_1, z_2] for z_1, _, _, _, z_2 in steps]]


@pytest.mark.parametrize(
    ("variant", "boundary", "sizes"),
    [
        ("paper", "step", [3, 5, 2]),
        ("paper", "soft", [2, 3, 2, 4]),
        ("reference", "step", [1, 2, 1, 3]),
        ("reference", "soft", [3, 5, 2]),
        ("plain", "step", [4]),
        ("normalised without bias", "step", [3, 5, 2]),
        ("normalised without bias", "soft", [4]),
        ("steep", "step", [3, 5, 2]),
    ],
    ids=str,
)
def test_outputs_boundaries_and_gradients_are_those_of_the_equations(variant, boundary, sizes):
    cell = make(sizes, boundary=boundary, **VARIANTS[variant])
    inputs = sample().requires_grad_()
    outputs, _ = cell(inputs)
    wanted, boundaries = by_the_paper(cell, inputs)
    assert_close(outputs, wanted)
    assert_close(cell.boundaries(inputs), boundaries)
    weight = torch.randn_like(outputs)
    variables = [inputs, *cell.parameters()]
    found = torch.autograd.grad((outputs * weight).sum(), variables)
    defined = torch.autograd.grad((wanted * weight).sum(), variables, materialize_grads=True)  # none where a layer only copies
    assert_close(found, defined, rtol=1e-5, atol=1e-6)  # two values, nearly equal and then normalised, magnify rounding


def test_all_branches_occur_in_these_tests():
    z = make(**VARIANTS["reference"]).boundaries(sample())
    for k in (1, 2):
        before, below = z[:, :-1, k], z[:, 1:, k - 1]
        assert set(zip(before.flatten().tolist(), below.flatten().tolist(), strict=True)) == set(product((0, 1), repeat=2))


@pytest.mark.parametrize("activation", ["hard_sigmoid", "sigmoid"])
def test_the_gradient_of_a_boundary_is_that_of_its_activation(activation):
    """One step: z_1 reaches the upper layer's h through s = w z_1 h_1 alone, and is 1."""
    cell = make([1, 1], channels=1, boundary_activation=activation, slope=1.5, layer_norm=False)
    lower, upper = cell.layers
    with torch.no_grad():
        lower.weight_input.copy_(torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5])[:, None])
        lower.bias.zero_()
    z = 0.5 * 0.6  # what the detector reads of x = 0.6
    h_1 = sigmoid(0.3 * 0.6) * math.tanh(sigmoid(0.2 * 0.6) * math.tanh(0.4 * 0.6))
    outputs, state = cell(torch.full((1, 1, 1), 0.6, dtype=torch.float64))
    assert state.boundary[0, 0] == 1
    assert_close(outputs[0, 0, 0].item(), h_1)
    (found,) = torch.autograd.grad(outputs[0, 0, 1], lower.bias)
    s = (upper.weight[:, 1] * h_1 + upper.bias).tolist()
    i, o, g = sigmoid(s[1]), sigmoid(s[2]), math.tanh(s[3])
    through_o = o * (1 - o) * math.tanh(i * g) * upper.weight[2, 1].item()
    through_c = i * (1 - i) * g * upper.weight[1, 1].item() + i * (1 - g * g) * upper.weight[3, 1].item()
    of_z = h_1 * (through_o + o * (1 - math.tanh(i * g) ** 2) * through_c)
    p = sigmoid(1.5 * z)
    slope = 1.5 / 2 if activation == "hard_sigmoid" else 1.5 * p * (1 - p)
    assert_close(found[4].item(), of_z * slope)


def test_a_choice_of_branch_has_no_gradient():
    """Without any z h the detectors get none at all, unless boundaries are soft."""
    for boundary, reached in (("step", False), ("soft", True)):
        cell = make(boundary=boundary, layer_norm=False)
        with torch.no_grad():
            for k, layer in enumerate(cell.layers):
                layer.weight[:, SIZES[k] :] = 0
        cell(sample())[0].sum().backward()
        assert all(bool(layer.bias.grad[-1] != 0) == reached for layer in cell.layers[:-1])


def test_soft_gradients_are_those_of_finite_differences():
    cell = make([2, 3, 1], boundary="soft", slope=0.3, **VARIANTS["reference"])
    names, values = zip(*cell.named_parameters(), strict=True)

    def run(x, *weights):
        outputs, state = torch.func.functional_call(cell, dict(zip(names, weights, strict=True)), (x,))
        return outputs, *state

    torch.autograd.gradcheck(run, (sample(2, 4).requires_grad_(), *values), fast_mode=True)


def test_one_layer_without_detector_is_an_lstm():
    cell = HMLSTM(3, 5, 1, layer_norm=False).double()
    wanted = torch.nn.LSTM(3, 5, batch_first=True).double()
    order = torch.cat([torch.arange(5) + 5 * k for k in (1, 0, 3, 2)])  # torch has i, f, g, o
    (layer,) = cell.layers
    with torch.no_grad():
        layer.weight_input.copy_(wanted.weight_ih_l0[order])
        layer.weight.copy_(wanted.weight_hh_l0[order])
        layer.bias.copy_((wanted.bias_ih_l0 + wanted.bias_hh_l0)[order])
    inputs = sample(channels=3)
    outputs, state = cell(inputs)
    expected, (hidden, memory) = wanted(inputs)
    assert_close(outputs, expected)
    assert_close(state.hidden, hidden[0])
    assert_close(state.memory, memory[0])
    assert not state.boundary.any()


@pytest.mark.parametrize(
    ("variant", "boundary"), [("paper", "sample"), ("reference", "step"), ("plain", "sample"), ("steep", "step")]
)
def test_step_carried_state_and_whole_sequence_agree(variant, boundary):
    cell = make(boundary=boundary, **VARIANTS[variant])
    inputs = sample()
    torch.manual_seed(3)
    whole, final = cell(inputs)
    torch.manual_seed(3)
    outputs, state = [], None
    for chunk in inputs.split([5, 1, 11], 1):
        output, state = cell(chunk, state)
        outputs.append(output)
    assert_close(torch.cat(outputs, 1), whole)
    assert_close(state, final)
    state = None
    torch.manual_seed(3)
    for t in range(inputs.shape[1]):
        output, state = cell.step(inputs[:, t], state)
        assert_close(output, whole[:, t])
    assert_close(state, final)


@pytest.mark.parametrize("variant", ["paper", "reference"])
def test_padding_and_other_rows_do_not_change_a_row(variant):
    cell = make(**VARIANTS[variant])
    inputs, lengths = sample(4, 9), torch.tensor([9, 1, 4, 0])
    for row, length in enumerate(lengths):
        inputs[row, length:] = torch.nan
    outputs, state = cell(inputs, lengths=lengths)
    boundaries = cell.boundaries(inputs, lengths=lengths)
    assert boundaries.shape == (4, 9, 3)
    for row, length in enumerate(lengths.tolist()):
        alone = inputs[row : row + 1, :length]
        wanted, final = cell(alone)
        assert_close(outputs[row, :length], wanted[0])
        assert_close(boundaries[row, :length], cell.boundaries(alone)[0])
        assert not outputs[row, length:].any()
        assert not boundaries[row, length:].any()
        for part, whole in zip(final, state, strict=True):
            assert_close(part[0], whole[row])


def test_boundaries_continue_from_a_state_and_accept_times():
    cell = make()
    inputs, times = sample(channels=3), torch.rand(3, 17, dtype=torch.float64).cumsum(1)
    whole = cell.boundaries(inputs, times=times)
    assert_close(whole, cell.boundaries(torch.cat([times[..., None], inputs], -1)))
    _, state = cell(inputs[:, :8], times=times[:, :8])
    assert_close(cell.boundaries(inputs[:, 8:], state, times=times[:, 8:]), whole[:, 8:])
    assert cell.boundaries(inputs[:, :0], times=times[:, :0]).shape == (3, 0, 3)
    with pytest.raises(UserError, match="between 0 and T=17"):
        cell.boundaries(inputs, lengths=torch.tensor([18, 1, 1]), times=times)


def test_sampling_is_repeated_by_torchs_seed():
    inputs, cell = sample(steps=40), make(boundary="sample")
    torch.manual_seed(3)
    first = cell(inputs)[0]
    assert not torch.equal(cell(inputs)[0], first)
    torch.manual_seed(3)
    assert torch.equal(cell(inputs)[0], first)


def test_evaluation_samples_nothing():
    sampled, stepped = make(boundary="sample").eval(), make(boundary="step")
    inputs = sample(steps=40)
    assert torch.equal(sampled(inputs)[0], stepped(inputs)[0])
    assert torch.equal(sampled.boundaries(inputs), stepped.boundaries(inputs))
    sampled.train()
    assert not torch.equal(sampled(inputs)[0], stepped(inputs)[0])


def test_a_boundary_is_drawn_with_its_probability():
    cell = HMLSTM(1, 2, 2, boundary="sample", layer_norm=False)
    with torch.no_grad():
        for layer in cell.layers:
            layer.weight.zero_()
        cell.layers[0].weight_input.zero_()
        cell.layers[0].bias[-1] = 0.4
    z = cell.boundaries(torch.zeros(100, 100, 1)).detach()
    assert z[..., 0].mean() == pytest.approx(0.7, abs=0.015)  # (0.4 + 1) / 2; three standard deviations
    assert z.unique().tolist() == [0, 1]


def test_the_slope_grows_by_epochs_up_to_its_limit():
    cell = make(boundary="soft", slope_growth=0.04)
    inputs = sample()
    start = cell(inputs)[0]
    for epoch, slope in ((0, 1.0), (1, 1.04), (50, 3.0), (100, 5.0), (1000, 5.0)):
        cell.on_epoch(epoch)
        assert cell.slope.item() == pytest.approx(slope)
    assert not torch.allclose(cell(inputs)[0], start)
    assert_close(cell(inputs)[0], by_the_paper(cell, inputs)[0])
    cell.on_epoch(0)
    assert torch.equal(cell(inputs)[0], start)


def test_a_state_dict_holds_the_slope():
    arguments = {"boundary": "soft", "slope_growth": 0.1}
    cell, inputs = make(**arguments), sample()
    cell.on_epoch(20)
    expected, saved = cell(inputs)[0], cell.state_dict()
    other = make(**arguments)
    other.load_state_dict(saved)
    assert torch.equal(other(inputs)[0], expected)
    earlier = {name: value for name, value in saved.items() if name != "slope"}  # as versions without the slope wrote it
    for state_dict, epoch in ((saved, 0), (earlier, 20)):
        for assign in (False, True):
            with torch.device("meta"):
                other = make(**arguments)
            if epoch:
                other.on_epoch(epoch)
            if not assign:
                other.to_empty(device="cpu")
                other.slope.fill_(-3.6e22)  # what uninitialised memory may hold
            other.load_state_dict({name: value.clone() for name, value in state_dict.items()}, assign=assign)
            assert torch.equal(other(inputs)[0], expected)
            assert other.slope.dtype == cell.slope.dtype == torch.float64
    with pytest.raises(RuntimeError, match=r"Missing key\(s\) in state_dict: .layers\.0\.weight"):
        other.load_state_dict({name: value for name, value in saved.items() if name != "layers.0.weight"})


def test_weights_are_saved_and_loaded_with_every_parameter():
    cell, file = make(top_detector=True), io.BytesIO()
    torch.save(cell.state_dict(), file)
    file.seek(0)
    other = HMLSTM(4, SIZES, 3, top_detector=True).double()
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(cell(sample())[0], other(sample())[0])
    assert [tuple(p.shape) for p in cell.layers[0].parameters()] == [(13, 8), (13, 4), (13,), (12,), (3,), (3,)]
    assert [tuple(p.shape) for p in cell.layers[1].parameters()] == [(21, 10), (21,), (20,), (5,), (5,)]
    assert [tuple(p.shape) for p in cell.layers[2].parameters()] == [(9, 7), (9,), (8,), (2,), (2,)]
    assert len(HMLSTM(4, SIZES, 3).layers[2].bias) == 8


def test_wrong_arguments_are_named():
    for arguments, message in (
        ({"hidden_size": [3, 5]}, r"hidden_size: got \[3, 5\], expected one size or as many as num_layers=3"),
        ({"hidden_size": [3, 0, 5]}, "hidden_size.1: got 0, expected greater than 0"),
        ({"num_layers": 0}, "num_layers: got 0"),
        ({"slope": 6.0}, "slope: got 6.0, expected at most max_slope=5.0"),
        ({"boundary_bias": [0.5]}, r"boundary_bias: got \[0.5\], expected one number or as many as detectors, 2"),
        ({"boundary_bias": 0.5, "num_layers": 1}, "boundary_bias: got 0.5, expected one number or as many as detectors, 0"),
        ({"boundary_bias": 0.5, "bias": False}, "boundary_bias: got 0.5, expected 0 with bias=false"),
        ({"boundary": "stp"}, "did you mean 'step'"),
        ({"boundary_activation": "sigmod"}, "did you mean 'sigmoid'"),
    ):
        with pytest.raises(UserError, match=message):
            HMLSTM(3, **arguments)


def test_detectors_start_at_their_bias():
    for given, expected in ((0.75, [0.75, 0.75]), ([1.0, -0.5], [1.0, -0.5])):
        cell = HMLSTM(4, SIZES, 3, boundary_bias=given)
        assert [layer.bias[-1].item() for layer in cell.layers[:2]] == expected
        assert not any(layer.bias[: 4 * layer.size].any() for layer in cell.layers)
    cell = HMLSTM(4, SIZES, 3, boundary_bias=[0.1, 0.2, 0.5], top_detector=True)
    assert cell.layers[2].bias[-1].item() == 0.5
