"""What every registered cell must do. A new cell is picked up by its name, with the tiny preset of its YAML."""

import io
from pathlib import Path

import pytest
import torch
import yaml
from torch.testing import assert_close

from seqmem import cells
from seqmem.arguments import parameters
from seqmem.cells.timestamped import TimestampedCell
from seqmem.errors import UserError

_configs = Path(__file__).parents[2] / "cfg" / "model"

every_cell = pytest.mark.parametrize("name", cells.names())
odd_sizes = pytest.mark.parametrize(("batch", "steps"), [(1, 1), (1, 7), (3, 1), (5, 13)], ids=lambda size: str(size))


def config(name):
    return yaml.safe_load((_configs / f"{name}.yaml").read_text())


def make(name, input_size=3, dtype=torch.float64, **changes):
    torch.manual_seed(0)
    tiny = config(name)["presets"]["tiny"]["cell_args"]
    return cells.get(name)(input_size=input_size, **{**tiny, **changes}).to(dtype)


def sample(name, batch, steps, dtype=torch.float64):
    """Inputs (B, T, 3) that the cell can make sense of."""
    inputs = torch.randn(batch, steps, 3, dtype=dtype)
    if issubclass(cells.get(name), TimestampedCell):
        inputs[..., 0] = (torch.rand(batch, steps, dtype=dtype) + 0.1).cumsum(1)
    return inputs


def rows(state, index):
    return type(state)(*(part[index] for part in state))


@every_cell
def test_yaml_lists_every_argument_with_its_default(name):
    listed = config(name)
    assert listed["cell"] == name
    wanted = parameters(cells.get(name), skip=("input_size",))
    assert list(listed["cell_args"]) == list(wanted)
    for key, default in wanted.items():
        if isinstance(default, dict):
            default = getattr(cells.get(name), f"default_{key}", default)
        assert listed["cell_args"][key] == default, key


@every_cell
@odd_sizes
def test_step_equals_sequence(name, batch, steps):
    cell = make(name)
    inputs = sample(name, batch, steps)
    outputs, final = cell(inputs)
    assert outputs.shape == (batch, steps, cell.output_size)
    state, singles = None, []
    for t in range(steps):
        output, state = cell.step(inputs[:, t], state)
        singles.append(output)
    assert_close(torch.stack(singles, 1), outputs)
    for part, wanted in zip(state, final, strict=True):
        assert_close(part, wanted)


@every_cell
def test_state_is_carried_on(name):
    cell = make(name)
    inputs = sample(name, 4, 11)
    whole, final = cell(inputs)
    first, state = cell(inputs[:, :5])
    for given in (state, tuple(part.detach() for part in state)):
        second, carried = cell(inputs[:, 5:], given)
        assert_close(torch.cat([first, second], 1), whole)
        for part, wanted in zip(carried, final, strict=True):
            assert_close(part, wanted)
    assert_close(cell.step(inputs[:, 5], tuple(state))[0], second[:, 0])
    with pytest.raises(UserError, match=f"got a state of {len(state) + 1} parts, expected {len(state)}"):
        cell(inputs[:, 5:], (*state, state[0]))


@every_cell
def test_rows_are_independent_of_padding_and_of_each_other(name):
    cell = make(name)
    inputs = sample(name, 4, 9)
    lengths = torch.tensor([9, 1, 4, 0])
    spoilt = inputs.clone()
    for row, length in enumerate(lengths):
        spoilt[row, length:] = torch.nan
    outputs, state = cell(spoilt, lengths=lengths)
    for row, length in enumerate(lengths.tolist()):
        alone, own = cell(inputs[row : row + 1, :length])
        assert_close(outputs[row, :length], alone[0])
        assert not outputs[row, length:].any()
        for part, wanted in zip(rows(state, slice(row, row + 1)), own, strict=True):
            assert_close(part, wanted)


@every_cell
def test_state_of_rows_with_different_lengths_is_carried_on(name):
    cell = make(name)
    inputs = sample(name, 3, 10)
    lengths = torch.tensor([6, 0, 3])
    _, state = cell(inputs[:, :6], lengths=lengths)
    more, _ = cell(inputs[:, 6:], state)
    for row, length in enumerate(lengths.tolist()):
        joined = torch.cat([inputs[row, :length], inputs[row, 6:]])[None]
        assert_close(more[row], cell(joined)[0][0, length:])


@every_cell
def test_padding_gets_no_gradient(name):
    cell = make(name)
    inputs = sample(name, 2, 6)
    inputs[1, 2:] = torch.nan
    inputs.requires_grad_()
    lengths = torch.tensor([6, 2])
    outputs, state = cell(inputs, lengths=lengths)
    (outputs.sum() + sum(part.sum() for part in state if part.is_floating_point())).backward()
    assert all(parameter.grad.isfinite().all() for parameter in cell.parameters())
    assert inputs.grad[0].any(1).all()
    assert inputs.grad[1, :2].any(1).all()
    assert not inputs.grad[1, 2:].any()


@every_cell
@pytest.mark.parametrize("path", ["forward", "stepwise_forward"])
def test_an_extreme_value_stays_in_its_row_and_in_what_follows(name, path):
    cell = make(name, dtype=torch.float32)
    inputs = sample(name, 4, 7, torch.float32)

    def run(given):
        if path == "forward":
            return cell(given)
        return cell.stepwise_forward(given, cell.initial_state(4), None, True)

    outputs, state = run(inputs)
    others = [0, 2, 3]
    for value in (torch.nan, torch.inf, -1e30, 3e38):
        spoilt = inputs.clone()
        spoilt[1, 3, 1] = value
        after, end = run(spoilt)
        assert torch.equal(after[others], outputs[others])
        assert torch.equal(after[1, :3], outputs[1, :3])
        assert all(torch.equal(part[others], wanted[others]) for part, wanted in zip(end, state, strict=True))


@every_cell
def test_no_rows_and_constant_channels(name):
    cell = make(name, dtype=torch.float32)
    outputs, state = cell(sample(name, 0, 5, torch.float32))
    assert outputs.shape == (0, 5, cell.output_size)
    assert all(part.shape[0] == 0 for part in state)
    for value in (0.0, -1.0, 1e6):
        inputs = sample(name, 2, 300, torch.float32)
        inputs[..., 1:] = value
        outputs, _ = cell(inputs)
        assert outputs.isfinite().all()


@every_cell
def test_gradients_are_those_of_finite_differences(name):
    cell = make(name)
    inputs = sample(name, 2, 4).requires_grad_()
    names, values = zip(*cell.named_parameters(), strict=True)

    def run(x, *weights):
        outputs, state = torch.func.functional_call(cell, dict(zip(names, weights, strict=True)), (x,))
        return outputs, *(part for part in state if part.is_floating_point())

    torch.autograd.gradcheck(run, (inputs, *values))


@every_cell
def test_float32_agrees_with_float64(name):
    inputs = sample(name, 3, 50)
    exact, single = make(name), make(name).float()
    assert_close(single(inputs.float())[0].double(), exact(inputs)[0], rtol=1e-4, atol=1e-5)


@every_cell
def test_autocast_keeps_the_state_in_its_own_precision(name):
    cell = make(name, dtype=torch.float32)
    inputs = sample(name, 3, 12, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        outputs, state = cell(inputs)
    assert all(part.dtype in (torch.float32, torch.int64) for part in state)
    assert_close(outputs.float(), cell(inputs)[0], rtol=0.1, atol=0.05)
    outputs.float().sum().backward()
    assert all(parameter.grad is not None for parameter in cell.parameters())


@every_cell
def test_saving_and_loading_reproduces_outputs(name):
    cell = make(name)
    file = io.BytesIO()
    torch.save(cell.state_dict(), file)
    file.seek(0)
    other = make(name)
    for parameter in other.parameters():
        torch.nn.init.zeros_(parameter)
    other.load_state_dict(torch.load(file, weights_only=True))
    inputs = sample(name, 2, 5)
    assert torch.equal(cell(inputs)[0], other(inputs)[0])


@every_cell
def test_a_checkpoint_holds_parameters_only(name):
    cell = make(name)
    assert set(cell.state_dict()) == {name for name, _ in cell.named_parameters()}


@every_cell
def test_empty_sequence_leaves_the_state(name):
    cell = make(name)
    outputs, state = cell(torch.zeros(2, 0, 3, dtype=torch.float64))
    assert outputs.shape == (2, 0, cell.output_size)
    for part, initial in zip(state, cell.initial_state(2), strict=True):
        assert torch.equal(part, initial)


@every_cell
def test_times_join_the_inputs_as_first_channel(name):
    cell = make(name, input_size=4)
    inputs = torch.randn(2, 5, 3, dtype=torch.float64)
    times = torch.rand(2, 5, dtype=torch.float64).cumsum(1)
    joined = torch.cat([times[..., None], inputs], -1)
    assert_close(cell(inputs, times=times)[0], cell(joined)[0])


@every_cell
@pytest.mark.parametrize(
    ("shape", "keywords", "message"),
    [
        ((5, 3), {}, r"shape \(5, 3\), expected \(B, T, C\)"),
        ((2, 5, 4), {}, "4 channels, expected input_size=3"),
        ((2, 5, 3), {"lengths": torch.tensor([5])}, r"lengths of shape \(1,\), expected \(2,\)"),
        ((2, 5, 3), {"lengths": torch.tensor([6, 1])}, "between 0 and T=5"),
        ((2, 5, 2), {"times": torch.zeros(2, 4)}, r"times of shape \(2, 4\), expected \(2, 5\)"),
    ],
)
def test_wrong_shapes_are_named(name, shape, keywords, message):
    with pytest.raises(UserError, match=message):
        make(name)(torch.zeros(shape, dtype=torch.float64), **keywords)


@every_cell
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": -3}, "hidden_size: got -3, expected greater than 0"),
        ({"hidden_size": "8"}, "hidden_size: got '8', expected a valid integer"),
        ({"hiden_size": 8}, "takes no argument 'hiden_size'; did you mean 'hidden_size'"),
    ],
)
def test_wrong_arguments_are_named(name, changes, message):
    with pytest.raises(UserError, match=message):
        make(name, **changes)


def test_unknown_cell_is_named():
    with pytest.raises(UserError, match="no cell is called 'lsmt'; did you mean 'lstm'"):
        cells.get("lsmt")
