"""Series of NumPy files: arrays (n, T, C), one array for each series, or all steps with the lengths of the series."""

import io
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from seqmem.errors import UserError
from seqmem.io import object_arrays
from seqmem.io.collection import Collection, Reading, Rows
from seqmem.io.columns import splits_of
from seqmem.io.mapped import MappedRows
from seqmem.io.zips import DAMAGE, check_size

LARGE = 2**30
"""Bytes above which a file is read as it is needed, unless a key says otherwise."""

VALUES = ("values", "series", "x", "data", "inputs")
LABELS = ("labels", "label", "y", "targets", "target", "classes")
OTHERS = {
    "lengths": ("lengths", "length"),
    "times": ("times", "time", "timestamps"),
    "groups": ("groups", "group", "subjects", "subject"),
    "splits": ("splits", "split"),
    "names": ("ids", "id", "names", "name"),
    "channels": ("channels", "channel_names"),
}
"""Names of the arrays of an .npz file that are understood, in any case."""


def read_npy(path: Path, reading: Reading) -> Collection:
    """Read a .npy file: (n, T), (n, T, C), or an array of arrays (T, C).

    With ``reading.one_series`` it may be (T,) or (T, C); (1, T) is a series of T steps also then.

    Raises:
        UserError: the file cannot be read, or has a different content.
    """
    shape, fortran, dtype, offset = object_arrays.header(path)
    large = path.stat().st_size > LARGE if reading.in_memory is None else not reading.in_memory
    one = reading.one_series and not dtype.hasobject and (len(shape) == 1 or (len(shape) == 2 and shape[0] != 1))
    if not large or dtype.hasobject:
        with open(path, "rb") as file:
            array = object_arrays.read_array(str(path), file)
        return _of_values(path, str(path), array.reshape(1, len(array), -1) if one and array.size else array)
    if one:
        shape = (1, *shape)
    if fortran or len(shape) not in (2, 3) or dtype.kind not in "fiub" or 0 in shape:
        raise UserError(
            f"{path}: got shape {shape} of {dtype}{' in Fortran order' if fortran else ''}, expected numbers (n, T) or "
            "(n, T, C) in C order; or dataset.in_memory=true"
        )
    n, steps, channels = (*shape, 1)[:3]
    if path.stat().st_size < offset + n * steps * channels * dtype.itemsize:
        raise UserError(f"{path} is cut: got {path.stat().st_size} bytes, expected those of shape {shape} of {dtype}")
    rows = MappedRows(path, offset, dtype, n * steps, channels)
    found = replace(_equally_long(path, rows, n, steps, channels), in_memory=False)
    return _trimmed(found) if dtype.kind == "f" else found


def read_npz(path: Path, reading: Reading) -> Collection:
    """Read a .npz file; the arrays of :data:`VALUES` and so on, or an array for each series.

    Raises:
        UserError: the file cannot be read, or has a different content.
    """
    arrays = _arrays(path)
    plain = {name.lower(): name for name in arrays}
    place = {role: next((plain[name] for name in names if name in plain), None) for role, names in OTHERS.items()}
    values = next((plain[name] for name in VALUES if name in plain), None)
    label = next((plain[name] for name in LABELS if name in plain), None)
    if reading.label_columns and (not reading.new or reading.label_columns[0] in arrays):
        if len(reading.label_columns) > 1:
            raise UserError(
                f"dataset.label_column: got [{', '.join(reading.label_columns)}], expected one array of {path}; that of "
                "several values has the shape (n, D)"
            )
        label = reading.label_columns[0]
        if label not in arrays:
            raise UserError(f"dataset.label_column: got {label!r}, expected an array of {path} ({', '.join(arrays)})")
    if values is None:
        return _one_array_each(path, arrays, label)
    lengths = arrays[place["lengths"]] if place["lengths"] else None
    where = f"{path}, array {values}"
    found = _of_values(path, where, arrays[values], lengths)
    count = len(found)
    if place["channels"]:
        names = object_arrays.strings(f"{path}, array {place['channels']}", arrays[place["channels"]], len(found.channels))
        found = replace(found, channels=tuple(f"x{k}" if name is None else name for k, name in enumerate(names)))
    if place["names"]:
        names = object_arrays.strings(f"{path}, array {place['names']}", arrays[place["names"]], count)
        found = replace(found, names=[str(k) if name is None else name for k, name in enumerate(names)])
    if place["times"]:
        times, origins = _times(f"{path}, array {place['times']}", arrays[place["times"]], found)
        found = replace(found, times=times, origins=origins)
    if place["groups"]:
        found = replace(found, groups=object_arrays.strings(f"{path}, array {place['groups']}", arrays[place["groups"]], count))
    if place["splits"]:
        where = f"{path}, array {place['splits']}"
        names = object_arrays.strings(where, arrays[place["splits"]], count)
        found = replace(found, splits=splits_of(names, lambda k: f"{where}[{k}]"))
    roles = {"arrays": ", ".join(f"{name} {array.shape}" for name, array in arrays.items())}
    found = replace(found, roles=roles)
    if label is None or reading.target == "none" or reading.labels_elsewhere:
        return found
    return _labelled(found, path, label, arrays[label], reading)


def _labelled(found: Collection, path: Path, name: str, array: np.ndarray, reading: Reading) -> Collection:
    where = f"{path}, array {name}"
    if reading.target == "class":
        return replace(found, labels=object_arrays.strings(where, array, len(found)))
    values = array[:, None] if array.ndim == 1 else array
    if values.dtype.kind not in "fiub" or values.ndim != 2 or len(values) != len(found):
        raise UserError(
            f"{where}: got shape {array.shape} of {array.dtype}, expected numbers ({len(found)},) or ({len(found)}, D)"
        )
    names = (name,) if values.shape[1] == 1 else tuple(f"{name}_{k}" for k in range(values.shape[1]))
    return replace(found, targets=values.astype(np.float64), target_names=names)


def _arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(path) as archive:
            check_size(archive)
            members = [name for name in archive.namelist() if name.endswith(".npy")]
            found = {
                name.removesuffix(".npy"): object_arrays.read_array(
                    f"{path}, array {name[:-4]}", io.BytesIO(archive.read(name))
                )
                for name in members
            }
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror or error})") from None
    except UserError:
        raise
    except DAMAGE as error:
        raise UserError(f"cannot read {path} ({error}); expected a .npz file of NumPy") from None
    if not found:
        raise UserError(f"{path} has no arrays; expected an array values (n, T, C), or an array for each series")
    return found


def _one_array_each(path: Path, arrays: Mapping[str, np.ndarray], label: str | None) -> Collection:
    """Read each array as a series of its name."""
    if label is not None:
        raise UserError(
            f"{path}: got an array {label}, but none of the names {', '.join(VALUES)} ({', '.join(list(arrays)[:8])}); rename "
            "the array of the series values"
        )
    series = [object_arrays.as_series(f"{path}, array {name}", array) for name, array in arrays.items()]
    return _of_series(path, series, list(arrays))


def _of_values(path: Path, where: str, values: np.ndarray, lengths: np.ndarray | None = None) -> Collection:
    if values.dtype.hasobject:
        return _of_series(path, object_arrays.series_of_objects(where, values))
    if values.dtype.kind not in "fiub":
        raise UserError(f"{where}: got values of type {values.dtype}, expected numbers")
    if lengths is not None:
        lengths = _checked_lengths(where, lengths, len(values) if values.ndim == 3 else lengths.size)
        if values.ndim in (1, 2) and (len(lengths) != len(values) or lengths.sum() == len(values)):
            return _of_steps(path, where, values, lengths)
    if values.ndim not in (2, 3) or 0 in values.shape:
        raise UserError(
            f"{where}: got shape {values.shape}, expected (n, T), (n, T, C), or (steps of all series, C) with lengths"
        )
    n, steps, channels = (*values.shape, 1)[:3]
    found = _equally_long(path, values.reshape(n * steps, channels), n, steps, channels)
    if lengths is None:
        return _trimmed(found)
    if (lengths > steps).any():
        raise UserError(f"{where}: got a length of {lengths.max()}, expected at most the {steps} steps of the array")
    return replace(found, lengths=lengths)


def _equally_long(path: Path, rows: Rows, n: int, steps: int, channels: int) -> Collection:
    names = [str(k) for k in range(n)]
    return Collection(path, names, _channel_names(channels), rows, np.arange(n) * steps, np.full(n, steps, np.int64))


def _of_steps(path: Path, where: str, values: np.ndarray, lengths: np.ndarray) -> Collection:
    """Read the steps of all series, one after the other."""
    if int(lengths.sum()) != len(values):
        raise UserError(f"{where}: got {len(values)} steps, expected {int(lengths.sum())}, the sum of the lengths")
    rows = values[:, None] if values.ndim == 1 else values
    names, starts = [str(k) for k in range(len(lengths))], np.cumsum(lengths) - lengths
    return Collection(path, names, _channel_names(rows.shape[1]), rows, starts, lengths)


def _checked_lengths(where: str, lengths: np.ndarray, count: int) -> np.ndarray:
    if lengths.shape != (count,) or lengths.dtype.kind not in "iu" or (lengths < 1).any():
        raise UserError(
            f"{where}: got lengths of shape {lengths.shape} and type {lengths.dtype}, expected ({count},) whole numbers from 1"
        )
    return lengths.astype(np.int64)


def _of_series(path: Path, series: list[np.ndarray], names: list[str] | None = None) -> Collection:
    if not series:
        raise UserError(f"{path} has no series")
    channels = series[0].shape[1]
    for k, each in enumerate(series):
        if each.shape[1] != channels:
            raise UserError(f"{path}, series {k}: got {each.shape[1]} channels, expected {channels} as in the first one")
    lengths = np.array([len(each) for each in series], np.int64)
    return Collection(
        path,
        names or [str(k) for k in range(len(series))],
        _channel_names(channels),
        np.concatenate([each.astype(np.float64) for each in series]),
        np.cumsum(lengths) - lengths,
        lengths,
    )


def _trimmed(found: Collection) -> Collection:
    """End each series at its last step with a value, since NaN fills up shorter series of an array.

    Raises:
        UserError: a series has no value at all.
    """
    if isinstance(found.values, np.ndarray) and not np.isnan(found.values).any():
        return found
    lengths = found.lengths.copy()
    for k in range(len(found)):
        present = ~np.isnan(found.read(k)).all(1)
        if not present.any():
            raise UserError(f"{found.path}, series {k}: got no value, expected at least one")
        lengths[k] = len(present) - present[::-1].argmax()
    return replace(found, lengths=lengths)


def _times(where: str, times: np.ndarray, found: Collection) -> tuple[np.ndarray, np.ndarray]:
    """Return the times (N,) of each row, from the first step of its series, and the times (n,) of these steps."""
    steps = len(found.values)
    if times.dtype.hasobject:
        flat = np.concatenate([each[:, 0] for each in object_arrays.series_of_objects(where, times)])
    else:
        flat = times.reshape(-1).astype(np.float64) if times.dtype.kind in "fiu" else np.empty(0)
    if times.dtype.kind not in "fiuO" or len(flat) != steps:
        raise UserError(f"{where}: got shape {times.shape} of {times.dtype}, expected a number for each of {steps} steps")
    result, origins = np.zeros(steps), np.zeros(len(found))
    for k, (start, length) in enumerate(zip(found.starts.tolist(), found.lengths.tolist(), strict=True)):
        own = flat[start : start + length]
        if not np.isfinite(own).all() or (np.diff(own) <= 0).any():
            raise UserError(f"{where}, series {k}: got times that are not finite or do not increase, expected increasing times")
        origins[k] = own[0]
        result[start : start + length] = own - own[0]
    return result, origins


def _channel_names(count: int) -> tuple[str, ...]:
    return tuple(f"x{k}" for k in range(count))
