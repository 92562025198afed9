"""The HM-LSTM's network: its output module, its presets, and any data set's inputs and outputs."""

import io
from pathlib import Path

import pytest
import torch
import yaml
from omegaconf import OmegaConf
from torch.testing import assert_close

from seqmem import models
from seqmem.data.batch import Batch
from seqmem.data.spec import DataSpec
from seqmem.errors import UserError
from seqmem.models.hmlstm import OutputModule
from seqmem.training.checkpoints.files import load_weights

_config = yaml.safe_load((Path(__file__).parents[2] / "cfg" / "model" / "hmlstm.yaml").read_text())

HALVES = (slice(0, 4), slice(4, 9))


def spec(**changes):
    values = {"name": "made up", "input_size": 3, "output_size": 4, "task": "regression", "output_steps": None, "max_length": 9}
    return DataSpec(**{**values, **changes})


def section(preset, **changes):
    plain = {key: value for key, value in _config.items() if key not in ("preset", "presets")}
    return OmegaConf.to_container(OmegaConf.merge(plain, _config["presets"][preset], changes))


def network(data, preset="tiny", **changes):
    torch.manual_seed(0)
    return models.build(section(preset, **changes), data)


def test_the_output_module_is_its_equations():
    module = OutputModule([2, 3, 1], 5, [7, 4], 2).double()
    h = torch.randn(6, dtype=torch.float64)
    expected = torch.zeros(5, dtype=torch.float64)
    for k, (start, end) in enumerate([(0, 2), (2, 5), (5, 6)]):
        expected += torch.sigmoid(module.gate[k] @ h) * (module.embedding[:, start:end] @ h[start:end])
    expected = expected.relu()
    for layer in module.layers[:2]:
        expected = torch.tanh(layer.weight @ expected + layer.bias)
    expected = module.layers[2].weight @ expected + module.layers[2].bias
    assert_close(module(h), expected)
    assert_close(module(h.expand(3, 2, 6)), expected.expand(3, 2, 2))


def test_weights_and_biases_of_the_output_module_start_glorot_uniform():
    module = OutputModule([300, 100], 200, [150], 50)
    for parameter, fans in [
        (module.gate, 402),
        (module.embedding, 600),
        (module.layers[0].weight, 350),
        (module.layers[0].bias, 151),
        (module.layers[1].bias, 51),
    ]:
        bound = (6 / fans) ** 0.5
        assert bound * 0.9 < parameter.abs().max() <= bound


@pytest.mark.parametrize("preset", ["tiny", "reference"])
def test_outputs_are_where_the_data_set_expects_them(preset):
    for output_steps in (0, 3, None):
        model = network(spec(output_steps=output_steps), preset)
        inputs, lengths = torch.randn(2, 9, 3), torch.tensor([9, 5])
        outputs = model(Batch(inputs, None, lengths=lengths))
        everywhere = model.head(model.layers[0](inputs, lengths=lengths)[0])
        if output_steps is None:
            expected = everywhere
        elif output_steps == 0:
            expected = torch.stack([everywhere[0, 8], everywhere[1, 4]])
        else:
            expected = torch.stack([everywhere[0, 6:9], everywhere[1, 2:5]])
        assert_close(outputs, expected)


def test_values_are_embedded_by_a_linear_map_and_tokens_by_a_table():
    values = network(spec(), embedding_size=6)
    inputs = torch.randn(2, 9, 3)
    assert values.layers[0].input_size == 6
    expected = values.head(values.layers[0](inputs @ values.embedding.weight.T)[0])
    assert_close(values(Batch(inputs, None)), expected)
    tokens = torch.randint(0, 5, (2, 9))
    table = network(spec(input_size=5, tokens=True), embedding_size=6)
    assert_close(table(Batch(tokens, None)), table.head(table.layers[0](table.embedding.weight[tokens])[0]))
    one_hot = network(spec(input_size=5, tokens=True))
    assert one_hot.layers[0].input_size == 5
    assert one_hot(Batch(tokens, None)).shape == (2, 9, 4)


def test_the_gradient_of_an_embedding_does_not_depend_on_the_padding():
    model, lengths = network(spec(), embedding_size=6), torch.tensor([9, 5])
    inputs, found = torch.randn(2, 9, 3), []
    for padding in (0.0, torch.nan):
        inputs[1, 5:] = padding
        outputs = model(Batch(inputs.clone(), None, lengths=lengths))
        found.append(torch.autograd.grad(outputs[0].sum() + outputs[1, :5].sum(), list(model.parameters())))
        assert model.boundaries(Batch(inputs.clone(), None, lengths=lengths)).isfinite().all()
    assert_close(*found, rtol=0, atol=0)


@pytest.mark.parametrize("embedding_size", [None, 6])
def test_boundaries_of_a_batch(embedding_size):
    model = network(spec(input_size=5, tokens=True, times=True), embedding_size=embedding_size, cell_args={"boundary": "step"})
    tokens, times, lengths = torch.randint(0, 5, (3, 9)), torch.rand(3, 9).cumsum(1), torch.tensor([9, 2, 5])
    batch = Batch(tokens, None, lengths=lengths, times=times)
    found = model.boundaries(batch)
    assert found.shape == (3, 9, 2)
    for row, length in enumerate(lengths.tolist()):
        alone = Batch(tokens[row : row + 1, :length], None, times=times[row : row + 1, :length])
        assert torch.equal(found[row, :length], model.boundaries(alone)[0])
        assert not found[row, length:].any()
    assert set(found.unique().tolist()) == {0, 1}
    whole, halves = Batch(tokens, None, times=times), [Batch(tokens[:, part], None, times=times[:, part]) for part in HALVES]
    _, state = model.carry(halves[0])
    assert torch.equal(model.boundaries(halves[1], state), model.boundaries(whole)[:, 4:])


def test_a_checkpoint_without_the_slope_still_loads():
    changes = {"cell_args": {"boundary": "soft", "slope_growth": 0.1}}
    model, other = network(spec(), **changes), network(spec(), **changes)
    model.on_epoch(20)
    batch = Batch(torch.randn(2, 9, 3), None)
    for weights in (model.state_dict(), {name: value for name, value in model.state_dict().items() if name[-5:] != "slope"}):
        load_weights(other, weights, Path("best.ckpt"))
        other.on_epoch(20)
        assert torch.equal(other(batch), model(batch))
    load_weights(other, {name: value.double() for name, value in weights.items()}, Path("best.ckpt"))
    assert {value.dtype for value in other.state_dict().values()} == {torch.float64}
    weights.popitem()
    with pytest.raises(UserError, match=r"best\.ckpt is a checkpoint of a different model"):
        load_weights(other, weights, Path("best.ckpt"))


def test_the_presets_differ_where_paper_and_implementation_do():
    paper, reference = network(spec(), "paper"), network(spec(), "reference")
    cell, its = paper.layers[0], reference.layers[0]
    assert (cell.sizes, its.sizes) == ([512] * 3, [50] * 3)
    assert (cell.boundary, its.boundary) == ("step", "step")
    assert (cell.boundary_activation, its.boundary_activation) == ("hard_sigmoid", "sigmoid")
    assert [layer.detects for layer in cell.layers] == [True, True, False]
    assert [layer.detects for layer in its.layers] == [True, True, True]
    assert all(layer.bias is not None and layer.gain is not None for layer in cell.layers)
    assert all(layer.bias is None and layer.gain is None and layer.memory_norm is None for layer in its.layers)
    for model in (paper, reference):
        model.on_epoch(200)
    assert (cell.slope.item(), its.slope.item()) == (5, 1)
    assert paper.embedding.weight.shape == (128, 3)
    assert reference.embedding is None
    assert [tuple(layer.weight.shape) for layer in paper.head.layers] == [(4, 512)]
    assert [tuple(layer.weight.shape) for layer in reference.head.layers] == [(100, 100), (100, 100), (4, 100)]


def test_the_reference_preset_has_the_size_of_the_implementation():
    """Its README's sinusoids: two layers of 30, one value in, embed 50, out 30."""
    sizes = {"cell_args": {"hidden_size": 30, "num_layers": 2}, "output_embedding_size": 50, "output_hiddens": [30, 30]}
    model = network(spec(input_size=1, output_size=1), "reference", **sizes)
    recurrent = 121 * (30 + 30 + 1) + 121 * (30 + 30)
    output = 2 * 60 + 60 * 50 + (50 * 30 + 30) + (30 * 30 + 30) + (30 + 1)
    assert sum(parameter.numel() for parameter in model.parameters()) == recurrent + output


def test_a_checkpoint_round_trips():
    model, file = network(spec(), "reference"), io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    other = models.build(section("reference"), spec())
    batch = Batch(torch.randn(2, 9, 3), None)
    assert not torch.equal(other(batch), model(batch))
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other(batch), model(batch))
    assert torch.equal(other.boundaries(batch), model.boundaries(batch))


def test_wrong_arguments_are_named():
    for changes, message in (
        ({"cell": "lstm"}, "model.cell: got 'lstm', expected 'hmlstm'"),
        ({"cell_args": {"hidden_size": [3, 5]}}, r"model.cell_args.hidden_size: got \[3, 5\], expected one size or as many as"),
        ({"cell_args": {"slope_grwth": 1.0}}, "did you mean 'slope_growth'"),
        ({"num_layers": 2}, "hmlstm takes no argument 'num_layers'"),
        ({"output_embedding_size": 0}, "model.output_embedding_size: got 0"),
    ):
        with pytest.raises(UserError, match=message):
            models.check({**section("paper"), **changes})
