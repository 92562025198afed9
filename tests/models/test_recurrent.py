"""The recurrent network: what reaches the head, and which combinations are refused."""

import pytest
import torch
from torch.testing import assert_close

from seqmem import cells, models
from seqmem.data.batch import Batch
from seqmem.data.spec import DataSpec
from seqmem.errors import UserError
from seqmem.models.recurrent import RecurrentNetwork, last_steps


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


@pytest.mark.parametrize("name", cells.names())
@pytest.mark.parametrize(("output_steps", "shape"), [(0, (2, 4)), (3, (2, 3, 4)), (None, (2, 9, 4))])
def test_outputs_are_where_the_data_set_wants_them(name, output_steps, shape):
    timed = cells.get(name).timed
    model = network(spec(output_steps=output_steps, times=timed), cell=name)
    inputs, times = torch.randn(2, 9, 3), torch.rand(2, 9).cumsum(1) if timed else None
    outputs = model(Batch(inputs, torch.zeros(2), times=times))
    assert outputs.shape == shape
    expected = model.head(model.layers[0](inputs, times=times)[0])
    wanted = {0: expected[:, -1], 3: expected[:, -3:], None: expected}[output_steps]
    assert_close(outputs, wanted)


def test_a_cell_that_goes_by_times_gets_them_in_every_layer_and_is_refused_without():
    model = network(spec(times=True), cell="tlsi", num_layers=2)
    assert [layer.input_size for layer in model.layers] == [4, 6]
    inputs, times = torch.randn(2, 9, 3), torch.rand(2, 9).cumsum(1)
    hidden = model.layers[1](model.layers[0](inputs, times=times)[0], times=times)[0]
    assert_close(model(Batch(inputs, None, times=times)), model.head(hidden[:, -1]))
    with pytest.raises(UserError, match="tlsi goes by the times of its steps, and made up has none"):
        network(spec(), cell="tlsi")


@pytest.mark.parametrize("cell", ["lstm", "gru", "legs"])
def test_a_carried_state_goes_on(cell):
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


@pytest.mark.parametrize("count", [0, 2])
def test_last_steps_of_padded_rows(count):
    outputs = torch.arange(24.0).view(2, 6, 2)
    taken = last_steps(outputs, count, torch.tensor([6, 3]))
    if count == 0:
        assert torch.equal(taken, torch.stack([outputs[0, 5], outputs[1, 2]]))
    else:
        assert torch.equal(taken, torch.stack([outputs[0, 4:6], outputs[1, 1:3]]))


def test_tokens_are_one_hot_or_embedded():
    tokens = torch.randint(0, 6, (2, 9))
    data = spec(input_size=6, tokens=True)
    plain = network(data)
    one_hot = torch.nn.functional.one_hot(tokens, 6).float()
    assert_close(plain(Batch(tokens, None)), plain.head(plain.layers[0](one_hot)[0][:, -1]))
    embedded = network(data, embedding_size=7)
    assert embedded.layers[0].input_size == 7
    assert embedded(Batch(tokens, None)).shape == (2, 4)


def test_the_data_set_names_an_embedding_for_models_that_are_told_none():
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
    dropped = model(Batch(inputs, None)) == 0
    assert dropped.any()
    assert not dropped.all()
    assert torch.equal(dropped, dropped[:, :1].expand_as(dropped))
    model.eval()
    assert_close(model(Batch(inputs, None)), model.layers[0](inputs)[0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cell": "lsmt"}, "no cell is called 'lsmt'; did you mean 'lstm'"),
        ({"cell_args": {"memory_ordr": 3}}, "model.cell_args.memory_ordr: legs takes no argument.*did you mean 'memory_order'"),
        ({"cell_args": {"input_size": 3}}, "legs takes no argument 'input_size'"),
        ({"num_layers": 0}, "model.num_layers: got 0"),
        ({"dropout": 1.0}, "model.dropout: got 1.0, expected less than 1"),
        ({"embedding_size": 3}, "made up has no tokens"),
        ({"network": "recurent"}, "no network is called 'recurent'; did you mean 'recurrent'"),
        ({"drpout": 0.1}, "takes no argument 'drpout'; did you mean 'dropout'"),
    ],
)
def test_wrong_arguments_are_named(changes, message):
    section = {"network": "recurrent", "cell": "legs", "cell_args": {"hidden_size": 5}, **changes}
    if "embedding_size" in changes:
        with pytest.raises(UserError, match=message):
            models.build(section, spec())
    else:
        with pytest.raises(UserError, match=message):
            models.check(section)
