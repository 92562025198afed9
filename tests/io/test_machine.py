"""Cores and memory that the affinity and control groups of either version leave to a process."""

import os

import pytest

from seqmem.io.machine import resident_memory_mib, usable_cores, usable_memory_mib

MEMORY = {"proc/meminfo": "MemTotal:       8388608 kB\nMemFree: 1 kB\n"}
GROUP = {"proc/self/cgroup": "0::/jobs/mine\n"}
OLD = {"proc/self/cgroup": "5:cpu,cpuacct:/mine\n4:memory:/mine\n"}


def machine(folder, files):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return usable_cores(folder), usable_memory_mib(folder)


@pytest.mark.parametrize(
    ("files", "cores", "memory"),
    [
        ({}, 8, float("inf")),
        (MEMORY, 8, 8192),
        (GROUP | MEMORY, 8, 8192),
        (GROUP | MEMORY | {"sys/fs/cgroup/jobs/cpu.max": "max 100000", "sys/fs/cgroup/jobs/memory.max": "max"}, 8, 8192),
        (GROUP | MEMORY | {"sys/fs/cgroup/jobs/mine/cpu.max": "250000 100000"}, 2, 8192),
        (GROUP | {"sys/fs/cgroup/jobs/cpu.max": "50000 100000", "sys/fs/cgroup/jobs/mine/memory.max": str(2**30)}, 1, 1024),
        (GROUP | MEMORY | {"sys/fs/cgroup/memory.max": str(2**29)}, 8, 512),
        (
            OLD
            | {
                "sys/fs/cgroup/cpu,cpuacct/mine/cpu.cfs_quota_us": "300000",
                "sys/fs/cgroup/cpu,cpuacct/mine/cpu.cfs_period_us": "100000",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": str(2**31),
            },
            3,
            2048,
        ),
        (OLD | MEMORY | {"sys/fs/cgroup/cpu,cpuacct/mine/cpu.cfs_quota_us": "-1"}, 8, 8192),
    ],
)
def test_limits_of_control_groups_count(tmp_path, monkeypatch, files, cores, memory):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    assert machine(tmp_path, files) == (cores, memory)


def test_memory_of_this_process_is_its_own_and_shared_memory(tmp_path):
    status = "VmHWM: 9 kB\nRssAnon:\t  2048 kB\nRssFile:\t 7 kB\nRssShmem:\t 1024 kB\n"
    machine(tmp_path, {"proc/self/status": status})
    assert resident_memory_mib(tmp_path) == 3
    assert resident_memory_mib(tmp_path / "elsewhere") == 0


def test_this_machine_has_cores_and_memory():
    assert 1 <= usable_cores() <= os.cpu_count()
    assert usable_memory_mib() > 100
