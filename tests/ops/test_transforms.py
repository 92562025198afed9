"""No operator gives a forward-mode derivative of zero: it is computed with torch's operations, or refused."""

import pytest
import torch
from torch.autograd import forward_ad
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from seqmem.cells import GRU, HMLSTM, LSTM, ExpRNN, LegS
from seqmem.hippo import OnlineProjection, project
from seqmem.layers import LRU, S4D, SLSTM, LinOSS, Mamba, MinGRU
from seqmem.ops import discretize, extension, legs_function_approximation, legs_update, legt_update, memory_update, transition
from seqmem.ops.legs_projection import HOLD_NUMBERS
from tests.ops.registered import compiled_operators

compiled_only = pytest.mark.skipif(bool(extension.REASON), reason="there are no compiled operators")
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")  # torch's forward mode


def random(*shape, **options):
    return torch.randn(*shape, dtype=torch.float64, **options)


def uses():
    """Calls whose values and gradients pass through every compiled operator."""
    memory, inputs = random(2, 1, 4, requires_grad=True), random(2, 1, requires_grad=True)
    for step_size in (0.3, torch.tensor([0.3, 0.2], dtype=torch.float64, requires_grad=True)):
        for discretization in ("forward", "backward", "bilinear", "zoh"):
            yield legs_update(memory, inputs, step_size, discretization)
        yield legt_update(memory, inputs, step_size)
        yield memory_update(memory, inputs, step_size, "legt")
    yield legs_function_approximation(random(2, 5, requires_grad=True), 3)
    yield project(random(2, 5, requires_grad=True), 3)
    yield project(random(2, HOLD_NUMBERS, requires_grad=True), 3, discretization="zoh")
    cells = (LSTM(3, 4), GRU(3, 4), ExpRNN(3, 4), LegS(3, 4), HMLSTM(3, 4, num_layers=2))
    layers = (LRU(3, 4), S4D(3, 4), LinOSS(3, 4), MinGRU(3, 4), Mamba(3, 4), SLSTM(3, 4))
    for layer in (*cells, *layers):
        yield layer.double()(random(2, 3, 3))[0]


class Recorder(TorchDispatchMode):
    """Keeps the arguments of the latest call of each operator of this project."""

    def __init__(self):
        super().__init__()
        self.calls = {}

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        if operator.namespace == "seqmem":
            self.calls[operator] = [value.detach().clone() if isinstance(value, torch.Tensor) else value for value in args]
        return operator(*args, **kwargs or {})


@compiled_only
def test_every_operator_refuses_forward_mode_by_name():
    torch.manual_seed(0)
    with Recorder() as recorder:
        for outputs in uses():
            outputs.sum().backward()
    named = compiled_operators() | {"seqmem::legs_hold", "seqmem::legs_hold_adjoint"}
    assert named == {operator._name for operator in recorder.calls}
    for operator, arguments in recorder.calls.items():
        place = next(k for k, value in enumerate(arguments) if isinstance(value, torch.Tensor))

        def call(value, operator=operator, place=place, arguments=arguments):
            results = operator(*arguments[:place], value, *arguments[place + 1 :])
            return results if isinstance(results, torch.Tensor) else results[0]

        value = arguments[place]
        with pytest.raises((NotImplementedError, RuntimeError), match=r"forward-mode|jvp"), forward_ad.dual_level():
            call(forward_ad.make_dual(value, torch.ones_like(value)))
        with pytest.raises((NotImplementedError, RuntimeError), match=r"torch\.func|functorch"):
            torch.func.jvp(call, (value,), (torch.ones_like(value),))


def test_forward_mode_of_updates_and_projections():
    torch.manual_seed(0)
    memory, inputs, dt = random(2, 1, 4), random(2, 1), torch.rand(2, dtype=torch.float64)
    signal = random(2, 9)
    A, B = transition("legs", 3)
    functions = [
        *(lambda m, d=d: legs_update(m, inputs, 0.3, d) for d in ("forward", "bilinear", "zoh")),
        lambda m: legt_update(m, inputs, 0.3),
        lambda m: memory_update(m, inputs, dt, "lagt", 0.7),
    ]
    cases = [(function, memory) for function in functions]
    cases += [(lambda d, measure=measure: memory_update(memory, inputs, d, measure), dt) for measure in ("legs", "legt")]
    cases += [(lambda s: legs_function_approximation(s, 3), signal)]
    for arguments in (
        {},
        {"every": 4},
        {"discretization": "zoh"},
        {"measure": "legt", "theta": 5},
        {"measure": "lagt", "theta": 3},
    ):
        cases.append((lambda s, arguments=arguments: project(s, 3, **arguments), signal))
    cases += [(lambda s: OnlineProjection(3).update(s), signal), (lambda a: discretize(a, B, 0.1, "zoh")[1], A)]
    for function, value in cases:
        given, direction = value.clone().requires_grad_(), torch.randn_like(value)
        outputs = function(given)
        cotangent = torch.randn_like(outputs)
        [gradient] = torch.autograd.grad((outputs * cotangent).sum(), given)
        expected = (gradient * direction).sum()
        results, tangent = torch.func.jvp(function, (value,), (direction,))
        assert_close(results, outputs)
        assert_close((tangent * cotangent).sum(), expected)
        with forward_ad.dual_level():
            dual = forward_ad.unpack_dual(function(forward_ad.make_dual(value, direction)))
            assert_close(dual.tangent, tangent)
        assert_close(torch.func.grad(lambda v, f=function, c=cotangent: (f(v) * c).sum())(value), gradient)
        assert_close(torch.func.vmap(function)(value[None])[0], outputs)


def test_compiled_functions_keep_the_derivatives():
    torch.manual_seed(0)
    memory, direction, inputs = random(2, 1, 4), random(2, 1, 4), random(2, 1)
    torch._dynamo.reset()

    def function(value):
        return legs_update(value, inputs, 0.3)

    def tangent(call):
        with forward_ad.dual_level():
            return forward_ad.unpack_dual(call(forward_ad.make_dual(memory, direction))).tangent

    compiled = torch.compile(function, backend="eager")
    expected = function(direction) - function(torch.zeros_like(memory))
    for _ in range(2):  # the graph without a transform, then one for each transform
        assert_close(compiled(memory), function(memory))
        assert_close(torch.func.jvp(compiled, (memory,), (direction,))[1], expected)
        assert_close(torch.func.vmap(compiled)(memory[None])[0], function(memory))
        assert_close(tangent(compiled), expected)
    inside = torch.compile(lambda value, change: torch.func.jvp(function, (value,), (change,))[1], backend="eager")
    assert_close(inside(memory, direction), expected)
    gradient = torch.func.grad(lambda value: (function(value) * direction).sum())
    assert_close(torch.compile(gradient, backend="eager")(memory), gradient(memory))


@compiled_only
def test_a_measure_compiles_without_a_graph_break():
    torch._dynamo.reset()
    update = torch.compile(lambda memory, inputs: memory_update(memory, inputs, 0.1, "lagt"), fullgraph=True, backend="eager")
    for order in (4, 5, 6):  # torch.compile traces a size that changed as a symbol
        memory, inputs = random(2, 1, order), random(2, 1)
        assert_close(update(memory, inputs), memory_update(memory, inputs, 0.1, "lagt"))


def test_a_compiled_step_keeps_the_types_of_the_state_under_autocast():
    torch._dynamo.reset()
    for cell in (LSTM(3, 4), LegS(3, 4)):
        inputs = torch.randn(2, 3)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            _, before = cell.step(inputs)
            outputs, after = torch.compile(cell.step, backend="eager")(inputs, before)
            expected, state = cell.step(inputs, before)
        assert type(after) is type(before)
        assert [part.dtype for part in after] == [part.dtype for part in before]
        assert_close((outputs, *after), (expected, *state))
