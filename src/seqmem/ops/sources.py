"""Hash of the C++ sources and build flags of the compiled operators.

The build embeds it in the library, and :mod:`seqmem.ops.extension` compares it with the sources of a checkout. Standard library
only: setup.py and ``make sanitize`` run this file where the package is not installed.
"""

import hashlib
import os
import re
import sys
from pathlib import Path

CSRC = Path(__file__).resolve().parents[3] / "csrc"
"""The sources in a checkout; this folder does not exist next to an installed package."""

# Compiled for OpenMP but not linked with it: at::parallel_for must use the runtime of torch.
FLAGS = ("-O3", "-g0", "-std=c++20", "-fopenmp", "-fvisibility=hidden", "-fno-math-errno", "-ffp-contract=fast")


def source_hash(csrc: Path = CSRC) -> str:
    """Compute sha256 over :data:`FLAGS` and the names and bytes of the sources, in name order."""
    digest = hashlib.sha256(" ".join(FLAGS).encode())
    for path in sorted(path for path in csrc.iterdir() if path.suffix in (".cpp", ".h") and not path.name.startswith(".")):
        content = path.read_bytes()
        digest.update(f"\n{path.name} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def identity(csrc: Path = CSRC, more_flags: str | None = None) -> str:
    """Return the hash that a build embeds: that of the sources, and ``+`` and a short hash of further flags if there are any.

    Args:
        csrc: folder of the sources.
        more_flags: flags in addition to :data:`FLAGS`; default those of the environment (CFLAGS, CPPFLAGS, CXXFLAGS).
    """
    if more_flags is None:
        more_flags = " ".join(filter(None, (os.environ.get(name, "").strip() for name in ("CFLAGS", "CPPFLAGS", "CXXFLAGS"))))
    suffix = f"+{hashlib.sha256(more_flags.encode()).hexdigest()[:8]}" if more_flags else ""
    return source_hash(csrc) + suffix


def embedded(content: bytes, prefix: str) -> str:
    """Return the rest of the line that starts with ``prefix`` in a library; empty if it has none."""
    match = re.search(re.escape(prefix.encode()) + rb" ([\w.+]+)\n", content)
    return match[1].decode() if match else ""


def definition(built_from: str) -> str:
    """Return the C++ file that embeds a hash in a library."""
    symbol = 'extern "C" __attribute__((visibility("default"), used)) const char seqmem_sources[]'
    return f'{symbol} = "seqmem sources {built_from}\\n";\n'


if __name__ == "__main__":
    print(definition(identity(more_flags=" ".join(sys.argv[1:]))), end="")
