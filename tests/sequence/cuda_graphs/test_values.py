"""Values and gradients of the time loop by CUDA graphs, with stand-ins for the graphs."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from seqmem import cells
from seqmem.cells import GRU, HMLSTM, MGU, RNN, TLSI, LegS, Recurrence
from seqmem.ops import extension
from seqmem.ops.gpu.captures import Graphs
from seqmem.ops.states import mapped, parts
from seqmem.sequence.cuda_graph import CapturedLoop
from tests.fake_graphs import WAITS, Traced
from tests.sequence.cuda_graphs.loops import gradients, looped, loss_of, make, sample, stepwise

QUICK = ("hmlstm", "tlsi", "exprnn", "legt learned")
"""One cell of each kind of schedule, state and step."""


def all_cells(*quick):
    names = dict.fromkeys([*cells.names(), "legt learned", *quick])
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.mark.parametrize("name", all_cells(*QUICK, "nested"))
def test_replays_have_the_values_and_gradients_of_the_loop(name, capture):
    torch.manual_seed(0)
    cell = make(name)
    loop = CapturedLoop(cell, Graphs(capture))
    for lengths in (None, torch.tensor([7, 0, 5])):
        for call in range(3):
            inputs = sample(cell, 7, 3).requires_grad_(not cell.timed)
            state = mapped(lambda part: torch.rand_like(part) if part.is_floating_point() else part, cell.initial_state(3))
            if cell.timed:
                state = state._replace(time=torch.zeros(3, dtype=torch.float64))
            leaves = [*cell.parameters(), *([] if cell.timed else [inputs])]
            found, expected = looped(loop, cell, inputs, state, lengths), stepwise(cell, inputs, state, lengths)
            assert loop.used == (call > 0)
            assert_close(found[0], expected[0])
            assert_close(found[1], parts(expected[1]))
            assert_close(gradients(found, leaves), gradients(expected, leaves))
            with torch.no_grad():
                for parameter in cell.parameters():
                    parameter.add_(0.01)  # as an optimiser would
    assert capture.made == 12  # forward and backward of 4, 2 and 1 steps, with and without a mask


@pytest.mark.parametrize("name", all_cells("tlsi"))
def test_steps_depend_on_the_arguments_of_the_graph_alone(name):
    """A trace, like a graph, keeps the values of all tensors that are not its arguments."""
    torch.manual_seed(0)
    cell = make(name)
    capture = Traced()
    loop = CapturedLoop(cell, Graphs(capture))
    lengths = torch.tensor([1, 2])
    for _ in range(3):
        inputs = sample(cell, 2)
        found, expected = looped(loop, cell, inputs, None, lengths), stepwise(cell, inputs, None, lengths)
        assert_close(found[0], expected[0])
        leaves = list(cell.parameters())
        assert_close(gradients(found, leaves), gradients(expected, leaves))
        twin = make(name)
        for mine, other in zip([*cell.parameters(), *cell.buffers()], [*twin.parameters(), *twin.buffers()], strict=True):
            mine.data = other.data.clone()  # at another address
    assert loop.used
    assert capture.made == 2
    waits = [operation for operation in capture.operations if any(name in operation for name in WAITS)]
    assert extension.REASON or not waits


@pytest.mark.parametrize("steps", [1, 3, 20])
def test_every_length_is_cut_into_the_same_graphs(cell, capture, steps):
    loop = CapturedLoop(cell, Graphs(capture))
    for length in (7, 7, steps):
        inputs = sample(cell, length)
        found = looped(loop, cell, inputs)
    assert loop.used
    assert capture.made == 6
    assert_close(found[0], stepwise(cell, inputs)[0])


def test_a_first_call_and_a_replay_have_the_same_bits(cell, capture):
    inputs, leaves = sample(cell, 7), list(cell.parameters())
    loop = CapturedLoop(cell, Graphs(capture))
    first, second = (gradients(looped(loop, cell, inputs), leaves) for _ in range(2))
    assert loop.used
    assert_close(first, second, rtol=0, atol=0)


def test_gradients_are_not_overwritten_by_later_replays(cell, capture):
    loop, batches = CapturedLoop(cell, Graphs(capture)), [sample(cell, 7) for _ in range(4)]
    for inputs in batches:  # gradients accumulate
        loss_of(*looped(loop, cell, inputs)).backward()
    found = [parameter.grad for parameter in cell.parameters()]
    expected = torch.autograd.grad(sum(loss_of(*stepwise(cell, inputs)) for inputs in batches), list(cell.parameters()))
    assert_close(found, list(expected))
    before = [grad.clone() for grad in found]
    gradients(looped(loop, cell, batches[0]), list(cell.parameters()))
    assert_close(found, before, rtol=0, atol=0)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_two_forward_passes_may_precede_their_backward_passes(cell, capture, order):
    loop = CapturedLoop(cell, Graphs(capture))
    looped(loop, cell, sample(cell, 7))
    batches = [sample(cell, 7) for _ in range(2)]
    results = [looped(loop, cell, inputs) for inputs in batches]
    kept = [result[0].detach().clone() for result in results]
    for k in order:
        expected = gradients(stepwise(cell, batches[k]), list(cell.parameters()))
        assert_close(gradients(results[k], list(cell.parameters())), expected)
    assert_close([result[0] for result in results], kept, rtol=0, atol=0)


def test_a_gradient_flows_through_a_carried_state(cell, capture):
    loop, inputs = CapturedLoop(cell, Graphs(capture)), sample(cell, 12)
    for _ in range(2):
        first, after = looped(loop, cell, inputs[:, :6])
        second, last = looped(loop, cell, inputs[:, 6:], type(cell.initial_state(2))(*after))
    assert loop.used
    leaves = list(cell.parameters())
    found = gradients((torch.cat([first, second], 1), last), leaves)
    assert_close(found, gradients(stepwise(cell, inputs), leaves))


def test_cells_of_one_device_share_memory_but_not_results(capture):
    torch.manual_seed(0)
    graphs = Graphs(capture)
    models = [RNN(3, 5).double(), MGU(3, 4).double(), RNN(3, 5).double()]
    loops = [CapturedLoop(model, graphs) for model in models]
    for _ in range(3):
        batches = [sample(model, 9) for model in models]
        results = [looped(loop, model, inputs) for loop, model, inputs in zip(loops, models, batches, strict=True)]
        for model, inputs, result in zip(models, batches, results, strict=True):
            leaves = list(model.parameters())
            assert_close(gradients(result, leaves), gradients(stepwise(model, inputs), leaves))
    assert all(loop.used for loop in loops)


def test_only_a_part_of_the_results_may_be_used(cell, capture):
    loop, leaves = CapturedLoop(cell, Graphs(capture)), list(cell.parameters())
    for _ in range(2):
        inputs = sample(cell, 5)
        found, expected = looped(loop, cell, inputs), stepwise(cell, inputs)
        pairs = ((found[0][:, -1].sum(), expected[0][:, -1].sum()), (found[1][1].sum(), expected[1].memory.sum()))
        for mine, theirs in pairs:
            results = [torch.autograd.grad(value, leaves, retain_graph=True, allow_unused=True) for value in (mine, theirs)]
            assert_close(*([torch.zeros(()) if g is None else g for g in result] for result in results))


def test_a_second_derivative_is_refused(cell, capture):
    loop = CapturedLoop(cell, Graphs(capture))
    outputs, _ = looped(loop, cell, sample(cell, 4))
    [first, *_] = torch.autograd.grad(outputs.square().sum(), list(cell.parameters()), create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def test_sampled_boundaries_are_drawn_outside_the_graph(capture):
    cell = HMLSTM(3, 5, num_layers=2, boundary="sample").double()
    loop, inputs = CapturedLoop(cell, Graphs(capture)), sample(cell, 9)
    for seed in (1, 2, 3):
        torch.manual_seed(seed)
        found, _ = looped(loop, cell, inputs)
        torch.manual_seed(seed)
        assert_close(found, stepwise(cell, inputs)[0])
    assert loop.used


def test_a_value_that_changes_between_calls_is_current(capture):
    cell = HMLSTM(3, 5, num_layers=2, boundary="soft", slope_growth=1.0).double()
    loop, inputs = CapturedLoop(cell, Graphs(capture)), sample(cell, 4)
    before = [looped(loop, cell, inputs)[0] for _ in range(2)][-1]
    cell._buffers["slope"] = cell.slope.clone()
    cell.on_epoch(4)
    after, _ = looped(loop, cell, inputs)
    assert loop.used
    assert_close(after, stepwise(cell, inputs)[0])
    assert (after - before).abs().max() > 1e-3
    cell.load_state_dict(HMLSTM(3, 5, num_layers=2, boundary="soft").double().state_dict(), assign=True)
    assert_close(looped(loop, cell, inputs)[0], stepwise(cell, inputs)[0])
    assert loop.used
    single = inputs.float()
    assert_close(looped(loop, cell.float(), single)[0], stepwise(cell, single)[0])
    assert not loop.used


def test_rows_may_stand_at_different_positions(capture):
    cell = LegS(3, 5, init_t=1, max_length=6).double()
    loop = CapturedLoop(cell, Graphs(capture))
    for positions in ([0, 5], [3, 3], [7, 1]):
        inputs, state = sample(cell, 5), cell.initial_state(2)._replace(step=torch.tensor(positions))
        assert_close(looped(loop, cell, inputs, state)[0], stepwise(cell, inputs, state)[0])
    assert loop.used


@pytest.mark.parametrize("kind", [GRU, TLSI])
def test_a_model_of_two_layers_trains_as_step_by_step(on_cuda, monkeypatch, kind):
    losses = []
    for captured in (True, False):
        if not captured:
            monkeypatch.setattr(Recurrence, "captured_forward", Recurrence.stepwise_forward)
        torch.manual_seed(0)
        layers = nn.ModuleList([kind(3, 6), kind(6 + kind.timed, 5)]).double()
        optimizer = torch.optim.Adam(layers.parameters(), 1e-2)
        for step in range(6):
            lengths = torch.tensor([7, 6 - step])
            outputs = torch.randn(2, 7, 3 - kind.timed, dtype=torch.float64)
            times = outputs[..., 0].abs().cumsum(1)
            for layer in layers:
                outputs, _ = layer(outputs, lengths=lengths, times=times if kind.timed else None)
            loss = (outputs - 0.3).square().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        if captured:
            assert layers[0].path.endswith(", by CUDA graphs")
    assert_close(losses[:6], losses[6:], rtol=1e-12, atol=0)
    assert losses[5] != losses[0]
