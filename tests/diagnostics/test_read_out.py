"""Read-out of past inputs: against NumPy's least squares, on delay lines, and the closed form of HiPPO memories."""

import doctest
import importlib
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import RidgeCV
from sklearn.metrics import r2_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.nn.functional import one_hot
from torch.testing import assert_close

from seqmem import cells, diagnostics
from seqmem.cells import LMU, LMUT, LagT, LegS, LegT, LMUPlain
from seqmem.data.signals import white_noise
from seqmem.diagnostics import closed_form, inputs_at_lags, read_out_r2, reconstruction_r2
from seqmem.diagnostics.read_out import PENALTIES
from seqmem.errors import UserError
from seqmem.hippo import Memory, project, reconstruct
from tests.cells.test_battery import make

F64 = torch.float64


@pytest.fixture
def random():
    return torch.Generator().manual_seed(0)


def halves(count):
    return torch.arange(count) % 2 == 0


def by_numpy(states, inputs, fitted):
    """R^2 of least squares with a constant, lag by lag."""
    features = np.c_[states.numpy(), np.ones(len(states))]
    chosen, found = fitted.numpy(), []
    for targets in inputs.double().numpy().transpose(1, 0, 2):
        weights = np.linalg.lstsq(features[chosen], targets[chosen], rcond=None)[0]
        held_out = targets[~chosen]
        error = np.square(features[~chosen] @ weights - held_out).sum()
        found.append(1 - error / np.square(held_out - held_out.mean(0)).sum())
    return torch.tensor(found)


def test_the_map_is_that_of_least_squares_where_rows_are_many(random):
    states = torch.randn(2000, 6, dtype=F64, generator=random) * torch.tensor([1, 100, 1e-3, 1, 1, 1]) + 7
    noise = torch.randn(2000, 3, 2, dtype=F64, generator=random)
    inputs = torch.stack([states[:, :2], states[:, 1:3] * torch.tensor([0.01, 1e3]), torch.zeros(2000, 2, dtype=F64)], 1)
    inputs = inputs + noise * torch.tensor([0.0, 1.0, 1.0])[:, None]
    found = read_out_r2(states, inputs, halves(2000))
    assert_close(found, by_numpy(states, inputs, halves(2000)), rtol=0, atol=0.01)
    assert found[0] > 1 - 1e-9
    assert 0.4 < found[1] < 0.6
    assert -0.02 < found[2] < 0.005


@pytest.mark.parametrize(("rows", "size"), [(40, 7), (40, 60), (41, 20)])
def test_the_map_is_that_of_scikit_learn_with_the_best_penalty_of_each_lag(rows, size, random):
    states = torch.randn(rows, size, dtype=F64, generator=random) @ torch.randn(size, size, dtype=F64, generator=random) - 3
    states[:, 3], states[:, 4] = 0.1, states[:, 5]
    noise = torch.randn(rows, 4, 2, dtype=F64, generator=random)
    inputs = states[:, None, :2] + noise * torch.tensor([0.0, 1.0, 10.0, 1000.0])[:, None]
    fitted = torch.arange(rows) < 25
    found = read_out_r2(states, inputs, fitted)
    for lag, value in enumerate(found.tolist()):
        ridge = make_pipeline(StandardScaler(), RidgeCV(np.array(PENALTIES) * 25))
        ridge.fit(states[fitted].numpy(), inputs[fitted, lag].numpy())
        expected = r2_score(inputs[~fitted, lag], ridge.predict(states[~fitted].numpy()), multioutput="variance_weighted")
        assert value == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_a_penalty_keeps_few_rows_from_being_fitted_by_heart(random):
    """60 rows, 58 numbers, of which one carries the input: least squares fits the noise of the others."""
    states = torch.randn(120, 58, dtype=F64, generator=random)
    inputs = states[:, None, :1] + 0.5 * torch.randn(120, 1, 1, dtype=F64, generator=random)
    assert by_numpy(states, inputs, halves(120))[0] < 0 < 0.3 < read_out_r2(states, inputs, halves(120))[0]


@pytest.mark.parametrize("kept", [1, 5, 12])
def test_a_delay_line_holds_its_last_inputs_and_nothing_before(kept, random):
    inputs = torch.randn(400, 30, 2, dtype=F64, generator=random)
    states = inputs[:, -kept:].flatten(1)
    found = read_out_r2(states, inputs_at_lags(inputs, torch.arange(20)), halves(400))
    assert bool((found[:kept] > 1 - 1e-6).all())
    assert bool((found[kept:].abs() < 0.1).all())


def test_a_delay_line_of_tokens_is_read_as_one_hot_vectors(random):
    tokens = torch.randint(0, 5, (600, 12), generator=random)
    states = one_hot(tokens[:, -3:], 5).double().flatten(1)
    lags = torch.arange(8)
    found = read_out_r2(states, inputs_at_lags(tokens, lags), halves(600))
    assert bool((found[:3] > 1 - 1e-6).all())
    assert bool((found[3:].abs() < 0.1).all())
    as_values = inputs_at_lags(one_hot(tokens, 5).double(), lags)
    assert_close(found, read_out_r2(states, as_values, halves(600)))
    rare = torch.where(tokens == 0, 7919, tokens)  # a large vocabulary of which few symbols occur
    assert_close(read_out_r2(states, inputs_at_lags(rare, lags), halves(600)), found)


def test_many_targets_are_fitted_part_by_part(random, monkeypatch):
    inputs = torch.randn(60, 9, 2, dtype=F64, generator=random)
    states = inputs[:, -3:].flatten(1) + 0.1
    past = inputs_at_lags(inputs, torch.arange(9))
    whole = read_out_r2(states, past, halves(60))
    monkeypatch.setattr("seqmem.diagnostics.read_out._budget", 60 * 2 * 2)
    assert_close(read_out_r2(states, past, halves(60)), whole)


def test_inputs_that_are_all_the_same_have_no_r2(random):
    inputs = torch.randn(40, 2, 1, dtype=F64, generator=random)
    inputs[:, 1] = 0.1
    found = read_out_r2(torch.randn(40, 3, generator=random), inputs, halves(40))
    assert found.isnan().tolist() == [False, True]
    tokens = torch.zeros(40, 1, dtype=torch.int64)
    assert read_out_r2(torch.randn(40, 3, generator=random), tokens, halves(40)).isnan().all()


def test_lags_count_from_the_last_valid_step(random):
    inputs, lengths = torch.randn(3, 6, 2, generator=random), torch.tensor([6, 3, 4])
    found = inputs_at_lags(inputs, torch.tensor([0, 2]), lengths)
    assert_close(found, torch.stack([inputs[[0, 1, 2], [5, 2, 3]], inputs[[0, 1, 2], [3, 0, 1]]], 1))
    with pytest.raises(UserError, match="lags: got 3, expected at most 2 for the shortest row"):
        inputs_at_lags(inputs, torch.arange(4), lengths)


CLOSED = {
    "legs": LegS(1, hidden_size=2, memory_order=8),
    "legs of another discretization": LegS(1, hidden_size=2, memory_order=8, discretization="backward"),
    "legt": LegT(1, hidden_size=2, memory_order=8, dt=0.05),
    "lmut": LMUT(1, hidden_size=2, memory_order=8, dt=0.05, discretization="bilinear"),
    "lmu": LMU(1, hidden_size=2, memory_order=8, theta=20),
    "lmu_plain": LMUPlain(1, hidden_size=2, memory_order=8, theta=20),
    "lagt": LagT(1, hidden_size=2, memory_order=8, dt=0.2, measure_args={"beta": 0.5}),
}


@pytest.mark.parametrize("name", CLOSED)
def test_the_closed_form_is_that_of_the_cells_own_memory(name):
    """Of a cell whose memory's input is the data's input, the coefficients are the cell's memory."""
    cell = CLOSED[name].double()
    signals = torch.stack([white_noise(40, 3, seed) for seed in range(3)])
    only_inputs = {"ux": True, "uh": False, "um": False, "hx": True, "hm": True, "hh": False, "bias": False}
    keep = ("discretization", "dt", "theta", "measure_args")
    settings = {key: value for key, value in cell.given_arguments.items() if key in keep}
    plain = type(cell)(1, 2, memory_order=8, architecture=only_inputs, initializers={"ux": "one"}, **settings).double()
    memory = closed_form(cell, 40)
    assert_close(project(signals, 8, **memory.settings), plain(signals[..., None])[1].memory[:, 0])
    lags = torch.tensor([0, 3, 19, 39])
    found = reconstruction_r2(memory, signals[..., None], lags)
    for lag, value in zip(lags.tolist(), found.tolist(), strict=True):
        if 39 - lag < memory.oldest(40):
            assert np.isnan(value)
            continue
        actual = signals[:, 39 - lag]
        error = reconstruct(project(signals, 8, **memory.settings), 40, at=[39 - lag], **memory.settings)[:, 0] - actual
        assert value == pytest.approx(1 - (error.square().sum() / (actual - actual.mean()).square().sum()).item())


def test_other_cells_have_no_closed_form():
    learned = LegT(1, hidden_size=2, trainable_scale=1.0)
    stopped = LegS(1, hidden_size=2, max_length=30)
    assert closed_form(stopped, 30) == Memory(2, "legs", None, "bilinear")
    for cell in (learned, stopped, LegS(1, hidden_size=2, init_t=1)):
        assert closed_form(cell, 31) is None
    found = [name for name in cells.names() if closed_form(make(name), 20) is not None]
    assert found == ["lagt", "legs", "legt", "lmu", "lmu_plain", "lmut"]


@pytest.mark.parametrize("measure", ["legs", "legt"])
def test_tokens_are_reconstructed_as_one_hot_vectors_and_rows_by_their_lengths(measure, random):
    memory = Memory(6, measure, None if measure == "legs" else 7.0)
    tokens, lengths = torch.randint(0, 4, (9, 14), generator=random), torch.tensor([14, 10, 9] * 3)
    lags = torch.tensor([0, 1, 4, 8])
    found = reconstruction_r2(memory, tokens, lags, lengths)
    assert_close(found, reconstruction_r2(memory, one_hot(tokens, 4).double(), lags, lengths), equal_nan=True)
    assert found.isnan().tolist() == [False, False, False, measure == "legt"]
    alone = [reconstruction_r2(memory, tokens[lengths == length, :length], lags[:1]) for length in (9, 10, 14)]
    assert min(alone) < found[0] < max(alone)


def test_signals_are_projected_part_by_part(random, monkeypatch):
    inputs, lags = torch.randn(7, 12, 3, generator=random), torch.arange(12)
    whole = reconstruction_r2(Memory(4), inputs, lags)
    monkeypatch.setattr("seqmem.diagnostics.reconstruction._budget", 2 * 12 * 3)
    assert_close(reconstruction_r2(Memory(4), inputs, lags), whole)


def test_mistakes_are_named():
    states, inputs = torch.randn(10, 2), torch.randn(10, 3, 1)
    for arguments, message in (
        ((states, inputs[:9], halves(10)), r"got states of shape \(10, 2\), inputs of shape \(9, 3, 1\)"),
        ((states, inputs[..., 0], halves(10)), r"inputs of shape \(10, 3\)"),
        ((states, inputs, torch.arange(10) < 1), "fitted: got 1 of 10 rows, expected at least 2 to fit and 2 to measure"),
        ((states, inputs, torch.arange(10) < 9), "fitted: got 9 of 10 rows"),
        ((states, inputs, halves(10).long()), r"got fitted of torch\.int64, expected torch\.bool"),
        ((states, inputs, halves(10).byte()), r"got fitted of torch\.uint8, expected torch\.bool"),
        ((states * torch.nan, inputs, halves(10)), "states: got values that are not finite"),
        ((states, inputs * torch.inf, halves(10)), "inputs: got values that are not finite"),
    ):
        with pytest.raises(UserError, match=message):
            read_out_r2(*arguments)
    with pytest.raises(UserError, match=r"lags: got torch\.float32, expected torch\.int64"):
        inputs_at_lags(torch.zeros(2, 10, 1), torch.tensor([-0.5]))
    for lengths in (None, torch.tensor([5, 8])):
        with pytest.raises(UserError, match=r"lags: got -1, expected at least 0, the last valid step"):
            inputs_at_lags(torch.zeros(2, 10, 1), torch.tensor([0, -1]), lengths)


def test_examples_of_the_docstrings_run():
    names = [path.stem for path in Path(diagnostics.__path__[0]).glob("*.py")]
    modules = [diagnostics, *(importlib.import_module(f"seqmem.diagnostics.{name}") for name in names if name != "__init__")]
    results = [doctest.testmod(module) for module in modules]
    assert sum(result.failed for result in results) == 0
    assert sum(result.attempted for result in results) >= 10
