"""A quick start: the garbage collector does not look through what imports leave, a million objects, again and again.

That takes a sixth of the time from the command to the first training step.
"""

import gc

_allocations = 200_000  # between two collections, in place of Python's 700
_usual: list[tuple[int, int, int]] = []


def begin() -> None:
    """A program starts: what it makes, it mostly keeps."""
    _usual.append(gc.get_threshold())
    gc.set_threshold(_allocations)


def end() -> None:
    """Garbage is collected as ever, but for what is there by now; nothing where no program has begun, or it has ended."""
    if _usual:
        gc.freeze()
        gc.set_threshold(*_usual.pop())
