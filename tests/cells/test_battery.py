"""Requirements of every registered cell. A new cell is found by its name, with the tiny preset of its YAML."""

import io
from pathlib import Path

import pytest
import torch
import yaml
from torch.testing import assert_close

from seqmem import cells, layers
from seqmem.arguments import parameters
from seqmem.errors import UserError
from seqmem.ops.states import mapped

_configs = Path(__file__).parents[2] / "cfg" / "model"

every_cell = pytest.mark.parametrize("name", cells.names())


def config(name):
    return yaml.safe_load((_configs / f"{name}.yaml").read_text())


def make(name, input_size=3, dtype=torch.float64, **changes):
    torch.manual_seed(0)
    tiny = config(name)["presets"]["tiny"]["cell_args"]
    return cells.get(name)(input_size=input_size, **{**tiny, **changes}).to(dtype)


def sample(name, batch, steps, dtype=torch.float64):
    """Inputs (B, T, 3); for a timed cell the first channel increases."""
    inputs = torch.randn(batch, steps, 3, dtype=dtype)
    if cells.get(name).timed:
        inputs[..., 0] = (torch.rand(batch, steps, dtype=dtype) + 0.1).cumsum(1)
    return inputs


def rows(state, index):
    return mapped(lambda part: part[index], state)


@every_cell
def test_steps_halves_and_the_whole_sequence_agree(name):
    cell, inputs = make(name), sample(name, 4, 11)
    whole, final = cell(inputs)
    assert whole.shape == (4, 11, cell.output_size)
    if cell.hidden_is_output:
        assert_close(final.hidden, whole[:, -1])

    state, singles = None, []
    for t in range(11):
        output, state = cell.step(inputs[:, t], state)
        singles.append(output)
    assert_close(torch.stack(singles, 1), whole)
    assert_close(state, final)

    first, state = cell(inputs[:, :5])
    for given in (state, tuple(part.detach() for part in state)):  # a checkpoint holds a plain tuple
        second, after = cell(inputs[:, 5:], given)
        assert_close(torch.cat([first, second], 1), whole)
        assert_close(after, final)

    assert_close(cell(inputs[:1, :1])[0], whole[:1, :1])
    empty, after = cell(inputs[:, :0])
    assert empty.shape == (4, 0, cell.output_size)
    assert empty.requires_grad  # an empty last piece may be differentiated as the others
    empty.sum().backward()
    assert_close(after, cell.initial_state(4))
    assert cell(inputs[:0])[0].shape == (0, 11, cell.output_size)


@every_cell
def test_rows_are_independent_of_padding_and_of_each_other(name):
    cell, lengths = make(name), torch.tensor([6, 1, 4, 0])
    inputs = sample(name, 4, 9)
    clean = inputs[:, :6]
    padded = clean.clone()
    for row, length in enumerate(lengths):
        padded[row, length:] = torch.nan
    padded.requires_grad_()
    outputs, state = cell(padded, lengths=lengths)
    later, _ = cell(inputs[:, 6:], rows(state, slice(None)))
    for row, length in enumerate(lengths.tolist()):
        alone, own = cell(clean[row : row + 1, :length])
        assert_close(outputs[row, :length], alone[0])
        assert not outputs[row, length:].any()
        assert_close(rows(state, slice(row, row + 1)), own)
        joined = torch.cat([clean[row, :length], inputs[row, 6:]])[None]
        assert_close(later[row], cell(joined)[0][0, length:])

    (outputs.sum() + sum(part.sum() for part in state if part.is_floating_point())).backward()
    assert all(parameter.grad.isfinite().all() for parameter in cell.parameters())
    for row, length in enumerate(lengths.tolist()):
        assert padded.grad[row, :length].any(1).all()
        assert not padded.grad[row, length:].any()


@every_cell
def test_gradients_are_those_of_finite_differences(name):
    cell = make(name)
    inputs = sample(name, 2, 4).requires_grad_()
    names, values = zip(*cell.named_parameters(), strict=True)

    def run(x, *weights):
        outputs, state = torch.func.functional_call(cell, dict(zip(names, weights, strict=True)), (x,))
        return outputs, *(part for part in state if part.is_floating_point())

    torch.autograd.gradcheck(run, (inputs, *values), fast_mode=True)


@every_cell
def test_float32_autocast_and_extreme_values(name):
    exact = make(name)
    cell = make(name).float()
    inputs = sample(name, 4, 30)
    outputs, state = cell(inputs.float())
    assert_close(outputs.double(), exact(inputs)[0], rtol=1e-4, atol=1e-5)

    with torch.autocast("cpu", torch.bfloat16):
        rounded, half = cell(inputs.float())
    assert all(part.dtype in (torch.float32, torch.int64) for part in half)
    assert_close(rounded[:, :12].float(), outputs[:, :12], rtol=0.1, atol=0.05)
    rounded.float().sum().backward()
    assert all(parameter.grad is not None for parameter in cell.parameters())

    def stepwise(given):
        return cell.stepwise_forward(given, cell.initial_state(4), None, True)

    others = [0, 2, 3]
    for run in (cell, stepwise):
        outputs, state = run(inputs.float())
        for value in (torch.nan, torch.inf, -1e30, 3e38):
            spoilt = inputs.float()
            spoilt[1, 3, 1] = value
            after, end = run(spoilt)
            assert torch.equal(after[others], outputs[others])
            assert torch.equal(after[1, :3], outputs[1, :3])
            assert all(torch.equal(part[others], before[others]) for part, before in zip(end, state, strict=True))
    for value in (0.0, -1.0, 1e6):
        constant = inputs.float()
        constant[..., 1:] = value
        assert cell(constant)[0].isfinite().all()


def test_a_checkpoint_holds_parameters_and_reproduces_outputs():
    for name in cells.names():
        cell, other, file = make(name), make(name), io.BytesIO()
        assert set(cell.state_dict()) == {name for name, _ in [*cell.named_parameters(), *cell.named_buffers()]}, name
        torch.save(cell.state_dict(), file)
        file.seek(0)
        for parameter in other.parameters():
            torch.nn.init.zeros_(parameter)
        other.load_state_dict(torch.load(file, weights_only=True))
        inputs = sample(name, 2, 5)
        assert torch.equal(cell(inputs)[0], other(inputs)[0]), name


def test_a_yaml_lists_every_argument_with_its_default():
    for name in cells.names():
        listed = config(name)
        assert listed["cell"] == name
        expected = parameters(cells.get(name), skip=("input_size",))
        assert list(listed["cell_args"]) == list(expected), name
        for key, default in expected.items():
            if isinstance(default, dict):
                default = getattr(cells.get(name), f"default_{key}", default)
            assert listed["cell_args"][key] == default, (name, key)


@pytest.mark.parametrize("name", ["legs", "tlsi"])
def test_times_join_the_inputs_as_first_channel(name):
    cell = make(name, input_size=4)
    inputs = torch.randn(2, 5, 3, dtype=torch.float64)
    times = torch.rand(2, 5, dtype=torch.float64).cumsum(1)
    joined = torch.cat([times[..., None], inputs], -1)
    assert_close(cell(inputs, times=times)[0], cell(joined)[0])
    assert_close(cell.step(inputs[:, 0], times=times[:, 0])[0], cell(joined)[0][:, 0])


def test_wrong_shapes_are_named():
    for shape, keywords, message in (
        ((5, 3), {}, r"LSTM: got inputs of shape \(5, 3\), expected \(B, T, C\)"),
        ((2, 5, 4), {}, "4 channels, expected input_size=3"),
        ((2, 5, 3), {"lengths": torch.tensor([5])}, r"lengths of shape \(1,\), expected \(2,\)"),
        ((2, 5, 3), {"lengths": torch.tensor([6, 1])}, "between 0 and T=5"),
        ((2, 5, 2), {"times": torch.zeros(2, 4)}, r"times of shape \(2, 4\), expected \(2, 5\)"),
        ((2, 5, 3), {"state": (torch.zeros(2, 8),)}, "a state of 1 part, expected 2: state.hidden, state.memory"),
        ((2, 5, 3), {"state": cells.GRU(3, 8).initial_state(2)}, "a state of 1 part, expected 2: state.hidden, state.memory"),
        ((2, 5, 3), {"state": (torch.zeros(3, 8), torch.zeros(3, 8))}, "a state of 3 rows, expected 2"),
    ):
        with pytest.raises(UserError, match=message):
            make("lstm")(torch.zeros(shape, dtype=torch.float64), **keywords)


def test_wrong_arguments_and_names_are_named():
    for name in cells.names():
        for changes, message in [
            ({"hidden_size": -3}, "hidden_size: got -3, expected greater than 0"),
            ({"hidden_size": "8"}, "hidden_size: got '8', expected a valid integer"),
            ({"hiden_size": 8}, "takes no argument 'hiden_size'; did you mean 'hidden_size'"),
        ]:
            with pytest.raises(UserError, match=message):
                make(name, **changes)
    with pytest.raises(UserError, match=r"LSTM: got inputs of one step of shape \(2, 5, 3\), expected \(B, C\)"):
        make("lstm").step(torch.zeros(2, 5, 3))
    with pytest.raises(UserError, match="no cell is called 'lsmt'; did you mean 'lstm'"):
        cells.get("lsmt")
    with pytest.raises(UserError, match=r"'ema' is not a cell but a parallel layer; use it by model\.network=stack"):
        cells.get(layers.EMA.name)


def test_a_subclass_with_steps_of_its_own_says_again_that_it_outputs_its_hidden_state():
    class Doubled(cells.LSTM):
        def advance(self, projected, state, scheduled):
            output, after = super().advance(projected, state, scheduled)
            return 2 * output, after

    assert cells.LSTM.hidden_is_output
    assert not Doubled.hidden_is_output
    assert cells.LegS(1).hidden_is_output
    assert not cells.LegS(1, memory_output=True).hidden_is_output
