"""A memory reads a signal once and reconstructs it: against the projections, and the combinations that are refused."""

import pytest
import torch
from torch.testing import assert_close

from seqmem import models, training
from seqmem.data.batch import Batch
from seqmem.data.spec import DataSpec
from seqmem.errors import UserError
from seqmem.hippo import project, reconstruct

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
def test_the_reconstruction_is_that_of_the_projection(arguments, settings):
    signals = batch().inputs[..., 0].double()
    discretization = settings.pop("discretization", None)
    kept = project(signals, 12, discretization=discretization, **settings)
    expected = reconstruct(kept, 90, discretization=discretization, **settings)
    assert_close(build(**arguments)(batch())[..., 0], expected.float())


def test_an_lstm_is_read_by_the_best_linear_map():
    """The last state of an LSTM determines a constant signal, so the read-out reconstructs it."""
    model = build(memory="lstm")
    levels = torch.linspace(-1, 1, 64)
    signals = levels[:, None, None].expand(-1, 90, 1).contiguous()
    model.prepare([Batch(part, part) for part in signals.split(23)])
    assert (model(Batch(signals[::5], signals[::5])) - signals[::5]).abs().max() < 1e-2
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_wrong_settings_of_a_memory_are_refused():
    for arguments, message in [
        ({"memory": "legs", "theta": 4.0}, "model.theta: got 4.0, expected null"),
        ({"memory": "lstm", "discretization": "zoh"}, "model.discretization: got zoh, expected null"),
        ({"memory": "legs", "discretization": "bilnear"}, r"model\.discretization: .*bilnear"),
        ({"memory": "lgs"}, "did you mean 'legs'"),
        ({"order": 0}, "order: got 0"),
    ]:
        with pytest.raises(UserError, match=message):
            build(**arguments)


def test_data_and_models_that_do_not_fit_are_both_named():
    with pytest.raises(UserError, match=r"function_approximation .* but digits has the task classification"):
        build(DataSpec("digits", 1, 10, "classification", 0, 64))
    with pytest.raises(UserError, match=r"recurrent .* noise requires reconstruction"):
        models.build({"network": "recurrent"}, SPEC)


def test_it_cannot_be_trained():
    config = {
        "model": {"network": "function_approximation", "memory": "legs"},
        "train": {"epochs": 3},
        "runner": {"name": "pl"},
    }
    with pytest.raises(UserError, match=r"train\.epochs: got 3, expected 0, since legs has nothing to train"):
        training.check_fit(config, SPEC)
