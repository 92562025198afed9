"""The compiled scans against their references, in value and every gradient: sizes, layouts, precision and refusals."""

from itertools import product

import pytest
import torch
from torch.testing import assert_close

from seqmem.ops import extension
from seqmem.ops.diagonal_scan import diagonal_scan, diagonal_scan_reference
from seqmem.ops.minimal_gates import minimal_gates_reference, minimal_gates_scan
from seqmem.ops.oscillators import oscillator_scan, oscillator_scan_reference

pytestmark = pytest.mark.skipif(bool(extension.REASON), reason=f"no compiled operators: {extension.REASON}")

SIZES = [(3, 13, 5), (1, 1, 1), (2, 7, 16), (3, 70, 37), (5, 130, 64), (1, 20, 300), (0, 3, 4), (2, 0, 4), (2, 3, 0)]
"""B, T and N: parts of vectors, whole ones, and some more; sums of more than one block; one row on several threads."""


def scan_cases(batch, steps, size, dtype):
    """Arguments of a diagonal scan, its functions, and further options, the richest ones first."""
    for pairs, constant, reverse in product((True, False), repeat=3):
        pair = (2,) if pairs else ()
        a = torch.randn(*(() if constant else (batch, steps)), size, *pair, dtype=dtype)
        a = a / (1 + (a.norm(dim=-1, keepdim=True) if pairs else a.abs()))
        given = [a, torch.randn(batch, steps, size, *pair, dtype=dtype), torch.randn(batch, size, *pair, dtype=dtype)]
        yield given, (diagonal_scan, diagonal_scan_reference), (reverse,)


def gates_cases(batch, steps, size, dtype):
    for gates in ("lstm_raw", "lstm", "gru"):
        projected = 4 * torch.randn(batch, steps, size * (2 if gates == "gru" else 3), dtype=dtype)
        yield [projected, torch.rand(batch, size, dtype=dtype)], (minimal_gates_scan, minimal_gates_reference), (gates,)


def oscillator_cases(batch, steps, size, dtype):
    for method in ("imex", "im"):
        stiffness, step = torch.rand(2, size, dtype=dtype)
        stiffness[: size // 2] = 0
        driven = torch.randn(batch, steps, size, 2, dtype=dtype)
        given = [stiffness, step, driven, torch.randn(batch, 2, size, 2, dtype=dtype)]
        yield given, (oscillator_scan, oscillator_scan_reference), (method,)


CASES = {"diagonal_scan": scan_cases, "minimal_gates": gates_cases, "oscillators": oscillator_cases}
every_operator = pytest.mark.parametrize("operator", CASES)


def results(function, given, lengths, options):
    """Outputs, the final state, and the gradients of a weighted sum of both."""
    given = [None if tensor is None else tensor.detach().clone().requires_grad_() for tensor in given]
    outputs, final = function(*given, lengths, *options)
    loss = (outputs * torch.linspace(-1, 1, outputs.numel()).view_as(outputs)).sum() + final.square().sum()
    leaves = [tensor for tensor in given if tensor is not None]
    loss = loss + sum(0 * leaf.sum() for leaf in leaves)
    return outputs.detach(), final.detach(), *torch.autograd.grad(loss, leaves)


def assert_agrees_with_the_reference(operator, batch, steps, size, dtype=torch.float64, relative=1e-11):
    for given, (fast, slow), options in CASES[operator](batch, steps, size, dtype):
        for initial, lengths in product((given[-1], None), (None, torch.randint(0, steps + 1, (batch,)))):
            arguments = [*given[:-1], initial]
            expected = results(slow, [None if part is None else part.double() for part in arguments], lengths, options)
            for found, exact in zip(results(fast, arguments, lengths, options), expected, strict=True):
                assert found.dtype == dtype
                scale = exact.abs().max().item() if exact.numel() else 0.0
                assert_close(found.double(), exact, rtol=0, atol=relative * max(scale, 1))


def assert_float32_to_rounding(operator):
    assert_agrees_with_the_reference(operator, 3, 70, 37, torch.float32, 1e-4)


@every_operator
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_agrees_with_the_reference(operator, size):
    torch.manual_seed(0)
    assert_agrees_with_the_reference(operator, *size)


@every_operator
def test_float32_to_rounding(operator):
    assert_float32_to_rounding(operator)


@every_operator
def test_large_sequences_pass_the_caches(operator):
    """From 16 MiB on, outputs of whole cache lines are stored past the caches, on two threads of several ranges."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        size = 150_016 if operator == "minimal_gates" else 75_008  # of pairs
        given, functions, options = next(CASES[operator](3, 5, size, torch.float64))
        found, expected = (results(function, given, torch.tensor([5, 0, 3]), options) for function in functions)
        assert_close(found, expected)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(("gates", "size"), [("gru", 24), ("lstm", 16), ("lstm", 24)])
def test_large_gradients_in_parts_of_cache_lines(gates, size):
    """The gradients of all gates fill whole cache lines of a step, and those of one gate may not."""
    parts = 2 if gates == "gru" else 3
    projected = torch.randn((1 << 22) // (3 * parts * size) + 1, 3, parts * size)
    found, expected = (results(run, [projected, None], None, (gates,)) for run in (minimal_gates_scan, minimal_gates_reference))
    assert_close(found, expected, rtol=1e-4, atol=1e-4)


@every_operator
def test_gradients_are_those_of_differences(operator):
    for given, (fast, _), options in CASES[operator](2, 4, 3, torch.float64):
        if operator == "oscillators":
            given[0] += 0.1
        leaves = [tensor.requires_grad_() for tensor in given]

        def call(*given, run=fast, options=options):
            return run(*given, torch.tensor([4, 2]), *options)

        assert torch.autograd.gradcheck(call, leaves)


@every_operator
def test_the_reference_is_differentiable_twice(operator):
    for given, (_, slow), options in CASES[operator](1, 3, 2, torch.float64):
        leaves = [tensor.requires_grad_() for tensor in given]

        def call(*given, run=slow, options=options):
            return run(*given, None, *options)

        assert torch.autograd.gradgradcheck(call, leaves)


@every_operator
def test_second_derivatives_are_refused(operator):
    for given, (fast, _), options in CASES[operator](2, 4, 3, torch.float64):
        leaves = [tensor.requires_grad_() for tensor in given]
        outputs, _ = fast(*leaves, None, *options)
        (first,) = torch.autograd.grad(outputs.square().sum(), leaves[-2], create_graph=True)
        with pytest.raises(NotImplementedError, match=r"differentiable once; torch\.func\.grad .* SEQMEM_REFERENCE=1"):
            first.sum().backward()


@every_operator
def test_gradients_of_a_single_result_and_of_some_arguments(operator):
    for given, functions, options in CASES[operator](2, 5, 3, torch.float64):
        for chosen, part in product(range(len(given)), (0, 1)):
            found = []
            for function in functions:
                arguments = [tensor.detach().requires_grad_(k == chosen) for k, tensor in enumerate(given)]
                result = function(*arguments, torch.tensor([5, 2]), *options)[part]
                found.append(torch.autograd.grad(result.square().sum(), arguments[chosen])[0])
            assert_close(*found)


@every_operator
def test_padding_and_strides_do_not_matter(operator):
    lengths = torch.tensor([6, 2, 0])
    for given, (fast, _), options in CASES[operator](3, 6, 5, torch.float64):
        expected = results(fast, given, lengths, options)
        strided = [part.flip(0).transpose(0, -1).contiguous().transpose(0, -1).flip(0) for part in given]
        for part in strided:
            if part.shape[:2] == (3, 6):
                part[1, 2:] = part[2] = torch.nan
        assert_close(results(fast, strided, lengths, options), expected)


@every_operator
def test_a_value_that_is_not_finite_stays_in_its_row(operator):
    for given, (fast, slow), options in CASES[operator](3, 6, 5, torch.float64):
        expected, _ = fast(*given, None, *options)
        for value in (torch.nan, torch.inf, -torch.inf):
            extreme = [part.clone() for part in given]
            for part in extreme:
                if part.shape[:2] == (3, 6):
                    part[1, 3] = value
            found, exact = (function(*extreme, None, *options)[0] for function in (fast, slow))
            assert torch.equal(found[[0, 2]], expected[[0, 2]])
            assert found[exact.isfinite()].isfinite().all()
            assert operator != "diagonal_scan" or torch.equal(found.isfinite(), exact.isfinite())


@every_operator
def test_half_precision_is_computed_in_float32(operator):
    for given, (fast, slow), options in CASES[operator](3, 40, 5, torch.bfloat16):
        outputs, final = fast(*given, None, *options)
        assert (outputs.dtype, final.dtype) == (torch.bfloat16, torch.float32)
        exact = slow(*(part.double() for part in given), None, *options)[0]
        assert (outputs.double() - exact).abs().max() < 0.01 * exact.abs().max()


@every_operator
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")  # from opcheck
def test_the_operator_is_well_formed(operator):
    calls = {
        "diagonal_scan": (torch.rand(3, 2), torch.rand(2, 4, 3, 2), torch.rand(2, 3, 2), torch.tensor([4, 2]), True),
        "minimal_gates": (torch.rand(2, 4, 9), torch.rand(2, 3), torch.tensor([4, 2]), "lstm"),
        "oscillators": (torch.rand(4, 3), torch.rand(2, 4, 3, 2), torch.rand(2, 2, 3, 2), torch.tensor([4, 2]), True),
    }
    given = [part.requires_grad_() if getattr(part, "is_floating_point", bool)() else part for part in calls[operator]]
    torch.library.opcheck(getattr(torch.ops.seqmem, operator).default, tuple(given))


@every_operator
def test_a_compiled_graph_has_the_same_gradients(operator):
    for given, (fast, _), options in CASES[operator](2, 5, 3, torch.float64):
        graph = torch.compile(fast, backend="aot_eager")
        lengths = torch.tensor([5, 3])
        assert_close(results(graph, given, lengths, options), results(fast, given, lengths, options))


def test_complex_tensors_are_pairs():
    for given, (fast, slow), options in CASES["diagonal_scan"](3, 6, 5, torch.float64):
        if given[1].dim() == 4:
            numbers = [torch.view_as_complex(part) for part in given]
            assert_close(fast(*numbers, None, *options), slow(*numbers, None, *options))
            conjugates = [part.conj() for part in numbers]
            assert_close(fast(*conjugates, None, *options), slow(*conjugates, None, *options))


def test_wrong_arguments_are_named():
    ops, ones, b, u = torch.ops.seqmem, torch.ones, torch.ones(2, 3, 5), torch.ones(2, 3, 6, 2)
    for call, message in (
        (lambda: ops.diagonal_scan(ones(4), b, None, None, False), r"a: got shape \[4\], expected \[5\]"),
        (lambda: ops.diagonal_scan(ones(5), ones(3, 5), None, None, False), r"b: got shape \[3, 5\], expected \(B, T, N\) or"),
        (lambda: ops.diagonal_scan(ones(5).double(), b, None, None, False), "a: got float64, expected float32"),
        (
            lambda: ops.diagonal_scan(ones(5), b, ones(5), None, False),
            r"initial: got shape \[5\], expected \[2, 5\]",
        ),
        (lambda: ops.diagonal_scan(ones(5), b, None, torch.tensor([3, 4]), False), "lengths: got 4 in row 1"),
        (lambda: ops.minimal_gates(ones(2, 3, 7), None, None, "lstm"), r"got shape \[2, 3, 7\], expected \(B, T, 3 E\)"),
        (lambda: ops.minimal_gates(ones(2, 3, 6), None, None, "gated"), "gates: got 'gated', expected gru, lstm or lstm_raw"),
        (
            lambda: ops.oscillators(ones(4, 5), u, None, None, True),
            r"coefficients: got shape \[4, 5\], expected",
        ),
        (lambda: ops.oscillators(ones(4, 5), b, None, None, True), r"driven: got shape \[2, 3, 5\], expected"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize("modulus", [0.0, 0.9, 0.999, 1.0])
def test_rounding_over_many_steps(modulus):
    """Errors are those of a random walk of roundings, which lasts as long as the state remembers."""
    torch.manual_seed(0)
    steps, phase = 100_000, torch.linspace(0, 3, 4, dtype=torch.float64)
    time_constant = steps if modulus == 1 else 1 / (1 - modulus)
    exact_a = torch.stack([modulus * phase.cos(), modulus * phase.sin()], -1)
    a = exact_a.float()
    b = torch.randn(1, steps, 4, 2)
    for constant in (True, False):
        given = [a if constant else a.expand_as(b), b]
        found = results(diagonal_scan, [*given, None], None, (False,))
        exact = results(diagonal_scan, [*(part.double() for part in given), None], None, (False,))
        for one, other in zip(found, exact, strict=True):
            assert (one - other).norm() < 2e-5 * other.norm()
        assert (found[0] - exact[0]).norm() < 5e-8 * time_constant**0.5 * exact[0].norm()


@pytest.mark.parametrize("gates", ["gru", "lstm", "lstm_raw"])
def test_rounding_of_gates_over_many_steps(gates):
    """With forget gates close to 1, which keep a state for a thousand steps."""
    torch.manual_seed(0)
    projected = torch.randn(1, 100_000, 4 * (2 if gates == "gru" else 3))
    closed = slice(4, None) if gates == "gru" else slice(8, None)
    projected[..., closed] -= 7
    if gates != "gru":
        projected[..., 4:8] += 7
    found = results(minimal_gates_scan, [projected, None], None, (gates,))
    exact = results(minimal_gates_scan, [projected.double(), None], None, (gates,))
    for one, other in zip(found, exact, strict=True):
        assert (one - other).norm() < 2e-5 * other.norm()


@pytest.mark.parametrize("method", ["im", "imex"])
def test_rounding_of_oscillators_over_many_steps(method):
    torch.manual_seed(0)
    given = [torch.tensor([0.0, 1e-4, 0.1, 1.0]), torch.full((4,), 0.3), torch.randn(1, 100_000, 4, 2), None]
    found = results(oscillator_scan, given, None, (method,))
    exact = results(oscillator_scan, [None if part is None else part.double() for part in given], None, (method,))
    for one, other in zip(found, exact, strict=True):
        assert (one - other).norm() < 1e-3 * other.norm()
