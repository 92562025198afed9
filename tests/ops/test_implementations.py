"""The table of implementations: all agree with their references, and every fallback has a reason."""

import pytest
import torch
from torch.testing import assert_close

from seqmem.cells import GRU, GRUS, HMLSTM, LMU, LSTM, MGU, RNN, TLSI, TLTI, ExpRNN, LegS, LegT, Orthogonal
from seqmem.cells.relu_gru import ReLUGRU
from seqmem.ops import extension, implementations
from seqmem.ops.gated import gated_reference
from seqmem.ops.gru import gru_reference
from seqmem.ops.lstm import lstm_reference
from seqmem.ops.memory_network import memory_network_reference
from seqmem.ops.modrelu import modrelu_reference
from seqmem.ops.multiscale import multiscale_reference
from seqmem.ops.plain import plain_reference
from seqmem.ops.states import mapped, parts

CASES = {
    "lstm": (LSTM(3, 5), lstm_reference),
    "lstm without bias": (LSTM(3, 17, bias=False), lstm_reference),
    "gru": (GRU(3, 5), gru_reference),
    "gru resets before": (GRU(3, 5, reset_after=False), gru_reference),
    "relu_gru": (ReLUGRU(3, 5), gru_reference),
    "mgu": (MGU(3, 5), gated_reference),
    "rnn": (RNN(3, 5), plain_reference),
    "exprnn": (ExpRNN(3, 5), modrelu_reference),
    "orthogonal, cayley": (Orthogonal(3, 17, method="cayley"), modrelu_reference),
    "rnn, relu": (RNN(3, 17, hidden_activation="relu"), plain_reference),
    "legs": (LegS(3, 5, memory_order=7), memory_network_reference),
    "legs, euler, no gate": (LegS(3, 5, discretization="euler", gate="N", memory_size=2), memory_network_reference),
    "legt": (LegT(3, 5, memory_order=6, memory_output=True), memory_network_reference),
    "lmu": (LMU(3, 5, memory_order=4, theta=9.0), memory_network_reference),
    "tlsi": (TLSI(3, 5, discretization=0.3), memory_network_reference),
    "tlti": (TLTI(3, 5, measure="lmu", discretization="backward"), memory_network_reference),
    "hmlstm": (HMLSTM(3, [4, 5], 2, top_detector=True, slope=2.0), multiscale_reference),
    "hmlstm, soft, no norm": (HMLSTM(3, [4, 5], 2, boundary="soft", layer_norm=False), multiscale_reference),
}
WITHOUT_CELL = {
    "causal_convolution",
    "diagonal_scan",
    "diagonal_ssm",
    "minimal_gates",
    "oscillators",
    "selective_scan",
    "slstm",
}
"""Operators of layers, whose own tests compare their implementations."""


@pytest.mark.skipif(bool(extension.REASON), reason="there are no compiled operators")
@pytest.mark.parametrize("case", CASES)
def test_every_implementation_agrees_with_its_reference(case):
    torch.manual_seed(0)
    cell, reference = CASES[case]
    cell, lengths = cell.double(), torch.tensor([11, 4, 0])
    inputs = torch.randn(3, 11, 3, dtype=torch.float64)
    if cell.timed:
        inputs[..., 0] = inputs[..., 0].abs().cumsum(1)
    if isinstance(cell, Orthogonal):
        torch.nn.init.normal_(cell.bias_modrelu)  # at zero, where it begins, modReLU is the identity
    state = mapped(lambda part: torch.rand_like(part).round() if part.is_floating_point() else part, cell.initial_state(3))
    if cell.timed:
        state = state._replace(time=torch.zeros(3, dtype=torch.float64))
    results = []
    for run in (cell.choose(inputs).run, reference):
        outputs, after = cell.fused_forward(run, inputs, state, lengths, False)
        loss = (outputs * torch.linspace(-1, 1, outputs.numel()).view_as(outputs)).sum()
        loss = loss + sum(part.square().sum() for part in parts(after) if part.is_floating_point())
        gradients = torch.autograd.grad(loss, list(cell.parameters()), allow_unused=True)
        given = [torch.zeros(()) if gradient is None else gradient for gradient in gradients]
        results.append((outputs, *parts(after), *given))
    for fast, slow in zip(*results, strict=True):
        assert_close(fast, slow.expand_as(fast), rtol=1e-9, atol=1e-10)


def test_every_operator_has_a_cell_or_layer():
    named = {type(cell).operator for cell, _ in CASES.values()}
    assert named | WITHOUT_CELL == set(implementations.TABLE)
    assert set(implementations.describe()) == {*implementations.TABLE, "other recurrences"}


def test_a_fallback_has_a_reason():
    for cell, reason in (
        (LegS(3, 4, discretization="zoh"), "there is no compiled sequence for the discretization 'zoh'"),
        (LegT(3, 4, trainable_scale=1.0), "the memory's step is learned"),
        (LSTM(3, 4).half(), "there are no compiled sequences of torch.float16"),
        (GRUS(3, 4), "there is no compiled sequence of GRUS"),
    ):
        inputs = torch.zeros(1, 2, 3, dtype=next(cell.parameters()).dtype)
        choice = cell.choose(inputs)
        expected = choice.fallback_reason if extension.REASON else reason
        assert choice == (None, f"step by step ({expected})", expected)
        assert cell.fallback_reason(inputs) == expected
    if not extension.REASON:
        assert "the inputs are on meta" in LSTM(3, 4).fallback_reason(torch.zeros(1, 2, 3, device="meta"))


@pytest.mark.skipif(bool(extension.REASON), reason="there are no compiled operators")
@pytest.mark.parametrize("operator", extension.SCANS)
def test_compiled_scans_compute_half_precision(operator):
    """In float32, so that a layer in half precision does not run step by step."""
    inputs = torch.zeros(1, 2, 3, dtype=torch.bfloat16)
    assert implementations.choose(operator, inputs, {}, "Made").path == "one compiled call"


@pytest.mark.skipif(bool(extension.REASON), reason="there are no compiled operators")
@pytest.mark.parametrize("operator", ["slstm", *extension.SCANS])
def test_exported_programs_keep_compiled_operators_unless_refused(operator, monkeypatch):
    """``seqmem export --operators required`` keeps them; by default it exports torch's own operators."""
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    inputs = torch.zeros(1, 2, 3)
    assert implementations.choose(operator, inputs, {}, "Made").path == "one compiled call"
    with extension.reference_only("a test"):
        expected = "a sum over the taps" if operator == "causal_convolution" else implementations.EXPORTED
        assert implementations.choose(operator, inputs, {}, "Made").path == expected


def test_the_first_row_that_can_run_is_chosen(monkeypatch):
    def row(name, device, reason=""):
        return implementations.Implementation(name, device, lambda inputs, **options: reason or options.get("no", ""), name)

    rows = (row("triton", "cuda"), row("small", "cpu", "inputs are large"), row("fast", "cpu"), row("any", ""))
    monkeypatch.setitem(implementations.TABLE, "made", rows)
    inputs = torch.zeros(1, 2, 3)
    assert implementations.choose("made", inputs, {}, "Made") == ("fast", "fast", "")
    assert implementations.choose("made", inputs.to("meta"), {}, "Made") == ("any", "any", "")
    refused = implementations.choose("made", inputs, {"no": "an option"}, "Made")
    reasons = "inputs are large; an option; an option"  # of each row for the device, the preferred one first
    assert refused == (None, f"step by step ({reasons})", reasons)
    monkeypatch.setitem(implementations.TABLE, "made", rows[:1])
    assert (
        implementations.choose("made", inputs, {}, "Made").fallback_reason
        == "triton is for cuda tensors; the inputs are on cpu"
    )


def test_a_time_loop_is_chosen_by_the_table(monkeypatch):
    inputs = torch.zeros(1, 2, 3)
    assert implementations.choose_loop(inputs, True).method == "stepwise_forward"
    [_, graph, _] = implementations.LOOPS
    assert graph.fallback_reason(inputs, True) == "a CUDA graph is for cuda tensors; the inputs are on cpu"
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    assert implementations.choose_loop(inputs, True).method == "scan_forward"
