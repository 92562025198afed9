"""Online projection: coefficients of a signal's past, updated sample by sample (HiPPO, sections 2 and 3)."""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from pydantic import PositiveInt
from torch import Tensor

from seqmem.arguments import checked
from seqmem.data.transfer import copied
from seqmem.errors import UserError
from seqmem.hippo.measures import Memory
from seqmem.hippo.reconstruction import as_signal, as_tensor, reconstruct
from seqmem.ops import discretize, transition
from seqmem.ops.constants import constant
from seqmem.ops.discretization import alpha_of
from seqmem.ops.legs_projection import legs_projection
from seqmem.ops.reference import describe


def project(
    signal: Tensor | np.ndarray | Sequence[float],
    order: int,
    measure: str = "legs",
    theta: float | None = None,
    every: int | None = None,
    discretization: str | float | None = None,
    **measure_args: float,
) -> Tensor:
    """Project a signal onto the first N functions of a measure, as an online memory that reads each sample once.

    Computed in float64, on the signal's device; differentiable in the signal. Windows, Laguerre measures and zero-order hold
    take many samples at once; other discretizations of legs take O(N) a sample, compiled.

    Args:
        signal: (T,) or (B, T) floating point, T > 0; samples at equal distances.
        order: N, number of coefficients.
        measure: ``"legs"`` (all of the past, weighted evenly), ``"legt"`` (the last theta samples, weighted evenly), ``"lmu"``
            (the same in the normalisation of the Legendre Memory Unit), ``"lagt"``, ``"tlagt"`` or ``"glagt"`` (Laguerre: the
            past weighted by its age over theta), see :mod:`seqmem.hippo.measures`.
        theta: window (legt, lmu) or time scale (lagt, tlagt, glagt) in samples; None for legs. Before the first sample the
            signal counts as 0, except for legs, whose past begins there.
        every: return the coefficients after every ``every`` samples instead of the final ones.
        discretization: forward, backward, bilinear, zoh, a synonym of these, or alpha of the general bilinear transform.
            Default bilinear for legs and zoh for the others. Forward is unstable if theta is small compared to the square of
            the order.
        measure_args: arguments of the measure, see :func:`seqmem.ops.transition`.

    Returns:
        The final coefficients, (N,) or (B, N); with ``every`` those after samples every, 2 every, ...: (K, N) or (B, K, N),
        K = T // every. Of the signal's type.

    Raises:
        UserError: a signal of a different shape or type, an unknown measure or discretization, a missing theta or a theta for
            legs, or a number that is not positive or of the wrong type.

    >>> project(torch.full((5,), 2.0), order=3)
    tensor([2., 0., 0.])
    >>> project(torch.rand(4, 1000), order=16, measure="legt", theta=100, every=10).shape
    torch.Size([4, 100, 16])
    """
    stream = OnlineProjection(order, measure, theta, discretization, **measure_args)
    signal = as_signal(signal)
    return stream.update(signal, every).to(signal.dtype)


class OnlineProjection:
    """A projection of a stream of samples of any length.

    It stores N float64 coefficients a signal, however many samples it has read.

    Args:
        order: N; this and the others as in :func:`project`.
        measure: legs, legt, lmu, lagt, tlagt or glagt.
        theta: window or time scale in samples.
        discretization: discretization of a step.
        measure_args: arguments of the measure.

    Raises:
        UserError: as :func:`project`.

    >>> stream = OnlineProjection(order=4, measure="legt", theta=50)
    >>> for _ in range(10):
    ...     coefficients = stream.update(torch.ones(33))  # any number of samples at a time
    >>> stream.step(1.0).shape
    torch.Size([4])
    >>> stream.length
    331
    >>> stream.reconstruct(at=[281, 300.5])
    tensor([1.0000, 1.0000], dtype=torch.float64)
    """

    def __init__(
        self,
        order: int,
        measure: str = "legs",
        theta: float | None = None,
        discretization: str | float | None = None,
        **measure_args: float,
    ):
        self.memory = Memory(order, measure, theta, discretization, measure_args)
        self.length = 0
        self._coefficients: Tensor | None = None
        self._blocks = None if self.memory.is_scaled else _Blocks(self.memory)

    @property
    def coefficients(self) -> Tensor:
        """The coefficients after the samples so far: (N,), or (B, N) for B signals.

        Raises:
            UserError: there were no samples yet.
        """
        if self._coefficients is None:
            raise UserError("the projection has no coefficients before its first sample")
        return self._coefficients

    def step(self, value: Tensor | float) -> Tensor:
        """Read one sample, a number or (B,) for B signals, and return the coefficients."""
        return self.update(as_tensor(value, torch.float64)[..., None])

    def update(self, chunk: Tensor | np.ndarray | Sequence[float], every: int | None = None) -> Tensor:
        """Read the next samples.

        Args:
            chunk: (T,) or (B, T) floating point, T > 0.
            every: return the coefficients after each multiple of ``every`` samples, counted from the stream's first.

        Returns:
            The coefficients (N,) or (B, N); with ``every`` (K, N) or (B, K, N), K the number of multiples in the chunk.

        Raises:
            UserError: a different B than that of previous chunks, or ``every`` is not a positive whole number.
        """
        chunk = as_signal(chunk).double()
        every = _checked_every(every)
        order, batch = self.memory.order, chunk.shape[:-1]
        if self._coefficients is None:
            self._coefficients = chunk.new_zeros(*batch, order)
        elif self._coefficients.shape[:-1] != batch:
            expected = ", ".join([*map(str, self._coefficients.shape[:-1]), "T"])
            raise UserError(f"chunk: got {describe(chunk)}, expected ({expected}) as before")
        rows, before = chunk.reshape(-1, chunk.shape[-1]), self._coefficients.reshape(-1, order)
        if self._blocks is None:
            kept, coefficients = legs_projection(rows, before, self.length, self.memory.method, every or 0)
        else:
            kept, coefficients = self._blocks.advance(before, rows, self.length, every)
        self.length += rows.shape[1]
        self._coefficients = coefficients.reshape(*batch, order)
        return self._coefficients if every is None else kept.reshape(*batch, kept.shape[1], order)

    def reconstruct(self, at: Tensor | Sequence[float] | None = None) -> Tensor:
        """Reconstruct the past from the current coefficients, see :func:`seqmem.hippo.reconstruct`."""
        return reconstruct(self.coefficients, self.length, at=at, **self.memory.settings)


class _Blocks:
    """Steps c = A_d c + B_d f over 2^i samples at once: A_d^(2^i) c + sum_j A_d^(2^i-1-j) B_d f_j."""

    largest = 256

    def __init__(self, memory: Memory):
        assert memory.theta is not None
        self.A, self.B = _step(memory, 1 / memory.theta)
        self._powers: dict[int, Tensor] = {}
        self._copies: dict[tuple[Any, torch.device], Tensor] = {}
        # For alpha >= 1/2 the steps of a stable system are stable for any step size.
        if (alpha_of(memory.method) or 0) < 0.5 and _radius(self.A) > 1 + 1e-9:
            raise UserError(
                f"{memory.measure} of order {memory.order} with theta {memory.theta:g} grows without bound "
                f"by discretization '{memory.discretization}'; choose zoh or bilinear, or a larger theta"
            )

    @cached_property
    def kernel(self) -> Tensor:
        """The responses (largest, N) to a sample, the newest last: A_d^(largest-1) B_d, ..., A_d B_d, B_d."""
        return _kernel(self.A, self.B, self.largest)

    def power(self, exponent: int) -> Tensor:
        """Compute A_d^exponent, (N, N)."""
        if exponent not in self._powers:
            self._powers[exponent] = _power(self.A, exponent)
        return self._powers[exponent]

    def _times_power(self, rows: Tensor, exponent: int) -> Tensor:
        return rows @ self._copy(rows, exponent, lambda: self.power(exponent)).T

    def _responses(self, rows: Tensor) -> Tensor:
        """Return the sum of the responses to samples (..., T), (..., N)."""
        return rows @ self._copy(rows, "kernel", lambda: self.kernel)[-rows.shape[-1] :]

    def _copy(self, like: Tensor, key: Any, compute: Callable[[], Tensor]) -> Tensor:
        """Return a matrix on the device of ``like``, copied there once."""
        if like.is_cpu:
            return compute()
        if (key, like.device) not in self._copies:
            self._copies[key, like.device] = copied(compute(), like.device)
        return self._copies[key, like.device]

    def advance(self, coefficients: Tensor, rows: Tensor, length: int, every: int | None) -> tuple[Tensor, Tensor]:
        """Advance coefficients (B, N) over samples (B, T) that follow ``length`` others.

        Returns:
            The coefficients after each multiple of ``every`` samples, (B, K, N), and after the last sample, (B, N).
        """
        if every is None:
            return rows.new_zeros(len(rows), 0, len(self.B)), self._final(coefficients, rows)
        first = min(rows.shape[1], -length % every)
        coefficients = self._final(coefficients, rows[:, :first])
        count = (rows.shape[1] - first) // every
        kept = [coefficients[:, None]] if first and (length + first) % every == 0 else []
        intervals = rows[:, first : first + count * every].reshape(len(rows), count, every)
        at_once = 1 if every > self.largest else self.largest  # longer intervals are advanced one by one
        for start in range(0, count, at_once):
            group = intervals[:, start : start + at_once]
            found = self._final(coefficients, group[:, 0])[:, None] if at_once == 1 else self._each(coefficients, group)
            kept.append(found)
            coefficients = found[:, -1]
        coefficients = self._final(coefficients, rows[:, first + count * every :])
        return torch.cat(kept, 1) if kept else rows.new_zeros(len(rows), 0, len(self.B)), coefficients

    def _final(self, coefficients: Tensor, rows: Tensor) -> Tensor:
        """Return the coefficients after samples (B, T)."""
        start = 0
        while start < rows.shape[1]:
            size = min(self.largest, 1 << ((rows.shape[1] - start).bit_length() - 1))
            response = self._responses(rows[:, start : start + size])
            coefficients = self._times_power(coefficients, size) + response
            start += size
        return coefficients

    def _each(self, coefficients: Tensor, intervals: Tensor) -> Tensor:
        """Return the coefficients after each interval of (B, K, every) samples, (B, K, N), by a scan of log2(K) products."""
        count, every = intervals.shape[1:]
        found = self._responses(intervals)
        first = found[:, :1] + self._times_power(coefficients, every)[:, None]
        found = torch.cat((first, found[:, 1:]), 1)
        shift = 1
        while shift < count:
            earlier = self._times_power(found[:, :-shift], every * shift)
            found = torch.cat((found[:, :shift], found[:, shift:] + earlier), 1)
            shift *= 2
        return found


@checked
def _checked_every(every: PositiveInt | None) -> int | None:
    """Return a number of samples as a Python number, or None."""
    return every


@constant
def _step(memory: Memory, step_size: float) -> tuple[Tensor, Tensor]:
    """Compute A_d (N, N) and B_d (N,) of a memory."""
    A, B = transition(memory.measure, memory.order, **memory.measure_args)
    return discretize(A, B, step_size, memory.method)


@constant
def _radius(A: Tensor) -> float:
    """Return the largest absolute eigenvalue."""
    return torch.linalg.eigvals(A).abs().max().item()


@constant
def _power(A: Tensor, exponent: int) -> Tensor:
    return torch.linalg.matrix_power(A, exponent)


@constant
def _kernel(A: Tensor, B: Tensor, largest: int) -> Tensor:
    kernel, power = B[None], A
    while len(kernel) < largest:
        kernel = torch.cat((kernel @ power.T, kernel))
        power = power @ power
    return kernel
