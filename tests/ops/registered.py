"""The registered operators: their names, and the comparison with their fake kernels, for tests that hold for all of them."""

import re
from contextlib import AbstractContextManager

import torch
from torch._subclasses.fake_utils import CrossRefFakeMode


def compiled_operators() -> set[str]:
    """Return the full names of the operators that the compiled library defines, those without tensors left out.

    Python defines others, for a GPU or on any device, when their modules are imported.
    """
    names = {name for name in torch._C._dispatch_get_all_op_names() if name.startswith("seqmem::")}
    found = {
        name for name in names if re.search(r"^debug: registered at \S+\.cpp:", torch._C._dispatch_dump(name), re.MULTILINE)
    }
    without_tensors = ("instruction_set", "bfloat16_products", "keep_memory", "release_memory", "kept_memory")
    return found - {f"seqmem::{name}" for name in without_tensors}


def compared_with_fake_kernels() -> AbstractContextManager[object]:
    """Return a context that fails where a fake kernel has different shapes, types or strides than the operator that runs.

    ``opcheck`` compares those of forward operators only; compiled programs read gradients by the strides of fake kernels.
    """
    return CrossRefFakeMode(ignore_op_fn=lambda function: function.namespace != "seqmem")
