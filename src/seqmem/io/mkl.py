"""AVX-512 kernels of MKL on AMD processors: ``export LD_PRELOAD=$(python -m seqmem.io.mkl)``.

PyTorch's wheels multiply matrices by MKL. MKL asks its own function ``mkl_serv_intel_cpu_true`` whether the processor is
Intel's, and uses AVX2 kernels on all others. A library with a function of the same name, loaded before torch, answers yes. The
function is not part of MKL's documented interface, so that nothing here is done unless a user asks for it.
"""

import ctypes
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
_function = "mkl_serv_intel_cpu_true"
_vendor = "AuthenticAMD"


def described(cpuinfo: Path = CPUINFO) -> dict[str, str]:
    """Return what the system says of the first processor, such as ``vendor_id`` and ``flags``; empty if it says nothing."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.split(":", 1) for line in reversed(lines) if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def kernels(cpuinfo: Path = CPUINFO) -> str:
    """Return which kernels MKL uses on this AMD processor: ``AVX2``, or ``AVX-512`` if the library was preloaded.

    Empty for other processors, and for those without AVX-512: MKL chooses by itself there.
    """
    found = described(cpuinfo)
    if found.get("vendor_id") != _vendor or "avx512f" not in found.get("flags", "").split():
        return ""
    try:
        return "AVX-512" if getattr(ctypes.CDLL(None), _function)() else "AVX2"
    except AttributeError:  # torch does not make its functions visible to the program
        return "AVX2"


def build(folder: Path) -> Path:
    """Compile the library into a folder, unless it is there, and return its path.

    Raises:
        OSError: the folder cannot be written, or there is no C compiler.
        subprocess.CalledProcessError: the compiler failed.
    """
    library = folder / f"mkl-on-amd-{platform.machine()}.so"
    if not library.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as unfinished:
            built = Path(unfinished, library.name)
            compiler = os.environ.get("CC", "cc").split()
            source = f"int {_function}(void) {{ return 1; }}\n"
            command = [*compiler, "-shared", "-fPIC", "-x", "c", "-", "-o", str(built)]
            subprocess.run(command, input=source, text=True, check=True, capture_output=True)
            built.replace(library)
    return library


def cache() -> Path:
    """Return the folder of the user's cached files."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "seqmem")


def main() -> None:
    """Print the path of the library, or end with one line that says why it is of no use here."""
    if not kernels():
        name = described().get("model name", platform.processor())
        sys.exit(
            f"error: got the processor {name}, expected one of AMD with AVX-512; on others MKL chooses its best kernels itself"
        )
    try:
        print(build(cache()))
    except subprocess.CalledProcessError as error:
        reason = " ".join(error.stderr.split()) or f"exit status {error.returncode}"
        sys.exit(f"error: CC: got {' '.join(error.cmd)}, which failed: {reason}")
    except OSError as error:
        sys.exit(f"error: CC or XDG_CACHE_HOME: {error}; expected a C compiler, and a folder that can be written")


if __name__ == "__main__":
    main()
