"""The causal convolution: its formula, states, padding, restarts and gradients."""

from itertools import pairwise, product

import pytest
import torch
from torch.nn.functional import conv1d, pad
from torch.testing import assert_close

from seqmem.errors import UserError
from seqmem.ops import extension
from seqmem.ops.causal_convolution import causal_convolution_compiled, causal_convolution_reference
from tests.ops.sequences import needs_compiled
from tests.successors import assert_near

RESTARTS = torch.tensor([[0, 0, 1, 0, 0, 0, 1], [1, 0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 0, 0, 0]], dtype=torch.bool)
LENGTHS = torch.tensor([7, 4, 0])
IMPLEMENTATIONS = {"reference": causal_convolution_reference}
if not extension.REASON:
    IMPLEMENTATIONS["compiled"] = causal_convolution_compiled

every_implementation = pytest.mark.parametrize("run", IMPLEMENTATIONS.values(), ids=IMPLEMENTATIONS)


def sample(batch: int = 3, steps: int = 7, channels: int = 5, taps: int = 4) -> dict:
    """Random arguments by name, in float64."""
    shapes = {"inputs": (batch, steps, channels), "weight": (channels, taps), "bias": (channels,)}
    shapes["initial"] = (batch, taps - 1, channels)
    random = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, dtype=torch.float64, generator=random).requires_grad_() for name, shape in shapes.items()}


def results(run, given: dict, **options) -> dict[str, torch.Tensor]:
    """Outputs, the final state, and the gradients of a sum of both with fixed weights."""
    outputs, final = run(**given, **options)
    total = sum((part * torch.linspace(-1, 2, part.numel()).view_as(part).to(part)).sum() for part in (outputs, final))
    named = {name: tensor for name, tensor in given.items() if tensor is not None}
    gradients = torch.autograd.grad(total, list(named.values()), materialize_grads=True)
    return {"outputs": outputs, "final": final} | dict(zip(named, gradients, strict=True))


@every_implementation
def test_it_is_a_convolution_of_torch(run):
    given = sample()
    outputs, final = run(given["inputs"], given["weight"], given["bias"])
    padded = pad(given["inputs"].transpose(1, 2), (3, 0))
    assert_close(outputs, conv1d(padded, given["weight"][:, None], given["bias"], groups=5).transpose(1, 2))
    assert torch.equal(final, given["inputs"][:, 4:])


@every_implementation
@pytest.mark.parametrize("taps", [1, 2, 4, 9])
def test_halves_equal_the_whole(run, taps):
    given = sample(taps=taps)
    for restarts in (None, RESTARTS):
        whole, last = run(**given, restarts=restarts)
        for middle in (0, 1, 3, 7):
            halves = [None if restarts is None else part for part in (RESTARTS[:, :middle], RESTARTS[:, middle:])]
            first, state = run(**given | {"inputs": given["inputs"][:, :middle]}, restarts=halves[0])
            rest = given | {"inputs": given["inputs"][:, middle:], "initial": state}
            second, final = run(**rest, restarts=halves[1])
            assert_close(torch.cat([first, second], 1), whole)
            assert torch.equal(final, last)


@every_implementation
@pytest.mark.parametrize("taps", [1, 4, 9])
def test_a_restart_begins_a_sequence(run, taps):
    given = sample(taps=taps)
    outputs, final = run(**given, restarts=RESTARTS)
    for row, starts in enumerate(RESTARTS):
        places = [0, *starts.nonzero().flatten().tolist(), 7]
        for begin, end in pairwise(places):
            initial = given["initial"][row : row + 1] if begin == 0 and not starts[0] else None
            alone, last = run(given["inputs"][row : row + 1, begin:end], given["weight"], given["bias"], initial)
            assert_close(outputs[row : row + 1, begin:end], alone)
        assert torch.equal(final[row], last[0])


@every_implementation
def test_padding_has_no_influence(run):
    given = sample()
    padded = given | {"inputs": given["inputs"].detach().clone()}
    padded["inputs"][1, 4:], padded["inputs"][2] = torch.nan, torch.nan
    padded["inputs"].requires_grad_()
    for restarts in (None, RESTARTS):
        found, expected = (results(run, part, lengths=LENGTHS, restarts=restarts) for part in (padded, given))
        assert_close(found, expected)
        cut = None if restarts is None else RESTARTS[:, :4]
        whole, state = run(**given | {"inputs": given["inputs"][:, :4]}, restarts=cut)
        assert_close(found["outputs"][1, :4], whole[1])
        assert torch.equal(found["final"][1], state[1])
        assert torch.equal(found["final"][2], given["initial"][2])
        assert not found["outputs"][1, 4:].any()


@every_implementation
@pytest.mark.parametrize("shape", [(0, 3, 2, 2), (2, 0, 2, 3), (2, 3, 0, 2), (1, 1, 1, 1)], ids=str)
def test_empty_and_single_sizes(run, shape):
    given = sample(*shape)
    found = results(run, given)
    assert found["outputs"].shape == shape[:3]
    assert found["final"].shape == given["initial"].shape


@every_implementation
def test_gradients_are_those_of_differences(run):
    for restarts in (None, RESTARTS):
        given = sample(taps=3)

        def convolve(*tensors, restarts=restarts):
            return run(*tensors, LENGTHS, restarts)

        assert torch.autograd.gradcheck(convolve, list(given.values()))


@every_implementation
def test_half_precision_keeps_its_types(run):
    given = {name: tensor.detach().float() for name, tensor in sample().items()}
    outputs, final = run(**given | {"inputs": given["inputs"].bfloat16()})
    assert outputs.dtype == torch.bfloat16
    assert final.dtype == torch.float32
    assert_close(outputs.float(), run(**given)[0], rtol=0.02, atol=0.05)


def test_arguments_that_do_not_match_are_named():
    for changes, message in (
        ({"weight": torch.zeros(4, 4)}, r"got inputs of shape \(3, 7, 5\) and weight of shape \(4, 4\), expected \(B, T, C\)"),
        ({"weight": torch.zeros(5, 0)}, r"expected \(B, T, C\) and \(C, k\) with k > 0"),
        ({"initial": torch.zeros(3, 4, 5)}, r"got initial of shape \(3, 4, 5\), expected \(3, 3, 5\)"),
        ({"restarts": RESTARTS.long()}, r"got restarts of torch\.int64, expected torch\.bool"),
    ):
        with pytest.raises(UserError, match=message):
            causal_convolution_reference(**sample() | changes)


def assert_agrees_with_the_reference(shape: tuple[int, ...]):
    """In both precisions, with and without padding, restarts, bias and initial inputs."""
    for dtype, without in product((torch.float64, torch.float32), ((), ("bias", "initial"))):
        given = {name: part.detach().to(dtype).requires_grad_() for name, part in sample(*shape).items() if name not in without}
        restarts = torch.rand(shape[:2], generator=torch.Generator().manual_seed(1)) < 0.2
        for lengths, starts in product((None, torch.tensor([shape[1], shape[1] // 2, 0][: shape[0]])), (None, restarts)):
            found, expected = (
                results(run, given, lengths=lengths, restarts=starts)
                for run in (causal_convolution_compiled, causal_convolution_reference)
            )
            for name, value in expected.items():
                assert_near(found[name], value, 1e-12 if dtype == torch.float64 else 1e-6)


@needs_compiled
@pytest.mark.parametrize("shape", [(3, 7, 5, 4), (2, 70, 48, 4), (1, 5, 300, 3), (2, 9, 130, 12), (2, 1, 3, 5)], ids=str)
def test_the_compiled_convolution_agrees_with_the_reference(shape):
    """With whole and partial vectors, several groups of channels, and sequences that are shorter than the kernel."""
    assert_agrees_with_the_reference(shape)


@needs_compiled
def test_large_results_and_any_number_of_threads():
    """Results past the caches are stored without them."""
    given, threads = {name: part.detach().float() for name, part in sample(2, 8200, 128, 4).items()}, torch.get_num_threads()
    given = {name: part.requires_grad_() for name, part in given.items()}
    try:
        found = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found.append(results(causal_convolution_compiled, given))
    finally:
        torch.set_num_threads(threads)
    for name, value in results(causal_convolution_reference, given).items():
        assert torch.equal(found[1][name], found[0][name]), name
        assert torch.equal(found[2][name], found[0][name]), name
        assert_near(found[0][name], value, 1e-5)


@needs_compiled
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")  # from opcheck
def test_the_operator_is_well_formed():
    given = sample()
    torch.library.opcheck(torch.ops.seqmem.causal_convolution.default, (*given.values(), LENGTHS, RESTARTS))
    torch.library.opcheck(torch.ops.seqmem.causal_convolution.default, (given["inputs"], given["weight"], *[None] * 4))


@needs_compiled
def test_wrong_arguments_of_the_operator_are_named():
    given = [tensor.detach() for tensor in sample().values()]
    for changes, message in (
        ({0: torch.zeros(3, 7)}, r"inputs: got shape \[3, 7\], expected \(B, T, C\)"),
        ({1: torch.zeros(5, 0).double()}, r"weight: got shape \[5, 0\], expected \(C, k\) with k > 0"),
        ({2: torch.zeros(5)}, "bias: got float32, expected float64"),
        ({4: torch.tensor([7, 8, 0])}, "lengths: got 8 in row 1, expected 0 to T = 7"),
        ({5: RESTARTS.long()}, r"restarts: got \[3, 7\] int64, expected \(B, T\) bool"),
    ):
        arguments = [*given, None, None]
        with pytest.raises(ValueError, match=message):
            torch.ops.seqmem.causal_convolution(*(changes.get(k, value) for k, value in enumerate(arguments)))
