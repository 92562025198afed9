"""Every registered cell and layer on a GPU, against its time loop in float64 on the CPU."""

import pytest
import torch

from seqmem.ops.states import parts
from tests.cells import test_battery as cell_battery
from tests.gpu.layers import (
    CPU,
    NAMES,
    TOLERANCES,
    check,
    check_tensors,
    exact_layer,
    loss_of,
    moved,
    on,
    reference,
    run,
    sample,
)

pytestmark = pytest.mark.gpu

every_layer = pytest.mark.parametrize("name", NAMES)
LENGTHS = torch.tensor([19, 5, 1, 0, 12])
F32 = torch.float32


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def carried(exact, name, lengths):
    """A state after a sequence of 7 steps, and the inputs of the next 19."""
    inputs = sample(name, len(LENGTHS), 7 + 19)
    _, state = exact.stepwise_forward(inputs[:, :7], exact.initial_state(len(inputs)), lengths, True)
    return moved(state, CPU, torch.float64), inputs[:, 7:]


@every_layer
@pytest.mark.parametrize("start", ["initial", "carried", "unequal"])
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["whole", "lengths"])
@pytest.mark.parametrize("dtype", TOLERANCES, ids=["float64", "float32"])
def test_values_and_gradients(name, start, lengths, dtype, device):
    """From the initial state, from one that was carried, and from one whose rows have seen different numbers of steps."""
    exact = exact_layer(name)
    seen = {"initial": torch.zeros(5, dtype=torch.int64), "carried": None, "unequal": torch.tensor([7, 2, 5, 7, 1])}[start]
    state, inputs = carried(exact, name, seen)
    given = inputs, None if start == "initial" else state, lengths
    layer, expected = on(exact, device, dtype), reference(exact, *given)
    for _ in range(3 if dtype == F32 else 1):  # a loop is captured in a graph at the second call
        check(run(layer, *given), expected, TOLERANCES[dtype])


@every_layer
@pytest.mark.parametrize("steps", [1, 16, 17, 50])
def test_lengths_of_sequences_at_borders_of_chunks(name, steps, device):
    exact = exact_layer(name, hidden_size=40, memory_order=33)
    inputs = sample(name, 3, steps)
    check(run(on(exact, device, torch.float64), inputs), reference(exact, inputs), TOLERANCES[torch.float64])


@pytest.mark.parametrize("name", ["legs", "legts", "legt", "lagt"])
@pytest.mark.parametrize("uh", [True, False])
def test_programs_of_several_warps(name, uh, device):
    """More than 32 hidden units and coefficients: a program's warps must agree on what they load, store and sum."""
    sizes = {"hidden_size": 150, "memory_order": 130, "memory_size": 2}
    exact = cell_battery.make(name, **sizes, memory_activation="tanh", architecture={"uh": uh, "um": True})
    inputs = sample(name, 3, 20)
    check(run(on(exact, device, torch.float64), inputs), reference(exact, inputs), TOLERANCES[torch.float64])


@every_layer
def test_autocast_to_bfloat16(name, device):
    exact = exact_layer(name)
    inputs = sample(name, 4, 12)
    found, expected = run(on(exact, device, F32), inputs, autocast=True), reference(exact, inputs)
    check(found, expected, 0.1, gradients=0.3)
    assert not {value.dtype for value in found.values[1:]} & {torch.bfloat16, torch.float16}


@every_layer
def test_values_without_gradients(name, device):
    """In evaluation between training steps, as in validation; training continues with right gradients."""
    exact = exact_layer(name)
    layer = on(exact, device, F32)
    inputs = sample(name, 4, 12)
    expected = reference(exact, inputs)
    check(run(layer, inputs), expected, TOLERANCES[F32])
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            outputs, state = layer(inputs.to(device, F32))
            values = [outputs.clone(), *(part.clone() for part in parts(state))]
            again, _ = layer(inputs.flip(0).to(device, F32))
        assert not outputs.requires_grad
        check_tensors("value", values, expected.values, TOLERANCES[F32])
        check_tensors("value", [again.flip(0)], expected.values[:1], TOLERANCES[F32])
        check_tensors("value", [outputs], expected.values[:1], TOLERANCES[F32])  # a later call does not overwrite them
    check(run(layer, inputs), expected, TOLERANCES[F32])


@every_layer
def test_inference_mode_before_training(name, device):
    """Constants that were made in inference mode serve training, too."""
    exact = exact_layer(name, memory_order=7)  # a size of its own, for which nothing is kept yet
    layer = on(exact, device, F32)
    inputs = sample(name, 4, 13)
    expected = reference(exact, inputs)
    for _ in range(2):
        with torch.inference_mode():
            first, state = layer(inputs[:, :6].to(device, F32))
            second, state = layer(inputs[:, 6:].to(device, F32), state)
        found = [torch.cat([first, second], 1), *parts(state)]
        check_tensors("value", found, expected.values, TOLERANCES[F32])
    for _ in range(2):
        check(run(layer, inputs), expected, TOLERANCES[F32])


@every_layer
def test_gradients_of_several_batches_add_up(name, device):
    """Batches of different sizes and lengths, the last one short, before one optimiser step."""
    exact = exact_layer(name)
    layer = on(exact, device, F32)
    batches = [sample(name, rows, steps) for rows, steps in ((5, 12), (5, 12), (3, 9), (5, 12))]
    expected = [reference(exact, batch) for batch in batches]
    total = [sum(gradients) for gradients in zip(*(one.gradients[1:] for one in expected), strict=True)]
    kept = []
    for batch in batches:
        outputs, state = layer(batch.to(device, F32))
        kept.append([outputs.detach(), *(part.detach() for part in parts(state))])
        loss_of([outputs, *parts(state)]).backward()
    check_tensors("gradient", [parameter.grad for parameter in layer.parameters()], total, TOLERANCES[F32])
    for values, one in zip(kept, expected, strict=True):
        check_tensors("value", values, one.values, TOLERANCES[F32])


@every_layer
def test_several_calls_before_one_backward(name, device):
    exact = exact_layer(name)
    layer = on(exact, device, F32)
    batches = [sample(name, 4, 12) for _ in range(3)]
    total = [sum(gradients) for gradients in zip(*(reference(exact, b).gradients[1:] for b in batches), strict=True)]
    results = [layer(batch.to(device, F32)) for batch in batches]
    sum(loss_of([outputs, *parts(state)]) for outputs, state in results).backward()
    check_tensors("gradient", [parameter.grad for parameter in layer.parameters()], total, TOLERANCES[F32])


@every_layer
def test_two_layers_take_turns(name, device):
    exact = [exact_layer(name), exact_layer(name, hidden_size=10)]
    layers = [on(layer, device, F32) for layer in exact]
    batches = [sample(name, 4, 12), sample(name, 3, 15)]
    for _ in range(2):
        results = [layer(batch.to(device, F32)) for layer, batch in zip(layers, batches, strict=True)]
        for layer, (outputs, state) in zip(layers, results, strict=True):
            layer.zero_grad()
            loss_of([outputs, *parts(state)]).backward()
        for layer, batch, other in zip(layers, batches, exact, strict=True):
            gradients = [parameter.grad for parameter in layer.parameters()]
            check_tensors("gradient", gradients, reference(other, batch).gradients[1:], TOLERANCES[F32])


@every_layer
def test_updated_weights_are_used(name, device):
    """After steps of an optimiser, and after weights are loaded."""
    exact = exact_layer(name)
    layer = on(exact, device, F32)
    inputs = sample(name, 4, 12)
    optimizer = torch.optim.SGD(layer.parameters(), lr=1e-2)
    for _ in range(2):
        optimizer.zero_grad()
        outputs, _ = layer(inputs.to(device, F32))
        outputs.square().mean().backward()
        optimizer.step()
    exact.load_state_dict(layer.state_dict())
    check(run(layer, inputs), reference(exact, inputs), TOLERANCES[F32])
    other = exact_layer(name)
    layer.load_state_dict(other.state_dict())
    check(run(layer, inputs), reference(other, inputs), TOLERANCES[F32])


@every_layer
def test_steps_agree_with_the_sequence(name, device):
    exact = exact_layer(name)
    layer = on(exact, device, F32)
    inputs = sample(name, 4, 6)
    outputs, state = [], None
    for t in range(6):
        output, state = layer.step(inputs[:, t].to(device, F32), state)
        outputs.append(output)
    expected = reference(exact, inputs)
    check_tensors("value", [torch.stack(outputs, 1), *parts(state)], expected.values, TOLERANCES[F32])


@every_layer
def test_padding_has_no_influence(name, device):
    exact = exact_layer(name)
    lengths = torch.tensor([9, 4, 1])
    inputs = sample(name, 3, 9)
    expected = reference(exact, inputs, None, lengths)
    padded = inputs.clone()
    for row, length in enumerate(lengths.tolist()):
        padded[row, length:] = torch.nan
    found = run(on(exact, device, F32), padded, None, lengths)
    check(found, expected, TOLERANCES[F32])
    assert not any(found.values[0][row, length:].any() for row, length in enumerate(lengths.tolist()))


@every_layer
def test_a_training_step_does_not_wait_for_the_device(name, device):
    if device.type != "cuda":
        pytest.skip("only CUDA reports that a program waits for the device")
    layer = on(exact_layer(name), device, F32)
    inputs, lengths = sample(name, 4, 12).to(device, F32), torch.tensor([12, 5, 1, 0], device=device)
    for given in (None, lengths):
        for _ in range(3):  # compiles kernels, fills caches, captures graphs
            layer(inputs, lengths=given)[0].sum().backward()
        torch.cuda.synchronize(device)
        torch.cuda.set_sync_debug_mode("error")
        try:
            layer(inputs, lengths=given)[0].sum().backward()
        finally:
            torch.cuda.set_sync_debug_mode("default")


@every_layer
def test_the_second_device(name, device):
    if device.type != "cuda" or torch.cuda.device_count() < 2:
        pytest.skip("needs two CUDA devices")
    exact = exact_layer(name)
    inputs = sample(name, 4, 12)
    expected = reference(exact, inputs)
    for index in (1, 0, 1):
        check(run(on(exact, torch.device("cuda", index), F32), inputs), expected, TOLERANCES[F32])
