"""The operators of scans on a GPU, against their references in float64 on the CPU."""

import pytest
import torch

from tests.ops.gpu.scan_cases import RUNS, cases, compare

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=["float64", "bfloat16"])
@pytest.mark.parametrize("operator", RUNS)
def test_scans_of_several_programs(operator, dtype, device):
    """Rows of several blocks, groups and chunks, none of which divides a size. Tests of layers compute in float32."""
    torch.manual_seed(0)
    relative = {torch.float64: 1e-9, torch.bfloat16: 0.03}[dtype]
    for case in cases(3, 70, 67, 19):
        if case.operator == operator:
            compare(case, dtype, relative, device)
