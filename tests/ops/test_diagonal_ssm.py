"""Diagonal state space models: blocks of steps, exported and step by step, in value and gradient."""

from itertools import product

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from seqmem.errors import UserError
from seqmem.ops import diagonal_ssm
from seqmem.ops.diagonal_ssm import diagonal_ssm_blocks, diagonal_ssm_exported, diagonal_ssm_reference

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


@FORMS
def test_half_precision_is_computed_in_float32(real):
    given = [tensor.detach() for tensor in sample(real)]
    half, wide = [tensor.bfloat16() for tensor in given], [tensor.bfloat16().float() for tensor in given]
    for run in (diagonal_ssm_reference, diagonal_ssm_blocks):
        outputs, final = run(*half)
        expected, last = diagonal_ssm_reference(*wide)
        assert outputs.dtype == torch.bfloat16
        assert final.dtype == torch.float32
        assert_close(outputs, expected.bfloat16(), rtol=1e-2, atol=1e-2)
        assert_close(final, last)


@FORMS
@pytest.mark.parametrize("reverse", [False, True])
def test_an_exported_model_accepts_any_length(real, reverse):
    class Model(nn.Module):
        def forward(self, *given):
            return diagonal_ssm_exported(*given, reverse)

    given = [*(tensor.detach() for tensor in sample(real)), LENGTHS]
    dynamic = (({1: torch.export.Dim.DYNAMIC}, *[None] * 6),)
    program = torch.export.export(Model(), tuple(given), dynamic_shapes=dynamic, strict=False).module()
    longer = [torch.cat([given[0], given[0]], 1), *given[1:-1], 2 * LENGTHS]
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
