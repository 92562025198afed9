"""AVX-512 kernels of MKL on AMD processors: a library for ``LD_PRELOAD``, printed by ``python -m seqmem.io.mkl``.

PyTorch's wheels multiply matrices with MKL. MKL asks its own function ``mkl_serv_intel_cpu_true`` whether the processor is
Intel's, and uses AVX2 kernels on all others. A library with a function of the same name, loaded before torch, answers yes. The
function is not part of MKL's documented interface, so the library is opt-in.
"""

import ctypes
import os
import platform
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from seqmem.io.machine import processor_fields

LIBRARY = f"mkl-on-amd-{platform.machine()}.so"
"""Name of the library's file."""

COMMAND = 'export LD_PRELOAD="$(python -m seqmem.io.mkl)${LD_PRELOAD:+:$LD_PRELOAD}"'
"""Shell command that loads the library into later programs, beside those that the user preloads."""

_function = "mkl_serv_intel_cpu_true"


def kernels(root: Path = Path("/")) -> str:
    """Return the kernels that MKL has on this AMD processor: ``AVX-512`` if the library is loaded, else ``AVX2``.

    Empty for other processors, and for those without AVX-512. ``MKL_ENABLE_INSTRUCTIONS`` and ``MKL_CBWR`` may choose others.

    Args:
        root: folder that has ``proc``; for tests.
    """
    fields = processor_fields(root)
    if fields.get("vendor_id") != "AuthenticAMD" or "avx512f" not in fields.get("flags", "").split():
        return ""
    try:
        return "AVX-512" if getattr(ctypes.CDLL(None), _function)() else "AVX2"
    except AttributeError:  # torch does not make its functions visible to the program
        return "AVX2"


def is_ours(library: str) -> bool:
    """Return whether a name in ``LD_PRELOAD`` is that of this library."""
    return Path(library).name == LIBRARY


def preloaded() -> list[str]:
    """Return the libraries in ``LD_PRELOAD``."""
    return [each for each in re.split("[ :]", os.environ.get("LD_PRELOAD", "")) if each]


def build(folder: Path) -> Path:
    """Compile the library into a folder, unless it is there, and return its path.

    Raises:
        OSError: the folder cannot be written, or there is no C compiler.
        subprocess.CalledProcessError: the compiler failed.
    """
    library = folder / LIBRARY
    if not _loads(library):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as unfinished:
            built = Path(unfinished, library.name)
            source = f"int {_function}(void) {{ return 1; }}\n"
            command = [*_compiler(), "-shared", "-fPIC", "-x", "c", "-", "-o", str(built)]
            subprocess.run(command, input=source, text=True, check=True, capture_output=True)
            built.replace(library)
    return library


def cache() -> Path:
    """Return this project's folder of the user's cached files."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    return Path(given if os.path.isabs(given) else os.path.expanduser("~/.cache"), "seqmem")


def main() -> None:
    """Print the path of the library, or end with one line that says why not."""
    if not kernels():
        name = processor_fields().get("model name") or platform.processor() or platform.machine()
        sys.exit(f"error: processor: got {name}, expected one of AMD with AVX-512; train without LD_PRELOAD")
    folder, compiler = cache(), " ".join(_compiler())
    if re.search(r"[\s:~]", str(folder)):
        sys.exit(f"error: XDG_CACHE_HOME: got the folder {folder}, expected an absolute path without spaces and colons")
    try:
        print(build(folder))
    except subprocess.CalledProcessError as error:
        sys.exit(f"error: CC: {compiler} failed: {' '.join(error.stderr.split()) or f'exit status {error.returncode}'}")
    except OSError as error:
        if error.filename == _compiler()[0]:
            sys.exit(f"error: CC: got {compiler}, which is not installed, expected a C compiler")
        sys.exit(f"error: XDG_CACHE_HOME: cannot write to {folder} ({error.strerror}); set it to a folder that can be written")


def _compiler() -> list[str]:
    return shlex.split(os.environ.get("CC") or "cc")


def _loads(library: Path) -> bool:
    try:
        return bool(getattr(ctypes.CDLL(str(library)), _function)())
    except (OSError, AttributeError):
        return False


if __name__ == "__main__":
    main()
