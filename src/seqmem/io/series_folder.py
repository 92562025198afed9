"""A folder with a file for each series, and its classes in a table or as the names of its folders."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from seqmem.errors import UserError
from seqmem.io.collection import Collection, Reading, joined
from seqmem.io.files import listing
from seqmem.io.series_names import TEXT_SUFFIXES, stem

SUFFIXES = (*TEXT_SUFFIXES, ".gz", ".npy", ".parquet")
TABLES = ("labels.csv", "labels.tsv", "labels.parquet")
"""Names of the table of labels in a folder; it may also be anywhere else, if a key names it."""


def read_folder(folder: Path, reading: Reading, read: Callable[[Path, Reading], Collection]) -> Collection:
    """Read each file of a folder as a series, whose name is that of the file without its suffix.

    Files in folders of the folder belong to the class that their folder's name is.

    Args:
        folder: whose files are read in the order of their names; hidden ones and the table of labels are left out.
        reading: how the files are read.
        read: reads a file.

    Raises:
        UserError: there is no file, one has several series, or two have the same name apart from their suffix.
    """
    own = {path for path in [folder / name for name in TABLES] if path.is_file()}
    if reading.labels_path is not None:
        own.add(Path(reading.labels_path))
    resolved = {path.resolve() for path in own}
    files = sorted(
        path
        for path in [*folder.glob("*"), *folder.glob("*/*")]
        if path.is_file()
        and path.suffix.lower() in SUFFIXES
        and path.resolve() not in resolved
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    if not files:
        raise UserError(
            f"{folder} has no file of a series ({listing(folder)}); expected a file {', '.join(SUFFIXES)} for each series"
        )
    in_folders = any(path.parent != folder for path in files)
    if in_folders and any(path.parent == folder for path in files):
        loose = next(path for path in files if path.parent == folder)
        raise UserError(
            f"{folder}: got {loose.name} next to folders of files, expected files alone, or a folder for each class"
        )
    each = replace(reading.without_labels(), labels_path=None, single=True, one_series=True)
    _refuse_equal_names(folder, files)
    parts = [_single(path, folder, in_folders, _read(path, each, read)) for path in files]
    found = joined(folder, parts)
    if in_folders and reading.target == "class" and reading.labels_path is None:
        found = replace(
            found, labels=[path.parent.name for path in files], roles={**found.roles, "label": "names of the folders"}
        )
    return found


def _read(path: Path, reading: Reading, read: Callable[[Path, Reading], Collection]) -> Collection:
    """Read a file; a row of a table without a header is a step, since the file has one series."""
    found = read(path, reading)
    is_wide = found.layout == "wide" and len(found) > 1 and reading.layout is None
    return read(path, replace(reading, layout="long")) if is_wide else found


def _single(path: Path, folder: Path, in_folders: bool, found: Collection) -> Collection:
    """Return a file's series under the file's name."""
    if len(found) != 1:
        raise UserError(f"{path}: got {len(found)} series, expected one in each file of a folder, a row for each step")
    own = stem(path.name)
    name = f"{path.parent.name}/{own}" if in_folders else own
    return replace(found, names=[name], files={str(path.relative_to(folder)): next(iter(found.files.values()))})


def _refuse_equal_names(folder: Path, files: Sequence[Path]) -> None:
    names: dict[str, Path] = {}
    for path in files:
        name = stem(str(path.relative_to(folder)))
        if name in names:
            raise UserError(
                f"{folder}: got {names[name].relative_to(folder)} and {path.relative_to(folder)}, expected files whose names "
                "differ without their suffixes"
            )
        names[name] = path


def table_of(folder: Path) -> Path | None:
    """Return the table of labels in a folder, None without one."""
    return next((folder / name for name in TABLES if (folder / name).is_file()), None)
