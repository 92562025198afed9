"""Diagonal state space models: blocks of steps, exported and compiled against step by step, in value and gradient."""

import os
import subprocess
import sys
from itertools import product

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from seqmem.errors import UserError
from seqmem.layers import S4D
from seqmem.ops import diagonal_ssm, extension
from seqmem.ops.diagonal_ssm import (
    diagonal_ssm_blocks,
    diagonal_ssm_compiled,
    diagonal_ssm_exported,
    diagonal_ssm_reference,
)

IMPLEMENTATIONS = (diagonal_ssm_reference, diagonal_ssm_blocks, *([] if extension.REASON else [diagonal_ssm_compiled]))
LENGTHS = torch.tensor([11, 4, 0])
FORMS = pytest.mark.parametrize("real", [False, True], ids=["complex", "real"])


def sample(real: bool, steps: int = 11, modes: int = 4, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    """Inputs, a, b, c, skip and the initial state, with one mode of a = 0 and others up to modulus 1."""
    noise = torch.Generator().manual_seed(0)
    pair = () if real else (2,)
    shape = (5, modes, *pair)
    given = [
        torch.randn(size, dtype=dtype, generator=noise) for size in ((3, steps, 5), shape, shape, shape, (5,), (3, *shape))
    ]
    modulus = given[1].abs() if real else given[1].norm(dim=-1, keepdim=True)
    given[1] = given[1] / modulus * torch.linspace(0, 1, modes, dtype=dtype).view(modes, *([] if real else [1]))
    return [tensor.requires_grad_() for tensor in given]


def trained(run, given, *others):
    """Outputs, the final state and all gradients, of a loss that reads both."""
    outputs, final = run(*given, *others)
    loss = (outputs * torch.linspace(-1, 1, outputs.numel(), dtype=outputs.dtype).view_as(outputs)).sum() + final.square().sum()
    given = [tensor for tensor in given if tensor is not None]
    return [outputs, final, *torch.autograd.grad(loss, given, allow_unused=True, materialize_grads=True)]


@FORMS
def test_the_recurrence_is_its_formula(real):
    """With all powers of a written out, in both directions."""
    x, a, b, c, skip, initial = (tensor.detach() for tensor in sample(real))
    as_complex = (lambda tensor: tensor) if real else torch.view_as_complex
    a_, b_, c_, s_ = map(as_complex, (a, b, c, initial))
    for reverse in (False, True):
        forward = x.flip(1) if reverse else x
        y = []
        for t in range(11):
            state = a_ ** (t + 1) * s_ + sum(a_ ** (t - j) * b_ * forward[:, j, :, None] for j in range(t + 1))
            value = (c_ * state).sum(-1)
            y.append((value if real else value.real) + skip * forward[:, t])
        expected = torch.stack(y[::-1] if reverse else y, 1)
        outputs, final = diagonal_ssm_reference(x, a, b, c, skip, initial, None, reverse)
        assert_close(outputs, expected)
        assert_close(as_complex(final), state)


@FORMS
@pytest.mark.parametrize("block", [3, 64])
def test_blocks_agree_with_the_reference(real, block, monkeypatch):
    monkeypatch.setattr(diagonal_ssm, "_BLOCK", block)
    for reverse, lengths, steps in product((False, True), (None, LENGTHS), (11, 12)):
        given = sample(real, steps)
        results = [trained(run, given, lengths, reverse) for run in (diagonal_ssm_reference, diagonal_ssm_blocks)]
        assert_close(*results)
        plain = [*given[:4], None, None]
        assert_close(*(trained(run, plain, lengths, reverse) for run in (diagonal_ssm_reference, diagonal_ssm_blocks)))


@FORMS
def test_short_sequences(real):
    for steps in (0, 1, 2):
        results = [trained(run, sample(real, steps)) for run in (diagonal_ssm_reference, diagonal_ssm_blocks)]
        assert_close(*results)


@FORMS
def test_padding_has_no_influence(real):
    given = sample(real)
    padded = given[0].detach().clone()
    padded[1, 4:] = float("nan")
    for run, reverse in product((diagonal_ssm_reference, diagonal_ssm_blocks), (False, True)):
        expected = trained(run, given, LENGTHS, reverse)
        assert_close(trained(run, [padded.requires_grad_(), *given[1:]], LENGTHS, reverse), expected)


def assert_same_where_finite(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.isfinite(), other.isfinite())
        assert_close(one[one.isfinite()], other[one.isfinite()])


@FORMS
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_values_that_are_not_finite_do_not_reach_earlier_steps(real, value):
    """In the inputs, and in the gradient of an output, within the first and a later block."""
    for steps, reverse, place in product((10, 150), (False, True), ("inputs", "outputs", "both")):
        given = sample(real, steps)
        if place != "outputs":
            bad = given[0].detach().clone()
            bad[1, steps - 3, 2] = value
            given[0] = bad.requires_grad_()
        found = []
        for run in (diagonal_ssm_reference, diagonal_ssm_blocks):
            results = run(*given, None, reverse)
            incoming = [torch.linspace(-1, 1, part.numel(), dtype=part.dtype).view_as(part) for part in results]
            if place != "inputs":
                incoming[0][2, steps - 4, 1] = value
            found.append([*results, *torch.autograd.grad(results, given, incoming)])
        assert_same_where_finite(*found)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:FutureWarning")  # in torch
def test_transforms_and_programs_of_inputs_that_are_not_finite():
    given = [tensor.detach() for tensor in sample(False)]
    given[0][1, 7, 2] = torch.nan
    found = []
    for run in (diagonal_ssm_reference, diagonal_ssm_blocks):
        gradients = torch.func.grad(lambda *tensors, run=run: run(*tensors)[0].sum(), argnums=(0, 1, 2, 3))(*given)
        _, tangents = torch.func.jvp(run, tuple(given), tuple(map(torch.ones_like, given)))
        mapped = torch.func.vmap(lambda a, run=run: run(given[0], a, *given[2:])[0])(torch.stack([given[1], given[1] / 2]))
        found.append([*gradients, *tangents, mapped])
    assert_same_where_finite(*found)
    program = torch.compile(diagonal_ssm_blocks, backend="aot_eager", fullgraph=True)
    assert_same_where_finite(program(*given), diagonal_ssm_reference(*given))


@FORMS
def test_half_precision_is_computed_in_float32(real):
    given = [tensor.detach() for tensor in sample(real)]
    half, wide = [tensor.bfloat16() for tensor in given], [tensor.bfloat16().float() for tensor in given]
    for run in IMPLEMENTATIONS:
        outputs, final = run(*half)
        expected, last = diagonal_ssm_reference(*wide)
        assert outputs.dtype == torch.bfloat16
        assert final.dtype == torch.float32
        assert_close(outputs, expected.bfloat16(), rtol=1e-2, atol=1e-2)
        assert_close(final, last)


@FORMS
def test_mixed_types_are_converted_to_the_widest(real):
    x, *others = (tensor.detach() for tensor in sample(real))
    for initial in (others[4], None):
        others[4] = initial
        expected, last = diagonal_ssm_reference(x.float().double(), *others)
        for run in IMPLEMENTATIONS:
            outputs, final = run(x.float(), *others)
            assert_close(outputs, expected.float())
            assert_close(final, last)


@pytest.mark.parametrize(
    ("real", "reverse"),
    [
        pytest.param(False, True, id="complex-reverse"),
        pytest.param(True, False, id="real"),
        pytest.param(False, False, id="complex", marks=pytest.mark.slow),
        pytest.param(True, True, id="real-reverse", marks=pytest.mark.slow),
    ],
)
def test_an_exported_model_accepts_any_batch_and_length(real, reverse):
    class Model(nn.Module):
        def forward(self, *given):
            return diagonal_ssm_exported(*given, reverse)

    given = [*(None if k == 5 and reverse else tensor.detach() for k, tensor in enumerate(sample(real))), LENGTHS]
    free = torch.export.Dim.DYNAMIC
    rows = None if reverse else {0: free}
    dynamic = (({0: free, 1: free}, *[None] * 4, rows, {0: free}),)
    program = torch.export.export(Model(), tuple(given), dynamic_shapes=dynamic, strict=False).module()
    longer = [torch.cat([given[0], given[0]], 1), *given[1:-1], 2 * LENGTHS]
    for k in (0, 5, 6):
        longer[k] = None if longer[k] is None else longer[k].repeat(2, *[1] * (longer[k].dim() - 1))
    assert_close(program(*longer), diagonal_ssm_reference(*longer, reverse))


def test_shapes_that_do_not_match_are_named():
    given = sample(False)
    for changes, message in (
        ({0: torch.zeros(3, 11, 6)}, r"got inputs of shape \(3, 11, 6\) and a of shape \(5, 4, 2\), expected"),
        ({2: torch.zeros(5, 3, 2)}, r"got b of shape \(5, 3, 2\), expected \(5, 4, 2\)"),
        ({4: torch.zeros(4)}, r"got skip of shape \(4,\), expected \(5,\)"),
        ({5: torch.zeros(3, 5, 4)}, r"got initial of shape \(3, 5, 4\), expected \(3, 5, 4, 2\)"),
    ):
        with pytest.raises(UserError, match=message):
            diagonal_ssm_blocks(*(changes.get(k, tensor) for k, tensor in enumerate(given)))


SIZES = {
    "one of all": (1, 1, 1, 1),
    "odd": (3, 7, 5, 3),
    "several chunks": (2, 150, 17, 5),
    "more rows than a group": (40, 3, 16, 4),
    "no modes": (2, 4, 3, 0),
    "no steps": (2, 0, 3, 2),
    "no rows": (0, 4, 3, 2),
}


def sized(real: bool, sizes: tuple[int, ...], dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    """Inputs, a with a modulus of at most 1, b, c, skip and the initial state."""
    noise = torch.Generator().manual_seed(1)
    batch, steps, channels, modes = sizes
    shape = (channels, modes) if real else (channels, modes, 2)
    shapes = ((batch, steps, channels), shape, shape, shape, (channels,), (batch, *shape))
    given = [torch.randn(size, dtype=torch.float64, generator=noise) for size in shapes]
    given[1] = given[1].tanh() / (1 if real else 2**0.5)
    return [tensor.to(dtype).requires_grad_() for tensor in given]


def losses(outputs, final):
    yield (outputs * torch.linspace(-1, 1, outputs.numel(), dtype=outputs.dtype).view_as(outputs)).sum()
    yield final.square().sum()
    yield outputs.sin().sum() + final.square().sum()


def assert_compiled_equals_the_reference(real: bool, sizes: tuple[int, ...]) -> None:
    """In values and in the gradients of each result alone and of both."""
    lengths = [torch.tensor([sizes[1], min(4, sizes[1]), 0][:1] * max(0, sizes[0] - 2) + [min(4, sizes[1]), 0])[: sizes[0]]]
    for reverse, given_lengths, missing in product((False, True), (None, *lengths), ((), (5,), (4, 5))):
        given = [None if k in missing else tensor for k, tensor in enumerate(sized(real, sizes))]
        sources = [tensor for tensor in given if tensor is not None]
        results = []
        for run in (diagonal_ssm_compiled, diagonal_ssm_reference):
            found = run(*given, given_lengths, reverse)
            results.append(list(found))
            for loss in losses(*found):
                if loss.requires_grad:
                    gradients = torch.autograd.grad(loss, sources, allow_unused=True, retain_graph=True)
                    pairs = zip(gradients, sources, strict=True)
                    results[-1] += [torch.zeros_like(one) if grad is None else grad for grad, one in pairs]
                else:
                    results[-1] += [torch.zeros_like(one) for one in sources]
        assert_close(*results, rtol=1e-9, atol=1e-9)


compiled = pytest.mark.skipif(bool(extension.REASON), reason=f"no compiled operators: {extension.REASON}")


@compiled
@FORMS
@pytest.mark.parametrize("size", SIZES)
def test_the_compiled_operator_agrees_with_the_reference(real, size):
    assert_compiled_equals_the_reference(real, SIZES[size])


SAMPLE = """
from tests.ops import test_diagonal_ssm as tests

for size in ("odd", "several chunks"):
    tests.assert_compiled_equals_the_reference(False, tests.SIZES[size])
tests.assert_float32_keeps_its_precision(2000)
"""


@compiled
@pytest.mark.slow
@pytest.mark.parametrize("name", ["baseline", "avx2"])
def test_other_instruction_sets(name):
    environment = os.environ | {"SEQMEM_INSTRUCTION_SET": name}
    done = subprocess.run([sys.executable, "-c", SAMPLE], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def assert_float32_keeps_its_precision(steps: int) -> None:
    """Errors against float64 over many steps, with time constants up to 2000 steps, compared with those of the reference.

    The rounding of a alone changes the time constants, so float64 computes with the rounded numbers.
    """
    torch.manual_seed(0)
    layer = S4D(16, 16, 16, init="legs", train_b=True)
    with torch.no_grad():
        a, b = layer.discretized()
    given = [torch.randn(1, steps, 16), a, b, layer.weight_out.detach(), layer.weight_skip.detach()]
    exact = diagonal_ssm_compiled(*(tensor.double() for tensor in given))
    for found, value in zip(diagonal_ssm_compiled(*given), exact, strict=True):
        assert (found - value).abs().max() < 3e-6 * value.abs().max()


@compiled
def test_float32_keeps_its_precision():
    assert_float32_keeps_its_precision(10**5)


@compiled
def test_without_b_an_initial_state_has_its_part_in_every_gradient():
    x, a, _, c, _, initial = sized(False, (2, 5, 3, 2))
    ones = torch.tensor([1.0, 0.0]).double().expand_as(a)

    def operator(x, a, c, initial, lengths):
        return torch.ops.seqmem.diagonal_ssm(x, a, None, c, None, initial, lengths, False, 2)[:2]

    def reference(x, a, c, initial, lengths):
        return diagonal_ssm_reference(x, a, ones, c, None, initial, lengths)

    for loss in (lambda outputs, final: outputs.sin().sum(), lambda outputs, final: final.square().sum()):
        found, expected = (
            torch.autograd.grad(loss(*run(x, a, c, initial, torch.tensor([5, 2]))), (x, a, c, initial), materialize_grads=True)
            for run in (operator, reference)
        )
        assert_close(found, expected)


@compiled
def test_gradients_by_differences():
    given = sized(False, (2, 5, 3, 2))
    for missing, reverse in product(((), (4, 5)), (False, True)):
        some = [None if k in missing else tensor for k, tensor in enumerate(given)]
        assert torch.autograd.gradcheck(diagonal_ssm_compiled, (*some, torch.tensor([5, 2]), reverse))


@compiled
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")  # from opcheck
@pytest.mark.parametrize("complete", [True, False])
def test_the_operator_is_well_formed(complete):
    x, a, b, c, skip, initial = sized(False, (2, 5, 3, 2))
    rest = (skip, initial, torch.tensor([5, 2]), True, 3) if complete else (None, None, None, False, 2)
    torch.library.opcheck(torch.ops.seqmem.diagonal_ssm.default, (x, a, b if complete else None, c, *rest))


@compiled
def test_absent_gradients_are_different_tensors():
    """As those of the fake operator: a compiled program takes one tensor for one result."""
    x, a, _, c, _, _ = sized(False, (2, 5, 3, 2))
    *results, saved = torch.ops.seqmem.diagonal_ssm(x, a, None, c, None, None, None, False, 2)
    absent = (None, c, None, None, None, False, 2, False)
    gradients = torch.ops.seqmem.diagonal_ssm_backward(*results, saved, x, a, *absent)
    assert len({id(gradient) for gradient in gradients}) == len(gradients)


@compiled
def test_sums_do_not_depend_on_the_number_of_threads():
    before, results = torch.get_num_threads(), []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        results.append(trained(diagonal_ssm_compiled, sized(False, (37, 70, 33, 5), torch.float32)))
    torch.set_num_threads(before)
    for found in results[1:]:
        for one, other in zip(found, results[0], strict=True):
            assert torch.equal(one, other)


@compiled
def test_layouts_do_not_matter():
    given = sized(False, (3, 7, 5, 3))
    expected = trained(diagonal_ssm_compiled, given)
    strided = [tensor.detach().permute(*range(tensor.dim())[::-1]).contiguous() for tensor in given]
    strided = [tensor.permute(*range(tensor.dim())[::-1]).requires_grad_() for tensor in strided]
    assert_close(trained(diagonal_ssm_compiled, strided), expected, rtol=0, atol=0)


@compiled
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_denormals_are_flushed(dtype):
    x, a, b, c, skip, initial = (tensor.detach() for tensor in sized(False, (5, 70, 17, 3), dtype))
    tiny = 1e-40 if dtype == torch.float32 else 1e-310
    few = [torch.full_like(x, tiny).requires_grad_(), a, b, c, skip, torch.full_like(initial, tiny).requires_grad_()]
    for lengths in (None, torch.zeros(5, dtype=torch.int64)):
        for missing in ((), (5,)):
            given = [None if k in missing else tensor for k, tensor in enumerate(few)]
            results = diagonal_ssm_compiled(*given, lengths)
            sources = [tensor for tensor in given if tensor is not None and tensor.requires_grad]
            incoming = [torch.full_like(result, tiny) for result in results]
            gradients = torch.autograd.grad(results, sources, incoming)
            assert all(result.count_nonzero() == 0 for result in (*results, *gradients))


@compiled
def test_extreme_values_stay_in_their_row_and_channel():
    given = [tensor.detach() for tensor in sized(False, (4, 70, 17, 3), torch.float32)]
    expected = diagonal_ssm_compiled(*given)[0]
    for value in (float("nan"), float("inf"), 1e30):
        x = given[0].clone()
        x[1, 5, 3] = value
        found = diagonal_ssm_compiled(x, *given[1:])[0]
        changed = found != expected
        assert changed[1, 5:, 3].any()
        changed[1, 5:, 3] = False
        assert not changed.any()
