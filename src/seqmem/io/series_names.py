"""Names of series that are those of files."""

from pathlib import PurePosixPath

TEXT_SUFFIXES = (".csv", ".tsv", ".txt", ".dat")
"""Suffixes of tables in text files, which may be compressed: .csv.gz."""

FORMATS = (*TEXT_SUFFIXES, ".csv.gz", ".npy", ".npz", ".parquet", ".ts")
"""Suffixes of files of series."""


def stem(name: str) -> str:
    """Return a file's name or path without its suffix, if that is one of :data:`FORMATS`; other dots are a part of the name.

    >>> stem("walk/r0.t1.csv.gz"), stem("r0.t1"), stem("r0.NPY")
    ('walk/r0.t1', 'r0.t1', 'r0')
    """
    path = PurePosixPath(name.replace("\\", "/"))
    if path.suffix.lower() == ".gz" and PurePosixPath(path.stem).suffix.lower() in TEXT_SUFFIXES:
        path = path.with_suffix("")
    return str(path.with_suffix("") if path.suffix.lower() in FORMATS else path)
