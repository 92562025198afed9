"""Memory that a step frees serves the next step while a model trains, within a bound, and is returned afterwards."""

import os
import random
import resource
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from seqmem.io import mkl
from seqmem.layers import ema
from seqmem.ops import extension
from seqmem.training.loop import freed_memory
from seqmem.training.loop.freed_memory import freed_memory_kept

MIB = 1 << 20
_preloaded = os.environ.get("LD_PRELOAD", "")
SANITIZED = "libasan" in _preloaded  # make sanitize

linux = pytest.mark.skipif(
    bool(extension.REASON) or not sys.platform.startswith("linux"), reason="no compiled operators, or not Linux"
)


@pytest.fixture(autouse=True)
def the_environment_does_not_choose(monkeypatch):
    for name in (*freed_memory._settings, "LD_PRELOAD"):
        monkeypatch.delenv(name, raising=False)


def block(mib: float, value: int = 0) -> torch.Tensor:
    return torch.full((round(mib * MIB),), value, dtype=torch.uint8)


def live_and_idle() -> tuple[float, float]:
    live, idle = torch.ops.seqmem.kept_memory()
    return live / MIB, idle / MIB


def faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def step(sizes=(20, 40, 20, 3)) -> None:
    blocks = [block(size, 1) for size in sizes]
    del blocks


@linux
def test_a_step_takes_what_the_one_before_freed():
    """Without page faults. The heap that earlier tests left may serve some of a step without them, too."""
    pages = 83 * MIB // resource.getpagesize()
    with freed_memory_kept():
        with freed_memory_kept():
            step()
        assert live_and_idle() == (0, 83)
        before = faults()
        step()
        step((3, 20, 20, 40))
        kept = faults() - before
        addresses = {block(17).data_ptr() for _ in range(3)}
    assert kept < pages / 4
    assert len(addresses) == 1
    assert live_and_idle() == (0, 0)


@linux
def test_ranges_are_split_and_merged():
    with freed_memory_kept():
        whole = block(64)
        start = whole.data_ptr()
        del whole
        parts = [block(16, k) for k in range(4)]
        assert sorted(part.data_ptr() for part in parts) == [start + 16 * MIB * k for k in range(4)]
        assert all(part[::999].unique().tolist() == [k] for k, part in enumerate(parts))
        for k in (0, 2, 3, 1):
            parts[k] = None
        assert live_and_idle() == (0, 64)
        assert block(64).data_ptr() == start
        assert [block(mib).data_ptr() % 64 for mib in (1, 1.7)] == [0, 0]


@linux
def test_kept_memory_is_bounded_and_returned_at_the_end():
    order, most = random.Random(0), 0.0
    with freed_memory_kept():
        blocks = []
        for _ in range(400):
            blocks.append(block(order.choice((0.5, 1, 1.3, 2.7, 5, 16.5, 30)), 1))
            most = max(most, live_and_idle()[0])
            order.shuffle(blocks)
            del blocks[order.randrange(1, 9) :]
            assert sum(live_and_idle()) <= most * 9 / 8 + 0.01
        outlives = block(20, 7)
        live = live_and_idle()[0]
        del blocks
    assert live > 20
    assert live_and_idle() == (20, 0)
    step()
    assert outlives[::999].unique().tolist() == [7]
    larger = outlives.untyped_storage()
    larger.resize_(40 * MIB)  # by torch's own allocator, which is in place again
    assert live_and_idle() == (0, 0)
    assert torch.empty(20 * MIB, dtype=torch.uint8).numel() > 0
    assert live_and_idle() == (0, 0)


def resident_peak() -> int:
    [pages] = [line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(pages) // 1024


@linux
@pytest.mark.skipif(SANITIZED, reason="the sanitizer's own memory counts too")
def test_peak_memory_grows_little():
    """With sizes that differ from step to step, as of padded batches."""
    order = random.Random(1)
    steps = [[order.uniform(2, 40) for _ in range(6)] for _ in range(12)]
    most = max(sum(each) for each in steps) + 12  # MiB, each block in whole huge pages
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts at the present value
    except OSError:
        pytest.skip("the system does not reset the peak")
    start = resident_peak()
    with freed_memory_kept():
        for each in steps:
            step(each)
        assert resident_peak() - start > 0.9 * most - 12
    assert resident_peak() - start < 9 / 8 * most


@linux
def test_operators_with_workspaces_run():
    """Some allocate memory without a tensor: torch's fft and its sort, for two."""
    with freed_memory_kept():
        torch.manual_seed(0)
        model = ema.EMA(4, 8)
        outputs = [model(torch.randn(8, 400, 4))[0]]
        outputs[0].sum().backward()
        outputs += [torch.fft.rfft(torch.randn(64, 1 << 15)).abs(), torch.randn(1 << 20).sort().values]
        outputs += [
            torch.nn.functional.conv1d(torch.randn(8, 64, 4000), torch.randn(64, 64, 3)),
            torch.randn(2, 1 << 19).cumsum(1),
        ]
    assert all(each.isfinite().all() for each in outputs)


@linux
def test_threads_share_what_is_kept():
    errors = []

    def run(seed: int) -> None:
        order = random.Random(seed)
        for _ in range(25):
            value = order.randrange(256)
            blocks = [block(order.uniform(0.9, 3), value) for _ in range(3)]
            if any(each[::999].unique().tolist() != [value] for each in blocks):
                errors.append(seed)
            if order.random() < 0.1:
                with freed_memory_kept():
                    del blocks

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(6)]
    with freed_memory_kept():
        for thread in threads:
            thread.start()
        passed = block(30, 3)
        weights = passed.float().requires_grad_()
        (weights * 2).sum().backward()  # autograd frees on its own thread on some devices
        for thread in threads:
            thread.join()
    assert not errors
    del passed, weights
    assert live_and_idle() == (0, 0)


@linux
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_process_keeps_nothing():
    stop = threading.Event()

    def allocate() -> None:
        while not stop.is_set():
            block(1.5)

    thread = threading.Thread(target=allocate)
    with freed_memory_kept():
        step()
        mine = block(8, 5)
        thread.start()
        try:
            for _ in range(5):
                child = os.fork()
                if child == 0:
                    alarm_after(20)
                    live, idle = live_and_idle()
                    good = live >= 8 and idle == 0 and torch.empty(4 * MIB, dtype=torch.uint8).fill_(1).sum().item() == 4 * MIB
                    os._exit(0 if good and mine[::4096].sum().item() == 5 * 2048 else 1)
                assert os.waitpid(child, 0)[1] == 0
        finally:
            stop.set()
            thread.join()
        assert live_and_idle()[1] > 60
        assert (mine == 5).all()


def alarm_after(seconds: int) -> None:
    """Kill this process if it waits for a lock."""
    import signal

    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(seconds)


_LARGE_PAGES = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <unistd.h>
long sysconf(int name) {
  static long (*real)(int);
  if (!real) real = (long (*)(int))dlsym(RTLD_NEXT, "sysconf");
  return name == _SC_PAGESIZE ? 65536 : real(name);
}
"""
_BLOCKS = """
import torch
from seqmem.ops import extension
assert not extension.REASON
torch.ops.seqmem.keep_memory()
blocks = [torch.empty((1 << 20) + size, dtype=torch.uint8) for size in (0, 1, 4097, 65536)]
print(torch.ops.seqmem.kept_memory()[0])
torch.ops.seqmem.release_memory()
"""


@linux
@pytest.mark.slow
@pytest.mark.skipif(SANITIZED, reason="a second preloaded library")
@pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler")
def test_blocks_are_whole_pages_of_the_system(tmp_path):
    """On Arm pages may have 64 KiB; a part of one cannot be returned to the system."""
    (tmp_path / "pages.c").write_text(_LARGE_PAGES)
    library = tmp_path / "pages.so"
    subprocess.run(["cc", "-shared", "-fPIC", tmp_path / "pages.c", "-o", library, "-ldl"], check=True)
    environment = {**os.environ, "LD_PRELOAD": str(library)}
    done = subprocess.run([sys.executable, "-c", _BLOCKS], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == 4 * MIB + (0 + 1 + 1 + 1) * 65536


_OUTSIDE = """
import ctypes, sys, torch
from seqmem.ops import extension
assert not extension.REASON
torch.ops.seqmem.keep_memory()
block = torch.ones((1 << 20) + 5, dtype=torch.uint8)
start = block.data_ptr()
ctypes.memmove(start, start + 16, (1 << 20) - 11)  # within the block
print("within", flush=True)
if sys.argv[1] == "freed":
    del block
    ctypes.memmove(ctypes.create_string_buffer(8), start, 8)
else:
    ctypes.memmove(ctypes.create_string_buffer(8), start + (1 << 20), 8)
"""


@linux
@pytest.mark.skipif(not SANITIZED, reason="make sanitize runs it")
@pytest.mark.parametrize("access", ["freed", "behind the block"])
def test_the_sanitizer_sees_accesses_outside_of_blocks(access):
    done = subprocess.run(
        [sys.executable, "-c", _OUTSIDE, access],
        env={**os.environ, "LD_PRELOAD": _preloaded},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "within\n", done.stderr
    assert done.returncode != 0
    assert "AddressSanitizer: use-after-poison" in done.stderr


@pytest.mark.parametrize("name", [*freed_memory._settings, "LD_PRELOAD"])
def test_the_environment_decides(monkeypatch, name):
    monkeypatch.setenv(name, "131072")
    monkeypatch.setattr(torch.ops.seqmem, "keep_memory", None, raising=False)  # not to be called
    with freed_memory_kept():
        pass


@linux
@pytest.mark.parametrize("value", ["", f"/home/me/{mkl.LIBRARY}", f"/home/me/{mkl.LIBRARY}: "])
def test_the_library_for_mkl_is_no_allocator(monkeypatch, value):
    monkeypatch.setenv("LD_PRELOAD", value)
    with freed_memory_kept():
        tensor = block(5)
        del tensor
        assert live_and_idle()[1] == 5
    monkeypatch.setenv("LD_PRELOAD", f"/home/me/{mkl.LIBRARY}:/usr/lib/libjemalloc.so")
    monkeypatch.setattr(torch.ops.seqmem, "keep_memory", None, raising=False)  # not to be called
    with freed_memory_kept():
        pass


def test_without_the_compiled_operators_nothing_changes(monkeypatch):
    monkeypatch.setattr(torch.ops.seqmem, "keep_memory", None, raising=False)
    with extension.reference_only("a test"), freed_memory_kept():
        pass
