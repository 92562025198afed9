"""Processor cores and memory that this process may use."""

import os
from collections.abc import Iterator
from pathlib import Path


def usable_cores(root: Path = Path("/")) -> int:
    """Return the number of cores: of the process's affinity, or fewer if a control group limits its processor time.

    Args:
        root: folder that has ``proc`` and ``sys``; for tests.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [_quota(folder) for folder in _groups(root, "cpu")]
    return max(1, int(min([cores, *(quota for quota in quotas if quota is not None)])))


def usable_memory_mib(root: Path = Path("/")) -> float:
    """Return the memory in MiB: the machine's, or less if a control group limits it; infinite if it is not known.

    Args:
        root: as for :func:`usable_cores`.
    """
    files = [folder / name for folder in _groups(root, "memory") for name in ("memory.max", "memory.limit_in_bytes")]
    limits = [int(text) for text in map(_text, files) if text.isdigit()]
    total = _text(root / "proc" / "meminfo").partition("MemTotal:")[2].split()
    machine = [int(total[0]) * 1024] if total else []
    return min([*limits, *machine], default=float("inf")) / 2**20


def resident_memory_mib(root: Path = Path("/")) -> float:
    """Return the memory in MiB that this process has taken itself; 0 if the system does not say.

    Args:
        root: as for :func:`usable_cores`.
    """
    status = _text(root / "proc" / "self" / "status")
    found = [status.partition(f"{kind}:")[2].split() for kind in ("RssAnon", "RssShmem")]
    return sum(int(number) for number, *_ in filter(None, found)) / 1024


def processor_fields(root: Path = Path("/")) -> dict[str, str]:
    """Return the fields of the first processor in /proc/cpuinfo, such as ``vendor_id`` and ``flags``; empty without the file.

    Args:
        root: as for :func:`usable_cores`.
    """
    pairs = (line.split(":", 1) for line in reversed(_text(root / "proc" / "cpuinfo").splitlines()) if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def _quota(folder: Path) -> float | None:
    """Return the cores that a control group's quota of processor time amounts to; None without a quota."""
    quota, period = [*_text(folder / "cpu.max").split(), "", ""][:2]
    if not quota:
        quota, period = _text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us")
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() and int(period) else None


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Yield the folders of this process's control groups of either version, with those above them."""
    for line in _text(root / "proc" / "self" / "cgroup").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers and controller not in controllers.split(","):
            continue
        for name in dict.fromkeys((controllers, controller if controllers else "")):
            base = root / "sys" / "fs" / "cgroup" / name
            inner = base / path.lstrip("/")
            yield from (folder for folder in (inner, *inner.parents) if folder.is_relative_to(base))


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
