"""One rule and one message for the arguments of all cells and layers; their documentation and representation."""

import copy
import inspect
import pydoc
import re

import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence
from torch.testing import assert_close

from seqmem import cells, sequence
from seqmem.arguments import parameters
from seqmem.cells import HMLSTM, LMU, LSTM, TLSI, LegS
from seqmem.errors import UserError
from seqmem.layers import EMA, Bidirectional
from seqmem.layers.igloo import IGLOO1D
from seqmem.ops.states import mapped, parts
from seqmem.sequence import SequenceLayer
from seqmem.sequence.checks import weight_type
from tests.cells.test_battery import make, sample
from tests.data.test_checks import INTEGERS


def layers():
    """One of every cell and layer, in float32."""
    torch.manual_seed(0)
    yield from (make(name).float() for name in cells.names())
    yield from (EMA(3, 4), Bidirectional(LSTM, 3, hidden_size=4), IGLOO1D((5, 3), 4, 2, return_sequences=True))


def inputs_of(layer):
    return sample(type(layer).name, 2, 5, torch.float32) if isinstance(layer, cells.Recurrence) else torch.randn(2, 5, 3)


def outputs_of(layer, inputs, **given):
    found = layer(inputs, **given)
    return found if isinstance(layer, IGLOO1D) else found[0]


def test_inputs_of_a_wrong_type_are_named_alike():
    for layer in layers():
        name, inputs = type(layer).__name__, inputs_of(layer)
        for wrong, message in (
            (inputs.double(), f"{name}: got inputs of torch.float64, expected torch.float32, the type of its weights"),
            (inputs.long(), f"{name}: got inputs of torch.int64, expected torch.float32"),
            (inputs.bfloat16(), f"{name}: got inputs of torch.bfloat16, expected torch.float32"),
            (pack_padded_sequence(inputs, torch.tensor([5, 3]), batch_first=True), f"{name}: got a PackedSequence, expected"),
            (inputs.tolist(), f"{name}: got inputs of type list, expected a tensor"),
        ):
            with pytest.raises(UserError, match=message):
                layer(wrong)
            if isinstance(layer, SequenceLayer) and layer.causal:
                with pytest.raises(UserError, match=message):
                    layer.step(wrong if not isinstance(wrong, torch.Tensor) else wrong[:, 0])
        with torch.autocast("cpu", torch.bfloat16):
            assert_close(
                outputs_of(layer, inputs.bfloat16()).float(), outputs_of(layer, inputs).float(), rtol=0.3, atol=0.1, msg=name
            )
            with pytest.raises(UserError, match=f"{name}: got inputs of torch.float64"):
                layer(inputs.double())
            if not isinstance(layer, IGLOO1D):
                layer.bfloat16()
                for given in (inputs, inputs.bfloat16()):  # the compiled operators have no weights in bfloat16
                    assert outputs_of(layer, given).isfinite().all(), name


def test_the_type_of_weights_is_not_that_of_dynamics_in_an_earlier_module():
    decay, weights = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2).bfloat16()
    decay.no_decay = ("weight", "bias")
    for children in ((decay, weights), (weights, decay), (torch.nn.Sequential(decay), weights)):
        assert weight_type(torch.nn.Sequential(*children)) == torch.bfloat16
    assert weight_type(torch.nn.Sequential(torch.nn.Identity(), decay)) == torch.float32
    assert weight_type(torch.nn.Identity()) is None
    nested = torch.nn.Sequential(torch.nn.Sequential(torch.nn.Linear(2, 2)))
    nested.no_decay = False
    assert weight_type(torch.nn.Sequential(nested, weights)) == torch.float32
    nested.no_decay = True  # of nested modules, too
    assert weight_type(torch.nn.Sequential(nested, weights)) == torch.bfloat16
    owner = torch.nn.Module()
    owner.log_a, owner.no_decay = torch.nn.Parameter(torch.ones(2, 2)), ("log_a",)
    torch.nn.utils.parametrizations.weight_norm(owner, "log_a")
    assert weight_type(torch.nn.Sequential(owner, weights)) == torch.bfloat16


def test_lengths_of_any_integer_type_are_taken():
    lengths = torch.tensor([5, 3])
    for layer in layers():
        name, inputs = type(layer).__name__, inputs_of(layer)
        expected = outputs_of(layer, inputs, lengths=lengths)
        for dtype in INTEGERS:
            assert torch.equal(outputs_of(layer, inputs, lengths=lengths.to(dtype)), expected), name
        for wrong, message in (
            (lengths.float(), f"{name}: got lengths of torch.float32, expected torch.int64"),
            ([5, 3], f"{name}: got lengths of type list, expected a tensor"),
            (lengths[:1], rf"{name}: got lengths of shape \(1,\), expected \(2,\)"),
            (lengths + 1, rf"{name}: got lengths \[6\], expected each between 0 and T=5"),
        ):
            with pytest.raises(UserError, match=message):
                layer(inputs, lengths=wrong)


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_lengths_of_any_integer_type_are_compared_with_many_steps(dtype):
    layer, lengths = EMA(3, 4), torch.tensor([100, 5])
    for steps in (300, 70_000):
        inputs = torch.randn(2, steps, 3)
        assert torch.equal(layer(inputs, lengths=lengths.to(dtype))[0], layer(inputs, lengths=lengths)[0])
    with pytest.raises(UserError, match=r"EMA: got lengths \[100\], expected each between 0 and T=9"):
        layer(torch.randn(2, 9, 3), lengths=lengths.to(dtype))


def test_of_many_wrong_lengths_a_few_are_named():
    lengths = torch.tensor([9, 8, 5, 7, -1, 6])
    with pytest.raises(UserError, match=r"^LSTM: got lengths \[9, 8, 7\] and 2 more, expected each between 0 and T=5$"):
        LSTM(3, hidden_size=4)(torch.zeros(6, 5, 3), lengths=lengths)


def shape(tensor):
    """The pattern of a shape in a message."""
    return re.escape(str(tuple(tensor.shape)))


def test_a_state_is_checked_by_part():
    for layer in layers():
        if isinstance(layer, IGLOO1D) or not layer.causal:
            continue
        name, inputs = type(layer).__name__, inputs_of(layer)
        own = layer.initial_state(2)
        expected = outputs_of(layer, inputs)
        for given in (list(own), tuple(own), own):
            assert_close(outputs_of(layer, inputs, state=given), expected)
            layer.step(inputs[:, 0], given)
        first, *rest = own
        field = f"{name}: got state.{own._fields[0]}" if hasattr(own, "_fields") else rf"{name}: got state\[0\]"
        for wrong, message in (
            ((first[:, :-1], *rest), f"{field} of shape {shape(first[:, :-1])}, expected {shape(first)}"),
            ((first[None], *rest), f"{field} of shape {shape(first[None])}"),
            ((first.double(), *rest), f"{field} of torch.*, expected"),
            ((first.tolist(), *rest), f"{name}: got a state with a part of type .*, expected tensors"),
            ((*own, first), f"{name}: got a state of {len(own) + 1} parts, expected {len(own)}"),
            (mapped(lambda part: part[:1], own), f"{name}: got a state of 1 rows, expected 2"),
        ):
            with pytest.raises(UserError, match=message):
                layer(inputs, wrong)
            with pytest.raises(UserError, match=message):
                layer.step(inputs[:, 0], wrong)


def test_times_and_boundaries_follow_the_same_rules():
    cell, inputs = TLSI(3, 4), torch.randn(2, 5, 2)
    with pytest.raises(UserError, match="TLSI: got times of type list, expected a tensor"):
        cell(inputs, times=[[1, 2, 3, 4, 5]] * 2)
    for wrong, message in (([1, 2], "of type list"), (torch.zeros(2, 1), r"of shape \(2, 1\)")):
        with pytest.raises(UserError, match=rf"TLSI: got times {message}, expected .*\(2,\)"):
            cell.step(inputs[:, 0], times=wrong)
    whole = torch.arange(1, 6).expand(2, 5)
    assert torch.equal(cell(inputs, times=whole)[0], cell(inputs, times=whole.float())[0])
    hmlstm = HMLSTM(3, 4, num_layers=2)
    with pytest.raises(UserError, match=r"HMLSTM: got inputs of torch\.float64"):
        hmlstm.boundaries(torch.zeros(2, 5, 3).double())
    lengths = torch.tensor([5, 2], dtype=torch.int32)
    assert not hmlstm.boundaries(torch.randn(2, 5, 3), lengths=lengths)[1, 2:].any()


def test_a_layer_on_the_meta_device_is_loaded_from_its_state_dict():
    constructors = [lambda name=name: make(name).float() for name in cells.names()]
    constructors += [lambda: cells.Orthogonal(3, 8, method="dtriv", K=1), lambda: EMA(3, 4)]
    constructors += [lambda: IGLOO1D((5, 3), 4, 2, return_sequences=True)]
    for create in constructors:
        layer = create()
        inputs = inputs_of(layer)
        if isinstance(layer, cells.Orthogonal):  # B exp(A) and the number of updates
            with torch.no_grad():
                next(layer.recurrent.parameters()).mul_(0.9)
            layer(inputs)
        with torch.device("meta"):
            other = create()
        if isinstance(other, SequenceLayer):
            assert outputs_of(other, inputs.to("meta"), lengths=torch.tensor([5, 3], device="meta")).is_meta
        other.to_empty(device="cpu").load_state_dict(layer.state_dict())
        assert torch.equal(outputs_of(other, inputs), outputs_of(layer, inputs)), type(layer).__name__


def test_initial_states_do_not_have_a_tensor_in_common():
    for layer in layers():
        if not isinstance(layer, IGLOO1D):
            own = parts(layer.initial_state(2))
            assert len({part.data_ptr() for part in own}) == len(own), type(layer).__name__


def test_help_lists_every_argument_with_its_meaning():
    for name in sequence.names():
        layer = sequence.get(name)
        if layer.__doc__ == SequenceLayer.__doc__ or layer.__doc__ is None:
            continue  # a layer of the user's without a docstring
        for documented in (layer, layer.__init__):
            text = pydoc.render_doc(documented, renderer=pydoc.plaintext)
            own = inspect.getdoc(documented)
            for argument in parameters(layer):
                assert f"\n    {argument}: " in own, (name, argument)
                assert argument in text
            assert own.count("\nArgs:\n") == 1
            assert "shared:" not in own
    assert "theta: length of the window" in LMU.__doc__
    assert "dt: length of a step, in the unit of theta" in LMU.__doc__  # the nearest description
    assert "memory_order: N, the number of coefficients" in inspect.getdoc(LegS.__init__)
    assert "seed: of the patches" in IGLOO1D.__init__.__doc__


def test_a_layer_prints_its_sizes():
    for layer, expected in (
        (LegS(3, hidden_size=8), "LegS(input_size=3, hidden_size=8, memory_size=1, memory_order=8)"),
        (LMU(3, 8, theta=9.0), "LMU(input_size=3, hidden_size=8, memory_size=1, memory_order=8, theta=9.0)"),
        (LSTM(3, 8, bias=False), "LSTM(input_size=3, hidden_size=8, bias=False)"),
        (EMA(3, 4), "EMA(input_size=3, hidden_size=4)"),
    ):
        assert repr(layer) == expected
    for layer in layers():
        first = repr(layer).partition("\n")[0] + repr(layer).partition("\n")[2]
        assert "input_size=3" in first or "shape=(5, 3)" in first

    class Own(cells.Recurrence):
        """Without checked arguments."""

        def __init__(self):
            super().__init__()
            self.input_size, self.output_size = 3, 2

    assert repr(Own()) == "Own(input_size=3, output_size=2)"


def test_errors_name_the_class_that_was_called():
    for name in cells.names():
        layer = cells.get(name)
        with pytest.raises(UserError, match=f"^{layer.__name__} takes no argument 'hiden_size'; did you mean 'hidden_size'"):
            layer(3, hiden_size=8)
        with pytest.raises(UserError, match=f"^{layer.__name__}: too many positional arguments$"):
            layer(*range(40))
    with pytest.raises(UserError, match="expected at least 2 for TLSI"):
        TLSI(1)


def test_a_step_does_not_compute_an_initial_state(monkeypatch):
    cell, inputs, made = LSTM(3, 4), torch.randn(2, 3), []
    initial_state = cell.initial_state
    monkeypatch.setattr(cell, "initial_state", lambda batch_size: made.append(batch_size) or initial_state(batch_size))
    state = None
    for _ in range(5):
        _, state = cell.step(inputs, state)
    assert made == [2, 0]
    for wrong in ((state[0], state[1][:, :2]), (*state, state[0]), mapped(torch.Tensor.double, state)):
        with pytest.raises(UserError, match="got "):
            cell.step(inputs, wrong)
    assert type(cell.step(inputs, list(state))[1]) is type(state)
    cell.double()
    with pytest.raises(UserError, match=r"float32, expected torch\.float64"):
        cell.step(inputs.double(), state)
    copy.deepcopy(cell).step(inputs.double())
