"""LSTM, GRU and the plain network by torch's recurrent functions, on CPU tensors, against the step loop."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing import assert_close

from seqmem.cells import GRU, LSTM, RNN
from seqmem.ops import extension, implementations
from seqmem.ops.gpu import cudnn
from seqmem.ops.gru import gru_reference
from seqmem.ops.lstm import lstm_reference
from seqmem.ops.plain import plain_reference
from seqmem.ops.states import mapped, parts

KINDS = {
    "lstm": (LSTM, cudnn.lstm_cudnn, lstm_reference),
    "gru": (GRU, cudnn.gru_cudnn, gru_reference),
    "rnn": (RNN, cudnn.plain_cudnn, plain_reference),
}
OPTIONS = {"lstm": [{}, {"bias": False}], "gru": [{}, {"bias": False}], "rnn": [{}]}


def results(cell, run, inputs, state, lengths):
    """Outputs, states, and gradients of the inputs, the states and all parameters."""
    leaves = [inputs.clone().requires_grad_(), *(part.clone().requires_grad_() for part in state)]
    outputs, after = cell.fused_forward(run, leaves[0], type(state)(*leaves[1:]), lengths, False)
    scale = torch.linspace(-1, 1, outputs.numel(), dtype=outputs.dtype).view_as(outputs)
    loss = (outputs * scale).sum() + sum((k + 1) * part.square().sum() for k, part in enumerate(after))
    gradients = torch.autograd.grad(loss, [*leaves, *cell.parameters()], allow_unused=True)
    pairs = zip(gradients, [*leaves, *cell.parameters()], strict=True)
    return [outputs, *after, *(torch.zeros_like(leaf) if found is None else found for found, leaf in pairs)]


def random_state(cell, batch_size):
    return mapped(torch.rand_like, cell.initial_state(batch_size))


@pytest.mark.parametrize(("kind", "options"), [(kind, each) for kind, found in OPTIONS.items() for each in found], ids=str)
@pytest.mark.parametrize(
    ("shape", "lengths"),
    [((3, 7, 3), None), ((4, 7, 3), [7, 3, 0, 1]), ((1, 1, 3), [1]), ((2, 0, 3), None), ((2, 0, 3), [0, 0]), ((0, 4, 3), None)],
    ids=str,
)
def test_values_and_gradients_equal_the_reference(kind, options, shape, lengths):
    make, run, reference = KINDS[kind]
    cell = make(3, 5, **options).double()
    inputs, state = torch.randn(shape, dtype=torch.float64), random_state(cell, shape[0])
    given = None if lengths is None else torch.tensor(lengths)
    fast, slow = (results(cell, function, inputs, state, given) for function in (run, reference))
    assert_close(fast, slow, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_padding_has_no_influence(kind):
    make, run, _ = KINDS[kind]
    cell = make(3, 5).double()
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.mul_(20)  # large gates
    inputs, lengths = torch.randn(3, 6, 3, dtype=torch.float64), torch.tensor([6, 2, 0])
    state = random_state(cell, 3)
    clean = results(cell, run, inputs, state, lengths)
    inputs[1, 2:], inputs[2] = float("nan"), float("inf")
    padded = results(cell, run, inputs, state, lengths)
    assert_close(padded, clean, rtol=0, atol=0)
    assert clean[0][1, 2:].abs().max() == 0
    alone = results(cell, run, inputs[1:2, :2], type(state)(*(part[1:2] for part in state)), None)
    assert_close([part[1:2] for part in clean[1 : 1 + len(state)]], alone[1 : 1 + len(state)], rtol=0, atol=1e-15)
    assert_close([part[2] for part in clean[1 : 1 + len(state)]], [part[2] for part in state], rtol=0, atol=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.bfloat16, 0.05), (torch.float16, 0.01)])
def test_other_types_agree_with_float64(kind, dtype, tolerance):
    make, run, reference = KINDS[kind]
    cell = make(3, 16).to(dtype)
    inputs, lengths = torch.randn(3, 9, 3).to(dtype), torch.tensor([9, 4, 0])
    state = random_state(cell, 3)
    found = results(cell, run, inputs, state, lengths)
    assert {value.dtype for value in found} == {dtype}
    exact = results(cell.double(), reference, inputs.double(), mapped(torch.Tensor.double, state), lengths)
    for value, expected in zip(found, exact, strict=True):
        assert (value.double() - expected).abs().max() <= tolerance * (1 + expected.abs().max())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("half_inputs", [True, False])
def test_autocast_rounds_the_products_alone(kind, half_inputs):
    make, run, reference = KINDS[kind]
    cell = make(3, 16)
    inputs, lengths, state = torch.randn(3, 9, 3), torch.tensor([9, 4, 0]), random_state(cell, 3)
    given = inputs.bfloat16() if half_inputs else inputs
    with torch.autocast("cpu", torch.bfloat16):
        found = results(cell, run, given, state, lengths)
    exact = results(cell, reference, inputs, state, lengths)
    assert found[0].dtype == found[1].dtype == found[-1].dtype == torch.float32
    for value, expected in zip(found, exact, strict=True):
        assert (value - expected).abs().max() <= 0.05 * (1 + expected.abs().max())
    assert (found[0] - exact[0]).abs().max() > 1e-5  # half precision was used
    double = cell.double()
    with torch.autocast("cpu", torch.bfloat16):
        kept = results(double, run, inputs.double(), mapped(torch.Tensor.double, state), lengths)
    assert_close(kept, results(double, reference, inputs.double(), mapped(torch.Tensor.double, state), lengths))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lengths", [None, [5, 2]])
def test_a_fake_cuda_tensor_passes_through_the_table(kind, lengths, monkeypatch):
    monkeypatch.setattr(extension, "FORCED", False)
    with FakeTensorMode(), torch.device("cuda"):
        cell = KINDS[kind][0](3, 8)
        inputs = torch.zeros(2, 5, 3, device="cuda", requires_grad=True)
        given = None if lengths is None else torch.zeros(2, dtype=torch.int64, device="cuda")
        assert cell.choose(inputs).run is KINDS[kind][1]
        outputs, after = cell(inputs, lengths=given)
    assert outputs.shape == (2, 5, 8)
    assert all(part.shape == (2, 8) and part.device.type == "cuda" for part in parts(after))
    assert outputs.requires_grad


def test_what_cudnn_does_not_compute_has_a_reason():
    inputs = torch.zeros(1, 2, 3, device="meta")

    def reason(cell, name):
        [_, row] = implementations.TABLE[name]
        return row.fallback_reason(inputs, **cell.operator_options())

    assert reason(LSTM(3, 4), "lstm") == reason(GRU(3, 4), "gru") == (extension.REASON if extension.FORCED else "")
    if not extension.FORCED:
        assert reason(RNN(3, 4), "plain") == ""
        assert reason(RNN(3, 4, hidden_activation="relu"), "plain") == "the cuDNN call of plain networks has tanh, not 'relu'"
        assert reason(GRU(3, 4, reset_after=False), "gru") == "cuDNN has no GRU with the reset gate before the product"
    with extension.reference_only("asked for"):
        assert reason(LSTM(3, 4), "lstm") == "asked for"
