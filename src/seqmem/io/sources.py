"""Series of a file or folder in any of the formats that are understood."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from seqmem.errors import UserError, nearest
from seqmem.io import arrays, parquet, series_folder
from seqmem.io.collection import Collection, Reading
from seqmem.io.files import checksum, listing, read_bytes
from seqmem.io.frames import series_of
from seqmem.io.label_tables import with_labels
from seqmem.io.series_names import FORMATS, TEXT_SUFFIXES
from seqmem.io.tables import Table
from seqmem.io.text_tables import read_text_table
from seqmem.io.ts_source import read_ts
from seqmem.io.unnamed_columns import text_columns_in_training

_advice = {
    ".xlsx": "save the sheet as CSV",
    ".xls": "save the sheet as CSV",
    ".ods": "save the sheet as CSV",
    ".pkl": "a pickle can run code when it is read; save an .npz with numpy.savez",
    ".pickle": "a pickle can run code when it is read; save an .npz with numpy.savez",
    ".pt": "save an .npz with numpy.savez",
    ".mat": "save an .npz with scipy.io.loadmat and numpy.savez",
    ".h5": "save an .npz with numpy.savez, or a .parquet with pandas",
    ".feather": "save a .parquet with pandas",
    ".json": "save a .csv or .parquet with pandas",
    ".zip": "unpack it, and give the folder or the file",
}


def read_source(path: str | Path, reading: Reading, key: str = "dataset.path") -> Collection:
    """Read the series of a file, or of a folder with a file for each series.

    Args:
        path: file or folder.
        reading: how it is read.
        key: that names the path, for messages.

    Raises:
        UserError: it does not exist, is of an unknown format or cannot be read; the message names the line or the array.
    """
    if reading.new:
        reading = replace(reading, labels_path=None)  # of the training
    place = Path(os.path.expanduser(path))
    if not place.exists():
        near = nearest(place.name, [each.name for each in place.parent.iterdir()]) if place.parent.is_dir() else None
        hint = f"; did you mean {near!r}?" if near else ""
        raise UserError(f"{key}: got {path}, which does not exist ({listing(place.parent)}){hint}")
    if place.is_dir():
        table = series_folder.table_of(place)
        if reading.labels_path is None and table is not None:
            reading = replace(reading, labels_path=str(table))
        found = series_folder.read_folder(place, reading, _read_file)
    else:
        found = _read_file(place, reading if reading.labels_path is None else reading.without_labels())
    if reading.labels_path is not None:
        labels = read_label_table(Path(os.path.expanduser(reading.labels_path)), reading)
        found = with_labels(found, labels, reading)
    return found


def read_label_table(path: Path, reading: Reading) -> Table:
    """Read a table of labels, whose cells stay texts: 007 may be a name.

    Raises:
        UserError: it does not exist or cannot be read.
    """
    if not path.is_file():
        raise UserError(f"dataset.labels_path: got {path}, expected a file with a table ({listing(path.parent)})")
    if path.suffix.lower() == ".parquet":
        return parquet.read_table(path)
    return read_text_table(path, read_bytes(path), reading.encoding, None, set)[0].without_empty()


def _read_file(path: Path, reading: Reading) -> Collection:
    suffix = path.suffix.lower()
    inner = Path(path.stem).suffix.lower() if suffix == ".gz" else suffix
    readers: dict[str, Callable[[Path, Reading], Collection]] = {
        **dict.fromkeys(TEXT_SUFFIXES, _read_text),
        ".npy": arrays.read_npy,
        ".npz": arrays.read_npz,
        ".parquet": parquet.read_parquet,
        ".ts": read_ts,
    }
    if inner not in readers or (suffix == ".gz" and inner not in TEXT_SUFFIXES):
        advice = f"; {_advice[inner]}" if inner in _advice else ""
        raise UserError(f"{path}: got a file '{suffix}', expected {', '.join(FORMATS)}{advice}")
    found = readers[inner](path, reading)
    if found.in_memory:
        found.refuse_infinite(found.values[0 : len(found.values)])
    return replace(found, files={path.name: checksum(path)})


def _read_text(path: Path, reading: Reading) -> Collection:
    table, note = read_text_table(
        path, read_bytes(path), reading.encoding, reading.header, lambda names: text_columns_in_training(names, reading)
    )
    found = series_of(table, reading)
    return replace(found, roles={"format": note, **found.roles})
