"""What the process of a part shares with the run: its folder, its device, and the time that is left."""

import argparse
import faulthandler
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.gpu import rows
from benchmarks.gpu.parts import STARTED


class Session:
    """A part's process.

    Args:
        part: name of the part.
        arguments: command line; None for that of the process.

    Attributes:
        folder: of the run.
        device: type of the device, cuda or cpu.
        smoke: sizes are tiny, and nothing is repeated.
    """

    def __init__(self, part: str, arguments: list[str] | None = None):
        parser = argparse.ArgumentParser(description=f"The part {part} of python -m benchmarks.gpu.")
        parser.add_argument("--folder", type=Path, required=True, help="folder of the run")
        parser.add_argument("--device", default="cuda", help="cuda or cpu")
        parser.add_argument("--seconds", type=float, default=float("inf"), help="the part begins nothing after this time")
        parser.add_argument("--smoke", action="store_true", help="tiny sizes, no repetitions")
        given = parser.parse_args(arguments)
        self.part = part
        self.folder: Path = given.folder
        self.device: str = given.device
        self.smoke: bool = given.smoke
        self._end = time.monotonic() + given.seconds
        self._command = f"python -m benchmarks.gpu.{part} --device {self.device}{' --smoke' * self.smoke}"
        self.folder.mkdir(parents=True, exist_ok=True)

    def left(self) -> float:
        """Return the seconds that are left."""
        return self._end - time.monotonic()

    def row(self, **measured: Any) -> None:
        """Write a row, see :func:`benchmarks.gpu.rows.append`."""
        rows.append(self.folder, self._command, part=self.part, **measured)

    def item(self, measure: Callable[[], None], *, case: str, side: str = "", precision: str = "", limit: float = 60.0) -> None:
        """Do one measurement, so that nothing that happens in it stops the next ones.

        An exception becomes a row. An item that takes longer than its limit ends the process, which the run starts again for
        the next items.

        Args:
            measure: writes the rows.
            case: what is measured.
            side: the implementation.
            precision: number format.
            limit: seconds.
        """
        name, started = f"{case} | {side} | {precision}", self.folder / f"{self.part}.{STARTED}"
        begun = started.read_text().splitlines() if started.exists() else []
        described = {"case": case, "side": side, "precision": precision}
        if name in begun:  # by an earlier process of this run
            if not self._has_row(described):
                self.row(**described, note=f"failed: the process ended in it, or it took longer than {limit:.0f} s")
            return
        if self.left() <= 0:
            self.row(**described, note="not measured: out of time")
            return
        with open(started, "a") as file:
            file.write(f"{name}\n")
        faulthandler.dump_traceback_later(limit, exit=True)
        try:
            measure()
        except Exception as error:
            traceback.print_exc()
            lines = str(error).splitlines() or [""]
            self.row(**described, note=f"failed: {type(error).__name__}: {lines[0]}")
            self.raise_if_broken()
        finally:
            faulthandler.cancel_dump_traceback_later()

    def raise_if_broken(self) -> None:
        """Raise an exception if the device does not compute any more, as after an illegal access: a new process is needed."""
        if self.device == "cuda":
            import torch

            torch.cuda.synchronize()

    def _has_row(self, described: dict[str, str]) -> bool:
        expected = {"part": self.part, **described}
        return any(expected.items() <= row.items() for row in rows.read(self.folder))
