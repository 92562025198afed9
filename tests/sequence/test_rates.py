"""The rate of a call: the time between two steps, as a multiple of that in training."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from seqmem import sequence
from seqmem.data.batch import Batch
from seqmem.data.checks import check_batch
from seqmem.data.spec import DataSpec
from seqmem.errors import UserError
from seqmem.layers import EMA, Bidirectional, LinOSS
from seqmem.models import StackNetwork
from seqmem.ops.states import parts
from seqmem.sequence import SequenceLayer
from seqmem.sequence import layer as registered
from tests.cells.test_battery import make

RATE = 0.5
RESCALING = [name for name in sequence.names() if sequence.get(name).rescales]


class State(NamedTuple):
    hidden: Tensor


class Decaying(SequenceLayer[State]):
    """dh/dt = x - h / tau with an input that is constant between steps, in steps of length ``rate``."""

    operator = "diagonal_scan"
    rescales = True

    def __init__(self, input_size: int, hidden_size: int = 4):
        super().__init__()
        self.input_size, self.output_size = input_size, hidden_size
        self.weight = nn.Parameter(torch.randn(hidden_size, input_size))
        self.tau = nn.Parameter(torch.full((hidden_size,), 5.0))

    def initial_state(self, batch_size):
        return State(self.tau.new_zeros(batch_size, self.output_size))

    def fused_forward(self, run, inputs, state, lengths, fresh, rate=1.0):
        decay = -rate / self.tau
        outputs, last = run(decay.exp(), -decay.expm1() * self.tau * (inputs @ self.weight.T), state.hidden, lengths)
        return outputs, State(last)


@pytest.fixture
def layer(monkeypatch) -> SequenceLayer:
    torch.manual_seed(0)
    monkeypatch.setitem(registered._registry, "decaying", Decaying)
    monkeypatch.setattr(Decaying, "name", "decaying", raising=False)
    return Decaying(3).double()


def test_twice_the_steps_at_half_the_rate_compute_the_same(layer):
    inputs = torch.randn(2, 6, 3, dtype=torch.float64)
    whole, last = layer(inputs)
    twice = inputs.repeat_interleave(2, 1)
    stepwise = layer.stepwise_forward(twice, layer.initial_state(2), None, True, rate=RATE)
    for outputs, after in (layer(twice, rate=RATE), stepwise):
        assert_close(outputs[:, 1::2], whole)
        assert_close(after, last)
    _, state = layer.step(inputs[:, 0], rate=RATE)
    assert_close(layer.step(inputs[:, 0], state, rate=RATE)[0], whole[:, 0])
    assert_close(layer(inputs, rate=1)[0], whole)
    halves = Bidirectional(Decaying, 3).double()
    assert_close(halves(twice, rate=RATE)[0][:, 1::2, :4], halves(inputs)[0][..., :4])


@pytest.mark.parametrize("rate", [RATE, 1 / RATE])
@pytest.mark.parametrize("name", RESCALING)
def test_whole_sequence_steps_and_halves_agree_at_any_rate(name, rate):
    """In value and gradient, for rows of different lengths and a layer with a rate of its own."""
    lengths, results = torch.tensor([7, 3, 0]), []
    inputs = torch.randn(3, 7, 3, dtype=torch.float64)

    def run(call):
        torch.manual_seed(0)
        layer = sequence.get(name)(input_size=3, hidden_size=4, rate=1.5).double()
        outputs, state = call(layer)
        (outputs.square().sum() + sum(part.square().sum() for part in parts(state))).backward()
        results.append([outputs, *parts(state), *(parameter.grad for parameter in layer.parameters())])

    def in_halves(layer):
        first, state = layer(inputs[:, :4], lengths=lengths.clamp(max=4), rate=rate)
        second, state = layer(inputs[:, 4:], state, (lengths - 4).clamp(min=0), rate=rate)
        return torch.cat([first, second], 1), state

    run(lambda layer: layer(inputs, lengths=lengths, rate=rate))
    run(lambda layer: layer.stepwise_forward(inputs, layer.initial_state(3), lengths, True, rate=rate))
    run(in_halves)
    assert_close(results[1], results[0])
    assert_close(results[2], results[0])


@pytest.mark.parametrize("name", [name for name in RESCALING if name != "linoss"])
def test_every_other_layer_that_rescales_is_an_exact_zero_order_hold(name):
    """An input that is held for two steps at half the rate has the effect of one step."""
    torch.manual_seed(0)
    layer, inputs = sequence.get(name)(input_size=3, hidden_size=4).double(), torch.randn(2, 6, 3, dtype=torch.float64)
    whole, last = layer(inputs)
    twice, after = layer(inputs.repeat_interleave(2, 1), rate=RATE)
    assert_close(twice[:, 1::2], whole)
    assert_close(after, last)
    assert not torch.allclose(layer(inputs, rate=RATE)[0], whole)


@pytest.mark.parametrize("method", ["im", "imex"])
def test_oscillators_at_another_rate_agree_up_to_the_order_of_their_steps(method):
    """A tenth of the step has a tenth of the error, over the same time."""
    errors = []
    for scale in (0.1, 0.01):
        torch.manual_seed(0)
        layer = LinOSS(3, 4, method=method).double().requires_grad_(False)
        steps = round(40 / scale)
        time = torch.linspace(0, 1, 2 * steps + 1, dtype=torch.float64)[1:, None]
        inputs = torch.sin(6 * time * torch.tensor([1.0, 2.0, 3.0])).unsqueeze(0)
        twice, usual = layer(inputs, rate=RATE * scale)[0][:, 1::2], layer(inputs[:, 1::2], rate=scale)[0]
        errors.append(((twice - usual).norm() / usual.norm()).item())
    assert errors[0] < 0.1
    assert errors[1] == pytest.approx(errors[0] / 10, rel=0.3)


@pytest.mark.parametrize("name", ["linoss", "lru", "s4d", "s5"])
def test_a_layer_may_have_a_rate_of_its_own(name):
    """That of a call multiplies it."""
    fine, usual = (sequence.get(name)(input_size=3, hidden_size=4, rate=rate).double() for rate in (RATE, 1.0))
    usual.load_state_dict(fine.state_dict())
    inputs = torch.randn(2, 6, 3, dtype=torch.float64)
    assert_close(fine(inputs), usual(inputs, rate=RATE))
    assert_close(fine(inputs, rate=1 / RATE), usual(inputs))


def test_a_stack_passes_the_rate_of_a_batch(layer):
    spec = DataSpec("made", 3, 4, "classification", output_steps=0, max_length=9)
    batch = Batch(torch.randn(2, 6, 3), torch.zeros(2, dtype=torch.int64))
    twice = replace(batch, inputs=batch.inputs.repeat_interleave(2, 1), rate=RATE)
    for settings, equal in (({}, True), ({"bidirectional": True}, False), ({"rescale": False}, False)):
        torch.manual_seed(0)
        model = StackNetwork(spec, "decaying", model_size=4, num_layers=1, pooling="last", **settings).eval()
        assert torch.allclose(model(twice), model(batch), atol=1e-5) == equal
        assert torch.allclose(model(twice), model(replace(twice, rate=1.0)), atol=1e-5) != settings.get("rescale", True)
    others = StackNetwork(spec, "lstm", model_size=4, num_layers=1)
    assert torch.equal(others(twice), others(replace(twice, rate=1.0)))


def test_a_batch_keeps_its_rate(layer):
    batch = Batch(torch.randn(2, 6, 3), torch.zeros(2, dtype=torch.int64), rate=RATE)
    assert batch.rows(slice(1)).rate == batch.to("cpu").rate == RATE
    check_batch(batch)
    for wrong in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(UserError, match=f"rate: got {wrong}"):
            check_batch(replace(batch, rate=wrong))
        with pytest.raises(UserError, match=rf"Decaying: got rate={wrong}, expected a positive number"):
            layer(batch.inputs.double(), rate=wrong)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, np.int64, np.uint8])
def test_numbers_of_numpy_are_rates(layer, kind):
    rate = kind(2)
    batch = Batch(torch.randn(2, 6, 3).double(), torch.zeros(2, dtype=torch.int64), rate=rate)
    check_batch(batch)
    expected, _ = layer(batch.inputs, rate=2.0)
    assert torch.equal(layer(batch.inputs, rate=rate)[0], expected)
    assert torch.equal(layer.step(batch.inputs[:, 0], rate=rate)[0], expected[:, 0])
    with pytest.raises(UserError, match=r"Decaying: got rate=.*0.*, expected a positive number"):
        layer(batch.inputs, rate=kind(0))


@pytest.mark.parametrize(
    ("wrong", "shown"),
    [
        (torch.tensor(0.5), "<Tensor>"),
        (np.array(0.5), "<.*>"),
        (torch.ones(2), "<Tensor>"),
        ("0.5", "'0.5'"),
        (True, "True"),
        (None, "None"),
        (np.complex64(1), ".*1.*"),
    ],
)
def test_layers_and_batches_refuse_the_same_rates(layer, wrong, shown):
    """A tensor is refused as one: it may hold gradients, and reading it waits for a GPU."""
    converts = r"; float\(\) converts one element" if "<" in shown else ""
    batch = Batch(torch.randn(2, 6, 3), torch.zeros(2, dtype=torch.int64), rate=wrong)
    with pytest.raises(UserError, match=f"^rate: got {shown} in a batch, expected a positive number{converts}$"):
        check_batch(batch)
    with pytest.raises(UserError, match=f"^Decaying: got rate={shown}, expected a positive number{converts}$"):
        layer(batch.inputs.double(), rate=wrong)


def test_layers_that_do_not_rescale_refuse_a_rate():
    for layer in (
        EMA(3, 4),
        Bidirectional(EMA, 3),
        make("lstm").float(),
        make("orthogonal").float(),
        make("tlsi").float(),
    ):
        inputs, name = torch.ones(2, 5, 3), type(layer).__name__
        assert torch.equal(layer(inputs, rate=1)[0], layer(inputs)[0])
        for call in (layer, lambda given, layer=layer, **rate: layer.step(given[:, 0], **rate)):
            if layer.causal or call is layer:
                with pytest.raises(UserError, match=f"{name}: got rate=0.5, expected 1: the layer cannot be rescaled"):
                    call(inputs, rate=RATE)
