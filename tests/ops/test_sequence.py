"""A sequence in one call equals the cell's step-by-step loop, in value and in every gradient."""

import pytest
import torch
from torch.testing import assert_close

from seqmem.cells import GRU, LSTM, LegS, Recurrence
from seqmem.ops import extension, sequence

pytestmark = pytest.mark.skipif(bool(extension.REASON), reason=extension.REASON or "built")

VARIANTS = {
    "legs": lambda: LegS(2, 7, memory_order=5),
    "legs, order above hidden": lambda: LegS(3, 5, memory_order=33),
    "legs, two memories in the output": lambda: LegS(2, 6, memory_size=2, memory_order=4, memory_output=True),
    "legs, all inputs, no gate": lambda: LegS(2, 9, memory_size=3, architecture={"um": True, "hh": True}, gate="N"),
    "legs, memory feeds itself": lambda: LegS(2, 5, architecture={"ux": False, "uh": False, "um": True, "hx": False}),
    "legs, hidden state only": lambda: LegS(2, 5, architecture={"hx": False, "hm": False, "hh": True, "bias": False}),
    "legs, other activations": lambda: LegS(1, 8, memory_activation="tanh", hidden_activation="relu"),
    "legs, forward": lambda: LegS(2, 17, memory_order=3, discretization="forward", init_t=4),
    "legs, backward": lambda: LegS(2, 16, discretization="backward", max_length=6),
    "lstm": lambda: LSTM(3, 7),
    "lstm, wide": lambda: LSTM(1, 40, bias=False),
    "gru": lambda: GRU(3, 7),
    "gru, wide": lambda: GRU(2, 33, bias=False),
}


@pytest.fixture(autouse=True)
def unwritten_memory_is_nan():
    """torch.empty gives NaN, so that a number that was never written is found."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    filled = torch.utils.deterministic.fill_uninitialized_memory
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.utils.deterministic.fill_uninitialized_memory = filled
    torch.use_deterministic_algorithms(False)


def randomized(variant, dtype):
    torch.manual_seed(1)
    cell = VARIANTS[variant]().to(dtype)
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.normal_(std=0.4)
    return cell


def both(cell, batch, steps, lengths=None, started=False):
    """Outputs, final state and every gradient of the call and of the loop."""
    generator = torch.Generator().manual_seed(2)
    dtype = next(cell.parameters()).dtype

    def random(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    inputs = random(batch, steps, cell.input_size)
    state = cell.initial_state(batch)
    if started:
        state = type(state)(*(random(*part.shape) if part.is_floating_point() else torch.arange(batch) % 4 for part in state))
    cotangents = None
    results = []
    assert sequence.covers(inputs)
    for run in (type(cell)._run, Recurrence._run):
        x = inputs.clone().requires_grad_()
        own = type(state)(*(part.clone().requires_grad_(part.is_floating_point()) for part in state))
        outputs, final = run(cell, x, own, lengths, not started)
        values = [outputs, *(part for part in final if part.is_floating_point())]
        cotangents = cotangents or [random(*value.shape) for value in values]
        total = sum((value * cotangent).sum() for value, cotangent in zip(values, cotangents, strict=True))
        wanted = [x, *(part for part in own if part.requires_grad), *cell.parameters()]
        gradients = torch.autograd.grad(total, wanted, allow_unused=True, materialize_grads=True)
        results.append((values, gradients, [part for part in final if not part.is_floating_point()]))
    return results


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("started", [False, True], ids=["fresh", "carried on"])
@pytest.mark.parametrize(
    ("batch", "steps", "padded"),
    [(1, 1, False), (1, 9, False), (3, 1, False), (5, 13, True), (19, 6, False), (0, 3, False), (100, 3, True)],
    ids=str,
)
def test_equals_the_loop(variant, started, batch, steps, padded):
    cell = randomized(variant, torch.float64)
    lengths = torch.arange(batch) % (steps + 1) if padded else None
    (values, gradients, counts), (expected, wanted, steps_made) = both(cell, batch, steps, lengths, started)
    for ours, theirs in zip((*values, *gradients), (*expected, *wanted), strict=True):
        assert_close(ours, theirs, rtol=1e-9, atol=1e-10)
    assert all(torch.equal(a, b) for a, b in zip(counts, steps_made, strict=True))


@pytest.mark.parametrize("variant", ["legs", "legs, two memories in the output", "lstm, wide", "gru, wide"])
def test_float32_agrees_to_rounding_over_many_chunks(variant):
    (values, gradients, _), (expected, wanted, _) = both(randomized(variant, torch.float32), 37, 211)
    for ours, theirs in zip((*values, *gradients), (*expected, *wanted), strict=True):
        assert_close(ours, theirs, rtol=2e-3, atol=2e-4 * float(1 + theirs.detach().abs().max()))


@pytest.mark.parametrize("variant", ["legs", "lstm", "gru"])
def test_one_thread_and_two_agree(variant):
    cell = randomized(variant, torch.float64)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            results.append(both(cell, 23, 40)[0])
    finally:
        torch.set_num_threads(threads)
    for one, two in zip((*results[0][0], *results[0][1]), (*results[1][0], *results[1][1]), strict=True):
        assert_close(one, two, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("variant", ["legs", "lstm", "gru"])
def test_without_gradient_nothing_is_kept_and_values_are_the_same(variant):
    cell = randomized(variant, torch.float64)
    inputs = torch.randn(4, 8, cell.input_size, dtype=torch.float64)
    with torch.no_grad():
        quiet, _ = cell(inputs)
    assert torch.equal(quiet, cell(inputs)[0])


@pytest.mark.parametrize("variant", ["legs", "lstm", "gru"])
def test_registrations_are_sound(variant):
    cell = randomized(variant, torch.float64)
    inputs = torch.randn(3, 5, cell.input_size, dtype=torch.float64)
    compiled = torch.compile(cell, backend="aot_eager", fullgraph=variant != "legs")
    assert_close(compiled(inputs)[0], cell(inputs)[0])


@pytest.mark.parametrize("variant", ["legs", "lstm", "gru"])
def test_a_second_derivative_is_refused_by_name(variant):
    cell = randomized(variant, torch.float64)
    inputs = torch.randn(2, 3, cell.input_size, dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad(cell(inputs)[0].sum(), inputs, create_graph=True)
    with pytest.raises(NotImplementedError, match="differentiable once; with SEQMEM_REFERENCE=1"):
        first.sum().backward()


def test_wrong_shapes_are_named():
    weights = torch.zeros(4 * 3, 2), torch.zeros(4 * 3, 3)
    with pytest.raises(ValueError, match="hidden"):
        sequence.lstm_sequence(torch.zeros(2, 5, 2), torch.zeros(1, 3), torch.zeros(2, 3), None, *weights)
    with pytest.raises(ValueError, match="weight_hh"):
        sequence.lstm_sequence(torch.zeros(2, 5, 2), torch.zeros(2, 3), torch.zeros(2, 3), None, weights[0], torch.zeros(12, 4))
