"""The part "operators": updates of the memory of each measure and discretization, projections of signals, and scans."""

from functools import partial

import torch

from benchmarks.gpu import scans
from benchmarks.gpu.session import Session
from benchmarks.gpu.sides import Sizes
from benchmarks.gpu.timing import free_memory, timed
from seqmem import hippo
from seqmem.ops import DISCRETIZATIONS, memory_update
from seqmem.ops.implementations import Implementation
from seqmem.ops.transition import MEASURES

BATCH, ORDER = 100, 512
CALLS = 20
"""Updates of one call that is timed, so that the time of the events does not count."""


def main() -> None:
    """Measure until the time is up."""
    session = Session("operators")
    order = 8 if session.smoke else ORDER
    sizes = Sizes(6, 10, 3) if session.smoke else Sizes()
    for operator in scans.OPERATORS:
        for side in scans.sides(operator, session.device):
            run = partial(_scan, session, operator, side, sizes)
            session.item(run, case=operator, side=side.name, limit=40.0)
    for measure in MEASURES:
        for discretization in DISCRETIZATIONS:
            run = partial(_update, session, measure, discretization, order)
            session.item(run, case=f"update of {measure}, {discretization}", limit=40.0)
    for measure, theta in (("legs", None), ("legt", 10_000)):
        for signals, samples in ((8, 100_000), (1, 1_000_000)):
            samples = 200 if session.smoke else samples
            run = partial(_projection, session, measure, theta, signals, samples)
            session.item(run, case=f"projection, {measure}, {signals} signals of {samples:,} samples", limit=60.0)


def _update(session: Session, measure: str, discretization: str, order: int) -> None:
    memory = torch.randn(BATCH, 1, order, device=session.device, requires_grad=True)
    inputs = torch.randn(BATCH, 1, device=session.device, requires_grad=True)
    # Stable with every discretization, forward included.
    step_size = 1.0 / order**2

    def forward() -> None:
        with torch.no_grad():
            for _ in range(CALLS):
                memory_update(memory, inputs, step_size, measure, discretization)

    def both() -> None:
        for _ in range(CALLS):
            updated = memory_update(memory, inputs, step_size, measure, discretization)
            torch.autograd.grad(updated, (memory, inputs), torch.ones_like(updated))

    title = f"update of {measure}, {discretization}"
    for quantity, call in (("forward", forward), ("forward and backward", both)):
        found = timed(call, session.device, 0.0 if session.smoke else 0.1)
        session.row(
            case=title,
            precision="float32",
            quantity=quantity,
            value=f"{found.seconds / CALLS * 1e6:.2f}",
            unit="us",
            note=f"batch {BATCH}, order {order}; median of {found.calls}",
        )


def _scan(session: Session, operator: str, side: Implementation, sizes: Sizes) -> None:
    given = scans.arguments(operator, sizes, session.device)
    leaves = [part for part in given if isinstance(part, torch.Tensor)]

    def forward() -> None:
        with torch.no_grad():
            side.run(*given)

    def both() -> None:
        outputs, _ = side.run(*given)
        torch.autograd.grad(outputs, leaves, torch.ones_like(outputs))

    for quantity, call in (("forward", forward), ("forward and backward", both)):
        found = timed(call, session.device, 0.0 if session.smoke else 0.1)
        peak = "" if found.peak_mib is None else f"; peak memory {found.peak_mib:.0f} MiB"
        session.row(
            case=operator,
            side=side.name,
            precision="float32",
            quantity=quantity,
            value=f"{found.seconds * 1e3:.3f}",
            unit="ms",
            note=f"batch {sizes.batch}, length {sizes.steps}, size {sizes.hidden}; median of {found.calls}{peak}",
        )
    free_memory(session.device)


def _projection(session: Session, measure: str, theta: float | None, signals: int, samples: int) -> None:
    order = 8 if session.smoke else 256
    signal = torch.randn(signals, samples, device=session.device)
    found = timed(lambda: hippo.project(signal, order, measure, theta), session.device, 0.0 if session.smoke else 0.5)
    free_memory(session.device)
    session.row(
        case=f"projection, {measure}, {signals} signals of {samples:,} samples",
        precision="float32 signal",
        quantity="forward",
        value=f"{found.seconds:.4f}",
        unit="s",
        note=f"order {order}; median of {found.calls}, first call {found.first:.2f} s",
    )


if __name__ == "__main__":
    main()
