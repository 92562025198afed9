"""The library that makes MKL use its AVX-512 kernels on AMD processors, and what records say of it."""

import ctypes
import os
import re
import shutil
import subprocess
import sys

import pytest
import torch

from seqmem.io import mkl, provenance
from seqmem.ops import __main__ as report

AMD = "vendor_id\t: AuthenticAMD\ncpu family\t: 26\nmodel\t\t: 2\nmodel name\t: AMD EPYC\nflags\t\t: fpu avx2 avx512f\n"
PRODUCTS = """
import sys, torch
from seqmem.io import provenance
torch.manual_seed(0)
a, b = torch.randn(2, 300, 300)
torch.save([a @ b, a.double() @ b.double(), provenance._processor()], sys.argv[1])
"""
needs_compiler = pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler")
needs_amd = pytest.mark.skipif(
    not (mkl.kernels() and torch.backends.mkl.is_available()), reason="needs MKL and an AMD processor with AVX-512"
)


def run(tmp_path, *command, **variables):
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path)} | variables
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, env=environment, check=False)


@pytest.fixture
def machine(tmp_path):
    """Returns a function that writes proc/cpuinfo below a folder, which it returns."""

    def write(text):
        (tmp_path / "proc").mkdir()
        (tmp_path / "proc/cpuinfo").write_text(text)
        return tmp_path

    return write


@pytest.fixture
def stopped(monkeypatch, tmp_path):
    """Returns a function that runs the command and returns its error, as on an AMD processor with an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(mkl, "kernels", lambda: "AVX2")

    def run():
        with pytest.raises(SystemExit) as error:
            mkl.main()
        assert "\n" not in str(error.value)
        return str(error.value)

    return run


@pytest.mark.parametrize(
    "text",
    [AMD.replace("AuthenticAMD", "GenuineIntel"), AMD.replace(" avx512f", ""), "processor\t: 0\n"],
    ids=["Intel", "AVX2 alone", "unknown"],
)
def test_other_processors_need_no_library(machine, text):
    root = machine(text)
    assert mkl.kernels(root) == ""
    assert "MKL" not in provenance._processor(root)


@needs_compiler
def test_records_say_which_kernels_run(machine, monkeypatch, tmp_path):
    root = machine(AMD)
    library = ctypes.CDLL(mkl.build(tmp_path))
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    for loaded, kernels, ending in ((object(), "AVX2", ""), (library, "AVX-512", ", MKL with AVX-512")):
        monkeypatch.setattr(ctypes, "CDLL", lambda name, loaded=loaded: loaded)
        assert mkl.kernels(root) == kernels
        assert provenance._processor(root) == f"AMD EPYC, family 26 model 2{ending}"
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
    assert provenance._processor(root) == "AMD EPYC, family 26 model 2"


@pytest.mark.parametrize(
    ("kernels", "available", "line"),
    [
        ("AVX2", True, f"MKL         AVX2 kernels for products of matrices; for AVX-512: {mkl.COMMAND}\n"),
        ("AVX-512", True, "MKL         AVX-512 kernels for products of matrices\n"),
        ("AVX2", False, ""),
        ("", True, ""),
    ],
)
def test_the_report_names_the_kernels(monkeypatch, capsys, kernels, available, line):
    monkeypatch.setattr(mkl, "kernels", lambda: kernels)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: available)
    report.main()
    out = capsys.readouterr().out
    assert line in out
    assert ("MKL  " in out) == bool(line)


@needs_compiler
def test_the_library_is_compiled_once(tmp_path, monkeypatch):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / mkl.LIBRARY).touch()  # damaged
    monkeypatch.setenv("CC", "")  # as if it were not set
    library = mkl.build(tmp_path / "cache")
    assert ctypes.CDLL(library).mkl_serv_intel_cpu_true() == 1
    assert list((tmp_path / "cache").iterdir()) == [library]
    monkeypatch.setenv("CC", "false")
    assert mkl.build(tmp_path / "cache") == library


@pytest.mark.parametrize(
    ("compiler", "message"),
    [
        ("no-such-compiler -O2", "error: CC: got no-such-compiler -O2, which is not installed, expected a C compiler"),
        ("false", "error: CC: false failed: exit status 1"),
    ],
)
def test_a_missing_compiler_is_one_line(monkeypatch, stopped, compiler, message):
    monkeypatch.setenv("CC", compiler)
    assert stopped() == message


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path, monkeypatch, stopped):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert stopped().startswith(f"error: XDG_CACHE_HOME: cannot write to {tmp_path}/file/seqmem (Not a directory); set it to")


@pytest.mark.parametrize("folder", ["/my cache", "/a:b"])
def test_a_folder_that_cannot_be_preloaded_from_is_refused(monkeypatch, stopped, folder):
    monkeypatch.setenv("XDG_CACHE_HOME", folder)
    assert stopped().startswith(f"error: XDG_CACHE_HOME: got the folder {folder}/seqmem, expected an absolute path")


@pytest.mark.parametrize("given", ["", "relative"])
def test_only_an_absolute_folder_counts(monkeypatch, given):
    monkeypatch.setenv("XDG_CACHE_HOME", given)
    monkeypatch.setenv("HOME", "/home/me")
    assert str(mkl.cache()) == "/home/me/.cache/seqmem"


def test_other_processors_are_refused(monkeypatch, stopped):
    monkeypatch.setattr(mkl, "kernels", lambda: "")
    monkeypatch.setattr(mkl, "processor_fields", dict)
    assert re.fullmatch(r"error: processor: got \S+, expected one of AMD with AVX-512; train without LD_PRELOAD", stopped())


@needs_amd
@needs_compiler
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
