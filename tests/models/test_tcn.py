"""Causal dilated convolutions: the formula, the receptive field, and padded rows."""

import pytest
import torch
from torch.nn.functional import conv1d, pad
from torch.testing import assert_close

from seqmem import models
from seqmem.data.batch import Batch
from seqmem.data.spec import DataSpec
from seqmem.errors import UserError


def spec(**changes):
    values = {
        "name": "made up",
        "input_size": 3,
        "output_size": 4,
        "task": "regression",
        "output_steps": None,
        "max_length": 40,
    }
    return DataSpec(**{**values, **changes})


def network(data, **changes):
    torch.manual_seed(0)
    return models.build({"network": "tcn", "hidden_size": 5, "kernel_size": 3, **changes}, data).double()


def batch(**fields):
    generator = torch.Generator().manual_seed(1)
    return Batch(torch.randn(3, 40, 3, dtype=torch.float64, generator=generator), None, **fields)


def test_it_is_its_formula():
    model = network(spec(), num_layers=2)
    x = batch().inputs.mT
    for number, block in enumerate(model.blocks):
        y = x
        for convolution in block.convolutions:
            weight = convolution.weight
            y = conv1d(pad(y, (2 * 2**number, 0)), weight, convolution.bias, dilation=2**number).relu()
        x = (y + (conv1d(x, block.skip.weight, block.skip.bias) if number == 0 else x)).relu()
    assert_close(model(batch()), model.head(x.mT))


def test_layers_see_the_longest_sequence():
    """1 + 4 (2^n - 1) steps with three taps."""
    for length, layers in ((5, 1), (6, 2), (13, 2), (14, 3), (40, 4), (61, 4), (62, 5)):
        model = network(spec(max_length=length, output_steps=0))
        assert len(model.blocks) == layers
        for block in model.blocks:
            for convolution in block.convolutions:
                with torch.no_grad():
                    convolution.parametrizations.weight.original1.abs_()
                    convolution.parametrizations.weight.original0.abs_()
        inputs = torch.rand(1, length, 3, dtype=torch.float64, requires_grad=True)
        model(Batch(inputs, None)).sum().backward()
        assert (inputs.grad.abs().sum(-1) > 0).all()


def test_no_future_input_reaches_an_output():
    model, given = network(spec()), batch()
    changed = given.inputs.clone()
    changed[:, 20:] = torch.randn_like(changed[:, 20:])
    found, before = model(Batch(changed, None)), model(given)
    assert torch.equal(found[:, :20], before[:, :20])
    assert not torch.equal(found[:, 20], before[:, 20])


def test_padding_never_changes_a_row():
    for output_steps in (0, 2):
        model = network(spec(output_steps=output_steps), dropout=0.5).eval()
        lengths = torch.tensor([40, 3, 17])
        outputs = model(batch(lengths=lengths))
        for k, length in enumerate(lengths):
            assert_close(outputs[k], model(Batch(batch().inputs[k : k + 1, :length], None))[0])


def test_reconstruction_is_refused():
    with pytest.raises(UserError, match=r"model\.network: .*tcn"):
        network(spec(task="reconstruction"))
