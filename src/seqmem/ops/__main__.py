"""``python -m seqmem.ops``: which path every operator takes, and why."""

import torch

from seqmem.ops import extension, paths


def main() -> None:
    """Print it."""
    for operator, path in paths().items():
        print(f"{operator:34} {path.split()[0]}")
    print()
    if extension.REASON:
        print(f"why         {extension.REASON}")
        if not extension.FORCED:
            print(f"            {extension.BUILD}")
    else:
        print(f"library     {extension.LIBRARY}")
        print(f"built for   torch {extension.built_for(extension.LIBRARY)}")
        print(f"processor   {torch.ops.seqmem.instruction_set()} instructions, {torch.get_num_threads()} threads")
        on_gpu = "; on the GPU Triton kernels (zoh and the approximation: reference)" if extension.ON_GPU else ""
        print(f"covers      float32 and float64 on the CPU{on_gpu}; the reference takes other types and devices")


if __name__ == "__main__":
    main()
