"""Memory that a step frees stays with the process while it trains, and is returned afterwards."""

import os
import subprocess
import sys

import pytest

from seqmem.training.loop import freed_memory

# Executed by path: importing torch, which its package does, takes ten times as long as the steps.
_program = """
import resource
import runpy
import sys
from contextlib import nullcontext

import numpy

freed_memory_kept = runpy.run_path(sys.argv[2])["freed_memory_kept"]

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def resident():
    [pages] = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmRSS")]
    return int(pages)

def step():
    for _ in range(4):
        blocks = [numpy.ones(12_000_000 // 8) for _ in range(8)]
        del blocks

with nullcontext() if sys.argv[1] == "usual" else freed_memory_kept():
    if sys.argv[1] == "nested":
        with freed_memory_kept():
            step()
    step()
    before = faults()
    step()
    print(faults() - before, end=" ")
    within = resident()
print(within - resident())
"""


def _run(how: str, **environment: str) -> tuple[int, int]:
    """Return page faults in steps after the first, and KiB returned at the end."""
    clean = {name: value for name, value in os.environ.items() if name not in freed_memory._chosen_by_user}
    command = [sys.executable, "-c", _program, how, str(freed_memory.__file__)]
    output = subprocess.run(command, env={**clean, **environment}, capture_output=True, text=True, check=True).stdout
    faults, returned = map(int, output.split())
    return faults, returned


@pytest.mark.skipif(freed_memory._glibc() is None, reason="the C library is not glibc")
def test_a_step_takes_what_the_one_before_freed_unless_the_environment_decides():
    usual, _ = _run("usual")
    kept, returned = _run("nested")
    assert kept < usual / 20
    assert returned > 50_000  # of 96 MB
    decided, _ = _run("kept", MALLOC_TRIM_THRESHOLD_="131072")
    assert decided > usual / 2


def test_on_other_systems_nothing_changes(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(freed_memory, "_enter", None)  # not to be called
    with freed_memory.freed_memory_kept():
        pass
