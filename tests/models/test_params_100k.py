"""The presets of equal size: 100,000 trainable parameters on permuted MNIST, so that a table compares models."""

import pytest
import yaml

from seqmem import models
from seqmem.cli import commandline
from seqmem.data.spec import DataSpec
from tests.program import ROOT

PIXELS = DataSpec("mnist", 1, 10, "classification", output_steps=0, max_length=784)
FILES = sorted((ROOT / "cfg" / "model").glob("*.yaml"))
NAMES = [path.stem for path in FILES if "params_100k" in (yaml.safe_load(path.read_text()).get("presets") or {})]


@pytest.mark.parametrize("name", NAMES)
def test_the_preset_has_100_000_parameters(name):
    section = commandline.compose(["dataset=mnist", f"model={name}", "model.preset=params_100k"])["model"]
    section.pop("preset")
    network = models.build(section, PIXELS)
    count = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
    assert 99_000 <= count <= 101_000
