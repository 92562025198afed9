"""Manifest of a sweep: its jobs, written before the first one starts so that missing trials are known.

The folder of a sweep has ``sweep.json`` and the tables of its jobs. The trials are elsewhere, as several sweeps may have the
same.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from seqmem.errors import UserError
from seqmem.io.files import locked, write_text

_KEYS = ("overrides", "dataset", "model", "group", "seeds", "folder", "code", "failure", "status")
_LATER = ("requested", "backend", "pruned", "data_settings", "data_name")
"""Keys that manifests of earlier versions lack."""


class Sweep:
    """The manifest of a sweep. Several processes may write to it."""

    def __init__(self, folder: Path):
        self.folder = folder

    def jobs(self) -> list[dict[str, Any]]:
        """Return the jobs in the order of their addition; an empty list without a manifest.

        Each has ``overrides`` (of the command line), ``dataset``, ``model``, ``group`` (checksum of its settings), ``seeds``,
        ``requested`` (see :func:`seqmem.training.backend.requested`), ``folder`` (of its trials, relative to the sweep's),
        ``code`` and ``backend`` (all three None until it has started), ``failure`` (a line; None if it has not failed),
        ``status`` (the exit status of the failure), ``pruned`` (a line; None if no search pruned it), ``data_settings``
        (checksum of the data set's settings) and ``data_name`` (of the data set in records; None until it was loaded).

        Raises:
            UserError: the manifest cannot be read.
        """
        return self._read()["jobs"]

    def swept(self) -> list[str]:
        """Return the keys of the overrides that differ between the jobs; empty without a manifest.

        Raises:
            UserError: the manifest cannot be read.
        """
        return self._read()["swept"]

    def add(self, jobs: Sequence[Mapping[str, Any]], command: Sequence[str] = (), swept: Sequence[str] = ()) -> None:
        """Add jobs, or update those whose settings, seeds and requested backend are in the manifest.

        Args:
            jobs: jobs as :meth:`jobs` returns them, but with folders that are not relative to the sweep's; missing keys are not
                changed.
            command: the command line, for readers of the manifest; empty keeps the recorded one.
            swept: keys of the overrides that differ between the jobs; empty keeps the recorded ones.

        Raises:
            UserError: the manifest cannot be written.
        """
        blank = dict.fromkeys((*_KEYS, *_LATER))
        with locked(self.folder / ".lock"):
            before = self._read()
            known = {_key(job): job for job in before["jobs"]}
            for job in jobs:
                place = {"folder": os.path.relpath(job["folder"], self.folder)} if "folder" in job else {}
                known[_key(job)] = {**blank, **known.get(_key(job), {}), **job, **place}
            names = {job["data_settings"]: job["data_name"] for job in known.values() if job["data_name"]}
            for job in known.values():
                job["data_name"] = names.get(job["data_settings"])
            content = {
                "command": list(command) or before["command"],
                "swept": list(swept) or before["swept"],
                "jobs": list(known.values()),
            }
            write_text(self.folder / "sweep.json", json.dumps(content, indent=2) + "\n")

    def _read(self) -> dict[str, Any]:
        path = self.folder / "sweep.json"
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            jobs = [{key: job[key] for key in _KEYS} | {key: job.get(key) for key in _LATER} for job in content["jobs"]]
            return {"command": list(content["command"]), "swept": list(content.get("swept", [])), "jobs": jobs}
        except FileNotFoundError:
            return {"command": [], "swept": [], "jobs": []}
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise UserError(f"cannot read {path} ({error})") from None


def _key(job: Mapping[str, Any]) -> tuple[Any, ...]:
    return job["group"], job.get("requested") or "", *job["seeds"]
