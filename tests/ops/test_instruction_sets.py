"""Each instruction set has the values of the loop, and what all of them share runs on every processor.

Functions that all instruction sets share must have no vector instructions. The linker keeps one copy of an inline function, and
a copy compiled for AVX-512 would crash processors without it. The default tests check the library that this machine runs, and
that no header can be included on the wrong side of a pragma. Together they suffice for an optimised build. It inlines most
shared functions, so the slow test checks another build at -O0, object by object, which takes minutes.
"""

import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from torch.utils import cpp_extension

from seqmem.ops import extension, sources
from tests.ops.sequences import needs_compiled

needs_objdump = pytest.mark.skipif(shutil.which("objdump") is None, reason="objdump is not installed")
OWN = ("seqmem::avx2::", "seqmem::avx512::")
SAMPLE = """
from tests.ops import sequences, test_causal_convolution, test_compiled_scans, test_diagonal_ssm
from tests.ops import test_multiscale, test_selective_scan, test_sequence_bfloat16, test_slstm

for name in ("legs all on", "lagts", "legt", "lstm", "gru", "gru resets before"):
    sequences.assert_equals_the_loop(name, "tails")
    sequences.assert_float32_to_rounding(name)
    test_sequence_bfloat16.assert_bfloat16_rounds_the_operands(name, (5, 7, 3, 40))
for boundary in ("sample", "soft"):
    test_multiscale.assert_equals_the_loop(test_multiscale.SIZES[3], "paper", boundary)
test_multiscale.assert_float32_to_rounding("reference")
test_slstm.assert_agrees_with_the_reference((5, 13, 3, 17))
test_causal_convolution.assert_agrees_with_the_reference((2, 70, 48, 4))
test_selective_scan.assert_agrees_with_the_reference((2, 37, 40, 16), 5)
test_diagonal_ssm.assert_compiled_equals_the_reference(False, test_diagonal_ssm.SIZES["odd"])
test_diagonal_ssm.assert_float32_keeps_its_precision(500)
for operator in test_compiled_scans.CASES:
    test_compiled_scans.assert_agrees_with_the_reference(operator, 3, 70, 37)
    test_compiled_scans.assert_float32_to_rounding(operator)
"""
VECTOR = re.compile(r"%[yz]mm\d|%tmm\d|%k[1-7]\b|\tv[a-z]\w+ ")  # AVX registers, or an instruction with a VEX prefix


def vector_functions(binary: Path) -> dict[str, str]:
    """Return the functions of an object or library that have a vector instruction, with the first one."""
    command = ["objdump", "--disassemble", "--demangle", "--no-show-raw-insn", str(binary)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = {}
    for function in text.split("\n\n"):
        name, _, body = function.partition(">:\n")
        if match := VECTOR.search(body):
            found[name.partition("<")[2]] = match[0].strip()
    return found


def stray(functions: dict[str, str]) -> dict[str, str]:
    """Return those outside the namespaces of the instruction sets."""
    return {name: found for name, found in functions.items() if not any(own in name for own in OWN)}


def has_instruction_sets(machine: str, library: bytes) -> bool:
    """Return whether a library must have the functions of all instruction sets; its .comment section names the compiler."""
    return machine == "x86_64" and b"clang version" not in library


def test_every_header_is_shared_or_of_one_instruction_set():
    """shared.h is an error after the pragma of an instruction set, so a shared header cannot come too late."""
    for header in sources.CSRC.glob("*.h"):
        text = header.read_text()
        if header.name != "shared.h":
            is_shared, is_own = '#pragma once\n\n#include "shared.h"\n' in text, "namespace seqmem::SEQMEM_ISA {" in text
            assert is_shared != is_own, header.name
    for source in sources.CSRC.glob("*_avx*.cpp"):
        before, _, after = source.read_text().partition("#pragma GCC target")
        assert re.search(r'#include "\w+\.h"', before), source.name
        assert "#include <" not in after, source.name


@needs_objdump
@needs_compiled
def test_the_library_has_no_stray_vector_instructions():
    functions = vector_functions(extension.LIBRARY)
    assert stray(functions) == {}
    # Otherwise the names are not recognised and the check above is void. Clang compiles the baseline alone.
    if has_instruction_sets(platform.machine(), extension.LIBRARY.read_bytes()):
        for own in OWN:
            assert any(own in name for name in functions)


def test_libraries_of_clang_have_the_baseline_alone():
    assert has_instruction_sets("x86_64", b"GCC: (Debian 14.2.0) 14.2.0")
    assert not has_instruction_sets("x86_64", b"GCC: (Debian 14.2.0) 14.2.0 Debian clang version 19.1.7")
    assert not has_instruction_sets("aarch64", b"GCC: (Debian 14.2.0) 14.2.0")


@needs_objdump
@pytest.mark.slow
def test_a_build_without_optimisation_has_none_and_runs(tmp_path):
    flags = [flag for flag in sources.FLAGS if flag != "-O3"]
    includes = [f"-isystem{path}" for path in cpp_extension.include_paths()]
    compiler = os.environ.get("CXX", "g++")
    objects = []
    for source in sorted(sources.CSRC.glob("*.cpp")):
        objects.append(tmp_path / source.with_suffix(".o").name)
        # Optimised but not inlined, shared functions of a wrong pragma have vector instructions.
        for level in [["-O2", "-fno-inline"]] * ("_avx" in source.name) + [["-O0"]]:
            subprocess.run([compiler, *level, "-fPIC", *flags, *includes, "-c", source, "-o", objects[-1]], check=True)
            assert stray(vector_functions(objects[-1])) == {}, source.name
    library = tmp_path / "_extension.so"
    folders = [f"-L{path}" for path in cpp_extension.library_paths()]
    subprocess.run([compiler, "-shared", *objects, "-o", library, *folders, "-lc10", "-ltorch_cpu"], check=True)
    environment = os.environ | {"SEQMEM_EXTENSION": str(library), "SEQMEM_INSTRUCTION_SET": "baseline"}
    done = subprocess.run([sys.executable, "-c", SAMPLE], env=environment, cwd=sources.CSRC.parent, check=False)
    assert done.returncode == 0


def run_with(instruction_set, *command):
    """Run a command in a process that is limited to an instruction set."""
    environment = os.environ | {"SEQMEM_INSTRUCTION_SET": instruction_set}
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, *command], env=environment, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_compiled
def test_without_vector_instructions():
    run_with("baseline", "-c", SAMPLE)


@needs_compiled
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "selected"),
    [
        ("baseline", "equals_the_loop or agrees_with_the_reference or test_float32_to_rounding or bfloat16_products"),
        ("avx2", "equals_the_loop or agrees_with_the_reference or test_float32_to_rounding or bfloat16_products"),
        ("avx512", "bfloat16_products"),
        ("avx512_bf16", "bfloat16_products"),
    ],
)
def test_other_instruction_sets(name, selected):
    parts = ("sequence", "sequence_bfloat16", "multiscale", "selective_scan", "compiled_scans", "slstm", "causal_convolution")
    files = [Path(__file__).with_name(f"test_{part}.py") for part in parts]
    run_with(name, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "-k", selected, *map(str, files))
