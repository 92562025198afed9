"""Scans as functions: the fastest implementation of each, and their arguments."""

import inspect
import re

import pytest
import torch
from torch.testing import assert_close

from seqmem.errors import UserError
from seqmem.ops import extension, functional
from seqmem.ops.causal_convolution import causal_convolution_reference
from seqmem.ops.diagonal_scan import diagonal_scan_reference
from seqmem.ops.diagonal_ssm import diagonal_ssm_reference
from seqmem.ops.diagonal_systems import discretized
from seqmem.ops.implementations import TABLE, required
from seqmem.ops.minimal_gates import minimal_gates_reference
from seqmem.ops.oscillators import oscillator_scan_reference
from seqmem.ops.selective_scan import selective_scan_reference

REFERENCES = {
    "causal_convolution": causal_convolution_reference,
    "diagonal_scan": diagonal_scan_reference,
    "diagonal_ssm": diagonal_ssm_reference,
    "minimal_gates": minimal_gates_reference,
    "oscillators": oscillator_scan_reference,
    "selective_scan": selective_scan_reference,
}
CASES = {
    "causal_convolution": lambda draw: ({"inputs": draw(3, 9, 4), "weight": draw(4, 3), "initial": draw(3, 2, 4)}),
    "diagonal_scan": lambda draw: ({"a": draw(4), "b": draw(3, 9, 4), "initial": draw(3, 4), "reverse": True}),
    "diagonal_ssm": lambda draw: (
        {"inputs": draw(3, 9, 4), "a": draw(4, 5, 2) / 9, "b": draw(4, 5, 2), "c": draw(4, 5, 2), "reverse": True}
    ),
    "minimal_gates": lambda draw: ({"projected": draw(3, 9, 12), "initial": draw(3, 4), "gates": "lstm"}),
    "oscillators": lambda draw: (
        {"stiffness": draw(4).abs(), "step": draw(4).sigmoid(), "driven": draw(3, 9, 4, 2), "initial": draw(3, 2, 4, 2),
         "method": "imex"}
    ),
    "selective_scan": lambda draw: (
        {"inputs": draw(3, 9, 4), "delta": draw(3, 9, 4), "a": -draw(4, 5).abs(), "b": draw(3, 9, 5), "c": draw(3, 9, 5),
         "skip": draw(4), "gate": draw(3, 9, 4), "delta_bias": draw(4), "initial": draw(3, 4, 5), "softplus": True}
    ),
}  # fmt: skip


def given(name):
    torch.manual_seed(0)
    return CASES[name](lambda *shape: torch.randn(shape, dtype=torch.float64)) | {"lengths": torch.tensor([9, 4, 0])}


@pytest.mark.parametrize("name", functional.__all__)
def test_a_function_has_the_arguments_and_results_of_its_reference(name):
    function, reference = getattr(functional, name), REFERENCES[name]
    assert inspect.signature(function).parameters == inspect.signature(reference).parameters
    arguments = given(name)
    assert_close(function(**arguments), reference(**arguments))
    bound = inspect.signature(reference).bind(**arguments)
    bound.apply_defaults()
    assert_close(function(*bound.args), reference(**arguments))
    with pytest.raises(TypeError, match="missing a required argument"):
        function()
    for section in ("Args:", "Returns:", "Raises:"):
        assert section in function.__doc__


@pytest.mark.skipif(bool(extension.REASON), reason=f"no compiled operators: {extension.REASON}")
@pytest.mark.parametrize("name", functional.__all__)
def test_a_function_is_one_compiled_call(name, monkeypatch):
    called = []
    first = TABLE[name][0]
    rows = (first._replace(run=lambda **values: called.append(name) or first.run(**values)), *TABLE[name][1:])
    monkeypatch.setitem(TABLE, name, rows)
    getattr(functional, name)(**given(name))
    assert called == [name]


WRONG_LENGTHS = (
    (torch.tensor([9, 10, 0]), "got lengths [10], expected each between 0 and T=9"),
    (torch.tensor([9, -1, 0]), "got lengths [-1], expected each between 0 and T=9"),
    (torch.tensor([9, 4]), "got lengths of shape (2,), expected (3,)"),
    ([9, 4, 0], "got lengths of type list, expected a tensor (3,) of int64"),
    (torch.tensor([9.0, 4.0, 0.0]), "got lengths of torch.float32, expected torch.int64"),
)


@pytest.mark.parametrize("name", functional.__all__)
@pytest.mark.parametrize(("lengths", "message"), WRONG_LENGTHS)
def test_wrong_lengths_are_named_whatever_the_implementation(name, lengths, message):
    function, wrong = getattr(functional, name), given(name) | {"lengths": lengths}
    placed = inspect.signature(function).bind(**wrong)
    placed.apply_defaults()
    key = next(key for key in ("inputs", "b", "projected", "driven") if key in wrong)
    for run in (
        lambda: function(**wrong),
        lambda: function(*placed.args),
        lambda: torch.func.grad(lambda inputs: function(**wrong | {key: inputs})[0].sum())(wrong[key]),
    ):
        with pytest.raises(UserError, match=re.escape(f"{name}: {message}")):
            run()


@pytest.mark.parametrize("name", functional.__all__)
def test_lengths_have_any_integer_type_and_are_traced(name):
    function, arguments = getattr(functional, name), given(name)
    expected = function(**arguments)
    assert_close(function(**arguments | {"lengths": arguments["lengths"].int()}), expected)
    assert_close(torch.compile(function, backend="eager", fullgraph=True)(**arguments), expected)


def test_half_precision_continues_from_a_state_in_float32():
    """The state of two halves is that of the whole; a state in half precision would be rounded in between."""
    for name in ("diagonal_scan", "minimal_gates", "oscillators"):
        torch.manual_seed(0)
        arguments = CASES[name](lambda *shape: torch.randn(shape).bfloat16()) | {"initial": None}
        arguments.pop("reverse", None)
        function, long = (
            getattr(functional, name),
            {"diagonal_scan": "b", "minimal_gates": "projected", "oscillators": "driven"}[name],
        )
        whole, last = function(**arguments)
        first, state = function(**arguments | {long: arguments[long][:, :5]})
        second, after = function(**arguments | {long: arguments[long][:, 5:], "initial": state})
        assert whole.dtype == second.dtype == torch.bfloat16
        assert last.dtype == state.dtype == torch.float32
        assert_close(torch.cat([first, second], 1), whole)
        assert_close(after, last)


def test_other_names_are_refused():
    numbers = torch.zeros(2, 3, 6)
    pairs = torch.zeros(2, 3, 4, 2)
    for call, message in (
        (
            lambda: required("diagonal_scann", numbers),
            "got operator 'diagonal_scann', expected .*; did you mean 'diagonal_scan'",
        ),
        (
            lambda: functional.minimal_gates(numbers, gates="GRU"),
            "gates: got 'GRU', expected gru, lstm, lstm_raw; did you mean 'gru'",
        ),
        (lambda: minimal_gates_reference(numbers, gates="lstm-raw"), "gates: got 'lstm-raw', .*; did you mean 'lstm_raw'"),
        (
            lambda: functional.oscillators(numbers[0, 0, :4], numbers[0, 0, :4], pairs, method="IM"),
            "method: got 'IM', expected im, imex",
        ),
        (lambda: discretized(pairs, pairs[..., 0], "ZOH"), "rule: got 'ZOH', expected zoh, bilinear; did you mean 'zoh'"),
    ):
        with pytest.raises(UserError, match=message):
            call()
