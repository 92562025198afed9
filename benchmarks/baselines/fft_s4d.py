"""S4D as a convolution by FFT in torch, as S4 and S4D train it: kernels of all T taps, and transforms of length 2 T."""

import torch
from torch import Tensor

from seqmem.layers import S4D
from seqmem.layers.s4d import S4DState


class FFTS4D(S4D):
    """An S4D layer that convolves (B, H, T) from a zero state; B is 1 and the modes are complex.

    The original code computes exp(dt A k) for each mode and tap, which takes longer than the transforms. Here the powers within
    a block of taps are multiplied by those of the blocks' starts in one matrix product.
    """

    def whole_sequence(
        self, inputs: Tensor, state: S4DState, lengths: Tensor | None, fresh: bool, rate: float = 1.0
    ) -> tuple[Tensor, S4DState]:
        """Inputs (B, T, H) -> outputs (B, T, H); the state is not computed."""
        steps = inputs.shape[1]
        channels = inputs.transpose(1, 2).contiguous()
        kernel = torch.fft.rfft(self.taps(steps), n=2 * steps)
        convolved = torch.fft.irfft(torch.fft.rfft(channels, n=2 * steps) * kernel, n=2 * steps)[..., :steps]
        return (convolved + channels * self.weight_skip[:, None]).transpose(1, 2), state

    def taps(self, steps: int) -> Tensor:
        """Compute the kernel 2 Re(sum_n C_n b_n a_n^k), (H, T)."""
        assert self.frequency is not None
        exponent = self.log_step.exp()[:, None] * torch.complex(-self.log_decay.exp(), self.frequency)
        factor = 2 * torch.view_as_complex(self.discretized()[1]) * torch.view_as_complex(self.weight_out)
        block = max(1, int(steps**0.5))
        within = torch.exp(exponent[..., None] * torch.arange(block))  # (H, N / 2, block)
        starts = torch.exp(exponent[:, None] * (block * torch.arange(-(-steps // block)))[:, None])  # (H, blocks, N / 2)
        return ((starts * factor[:, None]) @ within).real.flatten(1)[:, :steps]
