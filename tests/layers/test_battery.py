"""Requirements of every registered layer that is not a cell. A new layer is found by its name."""

import copy
import inspect
import pickle
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import save_on_cpu
from torch.func import functional_call
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

from seqmem import cells, layers, sequence
from seqmem.cells import Recurrence
from seqmem.errors import UserError
from seqmem.layers import EMA, Bidirectional
from seqmem.ops.states import mapped, parts
from seqmem.sequence import SequenceLayer
from tests.cells import test_battery as of_cells

NAMES = sorted(set(sequence.names()) - set(cells.names()))
LENGTHS = torch.tensor([17, 5, 1, 0])

every_layer = pytest.mark.parametrize("name", NAMES)
COMPILED = ("linoss", "lru", "mingru", "minlstm", "rglru")
"""Layers that compile in the long tests: their operators do in tests/ops/test_compiled_scans.py."""


def make(name: str, size: int = 6) -> SequenceLayer:
    torch.manual_seed(0)
    layer = sequence.get(name)
    sizes = {"hidden_size": size} if "hidden_size" in inspect.signature(layer).parameters else {}
    return layer(input_size=3, **sizes).double().eval()


@pytest.fixture
def inputs() -> Tensor:
    return torch.randn(4, 17, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_layers_are_found():
    assert layers.EMA.name in NAMES


@every_layer
def test_dynamics_may_stay_in_float32_beside_weights_in_bfloat16(name, inputs):
    layer = make(name).bfloat16()
    for module in layer.modules():
        special = getattr(module, "no_decay", ())
        for key, parameter in module.named_parameters(recurse=False):
            if special is True or key in special:
                parameter.data = parameter.data.float()
    outputs, _ = layer(inputs.bfloat16())
    assert outputs.dtype == torch.bfloat16
    if layer.causal:
        step, _ = layer.step(inputs[:, 0].bfloat16(), layer.initial_state(4))
        assert step.dtype == torch.bfloat16
        assert_close(step, outputs[:, 0], rtol=0.02, atol=0.02)


@every_layer
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["whole", "lengths"])
def test_whole_sequence_and_steps_agree_in_value_and_gradient(name, lengths, inputs):
    layer, results = make(name), []
    initial = mapped(torch.randn_like, layer.initial_state(4))
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


@pytest.mark.parametrize("name", sequence.names())
def test_backward_reads_the_saved_tensors_whatever_objects_they_are(name, inputs):
    layer = make(name) if name in NAMES else of_cells.make(name)
    inputs = (inputs if name in NAMES else of_cells.sample(name, 4, 9)).requires_grad_()

    def gradients(outputs, weights):
        return torch.autograd.grad(outputs[0].sin().sum(), [inputs, *weights], allow_unused=True)

    weights = dict(layer.named_parameters())
    other = {name: (1.1 * weight).detach().requires_grad_() for name, weight in weights.items()}
    found = [gradients(functional_call(layer, other, (inputs,)), other.values())]
    expected = gradients(layer(inputs), weights.values())
    assert_close(gradients(checkpoint(layer, inputs, use_reentrant=False), weights.values()), expected)
    with save_on_cpu():
        outputs = layer(inputs)
    assert_close(gradients(outputs, weights.values()), expected)
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(other[name])
    assert_close(*found, gradients(layer(inputs), weights.values()))


@every_layer
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
    empty, after = layer(inputs[:, :0], state)
    assert empty.shape == (4, 0, layer.output_size)
    assert empty.requires_grad
    assert_close(parts(after), parts(state))
    assert layer(inputs[:0])[0].shape == (0, 17, layer.output_size)


@every_layer
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


@every_layer
def test_other_precisions_and_copies(name, inputs):
    layer = make(name).float()
    given = inputs.float()
    with torch.autocast("cpu", torch.bfloat16):
        outputs, state = layer(given)
    assert_close(outputs.float(), layer(given)[0], rtol=0.1, atol=0.1)
    assert not {part.dtype for part in parts(state)} & {torch.bfloat16, torch.float16}
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(twin(given)[0], layer(given)[0])
    assert layer.path


@every_layer
def test_an_exported_layer_accepts_any_batch_and_length(name, inputs):
    layer = make(name).requires_grad_(False)

    class Program(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer

        def forward(self, inputs: Tensor, lengths: Tensor) -> Tensor:
            return self.layer(inputs, lengths=lengths)[0]

    dynamic = ({0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}, {0: torch.export.Dim.DYNAMIC})
    program = torch.export.export(Program(), (inputs, LENGTHS), dynamic_shapes=dynamic, strict=False).module()
    longer, lengths = torch.cat([inputs, inputs], 1).repeat(2, 1, 1), 2 * LENGTHS.repeat(2)
    assert_close(program(longer, lengths), layer(longer, lengths=lengths)[0])
    # As many rows or steps as a parameter has numbers: comparing both with each other would make them guards of the program.
    sizes = {1, 2} | {size for parameter in layer.parameters() for size in parameter.shape if size <= 128}
    for rows, steps in [(size, 3) for size in sizes] + [(5, size) for size in sizes]:
        given, lengths = torch.randn(rows, steps, 3, dtype=torch.float64), torch.full((rows,), steps)
        assert_close(program(given, lengths), layer(given, lengths=lengths)[0])


@pytest.mark.parametrize("name", [name for name in NAMES if sequence.get(name).causal])
def test_an_exported_layer_continues_a_sequence(name, inputs):
    """Two halves through one program, with the state that it returns, are the whole sequence."""
    layer = make(name).requires_grad_(False)
    free = (
        {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC},
        mapped(lambda part: {0: torch.export.Dim.DYNAMIC}, layer.initial_state(4)),
    )
    program = torch.export.export(layer, (inputs[:, :6], layer.initial_state(4)), dynamic_shapes=free, strict=False).module()
    whole, last = layer(inputs)
    first, state = program(inputs[:, :6], layer.initial_state(4))
    second, after = program(inputs[:, 6:], state)
    assert_close(torch.cat([first, second], 1), whole)
    assert_close(parts(after), parts(last))


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in COMPILED)) for name in NAMES])
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")  # from torch._dynamo
def test_a_layer_compiles_to_one_graph(name, inputs):
    torch.compiler.reset()  # all layers share the code of a call, which is compiled at most eight times
    layer, results = make(name), []
    state = mapped(torch.detach, layer(inputs)[1])
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    for run in (compiled, layer):
        outputs, after = run(inputs, state, LENGTHS)
        results.append((outputs, *parts(after), *torch.autograd.grad(outputs.square().sum(), list(layer.parameters()))))
    assert_close(*results)
    with pytest.raises(RuntimeError, match="got a wrong length, expected each between 0 and T=17"):
        compiled(inputs, state, LENGTHS + 1)


@pytest.mark.parametrize("name", NAMES)
def test_states_are_real(name):
    """torch.compile generates no code for complex numbers."""
    assert not any(part.is_complex() for part in parts(make(name).initial_state(2)))


def test_mistakes_are_named(inputs):
    layer = make("ema")
    for call, message in (
        (lambda: layer(inputs[0]), r"EMA: got inputs of shape \(17, 3\), expected \(B, T, C\)"),
        (lambda: layer(inputs[..., :2]), "got inputs with 2 channels, expected input_size=3"),
        (lambda: layer(inputs, lengths=LENGTHS + 1), "expected each between 0 and T=17"),
        (lambda: layer(inputs, layer.initial_state(2)), "got a state of 2 rows, expected 4"),
        (
            lambda: layer(inputs, (torch.zeros(4, 6, 2), torch.zeros(4, 6, 2))),
            "got a state of 2 parts, expected 1: state.averages",
        ),
        (lambda: layer.step(inputs), r"got inputs of one step of shape \(4, 17, 3\), expected \(B, C\)"),
        (lambda: EMA(3, shortest=1), "shortest: got 1, expected greater than or equal to 2"),
        (lambda: EMA(3, shortest=50, longest=20), "longest: got 20, expected at least shortest=50"),
        (lambda: Bidirectional(sequence.get("tlsi"), 3), "got TLSI, which uses the times of its steps"),
        (lambda: Bidirectional(Bidirectional, 3), "got Bidirectional, which is not causal"),
        (lambda: Bidirectional("lru", 3), "got 'lru', expected a class of layers, as seqmem.layers.LRU"),
        (lambda: Bidirectional(layer, 3), "got EMA, expected a class of layers"),
        (
            lambda: type("Decay", (SequenceLayer,), {"operator": "diagonal_scann"}),
            "Decay.operator: got 'diagonal_scann', expected the name of an operator; did you mean 'diagonal_scan'",
        ),
        (lambda: sequence.get("emma"), "no cell or layer is called 'emma'; did you mean 'ema'"),
    ):
        with pytest.raises(UserError, match=message):
            call()


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


def test_an_ema_is_its_formula(inputs):
    layer = make("ema")
    a = torch.exp(torch.complex(-layer.nu.exp(), layer.theta))
    h, expected = torch.zeros(4, 6, dtype=torch.complex128), []
    for x in inputs.unbind(1):
        h = a * h + (1 - a.abs() ** 2).sqrt() * (x @ layer.weight_in.T)
        expected.append((h @ torch.view_as_complex(layer.weight_out).T).real + x @ layer.weight_skip.T)
    outputs, state = layer(inputs)
    assert_close(outputs, torch.stack(expected, 1))
    assert_close(state.averages, torch.view_as_real(h))


def test_time_constants_are_those_of_the_arguments():
    for dtype in (torch.float32, torch.float64):
        layer = EMA(3, 5, shortest=2, longest=10**8).to(dtype)  # of which float32 leaves nothing in 1 - |a|^2
        moduli = torch.exp(-layer.nu.double().exp())
        assert_close(1 / (1 - moduli[:3]), torch.logspace(0.30103, 8, 5, dtype=torch.float64)[:3], rtol=1e-3, atol=0)
        outputs, _ = layer(torch.ones(1, 50, 3, dtype=dtype))
        outputs.sum().backward()
        assert all(parameter.grad.isfinite().all() for parameter in layer.parameters())


class Parts(NamedTuple):
    real: Tensor
    rest: tuple[Tensor, Tensor]


class Nested(Recurrence[Parts]):
    """A cell whose state has a complex part within a tuple."""

    input_size, output_size = 3, 2

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2, 3, dtype=torch.float64))

    def initial_state(self, batch_size):
        real = self.weight.new_zeros(batch_size, 2)
        return Parts(real, (torch.complex(real, real), torch.zeros(batch_size, dtype=torch.int64)))

    def project(self, inputs):
        return inputs @ self.weight.T

    def advance(self, projected, state, scheduled):
        h, (z, count) = state
        z = (0.5 + 0.3j) * z + projected
        h = torch.tanh(h + z.real * z.imag + projected)
        return h, Parts(h, (z, count + 1))


def test_a_state_has_any_structure(inputs):
    torch.manual_seed(0)
    cell = Nested().requires_grad_(False)
    outputs, state = cell(inputs, lengths=LENGTHS)
    assert isinstance(state, Parts)
    assert state.rest[1].tolist() == LENGTHS.tolist()
    for row, length in enumerate(LENGTHS.tolist()):
        alone, after = cell(inputs[row : row + 1, :length])
        assert_close(outputs[row, :length], alone[0])
        assert_close([part[row : row + 1] for part in parts(state)], parts(after))
    whole, last = cell(inputs)
    for plain in (lambda state: tuple(parts(state)), lambda state: (state[0], list(state[1]))):
        _, state = cell(inputs[:, :6])
        second, after = cell(inputs[:, 6:], plain(state))
        assert_close(second, whole[:, 6:])
        assert_close(parts(after), parts(last))
    free = ({1: torch.export.Dim.DYNAMIC}, None, None)
    exported = torch.export.export(cell, (inputs, None, LENGTHS), dynamic_shapes=free, strict=False).module()
    shorter = LENGTHS.clamp(max=9)
    expected, after = cell(inputs[:, :9], lengths=shorter)
    results = exported(inputs[:, :9], None, shorter)
    assert_close(results[0], expected)
    assert_close(parts(results[1]), parts(after))


def test_a_layer_without_any_implementation_says_so(inputs):
    class Unfinished(SequenceLayer[tuple[Tensor]]):
        input_size, output_size, operator = 3, 3, "lstm"

        def initial_state(self, batch_size):
            return (torch.zeros(batch_size, 3),)

    with pytest.raises(NotImplementedError, match=r"no implementation can run \(.+\), and the layer defines neither"):
        Unfinished()(inputs.to("meta"))
