"""Extreme inputs to every network, in its tiny preset: they work, change their row alone, or are refused.

The default tests take one model of each network. The cells have the same tests of their own (tests/cells/test_battery.py).
"""

import math
from dataclasses import replace
from functools import cache

import pytest
import torch

from seqmem import models
from seqmem.cli import commandline
from seqmem.data.batch import Batch
from seqmem.data.spec import DataSpec
from seqmem.errors import UserError
from seqmem.training.config import model_arguments
from tests.cli.choices import choices, model_settings

NETWORKS = {name: model_settings(name)["network"] for name in choices("model")}
SAMPLE = ["legs", *(name for name, network in NETWORKS.items() if network != "recurrent")]
LABELLED = DataSpec("made", 3, 4, "classification", 0, 12, times=True)
SPECS = (
    LABELLED,
    replace(LABELLED, task="reconstruction", output_size=3, output_steps=None, times=False),
    replace(LABELLED, task="reconstruction", input_size=1, output_size=1, output_steps=None, times=False),
    replace(LABELLED, task="reconstruction", input_size=64, output_size=64, output_steps=None, times=False, frame=(8, 8)),
)


@cache
def made(name):
    """A model, and the first spec that it fits."""
    arguments = model_arguments(commandline.compose([f"model={name}", "model.preset=tiny"]))
    for spec in SPECS:
        torch.manual_seed(0)
        try:
            model = models.build(arguments, spec)
        except UserError:
            continue
        model.prepare([batch(spec)])
        return model.eval(), spec
    raise AssertionError(f"{name} fits none of the specs")


def batch(spec, rows=3, steps=12):
    torch.manual_seed(1)
    inputs = torch.randn(rows, steps, spec.input_size)
    targets = inputs if spec.task == "reconstruction" else torch.zeros(rows, dtype=torch.int64)
    times = (torch.rand(rows, steps) + 0.1).cumsum(1) if spec.times else None
    return Batch(inputs, targets, times=times)


@torch.no_grad()
def assert_extremes_stay_in_their_row(name):
    model, spec = made(name)
    given = batch(spec)
    expected = model(given)
    assert expected.isfinite().all()
    for value in (math.nan, math.inf, 1e30):
        spoilt = replace(given, inputs=given.inputs.clone())
        spoilt.inputs[1, 2] = value
        outputs = model(spoilt)
        assert torch.equal(outputs[[0, 2]], expected[[0, 2]])
        assert outputs.shape == expected.shape


@torch.no_grad()
def assert_smallest_batches_work(name):
    model, spec = made(name)
    assert model(batch(spec, rows=0)).shape[0] == 0
    outputs = model(batch(spec, rows=2, steps=1))
    assert outputs.shape[0] == 2
    assert outputs.isfinite().all()


def assert_constant_channels_are_finite(name):
    """Outputs and gradients."""
    model, spec = made(name)
    for value in (0.0, 1.0, -1e6):
        given = batch(spec)
        given.inputs.fill_(value)
        model.zero_grad()
        outputs = model(given)
        if outputs.requires_grad:
            outputs.sum().backward()
        assert outputs.isfinite().all()
        assert all(weight.grad is None or weight.grad.isfinite().all() for weight in model.parameters())


@pytest.mark.parametrize("name", SAMPLE)
def test_extreme_inputs_and_the_smallest_batches_work(name):
    assert_extremes_stay_in_their_row(name)
    assert_smallest_batches_work(name)
    assert_constant_channels_are_finite(name)


@pytest.mark.slow
def test_extreme_inputs_and_the_smallest_batches_work_with_every_cell():
    for name in sorted(NETWORKS.keys() - SAMPLE):
        assert_extremes_stay_in_their_row(name)
        assert_smallest_batches_work(name)
        assert_constant_channels_are_finite(name)


def test_sequences_without_a_step_are_refused():
    with pytest.raises(UserError, match=r"without a step: got inputs of shape \(3, 0, 3\), expected T > 0"):
        batch(LABELLED, steps=0)
