"""The operators of whole sequences: their arguments, what they keep for backward, and what they do not support."""

from itertools import chain, pairwise

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing import assert_close

from seqmem.cells import LegS
from seqmem.layers import MinGRU
from seqmem.ops import compiled_sequence, extension, generators
from seqmem.ops.memory_network import memory_network_reference, memory_network_sequence
from seqmem.ops.plain import plain_sequence
from tests.ops.sequences import OPERATORS, every_operator, make, needs_compiled, random_state

pytestmark = needs_compiled


def is_weight(part):
    return isinstance(part, torch.Tensor) and part.requires_grad


def arguments(name):
    """Small arguments of a cell's operator, of sizes without unused units in what is kept for backward."""
    cell = make(name, 3, 16)
    inputs = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    state = [part.requires_grad_() for part in random_state(cell, 2) if part.is_floating_point()]
    if name.startswith("le"):
        names = ("ux", "uh", "um", "bias_u", "hx", "hm", "hh", "bias_h")
        weights = [getattr(cell, name if "bias" in name else f"weight_{name}") for name in names]
        memory = cell.dynamics(inputs, cell.initial_state(2), True)
        steps = (memory.get(name) for name in ("step_sizes", "generators", "step", "drive"))
        more = (0.5, "id", "tanh", True, cell.memory_output, False, 3)
        return torch.ops.seqmem.memory_sequence.default, (inputs, *state, *steps, torch.tensor([4, 4]), *weights, *more)
    if name == "exprnn":
        weights = (cell.weight_hx, cell.recurrent.weight, cell.bias_hx, cell.bias_modrelu)
        return torch.ops.seqmem.modrelu_sequence.default, (inputs, *state, torch.tensor([4, 4]), *weights, 3)
    weights = (cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh)
    if name.startswith("lstm"):
        return torch.ops.seqmem.lstm_sequence.default, (inputs, *state, torch.tensor([4, 4]), *weights, False, 3)
    more = (cell.reset_after, "tanh", False, 3)
    return torch.ops.seqmem.gru_sequence.default, (inputs, *state, torch.tensor([4, 4]), *weights, *more)


opcheck_warning = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")


def assert_well_formed(name, dtype):
    operator, given = arguments(name)
    if dtype == torch.bfloat16:
        parts = (part.detach().float().requires_grad_() if is_weight(part) else part for part in given)
        given = tuple(True if k == len(given) - 2 else part for k, part in enumerate(parts))
    torch.use_deterministic_algorithms(False)
    with torch.no_grad():
        shapes = [part.shape for part in operator(*given)]
    assert shapes[0][:2] == (2, 4)
    torch.library.opcheck(operator, given)


@opcheck_warning
@pytest.mark.parametrize("name", ["legs all on", "lstm", "gru resets before", "exprnn"])
def test_operators_are_well_formed(name):
    assert_well_formed(name, torch.float64)


@opcheck_warning
@pytest.mark.slow
@every_operator
def test_operators_with_bfloat16_products_are_well_formed(names):
    for name in names:
        assert_well_formed(name, torch.float64)
        if name != "exprnn":  # whose products keep their precision
            assert_well_formed(name, torch.bfloat16)


@pytest.mark.parametrize("cell", ["legs all on", "lstm", pytest.param("gru", marks=pytest.mark.slow)])
def test_a_cell_compiles(cell):
    cell = make(cell, 3, 5)
    inputs = torch.randn(3, 5, 3, dtype=torch.float64)
    outputs = torch.compile(cell, backend="aot_eager")(inputs)[0]
    assert cell.path == "one compiled call"
    assert_close(outputs, cell(inputs)[0])


def test_nothing_is_kept_for_backward_without_a_gradient():
    for name in chain(*OPERATORS.values()):
        operator, given = arguments(name)
        kept = [part.numel() for part in operator(*given[:-1], 0)][-1]
        assert kept == 0
        with torch.no_grad():
            assert compiled_sequence.chunk_steps(given[0]) == 0
        assert compiled_sequence.chunk_steps(given[0]) > 0


def test_second_derivatives_are_refused():
    for name in ("legs", "lstm", "gru"):
        cell = make(name, 3, 5)
        inputs = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
        (first,) = torch.autograd.grad(cell(inputs)[0].sum(), inputs, create_graph=True)
        with pytest.raises(NotImplementedError, match=r"differentiable once; torch\.func\.grad .* SEQMEM_REFERENCE=1"):
            first.sum().backward()


def test_several_gradients_at_once_are_refused_or_right():
    inputs = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    for name in ("legs", "lstm", "gru"):
        outputs = make(name, 3, 5)(inputs)[0]
        with pytest.raises(NotImplementedError, match=r"one gradient at a time; torch\.func\.jacrev .* SEQMEM_REFERENCE=1"):
            torch.autograd.grad(outputs, inputs, outputs.new_ones(3, *outputs.shape), is_grads_batched=True)
    scan = MinGRU(3, 4).double()
    vectorized, alone = (
        torch.autograd.functional.jacobian(lambda given: scan(given)[0], inputs, vectorize=vectorize)
        for vectorize in (True, False)
    )
    assert torch.equal(vectorized, alone)


def test_wrong_arguments_are_named():
    operator, given = arguments("legs")
    for changes, message in (
        ({1: torch.zeros(3, 16, dtype=torch.float64)}, r"hidden: got shape \[3, 16\], expected \[2, 16\]"),
        ({0: torch.zeros(2, 4, 3)}, "hidden: got float64, expected float32"),
        ({0: torch.zeros(2, 4, 3, dtype=torch.float16)}, "inputs: got float16, expected float32 or float64"),
        ({3: torch.zeros(4)}, r"step_sizes: got \[4\] float32, expected \[4\] float64"),
        ({4: torch.zeros(6, 5, dtype=torch.float64)}, r"generators: got \[6, 5\] float64, expected \[6, 16\] float64"),
        ({4: None}, "expected either generators and step_sizes, or step and drive"),
        ({7: torch.zeros(2)}, r"lengths: got \[2\] float32, expected \(B,\) int64 with B = 2"),
        ({17: "elu"}, "memory_activation: got 'elu', expected 'id', 'tanh', 'relu' or 'sigmoid'"),
    ):
        with pytest.raises(ValueError, match=message):
            operator(*(changes.get(index, value) for index, value in enumerate(given)))


START = {"hidden": torch.zeros(2, 2), "weight_ux": torch.ones(2, 1), "weight_hm": torch.ones(2, 6)}


@pytest.mark.parametrize("value", [torch.inf, torch.nan])
@pytest.mark.parametrize("measure", ["legs", "legt"])
def test_an_infinite_step_size_discards_the_memory(measure, value):
    """One shared by all rows, and one for each; also a memory or a gradient that is not finite."""
    memory = torch.full((2, 2, 3), value, requires_grad=True)
    inputs, steps = torch.ones(2, 4, 1), torch.tensor([torch.inf, 0.5, torch.inf, 0.5], dtype=torch.float64)
    settings = START | {"gated": False, "memory_output": True, "generators": generators(measure, 3)}
    for sizes in (steps, steps[:, None].expand(4, 2)):
        results, expected = (
            run(inputs, memory=memory, step_sizes=sizes, **settings)
            for run in (memory_network_sequence, memory_network_reference)
        )
        assert_close(results, expected)
        assert torch.equal(results[0][:, 0, 2:].view(2, 2, 3), torch.tensor([1.0, 0.0, 0.0]).expand(2, 2, 3))
        incoming = torch.ones_like(results[0])
        incoming[1, 3] = torch.nan
        [gradient] = torch.autograd.grad(results[0], memory, incoming)
        assert not gradient.any()


def test_a_default_device_has_no_influence():
    weights = [torch.randn(3, 2), torch.randn(3, 3), torch.randn(3)]
    given = (torch.randn(2, 5, 2), torch.zeros(2, 3), None, *weights, "tanh")
    expected = plain_sequence(*given)
    with torch.device("meta"):
        found = plain_sequence(*given)
    assert_close(found, expected, rtol=0, atol=0)


def test_the_reference_of_a_memory_network_supports_no_rows():
    settings = {name: tensor[:0] if name == "hidden" else tensor for name, tensor in START.items()}
    for order in (0, 3):
        settings |= {"memory": torch.zeros(0, 2, order), "weight_hm": torch.ones(2, 2 * order)}
        settings |= {"step": torch.eye(order).double(), "drive": torch.ones(order).double()}
        outputs, _, memory = memory_network_reference(torch.ones(0, 4, 1), **settings, gated=False, memory_output=True)
        assert outputs.shape == (0, 4, 2 + 2 * order)
        assert memory.shape == (0, 2, order)


@pytest.mark.parametrize(("name", "states", "absent"), [("legs", 2, (9, 10, 11, 15)), ("gru", 1, (5, 6))])
def test_absent_gradients_are_different_tensors(name, states, absent):
    """Of the operators and of the fake ones, without inputs that need a gradient."""
    operator, given = arguments(name)
    given = [None if k in absent else part.detach() if is_weight(part) else part for k, part in enumerate(given)]
    backward = getattr(torch.ops.seqmem, f"{name.replace('legs', 'memory')}_sequence_backward").default
    results = operator(*given)
    given = [*results[: 1 + states], results[0], *results[1 + states :], *given, False]
    with FakeTensorMode() as mode:
        fake = [mode.from_tensor(part) if isinstance(part, torch.Tensor) else part for part in given]
        shapes = backward(*fake)
    for gradients in (shapes, backward(*given)):
        assert sum(gradient.numel() == 0 for gradient in gradients) > len(absent)
        assert len({id(gradient) for gradient in gradients}) == len(gradients)


def test_lengths_are_within_the_steps():
    for name in ("legs", "lstm", "gru"):
        operator, given = arguments(name)
        index = [argument.name for argument in operator._schema.arguments].index("lengths")
        for lengths, message in (([4, 5], "got 5 in row 1"), ([-1, 4], "got -1 in row 0")):
            changed = (torch.tensor(lengths) if k == index else part for k, part in enumerate(given))
            with pytest.raises(ValueError, match=f"seqmem::.*_sequence: lengths: {message}, expected 0 to T = 4"):
                operator(*changed)


def test_unsupported_settings_have_a_fallback_reason(monkeypatch):
    inputs = torch.zeros(1, 2, 3)
    assert not compiled_sequence.fallback_reason(inputs)
    assert LegS(2, discretization="zoh").fallback_reason(inputs)
    assert compiled_sequence.fallback_reason(inputs.half())
    assert compiled_sequence.fallback_reason(torch.zeros(1, 2, 3, device="meta"))
    assert compiled_sequence.fallback_reason(inputs.bfloat16())
    with torch.autocast("cpu", torch.float16):
        assert compiled_sequence.fallback_reason(inputs)
        assert not compiled_sequence.fallback_reason(inputs.double())
    monkeypatch.setattr(extension, "REASON", "SEQMEM_REFERENCE is set")
    monkeypatch.setattr(extension, "FORCED", True)
    assert compiled_sequence.fallback_reason(inputs)


def test_memory_for_backward_is_linear_in_the_length():
    def kept(steps):
        zeros = torch.zeros
        sizes = zeros(steps, dtype=torch.float64)
        given = (
            zeros(2, steps, 1),
            zeros(2, 3),
            zeros(2, 1, 4),
            sizes,
            generators("legs", 4),
            None,
            None,
            None,
            None,
            zeros(1, 3),
        )
        parts = torch.ops.seqmem.memory_sequence(
            *given, *[None] * 3, zeros(6, 4), None, None, 0.5, "id", "tanh", True, False, False, 100
        )
        return sum(part.numel() for part in parts)

    sizes = [kept(steps) for steps in (1000, 2000, 4000)]
    assert all(long <= 2 * short for short, long in pairwise(sizes))
