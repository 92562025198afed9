"""minGRU and minLSTM: golden vectors of both implementations, options, and initial values."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv1d, gelu, linear, pad, rms_norm
from torch.testing import assert_close

from seqmem import sequence
from seqmem.data.batch import Batch
from seqmem.data.masks import valid_steps
from seqmem.data.spec import DataSpec
from seqmem.errors import UserError
from seqmem.layers.mingru import MinGRU
from seqmem.layers.minimal import MinimalRecurrence
from seqmem.layers.minlstm import MinLSTM
from seqmem.models import StackNetwork
from seqmem.ops.states import parts
from tests import successors
from tests.cli.choices import model_settings


def g(k: Tensor) -> Tensor:
    return torch.where(k >= 0, k + 0.5, k.sigmoid())


def make(case) -> tuple[MinimalRecurrence, dict[str, str]]:
    """The layer of a case with its weights, and the original name of each of its parameters."""
    settings = case.settings
    sizes = {"input_size": settings["input_size"], "hidden_size": settings["hidden_size"]}
    options = {
        "expansion": settings["inner_size"] / settings["hidden_size"],
        "projection": settings["project"],
        "bias": settings.get("bias", False),
        "learned_state": settings.get("learned_state", False),
    }
    if settings["model"] == "minlstm":
        options["normalized"] = settings.get("normalized", True)
    layer = sequence.get(settings["model"])(**sizes, **options).double()
    given = [name.removeprefix("param.") for name in case.arrays if name.startswith("param.")]
    [gates] = {name.rpartition(".")[0] for name in given if name.startswith("to_hidden")}
    renamed = {gates: "in", "to_out": "out"}
    names = {"initial": "init_hidden_state"} if options["learned_state"] else {}
    for original in set(given) - {"init_hidden_state"}:
        module, _, kind = original.rpartition(".")
        names[f"{kind}_{renamed[module]}"] = original
    layer.load_state_dict({ours: case[f"param.{original}"] for ours, original in names.items()})
    return layer, names


@pytest.mark.parametrize("name", successors.names("mingru", "minlstm"))
def test_a_layer_is_the_original_one(name):
    case = successors.case(name)
    layer, names = make(case)
    inputs, state = case["x"].requires_grad_(), None
    if "state0.h" in case.arrays:
        state = layer.initial_state(len(inputs))._replace(hidden=case["state0.h"].squeeze(1).requires_grad_())
    outputs, last = layer(inputs, state)
    successors.assert_near(outputs, case["outputs"], 1e-9)
    successors.assert_near(last.hidden, case["state_final.h"].squeeze(1), 1e-9)
    if "outputs_parallel" in case.arrays:
        successors.assert_near(outputs, case["outputs_parallel"], 1e-9)
    (outputs * case["cotangent"]).sum().backward()
    successors.assert_near(inputs.grad, case["grad_x"], 1e-9)
    for ours, original in names.items():
        successors.assert_near(layer.get_parameter(ours).grad, case[f"grad.{original}"], 1e-9)
    if state is not None:
        successors.assert_near(state.hidden.grad, case["grad_state0.h"].squeeze(1), 1e-9)


def test_a_convolution_may_precede_the_gates():
    torch.manual_seed(0)
    inputs = torch.randn(2, 9, 3, dtype=torch.float64)
    layer = MinGRU(3, 4, kernel_size=3).double().requires_grad_(False)
    plain = MinGRU(3, 4).double().requires_grad_(False)
    plain.load_state_dict({"weight_in": layer.weight_in})
    before = pad(inputs.mT, (2, 0))
    convolved = conv1d(before, layer.convolution.weight[:, None], layer.convolution.bias, groups=3).mT
    assert_close(layer(inputs)[0], plain(inputs + convolved)[0])
    first, state = layer(inputs[:, :4])
    assert_close(state.inputs, inputs[:, 2:4])
    assert_close(torch.cat([first, layer(inputs[:, 4:], state)[0]], 1), layer(inputs)[0])


@pytest.mark.parametrize("lengths", [None, torch.tensor([9, 5])], ids=["full", "padded"])
@pytest.mark.parametrize("name", ["mingru", "minlstm"])
def test_in_a_stack_the_convolution_precedes_the_norm(name, lengths):
    """The authors' blocks: convolution and skip; norm, cell and skip; norm, MLP and skip; a final norm and the head."""
    torch.manual_seed(0)
    settings = model_settings(name)
    chosen = {key: settings[key] for key in ("norm", "feed_forward", "norm_first", "final_norm", "gelu_form")}
    mixer = {"kernel_size": 4, "bias": True, "projection": True, "learned_state": True}
    spec = DataSpec("made", 3, 4, "classification", output_steps=None, max_length=9)
    model = StackNetwork(spec, name, mixer, model_size=6, num_layers=2, **chosen).double().eval().requires_grad_(False)
    inputs = torch.randn(2, 9, 3, dtype=torch.float64)
    x = model.encoder(inputs)
    for block in model.blocks:
        cell, convolution = block.mixer, block.first
        x = x + conv1d(pad(x.mT, (3, 0)), convolution.weight[:, None], convolution.bias, groups=6).mT
        k, *gates = linear(rms_norm(x, (6,), block.norm.norm.weight, 1e-5), cell.weight_in, cell.bias_in).chunk(cell.rows, -1)
        first, second = (gate.sigmoid() for gate in (gates[0], gates[-1]))
        a, b = (1 - first, first) if name == "mingru" else (first / (first + second), second / (first + second))
        h, states = g(cell.initial).expand(2, 6), []
        for t in range(9):
            h = a[:, t] * h + b[:, t] * g(k[:, t])
            states.append(h)
        x = x + linear(torch.stack(states, 1), cell.weight_out, cell.bias_out)
        wide, narrow = block.mlp
        x = x + narrow(gelu(wide(rms_norm(x, (6,), block.second_norm.norm.weight, 1e-5))))
    expected = model.head(rms_norm(x, (6,), model.norm.norm.weight, 1e-5))
    targets = torch.zeros(2, 9, dtype=torch.int64)
    outputs, last = model.carry(Batch(inputs, targets, lengths))
    valid = torch.ones(2, 9, dtype=torch.bool) if lengths is None else valid_steps(lengths, 9)
    assert_close(outputs[valid], expected[valid])
    for begin in (None, model.initial_state(2)):
        state, found = begin, []
        for part, ends in ((inputs[:, :2], (2, 2)), (inputs[:, 2:], (7, 3))):
            counts = None if lengths is None else torch.tensor(ends)
            outputs, state = model.carry(Batch(part, targets, counts), state)
            found.append(outputs)
        assert_close(torch.cat(found, 1)[valid], expected[valid])
        assert_close(parts(state), parts(last))


def test_the_convolution_is_that_of_each_copy_in_both_directions_of_time():
    spec = DataSpec("made", 3, 4, "classification", output_steps=0, max_length=9)
    [block] = StackNetwork(spec, "mingru", {"kernel_size": 4}, model_size=6, num_layers=1, bidirectional=True).blocks
    assert block.first is None
    assert block.mixer.forward_layer.convolution.kernel_size == 4


def test_a_seed_has_the_same_weights_with_and_without_a_convolution_of_one_tap():
    states = []
    for kernel_size in (None, 1):
        torch.manual_seed(0)
        states.append(MinGRU(3, 4, learned_state=True, kernel_size=kernel_size).state_dict())
    assert_close(states[0], {key: value for key, value in states[1].items() if not key.startswith("convolution")})


def test_a_learned_state_is_the_beginning_of_each_row():
    """Also of a row that a batch begins anew within a carried state."""
    torch.manual_seed(0)
    layer = MinLSTM(3, 4, learned_state=True).double()
    state = layer.initial_state(2)
    assert_close(state.hidden, g(layer.initial).expand(2, 4))
    assert (state.hidden > 0).all()
    k, f, i = linear(torch.ones(2, 3).double(), layer.weight_in).chunk(3, -1)
    total = f.sigmoid() + i.sigmoid()
    expected = f.sigmoid() / total * g(layer.initial) + i.sigmoid() / total * g(k)
    assert_close(layer.step(torch.ones(2, 3).double())[0], expected)
    assert_close(layer.step(torch.ones(2, 3).double(), state)[0], expected)


def test_the_slope_at_a_candidate_of_zero_is_one():
    layer = MinGRU(1, 1).double()
    with torch.no_grad():
        layer.weight_in.copy_(torch.tensor([[2.0], [0.0]]))
    inputs = torch.zeros(1, 1, 1, dtype=torch.float64, requires_grad=True)
    outputs, _ = layer(inputs)
    outputs.backward()
    assert_close(inputs.grad.item(), 1.0)  # half of the slope of 2 k


def test_initial_values():
    torch.manual_seed(0)
    layer = MinLSTM(100, 64, expansion=1.5, bias=True, learned_state=True, forget_bias=3.0, kernel_size=4)
    for weight, fan in ((layer.weight_in, 100), (layer.weight_out, 96), (layer.convolution.weight, 4)):
        assert weight.abs().max() <= fan**-0.5
        assert_close(weight.std(), torch.tensor((3 * fan) ** -0.5), rtol=0.1, atol=0)
    candidate, forget, chosen = layer.bias_in.chunk(3)
    assert (forget - 3).abs().max() <= 0.1
    assert max(candidate.abs().max(), chosen.abs().max()) <= 0.1
    assert_close(layer.initial.std(), torch.tensor(1.0), rtol=0.3, atol=0)


def count(layer):
    return sum(value.numel() for value in layer.parameters())


def test_sizes():
    """The counts of both implementations, C = d = H and e = 2 d."""
    d, e = 6, 12
    official = {"expansion": 2, "bias": True, "projection": True}
    assert count(MinGRU(d, d, expansion=2)) == 3 * e * d
    assert count(MinLSTM(d, d, expansion=2)) == 4 * e * d
    assert count(MinGRU(d, d, **official)) == 2 * e * (d + 1) + d * (e + 1)
    assert count(MinLSTM(d, d, **official)) == 3 * e * (d + 1) + d * (e + 1)
    assert count(MinGRU(d, d)) == 2 * d * d
    assert count(MinGRU(d, d, learned_state=True, kernel_size=4)) == 2 * d * d + d + d * 5
    assert [MinGRU(d, 100, expansion=each).inner_size for each in (1, 1.15, 1.155, 1.5, 2)] == [100, 115, 115, 150, 200]
    assert MinGRU(d, d).gates("weight_in") == 2
    assert MinLSTM(d, d).gates("bias_in") == 3
    assert MinLSTM(d, d, projection=True).gates("weight_out") == 1
    for wrong, message in (
        ({"expansion": 0.1}, r"expansion: got 0\.1, expected a product with hidden_size=6 from 1 to 2\^31 - 1"),
        ({"expansion": 1e300}, r"expansion: got 1e\+300, expected a product with hidden_size=6 from 1 to 2\^31 - 1"),
        ({"expansion": 2, "projection": False}, "projection: got false, expected true: 12 units differ from 6 outputs"),
        ({"forget_bias": 1.0}, "forget_bias: got 1.0, expected 0 where bias is false"),
    ):
        with pytest.raises(UserError, match=message):
            MinLSTM(d, d, **wrong)
