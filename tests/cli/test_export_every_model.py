"""``python -m seqmem.export`` of every model in its tiny preset, for batches of any size."""

import pytest
import torch

from benchmarks.onnx_models import CLASSES, SPECS, names
from seqmem import models
from seqmem.cli import commandline, export

# Function approximation has no weights to export, which test_export.py covers.
MODELS = sorted({*names()} - {"function_approximation"})
FIXED = ("igloo", "linear_ae", "seq2seq_ae")  # they take sequences of the length in training


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_a_model_takes_batches_of_any_size(name):
    spec = SPECS.get(name, CLASSES)
    section = dict(commandline.compose(["dataset=digits", f"model={name}", "model.preset=tiny"])["model"])
    del section["preset"]
    torch.manual_seed(0)
    program = export.Program(models.build(section, spec), spec, lengths=False).eval().requires_grad_(False)
    exported, sizes = export.export(program, name)
    length = spec.max_length
    assert sizes == ((1, float("inf")), (length, length) if name in FIXED else (1, float("inf")))
    assert export.compare(program, exported.module(), sizes) < 1e-5
