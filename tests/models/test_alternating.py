"""Networks whose layers are different cells in turn."""

import pytest
import torch
from torch.testing import assert_close

from seqmem import cells, models
from seqmem.data.batch import Batch
from seqmem.errors import UserError
from tests.models.test_recurrent import spec

CELLS = [{"cell": "lmu_plain", "hidden_size": 5, "memory_order": 3, "theta": 4.0}, {"cell": "lstm", "hidden_size": 2}]


def network(data, **changes):
    torch.manual_seed(0)
    return models.build({"network": "alternating", "cells": CELLS, "num_layers": 5, **changes}, data).double()


def test_each_cell_takes_the_outputs_of_the_other_one():
    model = network(spec(output_steps=None))
    assert [(layer.name, layer.input_size) for layer in model.layers] == [
        *[("lmu_plain", 3), ("lstm", 5), ("lmu_plain", 2), ("lstm", 5), ("lmu_plain", 2)]
    ]
    inputs = outputs = torch.randn(2, 9, 3, dtype=torch.float64)
    for layer in model.layers:
        outputs = layer(outputs)[0]
    assert_close(model(Batch(inputs, torch.zeros(2, 9))), model.head(outputs))


def test_two_halves_with_the_state_between_are_the_whole():
    model = network(spec(output_steps=None))
    inputs, targets = torch.randn(2, 9, 3, dtype=torch.float64), torch.zeros(2, 9)
    first, state = model.carry(Batch(inputs[:, :4], targets[:, :4]))
    second, _ = model.carry(Batch(inputs[:, 4:], targets[:, 4:]), state)
    assert_close(torch.cat([first, second], 1), model(Batch(inputs, targets)))


def test_cells_with_times_take_them_in_every_layer():
    model = network(
        spec(times=True, output_steps=None), cells=[{"cell": "tlsi", "hidden_size": 4}, {"cell": "gru", "hidden_size": 3}]
    )
    assert [layer.input_size for layer in model.layers] == [4, 4, 4, 4, 4]
    assert cells.get("tlsi").timed
    inputs, times = torch.randn(2, 9, 3, dtype=torch.float64), torch.rand(2, 9, dtype=torch.float64).cumsum(1)
    outputs = inputs
    for k, layer in enumerate(model.layers):
        outputs = layer(outputs, times=times if k == 0 or layer.timed else None)[0]
    assert_close(model(Batch(inputs, torch.zeros(2, 9), times=times)), model.head(outputs))


def test_a_name_alone_is_a_cell_with_its_defaults():
    model = network(spec(output_steps=None), cells=["gru", CELLS[1]], num_layers=2)
    assert [(layer.name, layer.output_size) for layer in model.layers] == [("gru", 256), ("lstm", 2)]
    assert models.base.label({"network": "alternating", "cells": ["gru", CELLS[1]]}) == "gru_lstm"
    with pytest.raises(UserError, match="no cell is called 'gruu'; did you mean 'gru'"):
        network(spec(), cells=["gruu"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cells": []}, "model.cells: got 0 cells, expected at least one and at most model.num_layers=5"),
        ({"num_layers": 1}, "model.cells: got 2 cells, expected at least one and at most model.num_layers=1"),
        (
            {"cells": [{"hidden_size": 3}]},
            "model.cells: got {'hidden_size': 3} without a name, expected for example {cell: lstm",
        ),
        ({"cells": [{"cell": "lstn"}]}, "no cell is called 'lstn'; did you mean 'lstm'?"),
        ({"cells": [{"cell": "lstm", "size": 3}]}, "model.cells.0.size: lstm takes no argument 'size'"),
        ({"cells": [{"cell": "gru"}, {"cell": "lstm", "hidden_size": 0}]}, "model.cells.1.hidden_size: got 0, expected"),
        ({"cells": [{"cell": "tlsi"}, {"cell": "gru"}]}, "tlsi requires the times of the steps, and made up has none"),
    ],
)
def test_what_does_not_fit_is_refused(changes, message):
    with pytest.raises(UserError) as refused:
        network(spec(), **changes)
    assert message in str(refused.value)
