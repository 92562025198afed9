"""Settings of the process while a model trains, the same for every training loop."""

from collections.abc import Iterator
from contextlib import contextmanager

from seqmem.training.backend import cudnn_as_matmul
from seqmem.training.loop.freed_memory import freed_memory_kept


@contextmanager
def while_training() -> Iterator[None]:
    """Keep freed memory for the next step, and let cuDNN multiply in the precision of torch's other products."""
    with freed_memory_kept(), cudnn_as_matmul():
        yield
