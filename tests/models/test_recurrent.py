"""The recurrent network: the head's inputs, carried states, and refused combinations."""

import pytest
import torch
from torch.testing import assert_close

from seqmem import cells, models
from seqmem.data.batch import Batch
from seqmem.data.masks import last_steps
from seqmem.data.spec import DataSpec
from seqmem.errors import UserError
from seqmem.models.recurrent import RecurrentNetwork


def spec(**changes):
    values = {
        "name": "made up",
        "input_size": 3,
        "output_size": 4,
        "task": "classification",
        "output_steps": 0,
        "max_length": 9,
    }
    return DataSpec(**{**values, **changes})


def network(data, **changes):
    torch.manual_seed(0)
    return models.build({"network": "recurrent", "cell": "legs", "cell_args": {"hidden_size": 5}, **changes}, data)


@pytest.mark.parametrize(("output_steps", "shape"), [(0, (2, 4)), (3, (2, 3, 4)), (None, (2, 9, 4))])
def test_outputs_are_at_the_steps_that_the_data_set_defines(output_steps, shape):
    for name in cells.names() if output_steps == 0 else ("legs", "tlsi"):
        timed = cells.get(name).timed
        model = network(spec(output_steps=output_steps, times=timed), cell=name)
        inputs, times = torch.randn(2, 9, 3), torch.rand(2, 9).cumsum(1) if timed else None
        outputs = model(Batch(inputs, torch.zeros(2), times=times))
        assert outputs.shape == shape
        steps = model.head(model.layers[0](inputs, times=times)[0])
        assert_close(outputs, {0: steps[:, -1], 3: steps[:, -3:], None: steps}[output_steps])


@pytest.mark.parametrize("cell", ["lstm", "legs"])
def test_training_takes_the_last_output_from_the_state(cell):
    """Values and gradients are those of the outputs, which evaluation takes, for rows of any length."""
    model = network(spec(), cell=cell, num_layers=2).double()
    batch = Batch(torch.randn(4, 9, 3, dtype=torch.float64), torch.zeros(4), lengths=torch.tensor([9, 1, 0, 4]))
    found = []
    for training in (True, False):
        model.train(training)
        model.zero_grad()
        outputs = model(batch)
        (outputs * torch.arange(16.0).view(4, 4)).sum().backward()
        found.append((outputs, [parameter.grad for parameter in model.parameters()]))
    assert_close(*found, rtol=1e-12, atol=1e-12)
    last_outputs = []
    model.layers[1].register_forward_hook(lambda layer, given, results: last_outputs.append(results[0]))
    loss = model.train()(batch).sum()
    assert torch.autograd.grad(loss, last_outputs, allow_unused=True) == (None,)  # no gradient (B, T, H) is made


def test_a_timed_cell_gets_the_times_in_every_layer_and_is_refused_without():
    model = network(spec(times=True), cell="tlsi", num_layers=2)
    assert [layer.input_size for layer in model.layers] == [4, 6]
    inputs, times = torch.randn(2, 9, 3), torch.rand(2, 9).cumsum(1)
    hidden = model.layers[1](model.layers[0](inputs, times=times)[0], times=times)[0]
    assert_close(model(Batch(inputs, None, times=times)), model.head(hidden[:, -1]))
    with pytest.raises(UserError, match="tlsi requires the times of the steps, and made up has none"):
        network(spec(), cell="tlsi")


@pytest.mark.parametrize("cell", ["lstm", "legs"])
def test_a_carried_state_continues_a_sequence(cell):
    data = spec(output_steps=None, contiguous=True)
    model = network(data, cell=cell, num_layers=2).double()
    inputs = torch.randn(3, 17, 3, dtype=torch.float64)
    outputs, state = [], None
    for chunk in inputs.split([5, 1, 11], 1):
        part, state = model.carry(Batch(chunk, None), state)
        outputs.append(part)
    assert_close(torch.cat(outputs, 1), model(Batch(inputs, None)), rtol=1e-12, atol=1e-12)
    assert len(state) == 2


def test_a_network_without_a_state_is_refused_where_batches_are_contiguous(monkeypatch):
    monkeypatch.setattr(RecurrentNetwork, "carries", False)
    network(spec())
    with pytest.raises(UserError, match=r"recurrent carries no state from batch to batch.*chunks of made up.*dataset\.step=9"):
        network(spec(contiguous=True))


def test_last_steps_of_padded_rows():
    outputs, lengths = torch.arange(24.0).view(2, 6, 2), torch.tensor([6, 3])
    assert torch.equal(last_steps(outputs, 0, lengths), torch.stack([outputs[0, 5], outputs[1, 2]]))
    assert torch.equal(last_steps(outputs, 2, lengths), torch.stack([outputs[0, 4:6], outputs[1, 1:3]]))


def test_tokens_are_one_hot_or_embedded():
    tokens = torch.randint(0, 6, (2, 9))
    data = spec(input_size=6, tokens=True)
    plain = network(data)
    one_hot = torch.nn.functional.one_hot(tokens, 6).float()
    assert_close(plain(Batch(tokens, None)), plain.head(plain.layers[0](one_hot)[0][:, -1]))
    embedded = network(data, embedding_size=7)
    assert embedded.layers[0].input_size == 7
    assert embedded(Batch(tokens, None)).shape == (2, 4)


def test_the_embedding_of_the_data_set_is_the_default():
    data = spec(input_size=6, tokens=True, embedding_size=7)
    assert network(data).layers[0].input_size == 7
    assert network(data, embedding_size=2).layers[0].input_size == 2


def test_layers_head_and_times():
    model = network(spec(times=True), num_layers=2, output_hiddens=[11, 12])
    assert [layer.input_size for layer in model.layers] == [4, 5]
    assert [layer.out_features for layer in model.head] == [11, 12, 4]
    inputs, times = torch.randn(2, 9, 3), torch.rand(2, 9).cumsum(1)
    hidden = model.layers[1](model.layers[0](inputs, times=times)[0])[0]
    assert_close(model(Batch(inputs, None, times=times)), model.head(hidden[:, -1]))


def test_dropout_keeps_one_mask_a_sequence_and_is_off_in_evaluation():
    model = network(spec(output_steps=None), dropout=0.5)
    model.head = torch.nn.Identity()
    inputs = torch.randn(2, 9, 3)
    outputs = model(Batch(inputs, None))
    dropped = outputs == 0
    assert dropped.any()
    assert not dropped.all()
    assert_close(outputs[~dropped], 2 * model.layers[0](inputs)[0][~dropped])
    assert torch.equal(dropped, dropped[:, :1].expand_as(dropped))
    model.eval()
    assert_close(model(Batch(inputs, None)), model.layers[0](inputs)[0])


def test_wrong_arguments_are_named():
    for changes, message in (
        ({"cell": "lsmt"}, "no cell is called 'lsmt'; did you mean 'lstm'"),
        ({"cell_args": {"memory_ordr": 3}}, "model.cell_args.memory_ordr: legs takes no argument.*did you mean 'memory_order'"),
        ({"cell_args": {"input_size": 3}}, "legs takes no argument 'input_size'"),
        ({"num_layers": 0}, "model.num_layers: got 0"),
        ({"dropout": 1.0}, "model.dropout: got 1.0, expected less than 1"),
        ({"network": "recurent"}, "no network is called 'recurent'; did you mean 'recurrent'"),
        ({"drpout": 0.1}, "takes no argument 'drpout'; did you mean 'dropout'"),
    ):
        section = {"network": "recurrent", "cell": "legs", "cell_args": {"hidden_size": 5}, **changes}
        with pytest.raises(UserError, match=message):
            models.check(section)
    with pytest.raises(UserError, match="made up has no tokens"):
        network(spec(), embedding_size=3)
