"""What every registered layer that is not a cell must do; a layer that is added is tested without a line here."""

import copy
import inspect

import pytest
import torch
from torch.testing import assert_close

from seqmem import cells, layers, sequence
from seqmem.errors import UserError
from seqmem.layers import Bidirectional
from seqmem.ops.states import mapped, parts

NAMES = sorted(set(sequence.names()) - set(cells.names()))
LENGTHS = torch.tensor([17, 5, 1, 0])


def make(name: str, size: int = 6) -> sequence.SequenceLayer:
    torch.manual_seed(0)
    layer = sequence.get(name)
    sizes = {"hidden_size": size} if "hidden_size" in inspect.signature(layer).parameters else {}
    return layer(input_size=3, **sizes).double().eval()


@pytest.fixture
def inputs() -> torch.Tensor:
    return torch.randn(4, 17, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_layers_are_found():
    assert layers.EMA.name in NAMES


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["whole", "lengths"])
def test_whole_sequence_and_steps_agree_in_value_and_gradient(name, lengths, inputs):
    layer, results = make(name), []
    initial = mapped(lambda part: torch.randn_like(part), layer.initial_state(4))
    for run in (layer.whole_sequence, layer.stepwise_forward):
        given = inputs.clone().requires_grad_()
        before = mapped(lambda part: part.clone().requires_grad_(part.is_floating_point() or part.is_complex()), initial)
        outputs, after = run(given, before, lengths, False)
        loss = (outputs * torch.linspace(-1, 1, outputs.numel()).view_as(outputs)).sum()
        loss = loss + sum(part.abs().square().sum() for part in parts(after))
        sources = [given, *(part for part in parts(before) if part.requires_grad), *layer.parameters()]
        results.append((outputs, *parts(after), *torch.autograd.grad(loss, sources, allow_unused=True)))
    for fast, slow in zip(*results, strict=True):
        assert_close(fast, slow, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_a_state_continues_a_sequence(name, inputs):
    layer = make(name)
    whole, last = layer(inputs)
    first, state = layer(inputs[:, :6])
    plain = tuple(parts(state))  # as a checkpoint holds it
    second, after = layer(inputs[:, 6:], plain)
    assert_close(torch.cat([first, second], 1), whole)
    assert_close(parts(after), parts(last))
    output, _ = layer.step(inputs[:, 6], state)
    assert_close(output, whole[:, 6])


@pytest.mark.parametrize("name", NAMES)
def test_padding_and_other_rows_have_no_influence(name, inputs):
    layer = make(name)
    padded = inputs.clone()
    padded[1, 5:] = float("nan")
    padded.requires_grad_()
    outputs, state = layer(padded, lengths=LENGTHS)
    alone, after = layer(inputs[1:2, :5])
    assert_close(outputs[1:2, :5], alone)
    assert_close([part[1:2] for part in parts(state)], parts(after))
    assert outputs[1, 5:].eq(0).all()
    [gradient] = torch.autograd.grad(outputs.sum(), padded)
    assert gradient.isfinite().all()
    assert gradient[1, 5:].eq(0).all()


@pytest.mark.parametrize("name", NAMES)
def test_other_precisions_and_copies(name, inputs):
    layer = make(name).float()
    given = inputs.float()
    with torch.autocast("cpu", torch.bfloat16):
        outputs, state = layer(given)
    assert_close(outputs.float(), layer(given)[0], rtol=0.1, atol=0.1)
    assert not {part.dtype for part in parts(state)} & {torch.bfloat16, torch.float16}
    assert_close(copy.deepcopy(layer)(given)[0], layer(given)[0])
    assert layer.path


@pytest.mark.parametrize("name", NAMES)
def test_mistakes_are_named(name, inputs):
    layer = make(name)
    with pytest.raises(UserError, match=r"expected \(B, T, C\)"):
        layer(inputs[0])
    with pytest.raises(UserError, match="got inputs with 2 channels, expected input_size=3"):
        layer(inputs[..., :2])
    with pytest.raises(UserError, match="expected each between 0 and T=17"):
        layer(inputs, lengths=LENGTHS + 1)
    with pytest.raises(UserError, match="got a state of 2 rows, expected 4"):
        layer(inputs, layer.initial_state(2))


@pytest.mark.parametrize("name", [*NAMES, "lstm"])
def test_bidirectional_reverses_the_valid_steps(name, inputs):
    torch.manual_seed(0)
    layer = Bidirectional(sequence.get(name), 3, hidden_size=4).double()
    outputs, state = layer(inputs, lengths=LENGTHS)
    assert state is None
    assert outputs.shape == (4, 17, layer.output_size)
    reversed_row, _ = layer.backward_layer(inputs[1:2, :5].flip(1))
    assert_close(outputs[1:2, :5, layer.output_size // 2 :], reversed_row.flip(1))
    assert outputs[1, 5:].eq(0).all()
    with pytest.raises(UserError, match="Bidirectional has no step form"):
        layer.step(inputs[:, 0])
    with pytest.raises(UserError, match="the layer is not causal and carries none"):
        layer(inputs, (torch.zeros(4, 4),))


def test_bidirectional_refuses_times():
    with pytest.raises(UserError, match="got tlsi, which uses the times of its steps"):
        Bidirectional(sequence.get("tlsi"), 3)


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(UserError, match="no cell or layer is called 'emma'; did you mean 'ema'"):
        sequence.get("emma")
