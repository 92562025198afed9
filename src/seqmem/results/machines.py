"""Backend and machine of a trial, from its record. Records of earlier versions lack some of the keys."""

from collections.abc import Mapping
from typing import Any


def machine(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record's machine; empty if it is not known."""
    found = record.get("machine")
    return found if isinstance(found, dict) else {}


def backend(record: Mapping[str, Any], accelerator: str | None) -> str:
    """Return device kind and path of the operators, such as ``cpu compiled``; empty if they are not known.

    Args:
        record: of a trial.
        accelerator: ``runner.accelerator`` of its config, for records without the key ``backend``.
    """
    if record.get("backend"):
        return str(record["backend"])
    operators = record.get("operators")
    if "gpu" not in machine(record) or not isinstance(operators, dict) or not operators:
        return ""
    device = "cpu" if machine(record)["gpu"] is None or accelerator == "cpu" else "cuda"
    compiled = all(path == "compiled" for path in operators.values())
    return f"{device} {'compiled' if compiled else 'reference'}"


def machine_name(record: Mapping[str, Any], device: str) -> str:
    """Return the hardware that the times of a trial depend on; empty if it is not known.

    Args:
        record: of the trial.
        device: its device kind.

    Returns:
        The GPUs, or the processor with the number of threads, and how many trials shared it; "several machines" if it resumed
        on a different one.
    """
    if record.get("earlier_machines"):
        return "several machines"
    found = machine(record)
    workers = found.get("workers")
    beside = f", {workers} trials at a time" if isinstance(workers, int) and workers > 1 else ""
    gpus = found.get("devices") or [found.get("gpu")]
    if device != "cpu" and isinstance(gpus, list) and gpus[0]:
        return f"{f'{len(gpus)} x ' if len(gpus) > 1 else ''}{gpus[0]}{beside}"
    threads = found.get("threads")
    counted = "" if threads is None else f", {threads} thread{'s' * (threads != 1)}"
    return f"{found['processor']}{counted}{beside}" if found.get("processor") else ""
