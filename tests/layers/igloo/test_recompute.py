"""Recomputation for a few rows and one block of steps at a time: the same as all at once, in little memory."""

import os
import subprocess
import sys
from itertools import accumulate

import pytest
import torch
from torch import nn
from torch.autograd.graph import save_on_cpu
from torch.func import functional_call
from torch.nn.utils import parametrizations, prune
from torch.nn.utils.parametrize import register_parametrization
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

from seqmem.layers.igloo.layer import GPU_CHUNK_ROWS
from seqmem.models import IGLOO1D
from seqmem.ops.patches import PIECE
from tests.layers.igloo.uses import STEPS, USES, by_hand, data, make
from tests.pretended_gpu import PretendedGPU, moved, watched


def assert_chunks_are_the_batch(use, rows, with_lengths):
    """Values and gradients of inputs and parameters."""
    layer = make(use)
    lengths = torch.tensor([9, 37, 5, 42, 20]) if with_lengths else None
    found = []
    for at_a_time in (rows, 5):
        layer._chunk_rows = lambda _, part=at_a_time: part
        inputs = data().requires_grad_()
        outputs = layer(inputs, lengths)
        gradients = torch.autograd.grad(outputs.sin().sum(), [inputs, *layer.parameters()])
        found.append([outputs.detach(), *gradients])
    for one, other in zip(*found, strict=True):
        assert_close(one, other)


@pytest.mark.parametrize(
    ("name", "rows", "with_lengths"),
    [
        ("whole", 1, True),
        ("whole, pooled", 3, False),
        ("stretched", 3, True),
        ("last steps, stretched", 1, False),
        ("same", 3, False),
    ],
)
def test_a_few_rows_at_a_time_are_the_batch(name, rows, with_lengths):
    assert_chunks_are_the_batch(USES[name], rows, with_lengths)


@pytest.mark.slow
def test_a_few_rows_at_a_time_are_the_batch_in_every_use():
    for use in USES.values():
        for rows in (1, 3):
            for with_lengths in (False, True):
                assert_chunks_are_the_batch(use, rows, with_lengths)


def assert_blocks_are_the_sequence(use, steps):
    """Values and gradients of a layer that has several blocks, against autograd without recomputation."""
    layer = make({"return_sequences": True, "nb_patches": 70, "nb_filters_conv1d": 2, "DR": 0.0, **use})
    assert len(layer.blocks) > 2
    found = []
    for outputs_of in (layer, lambda x, lengths: without_recomputation(layer, x, lengths)):
        inputs, lengths = data(steps=steps).requires_grad_(), torch.tensor([9, steps, 5, steps - 1, 12])
        outputs = outputs_of(inputs, lengths)
        gradients = torch.autograd.grad(outputs.sin().sum(), [inputs, *layer.parameters()])
        found.append([outputs.detach(), *gradients])
    for one, other in zip(*found, strict=True):
        assert_close(one, other)


def without_recomputation(layer, inputs, lengths):
    return torch.cat([layer.forward_block(inputs, lengths, None, block) for block in range(len(layer.blocks))], 1)


LAST_STEPS = {"stretch_factor": 6, "nb_sequences": 38}
LONG_PATCHES = {"psy": 0.0, "patch_size": 90}  # longer than the sequence


@pytest.mark.parametrize(("use", "steps"), [({}, 17), (LAST_STEPS, STEPS), (LONG_PATCHES, 17)])
def test_a_block_of_steps_at_a_time_is_the_sequence(use, steps):
    assert_blocks_are_the_sequence(use, steps)


@pytest.mark.slow
def test_a_block_of_steps_at_a_time_is_the_sequence_in_every_use():
    for use in ({}, {"stretch_factor": 6, "nb_stacks": 2}, LAST_STEPS, LONG_PATCHES):
        for steps in (STEPS, 17):
            assert_blocks_are_the_sequence(use, steps)


def test_blocks_are_the_specification():
    layer = make({"return_sequences": True, "nb_patches": 70, "stretch_factor": 3, "nb_sequences": 40, "nb_stacks": 2})
    assert len(layer.blocks) > 2
    assert_close(layer(data()), by_hand(layer, data(), torch.full((5,), STEPS), same=False))


SEVERAL = {"whole": USES["whole, pooled"], "blocks": {"return_sequences": True, "nb_patches": 70, "nb_filters_conv1d": 2}}
several_chunks = pytest.mark.parametrize("use", SEVERAL.values(), ids=SEVERAL)


def in_chunks(use):
    """A layer that recomputes two rows at a time."""
    layer = make(use, DR=0.0)
    layer._chunk_rows = lambda _: 2
    return layer


def gradients_of(outputs, inputs, weights):
    found = torch.autograd.grad(outputs.sin().sum(), [inputs, *weights.values()], retain_graph=True)
    return dict(zip(["inputs", *weights], found, strict=True))


@several_chunks
def test_backward_reads_the_saved_tensors_whatever_objects_they_are(use):
    layer, inputs = in_chunks(use), data().requires_grad_()
    weights = dict(layer.named_parameters())
    expected = gradients_of(without_recomputation(layer, inputs, None), inputs, weights)
    found = {"checkpoint": gradients_of(checkpoint(layer, inputs, use_reentrant=False), inputs, weights)}
    with save_on_cpu():
        found["save_on_cpu"] = gradients_of(layer(inputs), inputs, weights)
    for gradients in found.values():
        assert_close(gradients, expected)
    other = {name: torch.randn_like(weight, requires_grad=True) for name, weight in weights.items()}
    given = {**other, **dict(layer.named_buffers())}
    found = [
        gradients_of(functional_call(form, given, (inputs,)), inputs, other) for form in (layer, in_chunks(use).to("meta"))
    ]
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(other[name])
    for gradients in found:
        assert_close(gradients, gradients_of(without_recomputation(layer, inputs, None), inputs, weights))


class Dropped(nn.Module):
    """A parametrization that is different in every call."""

    def forward(self, weight):
        return nn.functional.dropout(weight)


COMPUTED = {
    "prune": lambda module: prune.random_unstructured(module, "weight", 0.5),
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": lambda module: parametrizations.spectral_norm(module, n_power_iterations=2),
    "dropped": lambda module: register_parametrization(module, "weight", Dropped()),
    "replaced": lambda module: setattr(module, "weight", 2 * module._parameters.pop("weight")),
}


@pytest.mark.parametrize("name", COMPUTED)
@several_chunks
def test_computed_weights_have_the_gradients_of_autograd(use, name):
    layer, inputs = in_chunks(use), data().requires_grad_()
    weight = layer.stacks[0].global_patches.weight
    COMPUTED[name](layer.stacks[0].global_patches)
    weights = {**dict(layer.named_parameters()), **({"replaced": weight} if name == "replaced" else {})}
    buffers, found = [buffer.clone() for buffer in layer.buffers()], []
    for outputs_of in (layer, lambda x: without_recomputation(layer, x, None)):
        for buffer, value in zip(layer.buffers(), buffers, strict=True):
            buffer.copy_(value)
        torch.manual_seed(0)
        found.append(gradients_of(outputs_of(inputs), inputs, weights))
    assert_close(*found)
    assert found[0].keys() == {"inputs", *weights}


def test_an_update_between_two_backward_passes_counts():
    layer = make(USES["stretched"])
    found = []
    for rows in (2, 100):
        torch.manual_seed(0)
        layer._chunk_rows = lambda _, part=rows: part
        for seed in range(2):
            with torch.no_grad():
                layer.stacks[0].global_patches.weight.data.normal_(generator=torch.Generator().manual_seed(seed))
            inputs = data().requires_grad_()
            layer(inputs).sin().sum().backward()
        found.append(inputs.grad)
    assert_close(*found)


def test_frozen_parameters_and_constant_inputs_get_no_gradient():
    layer = make(USES["each step"])
    layer._chunk_rows = lambda _: 2
    layer.stacks[0].local_patches.requires_grad_(False)
    layer(data()).sum().backward()
    assert [name for name, p in layer.named_parameters() if p.grad is None] == [
        "stacks.0.local_patches.weight",
        "stacks.0.local_patches.bias",
    ]


def test_gradients_are_those_of_finite_differences():
    layer = make(USES["stretched"])
    layer._chunk_rows = lambda _: 2
    lengths = torch.tensor([42, 11, 30])
    weights = dict(layer.named_parameters())
    some = [weights["stacks.0.features.weight"], weights["stacks.0.global_patches.bias"]]
    assert torch.autograd.gradcheck(lambda x, *_: layer(x, lengths), (data(3).requires_grad_(), *some), fast_mode=True)


def test_dropout_drops_channels_for_a_whole_sequence_and_the_same_in_backward():
    for rows in (2, 100):
        layer = make(USES["each step"], steps=12, DR=0.5, nb_filters_conv1d=50, add_residual=False)
        layer._chunk_rows = lambda _, part=rows: part
        inputs = torch.ones(5, 12, 2, dtype=torch.float64)
        seen = []
        layer.stacks[0].features.register_forward_hook(lambda _, __, features, seen=seen: seen.append(features.detach()))
        torch.manual_seed(0)
        layer(inputs).sum().backward()
        one_pass = len(seen) // (2 if rows < 5 else 1)
        kept = torch.cat([features != 0 for features in seen[:one_pass]], -1)  # (T, K, B)
        assert (kept == kept[:1]).all()
        assert 0.3 < kept[0].float().mean() < 0.7
        assert len(kept[0].T.unique(dim=0)) == 5
        if rows < 5:
            assert all(torch.equal(a, b) for a, b in zip(seen[:one_pass], seen[one_pass:], strict=True))
        layer.eval()
        assert torch.equal(layer(inputs), layer(inputs))


def test_bfloat16_autocast_is_near_float32():
    layer = make(USES["each step"]).float()
    gradients = []
    for rows in (2, 100):
        layer._chunk_rows = lambda _, part=rows: part
        inputs = data().float().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            outputs = layer(inputs)
        outputs.sum().backward()
        half = inputs.grad.clone()
        inputs.grad = None
        exact = layer(inputs)
        exact.sum().backward()
        assert_close(outputs.float(), exact, rtol=0.05, atol=0.05)
        assert (half - inputs.grad).norm() < 0.05 * inputs.grad.norm()
        gradients.append(half)
    # Recomputation has the same precision as the forward pass.
    assert (gradients[0] - gradients[1]).norm() < 1e-4 * gradients[1].norm()


# Steps, rows and arguments, for a process of its own: to start one takes longer than all of these.
RESIDENT = {
    "copy memory": (10_020, 128, {"nb_patches": 6200, "return_sequences": True, "nb_sequences": 10, "psy": 0.1}),
    "whole": (10_020, 128, {"nb_patches": 3400, "return_sequences": False}),
    "each step, stretched": (2_520, 128, {"nb_patches": 50, "return_sequences": True, "stretch_factor": 20}),
    "each step": (2_511, 128, {"nb_patches": 50, "return_sequences": True}),
}

# Smaller batches, by what torch allocates: resident memory depends too much on what the process freed before.
ALLOCATED = {
    "copy memory, row": (10_020, 1, RESIDENT["copy memory"][2]),
    "copy memory, 8 rows": (10_020, 8, RESIDENT["copy memory"][2]),
    "whole, row": (10_020, 1, RESIDENT["whole"][2]),
    "whole, pooled, 8 rows": (10_020, 8, RESIDENT["whole"][2] | {"max_pooling_kernel": 4}),
    "whole, two stacks, 8 rows": (10_020, 8, RESIDENT["whole"][2] | {"nb_stacks": 2}),
    "each step, 8 rows": (2_511, 8, RESIDENT["each step"][2]),
    "each step, many local patches, 8 rows": (2_511, 8, RESIDENT["each step"][2] | {"psy": 1.0}),
    "stretched, row": (2_520, 1, RESIDENT["each step, stretched"][2]),
    "stretched, 8 rows": (2_520, 8, RESIDENT["each step, stretched"][2]),
    "stretched, 64 rows": (2_520, 64, RESIDENT["each step, stretched"][2]),
}
QUICK = ["copy memory, 8 rows", "whole, two stacks, 8 rows", "stretched, 8 rows"]


def assert_allocations_are_small(steps, rows, use):
    """A training step allocates at most twice the memory of inputs, feature map, outputs and parameters."""
    layer = IGLOO1D((steps, 1), nb_filters_conv1d=5, **use)
    inputs = torch.randn(rows, steps, 1)
    cpu = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=cpu, profile_memory=True, acc_events=True) as profile:
        outputs = layer(inputs)
        outputs.backward(torch.ones_like(outputs))
    allocated = [event.nbytes() for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    numbers = inputs.numel() * (1 + 5) + outputs.numel() + sum(p.numel() for p in layer.parameters())
    assert 0.5 < max(accumulate(allocated)) / (4 * numbers) <= 2


@pytest.mark.parametrize("name", QUICK)
def test_a_training_step_allocates_little(name):
    assert_allocations_are_small(*ALLOCATED[name])


@pytest.mark.slow
def test_a_training_step_allocates_little_in_every_use():
    for case in ALLOCATED.values():
        assert_allocations_are_small(*case)


def test_a_gpu_never_holds_all_patches():
    """The largest tensor of a training step is a piece of the gathered patches, or the inputs, the outputs or a feature map."""
    steps, rows, use = 5000, 128, {"nb_patches": 400, "return_sequences": True, "nb_sequences": 10}
    layer = IGLOO1D((steps, 4), nb_filters_conv1d=16, **use)
    patches = layer.stacks[0].global_patches.weight.numel() * rows * 4
    with PretendedGPU(), watched() as waits:
        layer, inputs = moved(layer), torch.empty(rows, steps, 4, device="cuda", requires_grad=True)
        outputs = layer(inputs)
        outputs.sum().backward()
    largest = max(PIECE, 4 * 16 * steps * max(GPU_CHUNK_ROWS), 4 * inputs.numel(), 4 * outputs.numel())
    assert waits.largest <= largest < patches / 2
    assert [wait.what for wait in waits if wait.place] == []


@pytest.mark.slow
def test_a_training_step_of_long_sequences_grows_the_process_little():
    """By at most twice the same sum; a gather of all patches takes far more."""
    program = f"""
import gc, torch
from pathlib import Path
from seqmem.models import IGLOO1D

def resident(kind):
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(kind)]
    return 1024 * int(line.split()[1])

for name, (steps, rows, use) in {RESIDENT!r}.items():
    layer = IGLOO1D((steps, 1), nb_filters_conv1d=5, **use)
    inputs = torch.randn(rows, steps, 1)
    layer(inputs[:2, :500]).sum().backward()
    layer.zero_grad(set_to_none=True)
    gc.collect()
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    outputs = layer(inputs)
    outputs.backward(torch.ones_like(outputs))
    grown = resident("VmHWM") - before
    numbers = inputs.numel() * (1 + 5) + outputs.numel() + sum(p.numel() for p in layer.parameters())
    print(name, grown / (4 * numbers), sep=":")
    del layer, inputs, outputs
"""
    # Freed blocks go back to the system at once, so that only memory in use is counted.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "1000000"}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=240, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    growth = {name: float(part) for name, part in (line.split(":") for line in done.stdout.splitlines())}
    assert growth.keys() == RESIDENT.keys()
    assert all(0.2 < part <= 2 for part in growth.values()), growth
