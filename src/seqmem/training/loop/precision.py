"""Products of ``train.precision=bf16-mixed`` on processors where products in bfloat16 are slower than in float32."""

from contextlib import AbstractContextManager, nullcontext

from seqmem.ops.rounded_products import RoundedProducts, products_are_rounded
from seqmem.training.backend import device_kind
from seqmem.training.config import RunnerConfig, TrainConfig


def fast_products(train: TrainConfig, runner: RunnerConfig) -> AbstractContextManager[object]:
    """Return the context of forward and backward: with :class:`RoundedProducts` where it is faster, else without effect."""
    on_cpu = device_kind(runner) == "cpu" and not train.compile  # compiled code does not see the functions that it calls
    return RoundedProducts() if train.precision == "bf16-mixed" and on_cpu and products_are_rounded() else nullcontext()
