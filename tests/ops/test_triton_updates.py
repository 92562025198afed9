"""The GPU kernels' logic, run on the CPU through Triton's interpreter against the float64 reference."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("triton", reason="Triton is not installed")

_script = """
import sys, torch
from torch.testing import assert_close
from seqmem.ops import reference, triton_updates

name, measure, discretization = sys.argv[1:]
torch.manual_seed(0)
checked = 0
for batch, size, order in [(3, 2, 1), (2, 1, 7), (3, 2, 33), (1, 1, 64), (0, 2, 5), (2, 0, 5)]:
    for step_size in [0.27, 1.0, torch.rand(batch, dtype=torch.float64)]:
        for dtype, tolerance in [(torch.float64, 1e-11), (torch.float32, 2e-4)]:
            memory = torch.randn(size, batch, order, dtype=torch.float64).transpose(0, 1).requires_grad_()
            inputs = torch.randn(batch, size, dtype=torch.float64, requires_grad=True)
            cotangent = torch.randn(batch, size, order, dtype=torch.float64)
            wanted = reference.update(measure, memory, inputs, step_size, discretization)
            gradients = torch.autograd.grad(wanted, (memory, inputs), cotangent)
            step = step_size.to(dtype) if isinstance(step_size, torch.Tensor) else step_size
            found = triton_updates.update(name, memory.detach().to(dtype), inputs.detach().to(dtype), step)
            transposed = triton_updates.adjoint(name, cotangent.to(dtype), step)
            for ours, expected in zip((found, *transposed), (wanted, *gradients), strict=True):
                assert ours.dtype == dtype
                assert_close(ours.double(), expected, rtol=tolerance, atol=tolerance * (1 + order))
                checked += ours.numel()
print(checked)
"""


@pytest.mark.parametrize(
    ("name", "measure", "discretization"),
    [
        ("legs_euler_forward", "legs", "forward"),
        ("legs_euler_backward", "legs", "backward"),
        ("legs_trapezoidal", "legs", "bilinear"),
        ("legt_euler_forward", "lmu", "forward"),
    ],
)
def test_value_and_gradient_equal_the_reference(name, measure, discretization):
    done = subprocess.run(
        [sys.executable, "-c", _script, name, measure, discretization],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "TRITON_INTERPRET": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 1000
