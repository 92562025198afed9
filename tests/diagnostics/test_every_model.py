"""Every model with a carried state is measured, on values and on tokens; every other one is refused."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from seqmem import models
from seqmem.data import Batch, DataSpec
from seqmem.diagnostics import Sample, carried_layers, measure
from seqmem.errors import UserError

CONFIGS = Path(__file__).parents[2] / "cfg" / "model"
WITHOUT_STATE = {"igloo", "tcn"}
OF_RECONSTRUCTION = {"conv_lstm_ae", "function_approximation", "linear_ae", "lstm_ae", "seq2seq_ae"}
TIMED = {"tlsi", "tlti"}
MODELS = sorted({path.stem for path in CONFIGS.glob("*.yaml")} - OF_RECONSTRUCTION)


def tiny(name):
    settings = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    presets, _ = settings.pop("presets"), settings.pop("preset")
    for key, value in presets["tiny"].items():
        settings[key] = {**settings[key], **value} if isinstance(value, dict) else value
    return settings


@pytest.mark.parametrize("tokens", [False, True], ids=["values", "tokens"])
@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_measured_or_refused(name, tokens):
    torch.manual_seed(0)
    spec = DataSpec("made up", 4, 3, "classification", 0, 20, tokens=tokens, times=name in TIMED)
    model = models.build(tiny(name), spec)
    inputs = torch.randint(0, 4, (12, 20)) if tokens else torch.randn(12, 20, 4)
    times = torch.rand(12, 20).cumsum(1) if spec.times else None
    sample = Sample.of([Batch(inputs, torch.zeros(12), torch.tensor([20, 17] * 6), times)], gradients=3)
    if name in WITHOUT_STATE:
        assert carried_layers(model) == 0
        with pytest.raises(UserError, match="carries no state from step to step"):
            measure(model, sample)
        return
    assert carried_layers(model) == len(model.initial_state(1))
    curves = measure(model, sample, probes=2)
    assert len(curves.norms) == 20
    assert bool(curves.norms.isfinite().all())
    assert curves.norms[0] > 0
    assert 0 <= curves.effective_length <= 19
    assert bool((curves.errors > 0).any())
    assert curves.r2.shape == sample.lags.shape
    assert bool((curves.r2.nan_to_num(0) <= 1).all())


@pytest.mark.parametrize("name", sorted(OF_RECONSTRUCTION - {"conv_lstm_ae", "function_approximation"}))
def test_an_autoencoder_carries_no_state(name):
    spec = DataSpec("made up", 4, 4, "reconstruction", None, 20)
    given = tiny(name)
    if name == "seq2seq_ae":
        spec = replace(spec, input_size=5)
    assert carried_layers(models.build(given, spec)) == 0
