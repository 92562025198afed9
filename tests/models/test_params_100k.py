"""The presets of equal size, so that a table compares models: 100,000 trainable parameters on permuted MNIST, or on tokens."""

import re

import pytest

from benchmarks import memory_tasks
from seqmem import models
from seqmem.cli import commandline
from seqmem.data.spec import DataSpec
from tests.cli.choices import choices, model_settings
from tests.program import ROOT

PIXELS = DataSpec("mnist", 1, 10, "classification", output_steps=0, max_length=784)


def having(preset):
    """The models with a preset."""
    return [name for name in choices("model") if preset in (model_settings(name).get("presets") or {})]


def count(network):
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


@pytest.mark.parametrize("name", having("params_100k"))
def test_the_preset_has_100_000_parameters(name):
    section = commandline.compose(["dataset=mnist", f"model={name}", "model.preset=params_100k"])["model"]
    section.pop("preset")
    network = models.build(section, PIXELS)
    assert 99_000 <= count(network) <= 101_000


@pytest.mark.parametrize("vocabulary", [3, 256])
@pytest.mark.parametrize("name", having("memory_100k"))
def test_the_preset_for_tokens_has_100_000_parameters_between_embedding_and_head(name, vocabulary):
    section = commandline.compose(["dataset=parity", f"model={name}", "model.preset=memory_100k"])["model"]
    section.pop("preset")
    tokens = DataSpec("tokens", vocabulary, vocabulary, "classification", output_steps=None, max_length=64, tokens=True)
    network = models.build(section, tokens)
    embedding = network.inputs if section["network"] == "stack" else network.embedding
    assert count(embedding) == 64 * vocabulary
    assert 98_000 <= count(network) - count(embedding) - count(network.head) <= 102_000


def test_the_models_of_the_table_of_memory_have_the_preset_for_tokens():
    [models_of_the_table] = re.findall(
        r"^table-memory table-uea: models = model=(.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE
    )
    assert tuple(models_of_the_table.split(",")) == memory_tasks.MODELS
    assert sorted(memory_tasks.MODELS) == having("memory_100k")
