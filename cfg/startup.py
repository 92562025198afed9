"""A quick start: the garbage collector looks through what imports leave, a million objects, only once.

Otherwise it would do so again and again: a sixth of the time from the command to the first training step.
"""

import gc

_allocations = 200_000  # between two collections, in place of Python's 700
_usual = gc.get_threshold()


def begin() -> None:
    """A program starts: what it makes, it mostly keeps."""
    gc.set_threshold(_allocations)


def end() -> None:
    """The training begins, and garbage is collected as ever, but for what is there by now.

    Nothing where no program has begun, as in a worker, or it has ended already.
    """
    if gc.get_threshold()[0] == _allocations:
        gc.freeze()
        gc.set_threshold(*_usual)
