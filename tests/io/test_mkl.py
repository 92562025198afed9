"""The library that makes MKL use its AVX-512 kernels on AMD processors, and what records say of it."""

import ctypes
import os
import subprocess
import sys

import pytest
import torch

from seqmem.io import mkl, provenance

AMD = "vendor_id\t: AuthenticAMD\ncpu family\t: 26\nmodel\t\t: 2\nmodel name\t: AMD EPYC\nflags\t\t: fpu avx2 avx512f\n"
PRODUCTS = """
import sys, torch
from seqmem.io import provenance
torch.manual_seed(0)
a, b = torch.randn(2, 300, 300)
torch.save([a @ b, a.double() @ b.double(), provenance._processor()], sys.argv[1])
"""
needs_amd = pytest.mark.skipif(
    not mkl.kernels() or not torch.backends.mkl.is_available(), reason="needs an AMD processor and MKL"
)


@pytest.fixture
def cpuinfo(tmp_path):
    """Returns a function that writes a file like /proc/cpuinfo."""

    def write(text):
        (tmp_path / "cpuinfo").write_text(text)
        return tmp_path / "cpuinfo"

    return write


def run(tmp_path, *command, **variables):
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path)} | variables
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, env=environment, check=False)


@pytest.mark.parametrize(
    "text",
    [AMD.replace("AuthenticAMD", "GenuineIntel"), AMD.replace(" avx512f", ""), "processor\t: 0\n"],
    ids=["Intel", "AVX2 alone", "unknown"],
)
def test_other_processors_need_no_library(cpuinfo, text):
    assert mkl.kernels(cpuinfo(text)) == ""
    assert "MKL" not in provenance._processor(cpuinfo(text))


def test_records_say_which_kernels_run(cpuinfo, monkeypatch, tmp_path):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())  # no such function
    assert mkl.kernels(cpuinfo(AMD)) == "AVX2"
    assert provenance._processor(cpuinfo(AMD)) == "AMD EPYC, family 26 model 2"
    monkeypatch.undo()
    library = ctypes.CDLL(mkl.build(tmp_path))
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    assert mkl.kernels(cpuinfo(AMD)) == "AVX-512"
    assert provenance._processor(cpuinfo(AMD)) == "AMD EPYC, family 26 model 2, MKL with AVX-512"


def test_the_library_is_compiled_once(tmp_path, monkeypatch):
    library = mkl.build(tmp_path / "cache")
    assert ctypes.CDLL(library).mkl_serv_intel_cpu_true() == 1
    assert list((tmp_path / "cache").iterdir()) == [library]
    monkeypatch.setenv("CC", "false")
    assert mkl.build(tmp_path / "cache") == library


@pytest.mark.parametrize(("compiler", "reason"), [("no-such-compiler", "no-such-compiler"), ("false", "exit status 1")])
def test_a_missing_compiler_is_one_line(tmp_path, monkeypatch, compiler, reason):
    monkeypatch.setenv("CC", compiler)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(mkl, "kernels", lambda: "AVX2")
    with pytest.raises(SystemExit) as stopped:
        mkl.main()
    assert str(stopped.value).startswith("error: CC")
    assert reason in str(stopped.value)
    assert "\n" not in str(stopped.value)


def test_other_processors_are_refused(monkeypatch):
    monkeypatch.setattr(mkl, "kernels", lambda: "")
    with pytest.raises(SystemExit, match=r"error: got the processor .*, expected one of AMD with AVX-512"):
        mkl.main()


@needs_amd
def test_products_are_right_and_come_from_other_kernels(tmp_path):
    printed = run(tmp_path, "-m", "seqmem.io.mkl")
    assert printed.returncode == 0, printed.stderr
    products = {}
    for library in ("", printed.stdout.strip()):
        done = run(tmp_path, "-c", PRODUCTS, str(tmp_path / "products"), LD_PRELOAD=library)
        assert done.returncode == 0, done.stderr
        *products[library], name = torch.load(tmp_path / "products")
        assert name.endswith("MKL with AVX-512") == bool(library)
    (single, double), (single_avx512, double_avx512) = products.values()
    torch.testing.assert_close(double_avx512, double, rtol=0, atol=1e-12)
    torch.testing.assert_close(single_avx512.double(), double, rtol=0, atol=1e-4)
    assert not single_avx512.equal(single)  # sums of a different order: the library has an effect
