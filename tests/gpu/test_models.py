"""Every model of cfg/model on a GPU: loss and gradients against float64 on the CPU, and a training."""

import copy
import dataclasses
from contextlib import nullcontext

import pytest
import torch

from seqmem import datasets, models
from seqmem.cli import commandline
from seqmem.models.blocks import SequenceDropout
from seqmem.ops import extension
from seqmem.tasks import task_for
from seqmem.training.config import model_arguments
from tests.gpu.layers import CPU, TOLERANCES, check_tensors
from tests.training import test_every_model
from tests.training.test_every_model import MODELS, NETWORKS
from tests.trials import run_trials

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")]

every_model = pytest.mark.parametrize("model", MODELS)
ROWS = ([0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10])
"""Indices of three batches; the last one is short."""

strokes = test_every_model.strokes


def built(model, strokes, folder):
    """The model in float64 on the CPU, its task and three batches."""
    config = commandline.compose(test_every_model.overrides(model, strokes, 1, folder))
    data = datasets.load(config["dataset"])
    torch.manual_seed(0)
    network = models.build(model_arguments(config), data.spec)
    batches = [data.batch("train", torch.tensor(rows)) for rows in ROWS]
    network.prepare(batches)
    for module in network.modules():
        # The CPU and a GPU draw different numbers.
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        elif isinstance(module, SequenceDropout):
            module.probability = 0.0
    return network.double().train(), task_for(data.spec), batches


def converted(batch, device, dtype):
    """The batch on a device, its floating-point tensors in a type."""
    tensors = {field.name: getattr(batch, field.name) for field in dataclasses.fields(batch)}
    moved = {
        name: tensor.to(device, dtype if tensor.is_floating_point() else tensor.dtype)
        for name, tensor in tensors.items()
        if isinstance(tensor, torch.Tensor)
    }
    return dataclasses.replace(batch, **moved)


def losses_and_gradients(network, task, batches, autocast=False):
    """The loss of each batch and the gradients of all of them, as a training step takes them."""
    weight = next(network.parameters())
    network.zero_grad()
    losses = []
    for batch in batches:
        batch = converted(batch, weight.device, weight.dtype)
        with torch.autocast(weight.device.type, torch.bfloat16) if autocast else nullcontext():
            outputs, loss = network.learn(network.augment(batch), task)
            penalty = network.penalty()
        assert outputs.device == weight.device
        (loss if penalty is None else loss + penalty).backward()
        losses.append(loss.detach())
    return losses, [parameter.grad for parameter in network.parameters()]


@every_model
@pytest.mark.parametrize("dtype", [*TOLERANCES, torch.bfloat16], ids=["float64", "float32", "autocast"])
def test_losses_and_gradients(model, dtype, strokes, tmp_path, device):
    exact, task, batches = built(model, strokes, tmp_path)
    with extension.reference_only("the reference of a test"):
        losses, gradients = losses_and_gradients(exact, task, batches)
    half = dtype == torch.bfloat16
    network = copy.deepcopy(exact).to(device, torch.float32 if half else dtype)
    for _ in range(2):  # the second time after a backward of each batch
        found = losses_and_gradients(network, task, batches, half)
        check_tensors("loss", found[0], losses, 0.1 if half else TOLERANCES[dtype])
        check_tensors("gradient", found[1], gradients, 0.5 if half else TOLERANCES[dtype])


@every_model
def test_evaluation_agrees_with_training(model, strokes, tmp_path, device):
    exact, _, batches = built(model, strokes, tmp_path)
    network = copy.deepcopy(exact).to(device, torch.float32).eval()
    with torch.no_grad(), extension.reference_only("the reference of a test"):
        expected = [exact.eval()(converted(batch, CPU, torch.float64)) for batch in batches]
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            outputs = [network(converted(batch, device, torch.float32)) for batch in batches]
        check_tensors("output", outputs, expected, TOLERANCES[torch.float32])


@pytest.mark.parametrize("model", NETWORKS.values())
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_trial_runs_on_the_device(model, precision, strokes, tmp_path, device):
    accelerator = {"cuda": "gpu"}.get(device.type, device.type)
    given = [*test_every_model.overrides(model, strokes, 1, tmp_path), f"runner.accelerator={accelerator}"]
    config = commandline.compose([*given, f"train.precision={precision}"])
    [folder] = run_trials(config, datasets.load(config["dataset"]), tmp_path)
    record = folder.read_record()
    assert record["status"] == "finished"
    assert bool(record["machine"]["devices"]) == (device.type == "cuda")
