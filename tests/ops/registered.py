"""Names of the registered operators, for tests that hold for all of them."""

import re

import torch


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
