"""The HM-LSTM in one compiled call against its loop, in value and in every gradient.

The default tests sample the grid of variants, boundaries and sizes; a slow one covers it.
"""

import copy
from itertools import product

import pytest
import torch
from torch.testing import assert_close

from seqmem.cells import HMLSTM
from seqmem.cells.hmlstm import HMLSTMState
from seqmem.ops import compiled_sequence, extension
from seqmem.ops.multiscale import flattened, multiscale_reference, multiscale_sequence
from tests.cells.paths import fused, stepwise

pytestmark = pytest.mark.skipif(bool(extension.REASON), reason=f"no compiled operators: {extension.REASON}")

VARIANTS = {
    "paper": {},
    "reference": {"boundary_activation": "sigmoid", "top_detector": True, "bias": False, "layer_norm": False},
    "plain": {"layer_norm": False, "slope": 1.7},
    "normalised without bias": {"bias": False, "top_detector": True},
}
SIZES = [  # batch, steps, sizes of the layers
    (1, 1, [1]),
    (3, 9, [3, 5, 2]),
    (5, 4, [20]),
    (37, 5, [33, 7, 40]),
    (2, 11, [17, 64]),
    (4, 6, [5, 3, 2, 6]),
]
BOUNDARIES = ("step", "sample", "soft")
every_variant = pytest.mark.parametrize("variant", VARIANTS)
every_boundary = pytest.mark.parametrize("boundary", BOUNDARIES)


@pytest.fixture
def short_chunks(monkeypatch):
    """Make a sequence have many chunks, by few rows in each."""
    monkeypatch.setattr(compiled_sequence, "_CHUNK_ROWS", 8)


def make(sizes, variant, boundary, dtype=torch.float64):
    torch.manual_seed(1)
    settings = VARIANTS[variant]
    sizes = [max(size, 1 + settings.get("layer_norm", True)) for size in sizes]  # one unit has no norm
    cell = HMLSTM(4, sizes, len(sizes), boundary=boundary, **settings).to(dtype)
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.normal_(std=0.5)
    return cell


def random_state(cell, batch, like):
    boundary = torch.rand(batch, len(cell.sizes)).to(like)
    return HMLSTMState(
        torch.randn(batch, cell.output_size).to(like),
        torch.randn(batch, cell.output_size).to(like),
        boundary if cell.boundary == "soft" or batch in (3, 5) else boundary.round(),  # a fraction means what the formula says
    )


def run(cell, inputs, state, lengths, compiled):
    """Outputs, the state after them, and the gradients of a random sum of both."""
    cell = copy.deepcopy(cell)
    inputs = inputs.clone().requires_grad_()
    state = HMLSTMState(*(part.clone().requires_grad_() for part in state))
    torch.manual_seed(5)  # of sampled boundaries
    outputs, after = (fused if compiled else stepwise)(cell, inputs, state, lengths, False)
    results = {"outputs": outputs} | after._asdict()
    generator = torch.Generator().manual_seed(3)
    total = sum((part * torch.randn(part.shape, generator=generator).to(part)).sum() for part in results.values())
    sources = {"inputs": inputs} | {f"{name} before": part for name, part in state._asdict().items()}
    sources |= dict(cell.named_parameters())
    flows = torch.autograd.grad(total, list(sources.values()), allow_unused=True)
    return results | {
        f"gradient of {name}": torch.zeros_like(source) if flow is None else flow
        for (name, source), flow in zip(sources.items(), flows, strict=True)
    }


def assert_same(actual, expected, relative=1e-11):
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        scale = max(1.0, value.detach().abs().max().item()) if value.numel() else 1.0
        assert_close(actual[name], value, rtol=0, atol=relative * scale, msg=lambda text, name=name: f"{name}: {text}")


def assert_equals_the_loop(size, variant, boundary):
    batch, steps, sizes = size
    cell = make(sizes, variant, boundary)
    inputs = torch.randn(batch, steps, 4, dtype=torch.float64)
    state = random_state(cell, batch, inputs)
    for lengths in (None, torch.randint(0, steps + 1, (batch,))):
        assert_same(run(cell, inputs, state, lengths, True), run(cell, inputs, state, lengths, False))


@every_variant
@every_boundary
def test_equals_the_loop(variant, boundary, short_chunks):
    """Of two sizes each, such that every variant and every boundary has all sizes."""
    k = BOUNDARIES.index(boundary) + list(VARIANTS).index(variant)
    for size in (SIZES[k % 6], SIZES[(k + 3) % 6]):
        assert_equals_the_loop(size, variant, boundary)


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_every_variant_equals_the_loop(size, short_chunks):
    for variant, boundary in product(VARIANTS, BOUNDARIES):
        assert_equals_the_loop(size, variant, boundary)


def test_every_branch_is_taken_with_every_neighbour():
    """Rows of the tests above flush with and without a boundary below, update and copy."""
    cell = make([33, 7, 40], "normalised without bias", "step")
    z = cell.boundaries(torch.randn(37, 9, 4, dtype=torch.float64)).detach()
    seen = {(int(own), int(below)) for own, below in zip(z[:, :-1, 1].flatten(), z[:, 1:, 0].flatten(), strict=True)}
    assert seen == set(product((0, 1), (0, 1)))


@every_boundary
def test_gradients_through_the_boundaries(boundary):
    inputs = torch.randn(3, 8, 4, dtype=torch.float64)
    weights = torch.randn(3, 8, 3, dtype=torch.float64)
    flows = []
    for compiled in (True, False):
        cell = make([3, 5, 2], "normalised without bias", boundary)
        if compiled:
            found = cell.boundaries(inputs)
        else:
            stepped, state = [], cell.initial_state(3)
            for t, scheduled in enumerate(cell.schedule(state, 8, True)):
                _, state = cell.advance(cell.project(inputs[:, t]), state, scheduled)
                stepped.append(state.boundary)
            found = torch.stack(stepped, 1)
        flows.append(torch.autograd.grad((found * weights).sum(), list(cell.parameters()), allow_unused=True))
    for one, other in zip(*flows, strict=True):
        assert_close(one, torch.zeros_like(one) if other is None else other)


@pytest.mark.parametrize("activation", ["hard_sigmoid", "sigmoid"])
@every_boundary
def test_a_detector_that_is_nan_gives_a_boundary_that_is(boundary, activation):
    """Of the bottom layer at one step of one row: NaN then reaches the results that it reaches in the loop."""
    cell = make([5, 17, 3], "plain", boundary)
    projected = cell.project(torch.randn(3, 6, 4, dtype=torch.float64)).detach()
    projected[1, 2, -1] = torch.nan
    leaves = [projected, *random_state(cell, 3, projected), flattened([layer.weights() for layer in cell.layers]).detach()]
    leaves = [leaf.requires_grad_() for leaf in leaves]
    draws = torch.rand(6, 3, 3, dtype=torch.float64) if boundary == "sample" else None
    settings = {"top_detector": False, "bias": True, "layer_norm": False, "soft": boundary == "soft"}
    found, expected = (
        run(*leaves[:4], None, draws, leaves[4], cell.slope, cell.sizes, **settings, hard_sigmoid=activation == "hard_sigmoid")
        for run in (multiscale_sequence, multiscale_reference)
    )
    assert found[1][1, 2, 0].isnan()
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.isnan(), other.isnan())
        assert_close(one[~one.isnan()], other[~one.isnan()])
    assert torch.autograd.grad(sum(part.sum() for part in found), leaves)[4].isnan().any()


def test_groups_of_unequal_sizes_on_several_threads():
    cell, threads = make([6, 3], "paper", "sample"), torch.get_num_threads()
    for batch in (37, 201):
        inputs = torch.randn(batch, 3, 4, dtype=torch.float64)
        state, lengths = random_state(cell, batch, inputs), torch.randint(0, 4, (batch,))
        expected = run(cell, inputs, state, lengths, False)
        try:
            for count in (1, 2, 3):
                torch.set_num_threads(count)
                assert_same(run(cell, inputs, state, lengths, True), expected)
        finally:
            torch.set_num_threads(threads)


def test_no_rows_or_no_steps():
    for shape, boundary in product([(0, 4, 4), (4, 0, 4)], BOUNDARIES):
        cell = make([6, 3], "paper", boundary)
        inputs = torch.zeros(shape, dtype=torch.float64)
        state = random_state(cell, shape[0], inputs)
        assert_same(run(cell, inputs, state, None, True), run(cell, inputs, state, None, False))


def assert_float32_to_rounding(variant):
    """With soft boundaries: rounding may put a boundary near its threshold on either side of it."""
    cell = make([33, 18], variant, "soft", torch.float32)
    inputs = torch.randn(19, 12, 4)
    state, lengths = random_state(cell, 19, inputs), torch.randint(0, 13, (19,))
    exact = run(cell.double(), inputs.double(), HMLSTMState(*(part.double() for part in state)), lengths, False)
    cell.float()
    loop, compiled = run(cell, inputs, state, lengths, False), run(cell, inputs, state, lengths, True)
    for name, expected in exact.items():
        scale = max(1.0, expected.detach().abs().max().item())
        error = (compiled[name] - expected).abs().max().item() / scale
        assert error <= 4 * (loop[name] - expected).abs().max().item() / scale + 1e-6, name


@every_variant
def test_float32_to_rounding(variant, short_chunks):
    assert_float32_to_rounding(variant)


def test_a_sequence_is_one_call_and_its_path_says_so(monkeypatch):
    cell, inputs = make([6, 3], "paper", "step"), torch.randn(2, 5, 4, dtype=torch.float64)
    outputs, state = cell(inputs)
    assert cell.path == "one compiled call"
    found = cell.boundaries(inputs)
    monkeypatch.setattr(extension, "REASON", "SEQMEM_REFERENCE is set")
    monkeypatch.setattr(extension, "FORCED", True)
    expected, final = cell(inputs)
    assert cell.path == "step by step (SEQMEM_REFERENCE is set)"
    assert_close(outputs, expected)
    assert_close(state, final)
    assert_close(found, cell.boundaries(inputs))


def arguments():
    """Arguments of the operator, of sizes without unused units in what is kept for backward."""
    cell = make([16, 16], "normalised without bias", "soft")
    inputs = torch.randn(2, 4, 4, dtype=torch.float64)
    projected = cell.project(inputs).detach().requires_grad_()
    parameters = flattened([layer.weights() for layer in cell.layers])
    state = (part.requires_grad_() for part in random_state(cell, 2, inputs))
    settings = ([16, 16], True, False, True, True, True, 3)
    given = (
        projected,
        *state,
        torch.tensor([4, 4]),
        None,
        parameters.detach().requires_grad_(),
        cell.slope.double(),
        *settings,
    )
    return torch.ops.seqmem.multiscale_sequence.default, given


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")  # from opcheck
def test_the_operator_is_well_formed():
    torch.library.opcheck(*arguments())


@pytest.mark.parametrize(
    "boundary", ["sample", *(pytest.param(boundary, marks=pytest.mark.slow) for boundary in ("step", "soft"))]
)
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")  # from torch._dynamo
def test_a_cell_compiles(boundary):
    cell = make([5, 3], "paper", boundary)
    inputs = torch.randn(3, 5, 4, dtype=torch.float64)
    results = []
    for call in (torch.compile(cell, backend="aot_eager"), cell):
        torch.manual_seed(3)
        outputs = call(inputs)[0]
        assert cell.path == "one compiled call"
        results.append((outputs, *torch.autograd.grad(outputs.square().sum(), list(cell.parameters()))))
    assert_close(*results)


def test_autocast_does_not_change_the_precision_of_the_call():
    for half in (torch.bfloat16, torch.float16):
        cell, inputs = make([6, 3], "paper", "soft", torch.float32), torch.randn(2, 5, 4)
        with torch.autocast("cpu", half):
            outputs, state = cell(inputs)
        assert cell.path == "one compiled call"
        assert outputs.dtype == state.memory.dtype == torch.float32
        assert_close(outputs, cell(inputs)[0], atol=0.05, rtol=0)


def test_boundaries_step_by_step_ignore_padding(monkeypatch):
    cell, inputs = make([6, 3], "paper", "soft"), torch.randn(2, 5, 4, dtype=torch.float64)
    lengths = torch.tensor([5, 2])
    found = []
    for padding, reference in ((0.0, ""), (torch.nan, ""), (torch.nan, "SEQMEM_REFERENCE is set")):
        monkeypatch.setattr(extension, "REASON", reference)
        monkeypatch.setattr(extension, "FORCED", True)
        inputs[1, 2:] = padding
        cell.zero_grad()
        boundaries = cell.boundaries(inputs, lengths=lengths)
        boundaries.sum().backward()
        found.append((boundaries.detach(), cell.layers[0].weight_input.grad.clone()))
    assert_close(found[1], found[0])
    assert_close(found[2], found[0])


def test_nothing_is_kept_for_backward_without_a_gradient():
    operator, given = arguments()
    assert operator(*given)[-1].numel() > 0
    assert operator(*given[:-1], 0)[-1].numel() == 0


def test_second_derivatives_are_refused():
    cell = make([5, 3], "paper", "soft")
    inputs = torch.randn(2, 4, 4, dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad(cell(inputs)[0].sum(), inputs, create_graph=True)
    with pytest.raises(NotImplementedError, match=r"differentiable once; torch\.func\.grad .* SEQMEM_REFERENCE=1"):
        first.sum().backward()


def test_wrong_arguments_are_named():
    operator, given = arguments()
    for changes, message in (
        ({1: torch.zeros(3, 32, dtype=torch.float64)}, r"hidden: got shape \[3, 32\], expected \[2, 32\]"),
        ({0: torch.zeros(2, 4, 64, dtype=torch.float64)}, r"projected: got shape \[2, 4, 64\], expected \[2, 4, 65\]"),
        ({0: torch.zeros(2, 4, 65)}, "hidden: got float64, expected float32"),
        ({0: torch.zeros(2, 4, 65, dtype=torch.float16)}, "projected: got float16, expected float32 or float64"),
        ({3: torch.zeros(2, 3, dtype=torch.float64)}, r"boundary: got shape \[2, 3\], expected \[2, 2\]"),
        ({4: torch.zeros(2)}, r"lengths: got \[2\] float32, expected \(B,\) int64 with B = 2"),
        ({5: torch.zeros(4, 2, 2, dtype=torch.float64)}, "draws: got a tensor, expected None with soft boundaries"),
        ({6: torch.zeros(7, dtype=torch.float64)}, r"parameters: got shape \[7\], expected \[\d+\]"),
        ({8: [16, 0]}, r"sizes: got \[16, 0\], expected each above 0"),
        ({8: []}, "sizes: got no layer, expected at least one"),
    ):
        with pytest.raises(ValueError, match=message):
            operator(*(changes.get(index, value) for index, value in enumerate(given)))
