"""The exponential by products alone, against torch's."""

import pytest
import torch
from torch.testing import assert_close

from seqmem.ops.exponential import SCALED_NORM, halvings, scaled_exponential


@pytest.mark.parametrize(("norm", "expected"), [(0.0, 0), (1e-300, 0), (0.5, 0), (0.500001, 1), (1.0, 1), (1000.0, 11)])
def test_halvings_reach_the_norm_of_the_series(norm, expected):
    assert halvings(norm) == expected
    assert norm / 2**expected <= SCALED_NORM


def test_one_number_of_squarings_for_all_matrices_or_one_for_each():
    torch.manual_seed(0)
    matrices = torch.randn(5, 9, 9, dtype=torch.float64) * torch.tensor([0.0, 1e-3, 0.1, 1.0, 3.0])[:, None, None].double()
    expected = torch.matrix_exp(matrices)
    norms = torch.linalg.matrix_norm(matrices, 1)
    needed = torch.tensor([halvings(norm) for norm in norms.tolist()])
    assert len(set(needed.tolist())) == 4
    most = int(needed.max())
    for found in (
        scaled_exponential(matrices / 2**most, most),
        scaled_exponential(matrices / 2.0 ** needed[:, None, None], most + 3, needed),
        torch.stack([scaled_exponential(matrix / 2**most, most) for matrix in matrices]),
    ):
        assert_close(found, expected, rtol=1e-12, atol=1e-14)
