"""The part "speed": each cell and layer forward, and with backward, next to cuDNN, the original's way and a torch loop."""

from functools import cache, partial

from benchmarks.gpu.session import Session
from benchmarks.gpu.sides import CUDNN, DENSE, LAYERS, LOOP, OURS, THRESHOLDS, CellCase, Sizes
from benchmarks.gpu.timing import PRECISIONS, free_memory, products, timed
from seqmem import cells

FIRST = ("legs", "lstm", "gru")
TOLERANCE = {"float32": 1e-3, "tf32": 3e-2, "bf16": 1e-1}
"""Largest relative norm of a difference from strict float32; no time is written beyond it."""
SECONDS = 0.5
"""Seconds of the repetitions of a call."""


def main() -> None:
    """Measure until the time is up."""
    session = Session("speed")
    sizes = Sizes(6, 10, 3) if session.smoke else Sizes()
    case_of = cache(lambda name: CellCase(name, sizes, session.device))
    previous = ""
    for name, side, precision in plan(session.smoke):
        if name != previous:  # the tensors of the case before it are not needed any more
            case_of.cache_clear()
            free_memory(session.device)
        previous = name
        run = partial(_measure, session, case_of, name, side, precision)
        session.item(run, case=name, side=side, precision=precision, limit=90.0)


def plan(smoke: bool = False) -> list[tuple[str, str, str]]:
    """Return what is measured, as cell or layer, side and number format; what matters most comes first."""
    others = [*LAYERS, *(name for name in cells.names() if name not in (*FIRST, *LAYERS))]
    found = []
    for name in FIRST:
        torch_nn = [CUDNN[name]] if name in CUDNN else []
        found += [(name, side, precision) for side in (OURS, *torch_nn) for precision in PRECISIONS]
        found += [(name, DENSE, precision) for precision in ("tf32", "float32") if name == "legs"]
        found += [(name, LOOP, "float32")]
    found += [(name, OURS, precision) for name in others for precision in PRECISIONS]
    found += [(name, LOOP, "float32") for name in others]
    return [item for item in found if item[0] in (*FIRST, "mamba", "hmlstm", "tlsi") and item[2] != "tf32"] if smoke else found


def _measure(session: Session, case_of, name: str, side: str, precision: str) -> None:
    case = case_of(name)
    described = {"case": case.title, "side": side, "precision": precision}
    seconds = 0.0 if session.smoke else SECONDS
    microseconds = 1e6 / case.sizes.steps
    with products(precision):
        training = case.training(side, precision)
        if name not in THRESHOLDS:
            difference = case.difference(training())
            session.row(**described, quantity="difference", value=f"{difference:.1e}", unit="of strict float32")
            if not difference <= TOLERANCE[precision]:
                raise ValueError(f"the values disagree with strict float32: {difference:.1e}, expected {TOLERANCE[precision]}")
        calls = {"forward": case.evaluation(side, precision), "forward and backward": training}
        for quantity, call in calls.items():
            found = timed(call, session.device, seconds)
            note = f"median of {found.calls}, first call {found.first:.2f} s" + f"; {case.cell.path}" * (side == OURS)
            session.row(
                **described, quantity=quantity, value=f"{found.seconds * microseconds:.3f}", unit="us a step", note=note
            )
            if found.peak_mib is not None:
                session.row(**described, quantity=f"peak memory, {quantity}", value=f"{found.peak_mib:.0f}", unit="MiB")


if __name__ == "__main__":
    main()
