"""Every compiled operator takes denormals as zeros and returns zeros in their place, in each of its threads."""

import platform

import pytest
import torch

from seqmem.cells import GRU, HMLSTM, LSTM, LegS, LegT
from seqmem.cells.hmlstm import HMLSTMState
from seqmem.layers import S4D
from seqmem.ops import extension, memory_update
from seqmem.ops.causal_convolution import causal_convolution_compiled
from seqmem.ops.diagonal_scan import diagonal_scan
from seqmem.ops.legs_projection import legs_projection
from seqmem.ops.minimal_gates import minimal_gates_scan
from seqmem.ops.oscillators import oscillator_scan
from seqmem.ops.selective_scan import selective_scan_compiled
from seqmem.ops.slstm import slstm_sequence

pytestmark = [
    pytest.mark.skipif(bool(extension.REASON), reason=f"no compiled operators: {extension.REASON}"),
    pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="denormals are flushed on x86-64"),
]

TINY = {torch.float32: 1e-40, torch.float64: 1e-310}


@pytest.fixture(params=[1, 2], ids=["one thread", "two threads"], autouse=True)
def threads(request):
    """Runs with one and two threads, and checks that neither keeps another mode."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    many = torch.full((1 << 20,), 1e-40)
    assert (many * 0.5).count_nonzero() == many.numel()
    torch.set_num_threads(before)


def tiny(*shape: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.full(shape, TINY[dtype], dtype=dtype)


@pytest.mark.parametrize("dtype", TINY, ids=str)
def test_updates_flush(dtype):
    memory, inputs = tiny(300, 2, 120, dtype=dtype).requires_grad_(), tiny(300, 2, dtype=dtype).requires_grad_()
    for measure, discretization in (("legs", "bilinear"), ("legs", "zoh"), ("lmu", "forward"), ("legt", 0.3)):
        count = 9 if discretization == "zoh" else len(memory)
        for step_size in (0.5, torch.full((count,), 0.5, dtype=dtype)):
            after = memory_update(memory[:count], inputs[:count], step_size, measure, discretization)
            gradients = torch.autograd.grad(after, (memory, inputs), torch.full_like(after, TINY[dtype]))
            for result in (after, *gradients):
                assert result.count_nonzero() == 0, (measure, discretization)


@pytest.mark.parametrize("dtype", TINY, ids=str)
def test_projections_flush(dtype):
    signal, memory = tiny(3, 40, dtype=dtype).requires_grad_(), tiny(3, 6, dtype=dtype).requires_grad_()
    for discretization in ("bilinear", "zoh", 0.3):
        for start, length, every in ((5, 40, 4), (0, 40, 1), (0, 1, 1), (0, 1, 0)):
            results = legs_projection(signal[:, :length], memory, start, discretization, every)
            given = [torch.full_like(part, TINY[dtype]) for part in results]
            for result in (*results, *torch.autograd.grad(results, (signal, memory), given)):
                assert result.count_nonzero() == 0, (discretization, start, length, every)


@pytest.mark.parametrize("dtype", TINY, ids=str)
def test_sequences_flush(dtype):
    """Of gradients: they vanish in backward, while outputs of the order of one do not."""
    torch.manual_seed(0)
    for cell in (LegS(3, 5), LegT(3, 5), LSTM(3, 5), GRU(3, 5), GRU(3, 5, reset_after=False), HMLSTM(3, 5), S4D(3, 3)):
        cell, inputs = cell.to(dtype), torch.randn(40, 7, 3, dtype=dtype, requires_grad=True)
        outputs, _ = cell(inputs)
        assert cell.path == "one compiled call"
        leaves = [inputs, *cell.parameters()]
        gradients = torch.autograd.grad(outputs, leaves, torch.full_like(outputs, TINY[dtype]), allow_unused=True)
        for gradient in gradients:
            assert gradient is None or gradient.count_nonzero() == 0, cell


@pytest.mark.parametrize("dtype", TINY, ids=str)
def test_layers_that_copy_their_state_flush(dtype):
    cell = HMLSTM(3, [5, 4], 2, boundary_bias=-100.0).to(dtype)  # no boundary below the upper layer
    inputs, state = torch.randn(40, 7, 3, dtype=dtype), HMLSTMState(*(tiny(40, size, dtype=dtype) for size in (9, 9, 2)))
    outputs, after = cell(inputs, state)
    assert cell.path == "one compiled call"
    for result in (outputs[..., 5:], after.memory[:, 5:], cell.boundaries(inputs, state)):
        assert result.count_nonzero() == 0


@pytest.mark.parametrize("dtype", TINY, ids=str)
def test_scans_flush(dtype):
    torch.manual_seed(0)
    shapes = [(3, 9, 5), (3, 9, 5), (5, 4), (3, 9, 4), (3, 9, 4), (5,), (3, 9, 5), (5,), (3, 5, 4)]
    given = [torch.randn(shape, dtype=dtype) for shape in shapes]
    given[-1] = tiny(*shapes[-1], dtype=dtype)  # the state of the row without steps
    given = [tensor.requires_grad_() for tensor in given]
    for lengths in (None, torch.tensor([9, 4, 0])):
        results = selective_scan_compiled(*given, lengths=lengths, softplus=True)
        assert lengths is None or results[1][2].count_nonzero() == 0
        gradients = torch.autograd.grad(results, given, [torch.full_like(part, TINY[dtype]) for part in results])
        for gradient in gradients:
            assert not is_denormal(gradient).any()
        before = tiny(3, 3, 5, dtype=dtype).requires_grad_()
        inputs, weight = given[0], torch.ones(5, 4, dtype=dtype, requires_grad=True)
        for result in causal_convolution_compiled(inputs, weight, None, before, lengths):
            assert not is_denormal(result).any()
            small, leaves = torch.full_like(result, TINY[dtype]), (inputs, weight, before)
            for gradient in torch.autograd.grad(result, leaves, small, retain_graph=True):
                assert gradient.count_nonzero() == 0


@pytest.mark.parametrize("dtype", TINY, ids=str)
def test_the_slstm_flushes(dtype):
    torch.manual_seed(0)
    projected, weight = torch.randn(3, 9, 24, dtype=dtype), torch.randn(2, 12, 3, dtype=dtype)
    state = [tiny(3, 6, dtype=dtype) for _ in range(4)]  # that of the row without steps remains
    given = [tensor.requires_grad_() for tensor in (projected, *state, weight)]
    for lengths in (None, torch.tensor([9, 4, 0])):
        results = slstm_sequence(*given[:5], lengths, given[5])
        assert lengths is None or not any(part[2].count_nonzero() for part in results[1:])
        for gradient in torch.autograd.grad(results, given, [torch.full_like(part, TINY[dtype]) for part in results]):
            assert not is_denormal(gradient).any()


def is_denormal(tensor: torch.Tensor) -> torch.Tensor:
    return (tensor != 0) & (tensor.abs() < torch.finfo(tensor.dtype).tiny)


@pytest.mark.parametrize("dtype", TINY, ids=str)
def test_states_of_rows_without_steps_flush(dtype):
    """The state of a row of length 0, and of an empty sequence, is a copy of the one before."""
    for cell in (LegS(3, 5), LSTM(3, 5), GRU(3, 5), HMLSTM(3, 5), S4D(3, 3)):
        cell, inputs = cell.to(dtype), torch.randn(2, 4, 3, dtype=dtype)
        state = [
            tiny(*part.shape, dtype=dtype).requires_grad_() if part.is_floating_point() else part for part in cell(inputs)[1]
        ]
        for steps, lengths in ((4, torch.zeros(2, dtype=torch.int64)), (0, None)):
            after = cell(inputs[:, :steps], type(cell(inputs)[1])(*state), lengths=lengths)[1]
            assert cell.path == "one compiled call"
            pairs = [(new, old) for new, old in zip(after, state, strict=True) if old.requires_grad]
            gradients = torch.autograd.grad(
                [new for new, _ in pairs], [old for _, old in pairs], [torch.full_like(new, TINY[dtype]) for new, _ in pairs]
            )
            for result in (*[new for new, _ in pairs], *gradients):
                assert result.count_nonzero() == 0, (cell, steps)


@pytest.mark.parametrize("dtype", TINY, ids=str)
def test_linear_scans_flush(dtype):
    """With gates below 1, driven by denormals, from a state that is one."""
    decay, state = torch.full((5,), 0.5, dtype=dtype), tiny(40, 5, dtype=dtype)
    for scan, given in (
        (diagonal_scan, [decay, tiny(40, 7, 5, dtype=dtype), state]),
        (diagonal_scan, [decay.expand(40, 7, 5), tiny(40, 7, 5, dtype=dtype), state]),
        (diagonal_scan, [decay[:, None].expand(5, 2), tiny(40, 7, 5, 2, dtype=dtype), tiny(40, 5, 2, dtype=dtype)]),
        (oscillator_scan, [decay, decay, tiny(40, 7, 5, 2, dtype=dtype), tiny(40, 2, 5, 2, dtype=dtype)]),
        (minimal_gates_scan, [torch.full((40, 7, 10), -800.0, dtype=dtype), state]),
    ):
        given = [part.clone().requires_grad_() for part in given]
        for lengths in (None, torch.zeros(40, dtype=torch.int64)):
            results = scan(*given, lengths)
            gradients = torch.autograd.grad(results, given, [torch.full_like(part, TINY[dtype]) for part in results])
            for result in (*results, *gradients):
                assert result.count_nonzero() == 0, scan


def test_the_reference_flushes_where_torch_is_told_to():
    memory, inputs = tiny(2, 1, 6, dtype=torch.float32), tiny(2, 1, dtype=torch.float32)
    with extension.reference_only("a test"):
        assert memory_update(memory, inputs, 0.5).count_nonzero() > 0
        torch.set_flush_denormal(True)
        try:
            assert memory_update(memory, inputs, 0.5).count_nonzero() == 0
        finally:
            torch.set_flush_denormal(False)
