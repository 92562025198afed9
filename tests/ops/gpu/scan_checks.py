"""Checks of the kernels of scans, for ``tests/ops/gpu/interpreted.py``."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from seqmem.ops.gpu import operators
from tests.ops.gpu.scan_cases import RUNS, SMALL, Case, cases, compare, trained
from tests.ops.registered import compared_with_fake_kernels

SAMPLE = {
    "diagonal_scan": ("varying real, all options", "constant pairs, all options"),
    "diagonal_ssm": ("pairs, all options",),
    "minimal_gates": ("gru, all options", "lstm, no options"),
    "oscillators": ("im, all options",),
    "selective_scan": ("all options",),
}
"""Cases of default tests."""


def check_scans(size: str) -> int:
    """Compare values and gradients with the references in float64, for each operator and option."""
    with small_programs():
        if size == "sample":  # the first of each operator is in check_padding_of_scans
            return sum(compare(case) for case in cases(2, 5, 3) if case.title in SAMPLE[case.operator][1:])
        return sum(compare(case) for shape in ((3, 9, 5), (1, 1, 1)) for case in cases(*shape))


def check_types_of_scans(size: str) -> int:
    """In float32 and in bfloat16, whose sums are in float32."""
    compared = 0
    with small_programs():
        for case in cases(2, 5, 3):
            if size == "all" or case.title == SAMPLE[case.operator][0]:
                compared += compare(case, torch.float32, 1e-5)
                compared += compare(case, torch.bfloat16, 0.02) if size == "all" else 0
    return compared


def check_bias_of_half_precision(size: str) -> int:
    """The gradient of a bias is a sum of numbers that are not rounded to the type of the step sizes."""
    case = next(case for case in cases(2, 9, 3) if (case.operator, case.title) == ("selective_scan", "all options"))
    rounded = [leaf.to(torch.bfloat16 if index == 1 else torch.float32) for index, leaf in enumerate(case.leaves)]
    fast, reference = RUNS[case.operator]
    with small_programs():
        found = trained(fast, rounded, case.others)
    expected = trained(reference, [leaf.double() for leaf in rounded], case.others)
    bias = 2 + 7  # after outputs and final state
    torch.testing.assert_close(found[bias].double(), expected[bias], rtol=1e-5, atol=1e-5)
    return expected[bias].numel()


def check_scans_of_nothing(size: str) -> int:
    """Without rows, steps or units there is no program; the final state is the initial one."""
    compared = 0
    with small_programs():
        for shape in ((0, 3, 2), (2, 0, 2), (2, 3, 0)):
            for case in cases(*shape):
                found, expected = (run(*case.leaves, *case.others) for run in RUNS[case.operator])
                torch.testing.assert_close(found, expected)
                compared += 1
    return compared


def check_padding_of_scans(size: str) -> int:
    """NaN in the padding of sequences has no influence, on gradients either."""
    compared = 0
    with small_programs():
        for case in cases(2, 5, 3):
            if "all options" in case.title and (size == "all" or case.title == SAMPLE[case.operator][0]):
                compared += compare(_with_nan(case))
    return compared


def check_operators_of_scans(size: str) -> int:
    """Schemas, shapes of fake tensors and registered gradients; there are no second derivatives."""
    done = 0
    utilities = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")
    with small_programs():
        for case in cases(2, 2, 2):
            title, *others = SAMPLE[case.operator]
            if case.title != title and (size == "sample" or case.title not in others):
                continue
            operator = getattr(torch.ops.seqmem, f"{case.operator}_kernel").default
            given = _arguments(case, operator)
            torch.library.opcheck(operator, given, test_utils=utilities[: 4 if size == "all" else 3])
            leaves = [part for part in given if isinstance(part, torch.Tensor) and part.requires_grad]
            with compared_with_fake_kernels():
                gradients = torch.autograd.grad(operator(*given)[0].square().sum(), leaves, create_graph=True)
            with pytest.raises(NotImplementedError, match="differentiable once"):
                torch.autograd.grad(sum(gradient.sum() for gradient in gradients), leaves)
            done += 1
    return done


def _arguments(case: Case, operator: Any) -> tuple[Any, ...]:
    """Return what the implementation for CUDA tensors gives to its operator."""

    class Calls(TorchDispatchMode):
        found: tuple[Any, ...] = ()

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            self.found = args if function is operator else self.found
            return function(*args, **(kwargs or {}))

    with Calls() as calls:
        trained(RUNS[case.operator][0], case.leaves, case.others)
    return tuple(
        part.detach().requires_grad_(part.is_floating_point()) if isinstance(part, torch.Tensor) else part
        for part in calls.found
    )


def _with_nan(case: Case) -> Case:
    """Return a case whose sequences (B, T, ...) are NaN in the padding; the references mask them."""
    lengths = case.others[0]
    shape = (2, 5)
    padded = torch.arange(5) >= lengths[:, None]
    leaves = [
        leaf.clone().masked_fill(padded.view(*shape, *[1] * (leaf.dim() - 2)), torch.nan)
        if leaf is not None and leaf.shape[:2] == shape
        else leaf
        for leaf in case.leaves
    ]
    return case._replace(leaves=tuple(leaves))


@contextmanager
def small_programs() -> Iterator[None]:
    """Run the kernels on CPU tensors, in programs of few numbers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(operators, "on_gpu", lambda tensor: True)
        for module, sizes in SMALL.items():
            for name, value in sizes.items():
                patch.setattr(module, name, value)
        yield
