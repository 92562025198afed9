"""Logic of the GPU kernels, run on the CPU by Triton's interpreter, against the float64 reference."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("triton", reason="Triton is not installed")

# An own process: Triton reads TRITON_INTERPRET when it is imported.
SCRIPT = """
import sys, torch
from torch.testing import assert_close
from seqmem.ops import reference, triton_updates

torch.manual_seed(0)
checked = 0
updates = {
    "legs_euler_forward": ("legs", "forward"),
    "legs_euler_backward": ("legs", "backward"),
    "legs_trapezoidal": ("legs", "bilinear"),
    "legt_euler_forward": ("lmu", "forward"),
}
shapes = [(3, 2, 1), (2, 1, 7), (3, 2, 33), (1, 1, 64), (0, 2, 5), (2, 0, 5)]
if sys.argv[1] == "sample":
    shapes = [(2, 1, 7), (1, 2, 33), (0, 2, 5), (2, 0, 5)]
for name, (measure, discretization) in updates.items():
    for batch, size, order in shapes:
        for step_size in [0.27, 1.0, torch.rand(batch, dtype=torch.float64)][0 if sys.argv[1] == "all" else 1 :]:
            for dtype, tolerance in [(torch.float64, 1e-11), (torch.float32, 2e-4)]:
                memory = torch.randn(size, batch, order, dtype=torch.float64).transpose(0, 1).requires_grad_()
                inputs = torch.randn(batch, size, dtype=torch.float64, requires_grad=True)
                cotangent = torch.randn(batch, size, order, dtype=torch.float64)
                expected = reference.update(measure, memory, inputs, step_size, discretization)
                gradients = torch.autograd.grad(expected, (memory, inputs), cotangent)
                step = step_size.to(dtype) if isinstance(step_size, torch.Tensor) else step_size
                updated = triton_updates.update(name, memory.detach().to(dtype), inputs.detach().to(dtype), step)
                adjoint = triton_updates.adjoint(name, cotangent.to(dtype), step)
                for result, exact in zip((updated, *adjoint), (expected, *gradients), strict=True):
                    assert result.dtype == dtype
                    message = lambda text: f"{name}, {(batch, size, order)}, {dtype}: {text}"
                    assert_close(result.double(), exact, rtol=tolerance, atol=tolerance * (1 + order), msg=message)
                    checked += result.numel()
print(checked)
"""


@pytest.mark.parametrize("sizes", ["sample", pytest.param("all", marks=pytest.mark.slow)])
def test_values_and_gradients_equal_the_reference(sizes):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, sizes],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "TRITON_INTERPRET": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 1000
