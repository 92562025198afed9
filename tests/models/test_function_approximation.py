"""A memory reads a signal once and gives it back: against the projections, and the combinations that are refused."""

import pytest
import torch
from torch.testing import assert_close

from seqmem import datasets, models, training
from seqmem.data.batch import Batch
from seqmem.data.spec import DataSpec
from seqmem.errors import UserError
from seqmem.hippo import project, reconstruct
from seqmem.models import function_approximation

SPEC = DataSpec("noise", 1, 1, "reconstruction", None, 90)


def build(spec=SPEC, **arguments):
    torch.manual_seed(0)
    return models.build({"network": "function_approximation", "order": 12, **arguments}, spec)


def batch():
    signals = torch.randn(3, 90, 1, generator=torch.Generator().manual_seed(1)).cumsum(1)
    return Batch(signals, signals)


@pytest.mark.parametrize(
    ("arguments", "settings"),
    [
        ({"memory": "legs"}, {}),
        ({"memory": "legs", "discretization": "forward"}, {"discretization": "forward"}),
        ({"memory": "lmu"}, {"measure": "lmu", "theta": 90}),
        ({"memory": "lmu", "theta": 200.0}, {"measure": "lmu", "theta": 200}),
    ],
)
def test_gives_back_what_the_projection_keeps(arguments, settings):
    signals = batch().inputs[..., 0].double()
    discretization = settings.pop("discretization", None)
    kept = project(signals, 12, discretization=discretization, **settings)
    expected = reconstruct(kept, 90, discretization=discretization, **settings)
    assert_close(build(**arguments)(batch())[..., 0], expected.float())


def test_what_lies_before_a_window_is_zero():
    made = build(memory="lmu", theta=31.0)(batch())[..., 0]
    assert (made[:, :59] == 0).all()
    assert made[:, 59:].abs().min() > 0


def test_an_lstm_is_read_by_the_best_linear_map(monkeypatch):
    """Constant signals are all there is to know in its last state, so its read-out gives them back, up to rounding."""
    monkeypatch.setattr(function_approximation, "CHUNK", 37)
    model = build(memory="lstm")
    levels = torch.linspace(-1, 1, 64)
    signals = levels[:, None, None].expand(-1, 90, 1).contiguous()
    model.prepare([Batch(part, part) for part in signals.split(23)])
    assert (model(Batch(signals[::5], signals[::5])) - signals[::5]).abs().max() < 1e-2
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"memory": "legs", "theta": 4.0}, "model.theta: got 4.0, expected null"),
        ({"memory": "lstm", "discretization": "zoh"}, "model.discretization: got zoh, expected null"),
        ({"memory": "legs", "discretization": "bilnear"}, r"model\.discretization: .*bilnear"),
        ({"memory": "lgs"}, "did you mean 'legs'"),
        ({"order": 0}, "order: got 0"),
    ],
)
def test_what_a_memory_does_not_have_is_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        build(**arguments)


def test_data_and_models_that_do_not_fit_are_both_named():
    with pytest.raises(UserError, match=r"function_approximation .* and digits wants something else"):
        build(DataSpec("digits", 1, 10, "classification", 0, 64))
    with pytest.raises(UserError, match=r"recurrent .* noise is to be given back"):
        models.build({"network": "recurrent"}, SPEC)


def test_it_cannot_be_trained():
    config = {
        "model": {"network": "function_approximation", "memory": "legs"},
        "train": {"epochs": 3},
        "runner": {"name": "pl"},
    }
    with pytest.raises(UserError, match=r"train\.epochs: got 3, expected 0, since legs has nothing to train"):
        training.check_fit(config, SPEC)


def test_signals_have_the_band_and_the_size_that_is_asked_for():
    data = datasets.load({"name": "white_noise", "length": 301, "frequency": 7, "rms": 2.0, "train_samples": 5})
    signals = data.batch("train", torch.arange(5)).inputs[..., 0].double()
    assert_close(signals.square().mean(1).sqrt(), torch.full((5,), 2.0).double(), rtol=1e-5, atol=0)
    power = torch.fft.rfft(signals).abs()
    assert (power[:, 1:8] > 1e-3).all()
    assert power[:, [0, *range(8, 151)]].max() < 1e-3
    with pytest.raises(UserError, match=r"dataset\.length: got 14, expected more than 14"):
        datasets.load({"name": "white_noise", "length": 14, "frequency": 7})
