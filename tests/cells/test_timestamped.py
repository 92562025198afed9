"""Cells with timestamps: the start of a memory, equal times, carried times and refused ones."""

import pytest
import torch
from torch.testing import assert_close

from seqmem.cells import TLSI, TLTI, LegS
from seqmem.errors import UserError
from seqmem.ops import extension, reference
from tests.cells import paths

both = pytest.mark.parametrize("kind", [TLSI, TLTI])
RUNS = (True,) if extension.REASON else (False, True)  # step by step, in one compiled call


def make(kind, **arguments):
    torch.manual_seed(0)
    return kind(3, 6, memory_order=5, **arguments).double()


def series(times, seed=1):
    times = torch.as_tensor(times, dtype=torch.float64)
    torch.manual_seed(seed)
    return torch.cat([times[..., None], torch.randn(*times.shape, 2, dtype=torch.float64)], -1)


def run(cell, inputs, stepwise, state=None, lengths=None):
    fresh = state is None
    state = cell.initial_state(len(inputs)) if fresh else state
    cell.check_inputs(inputs, state, lengths)
    return (paths.stepwise if stepwise else paths.fused)(cell, inputs, state, lengths, fresh)


def test_even_times_are_hippo_legs():
    """At times 0, 1, 2, ... a step of (t - s) / t is the 1 / t of LegS, in any unit of time."""
    cell, legs = make(TLSI), LegS(2, 6, memory_order=5).double()
    legs.load_state_dict(cell.state_dict())
    inputs = series(torch.arange(9).expand(3, 9))
    stretched = inputs * torch.tensor([1000.0, 1.0, 1.0])
    for stepwise in RUNS:
        assert_close(run(cell, inputs, stepwise)[0], legs(inputs[..., 1:])[0])
        assert_close(run(cell, stretched, stepwise)[0], legs(inputs[..., 1:])[0])


@both
def test_time_0_starts_its_row_alone_and_again(kind):
    cell = make(kind)
    inputs = series([[0.0, 0.0, 0.0, 1.0], [1.0, 2.0, 3.0, 4.0]])
    for stepwise in RUNS:
        for steps in (1, 2, 3):
            outputs, state = run(cell, inputs[:, :steps], stepwise)
            hidden = torch.zeros(6, dtype=torch.float64) if steps == 1 else outputs[0, steps - 2]
            u = cell.weight_ux @ inputs[0, steps - 1, 1:] + cell.weight_uh @ hidden + cell.bias_u
            assert_close(state.memory[0, 0], torch.nn.functional.pad(u, (0, 4)))
        alone, _ = run(cell, inputs[1:], stepwise)
        assert_close(run(cell, inputs, stepwise)[0][1:], alone)


@both
def test_equal_times_leave_the_memory(kind):
    cell = make(kind)
    inputs = series([[0.5, 2.0, 2.0, 2.0]])
    for stepwise in RUNS:
        _, before = run(cell, inputs[:, :2], stepwise)
        _, after = run(cell, inputs, stepwise)
        assert_close(after.memory, before.memory, rtol=0, atol=1e-14)
        assert not torch.equal(after.hidden, before.hidden)


@pytest.mark.parametrize("measure", ["legs", "legt", "tlagt"])
def test_the_step_size_is_proportional_to_the_elapsed_time(measure):
    cell = make(TLTI, measure=measure, dt=0.1)
    inputs = series([[0.3, 0.9], [0.1, 4.0]])
    for stepwise in RUNS:
        outputs, first = run(cell, inputs[:, :1], stepwise)
        _, second = run(cell, inputs, stepwise)
        u = inputs[:, 1, 1:] @ cell.weight_ux.T + outputs[:, 0] @ cell.weight_uh.T + cell.bias_u
        expected = reference.update(measure, first.memory, u, torch.tensor([0.06, 0.39], dtype=torch.float64))
        assert_close(second.memory, expected)


@both
def test_a_time_that_decreases_is_named(kind):
    for row, step, time in ((0, 3, 0.2), (2, 1, -1.0), (1, 4, torch.nan), (1, 2, 0.0), (0, 1, torch.inf)):
        inputs = series(torch.arange(1.0, 6.0).expand(3, 5).clone())
        inputs[row, step, 0] = time
        with pytest.raises(ValueError, match=rf"got time {time:g} after {step} at step {step} of row {row}, expected finite"):
            make(kind)(inputs)
        make(kind)(inputs, lengths=torch.full((3,), step))  # padding may hold anything


@both
def test_times_continue_from_the_state(kind):
    cell, inputs = make(kind), series([[1.0, 2.0, 3.0, 5.0, 8.0], [0.0, 0.5, 0.5, 0.6, 9.0]])
    lengths = torch.tensor([2, 3])
    _, state = cell(inputs[:, :3], lengths=lengths)
    assert state.time.tolist() == [2.0, 0.5]
    later = inputs[:, 3:]
    more, final = cell(later, state)
    for row, length in enumerate(lengths.tolist()):
        joined = torch.cat([inputs[row, :length], later[row]])[None]
        assert_close(more[row], cell(joined)[0][0, length:])
    assert final.time.tolist() == [8.0, 9.0]
    with pytest.raises(UserError, match="got time 1 after 8 at step 0 of row 0"):
        cell(inputs, final)
    with pytest.raises(UserError, match="got time 0 after 9 at step 0 of row 1"):
        cell.step(torch.tensor([[8.0, 0, 0], [0.0, 0, 0]], dtype=torch.float64), final)


@both
def test_the_gradient_reaches_times(kind):
    cell = make(kind)
    inputs = series([[0.5, 0.7, 2.0, 2.5]]).requires_grad_()

    def objective(inputs):
        return cell(inputs)[0].sum()

    assert torch.autograd.gradcheck(objective, (inputs,))
    assert "no gradient for timestamps" in cell.path


@both
def test_wrong_arguments_are_named(kind):
    for arguments, message in (
        ({"input_size": 1}, "input_size: got 1, expected at least 2"),
        ({"discretization": "zoh"}, "discretization: got 'zoh'"),
        ({"measure": "legz"}, "measure: got 'legz'"),
        ({"measure_args": {"beta": 1.0}}, "takes no argument 'beta'"),
    ):
        with pytest.raises(UserError, match=message):
            kind(**{"input_size": 3, "hidden_size": 4, **arguments})


UNIX = 1.7e9 + 200 * torch.arange(12, dtype=torch.float64).expand(2, 12)
"""Seconds since 1970, which float32 rounds to multiples of 128."""


@pytest.mark.parametrize("times", [UNIX, UNIX.long()], ids=["float64", "int64"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@both
def test_step_sizes_follow_from_the_times_as_given(kind, dtype, times):
    cell = kind(3, 6, memory_order=5, **({"dt": 1e-3} if kind is TLTI else {})).to(dtype)
    inputs, exact = torch.randn(2, 12, 2).to(dtype), make(kind, **({"dt": 1e-3} if kind is TLTI else {}))
    exact.load_state_dict(cell.state_dict())
    expected, after = exact(inputs.double(), times=times)
    close = {"rtol": 0, "atol": 1e-5 if dtype == torch.float32 else 0.01}
    joined, state, _ = cell._prepared(inputs, None, None, times)
    whole, last = cell(inputs, times=times)
    stepwise, _ = cell.stepwise_forward(joined, state, None, True)
    first, state = cell(inputs[:, :5], times=times[:, :5])
    found = [first]
    for t in range(5, 8):
        output, state = cell.step(inputs[:, t], state, times=times[:, t])
        found.append(output[:, None])
    later, state = cell(inputs[:, 8:], [*state], times=times[:, 8:])
    for outputs in (whole, stepwise, torch.cat([*found, later], 1)):
        assert outputs.dtype == dtype
        assert_close(outputs.double(), expected, **close)
    for each in (last, state):
        assert (each.hidden.dtype, each.memory.dtype, each.time.dtype) == (dtype, torch.float32, torch.float64)
        assert_close(each.memory.double(), after.memory, **close)
        assert torch.equal(each.time, after.time)


@both
def test_times_that_float32_holds_leave_results_and_state_as_they_are(kind):
    cell, inputs, times = kind(3, 6), torch.randn(2, 9, 2), torch.rand(2, 9).cumsum(1)
    expected, state = cell(inputs, times=times)
    assert state.time.dtype == torch.float32
    outputs, after = cell(inputs, times=times.double())
    assert torch.equal(outputs, expected)
    assert torch.equal(after.memory, state.memory)
    later = torch.full((2,), 9.5)  # a float32 time after float64 ones
    assert_close(cell.step(inputs[:, 0], after, times=later)[0], cell.step(inputs[:, 0], state, times=later)[0])


def test_a_decrease_that_the_type_of_the_weights_would_hide_is_refused():
    cell, inputs, times = TLSI(3, 4), torch.randn(1, 2, 2), torch.tensor([[1e9 + 30, 1e9 + 10]], dtype=torch.float64)
    message = "got time 1000000010 after 1000000030 at step"
    for given in (times, times.long()):
        with pytest.raises(UserError, match=f"{message} 1 of row 0"):
            cell(inputs, times=given)
    _, state = cell.step(inputs[:, 0], times=times[:, 0])
    with pytest.raises(UserError, match=f"{message} 0 of row 0"):
        cell.step(inputs[:, 1], state, times=times[:, 1])
    with pytest.raises(UserError, match=r"got time 999999936 after 1000000030 at step 0"):
        cell.step(inputs[:, 1], state, times=torch.tensor([1e9 - 64]))
    with pytest.raises(UserError, match=r"got time 123456\.7 after 123456\.9 at step 1"):
        cell(inputs, times=torch.tensor([[123456.9, 123456.7]]))


def test_autocast_does_not_round_times():
    """Times of 1000 and a little differ by less than bfloat16 can represent; below a linear layer inputs are bfloat16."""
    cell = TLSI(3, 6, memory_order=5)
    features, times = torch.randn(2, 9, 2), 1000 + torch.rand(2, 9).cumsum(1)
    expected, _ = cell(features, times=times)
    with torch.autocast("cpu", torch.bfloat16):
        outputs, state = cell(features.bfloat16(), times=times)
        step, _ = cell.step(features[:, 0].bfloat16(), times=times[:, 0])
    assert torch.equal(state.time, times[:, -1])
    assert_close(outputs, expected, rtol=0, atol=0.02)
    assert_close(step, expected[:, 0], rtol=0, atol=0.02)


@both
def test_a_learned_layer_below_leaves_the_compiled_sequence(kind):
    cell = make(kind)
    features = torch.randn(2, 5, 2, dtype=torch.float64, requires_grad=True)
    times = torch.rand(2, 5, dtype=torch.float64).cumsum(1)
    cell(features, times=times)[0].sum().backward()
    assert extension.REASON or cell.path == "one compiled call"
    gradient, features.grad = features.grad, None
    inputs = torch.cat([times[..., None], features], -1)
    cell.stepwise_forward(inputs, cell.initial_state(2), None, True)[0].sum().backward()
    assert_close(gradient, features.grad)
