"""The Mackey-Glass series against its equation, solved by hand where that can be done."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from seqmem import datasets
from seqmem.data import generator
from seqmem.datasets.mackey_glass import solve
from seqmem.errors import UserError

SMALL = {"name": "mackey_glass", "length": 300, "train_samples": 5, "validation_samples": 3, "test_samples": 4}


def everything(data, split):
    return data.batch(split, torch.arange(data.sizes[split]))


def production(value):
    return 0.2 * value / (1 + value**10)


def first_interval(past, times):
    """With a constant past p, dx/dt = c - x / 10 up to tau, so x = 10 c + (p - 10 c) e^(-t / 10)."""
    level = 10 * production(past)
    return level + (past - level) * np.exp(-times / 10)


def test_the_first_interval_by_hand():
    for tau in [17.0, 2.5]:
        past, times = np.array([0.5, 0.97, 1.4]), np.linspace(0, tau, 23, endpoint=False)
        found = solve(past, tau, times)
        np.testing.assert_allclose(found, first_interval(past[:, None], times), atol=1e-7)
        np.testing.assert_allclose(found[:, 0], past, atol=0, rtol=1e-15)


@pytest.mark.parametrize("tau", [17.0, 4.3])
def test_the_second_interval_by_quadrature(tau):
    past, times = 0.8, tau + np.array([0.0, 0.1, 0.5, 0.9]) * tau
    found = solve(np.array([past]), tau, times)[0]
    for time, value in zip(times, found, strict=True):
        # Variation of constants: x(t) = e^(-(t - tau) / 10) x(tau) + integral of e^(-(t - s) / 10) production(x(s - tau)) ds.
        integral, _ = quad(
            lambda s, time=time: math.exp(-(time - s) / 10) * production(first_interval(past, s - tau)), tau, time, epsabs=1e-12
        )
        assert value == pytest.approx(math.exp(-(time - tau) / 10) * first_interval(past, tau) + integral, abs=1e-7)


@pytest.mark.parametrize("tau", [1.1, 15.3, 17.6])
def test_every_time_has_a_value_although_multiples_of_the_delay_are_rounded(tau):
    for last in (round(10 * tau), 3 * round(10 * tau)):
        past, times = np.array([0.7, 1.2]), np.arange(last + 1)
        np.testing.assert_array_equal(solve(past, tau, times), solve(past, tau, np.arange(last + 2))[:, :-1])


def test_the_fixed_point_stays():
    # 0.2 * 1 / (1 + 1) = 0.1 * 1
    np.testing.assert_allclose(solve(np.ones(2), 17.0, np.arange(40)), 1, rtol=1e-13)


def test_finer_steps_change_little_as_long_as_chaos_allows():
    past, times = np.linspace(0.5, 1.5, 11), np.arange(201)
    coarse, fine = solve(past, 17.0, times), solve(past, 17.0, times, tolerance=5e-9)
    finest = solve(past, 17.0, times, tolerance=1e-11)
    assert 0 < np.abs(coarse - fine).max() < 1e-6
    assert np.abs(coarse - finest).max() < 1e-6


def test_later_times_alone_give_the_same_values():
    past = np.array([0.6, 1.2, 1.3])
    np.testing.assert_array_equal(solve(past, 17.0, np.arange(100, 150)), solve(past, 17.0, np.arange(150))[:, 100:])


def test_targets_are_the_future_of_the_inputs():
    for horizon in [1, 40]:
        data = datasets.load({**SMALL, "horizon": horizon, "washout": 0})
        assert data.spec.output_steps is None
        for split in datasets.SPLITS:
            batch = everything(data, split)
            assert batch.inputs.shape == batch.targets.shape == (data.sizes[split], 300, 1)
            assert torch.equal(batch.inputs[:, horizon:], batch.targets[:, :-horizon])


def test_washout_discards_the_first_steps():
    whole, late = (everything(datasets.load({**SMALL, "washout": washout}), "test").inputs for washout in (0, 100))
    # Equal up to the means that were subtracted.
    assert (whole[:, 100:] - late[:, :-100]).std() < 1e-6
    assert (whole[:, :-100] - late[:, :-100]).std() > 0.1


def test_values_are_squashed_and_centred_by_the_training_mean():
    data = datasets.load(SMALL)
    batches = {split: everything(data, split) for split in datasets.SPLITS}
    series = {split: torch.cat([batch.inputs, batch.targets[:, -15:]], dim=1) for split, batch in batches.items()}
    assert abs(series["train"].mean()) < 1e-6
    assert abs(series["test"].mean()) > 1e-6
    past = generator(0, "mackey_glass", "train").uniform(0.5, 1.5, 5)
    values = np.tanh(solve(past, 17.0, np.arange(100, 415)) - 1)
    np.testing.assert_allclose(series["train"].squeeze(-1), values - values.mean(), atol=1e-7)


def test_series_have_the_papers_baseline_and_are_not_alike():
    """Its baseline, predicting no change, has an NRMSE of 162.4 %."""
    data = datasets.load({**SMALL, "length": 1000, "train_samples": 40})
    batch = everything(data, "train")
    assert (batch.inputs - batch.targets).norm() / batch.targets.norm() == pytest.approx(1.624, abs=0.02)
    series = torch.cat([everything(data, split).inputs.squeeze(-1) for split in datasets.SPLITS])
    between = torch.corrcoef(series)[torch.triu_indices(len(series), len(series), 1).unbind()]
    # Series in step would have correlations near 1.
    assert abs(between.mean()) < 0.15


def test_a_split_does_not_depend_on_the_size_of_another():
    small, large = datasets.load(SMALL), datasets.load({**SMALL, "train_samples": 9})
    shift = everything(small, "test").inputs - everything(large, "test").inputs
    assert shift.std() < 1e-6


def test_wrong_values_are_refused():
    datasets.check({"name": "mackey_glass", "tau": 30})
    for argument, value, expected in (
        ("length", 0, "greater than 0"),
        ("horizon", 0, "greater than 0"),
        ("tau", 0.5, "greater than or equal to 1"),
        ("washout", -1, "greater than or equal to 0"),
        ("tau", "17", "a valid number"),
    ):
        with pytest.raises(UserError, match=rf"^dataset\.{argument}: got {value!r}, expected {expected}"):
            datasets.check({"name": "mackey_glass", argument: value})
