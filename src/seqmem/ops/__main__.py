"""``python -m seqmem.ops``: path of every operator on each device, and the reason for the reference path."""

import torch

from seqmem.io import mkl
from seqmem.ops import extension, paths
from seqmem.ops.gpu import support
from seqmem.ops.implementations import describe

BFLOAT16_PRODUCTS = {
    "tiles": "products in AMX tiles",
    "vectors": "products by the dot products of AVX512_BF16",
    "rounded": "operands rounded to bfloat16, products in float32: this processor has no faster ones",
}
"""How sequences multiply under autocast to bfloat16, by the answer of the operator of that name."""


def main() -> None:
    """Print the report."""
    for operator, path in paths().items():
        print(f"{operator:34} {path.split()[0]}")
    print()
    for operator, implementations in describe().items():
        print(f"{operator:34} {implementations}")
    print()
    if extension.REASON:
        print(f"reason      {extension.REASON}")
        if not extension.FORCED and not extension.STALE:
            print(f"remedy      {extension.BUILD}")
    else:
        print(f"library     {extension.LIBRARY}")
        print(f"built for   torch {extension.built_for(extension.LIBRARY)}")
        print(f"built from  sources {extension.built_from(extension.LIBRARY)}")
        print(f"processor   {torch.ops.seqmem.instruction_set()} instructions, {torch.get_num_threads()} threads")
        print("compiled    float32 and float64 on the CPU; other types use the reference")
        print(f"bfloat16    {BFLOAT16_PRODUCTS[torch.ops.seqmem.bfloat16_products()]}")
        print("denormals   flushed to zero on x86-64; torch.set_flush_denormal decides for the reference")
    if (kernels := mkl.kernels()) and torch.backends.mkl.is_available():
        faster = "" if kernels == "AVX-512" else f"; for AVX-512: {mkl.COMMAND}"
        print(f"MKL         {kernels} kernels for products of matrices{faster}")
    print(f"GPU         {support.path()}")


if __name__ == "__main__":
    main()
