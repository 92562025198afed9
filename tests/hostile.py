"""Hostile files: pickles that execute code, and zips that write elsewhere or fill memory."""

import stat
import zipfile
from pathlib import Path
from typing import Any

HOSTILE = {
    "parent": r"its member '\.\./evil' would leave the folder",
    "parent of a folder": r"its member 'a/\.\./\.\./evil' would leave the folder",
    "absolute": "its member '/seqmem_hostile' would leave the folder",
    "backslashes": r"its member '\.\./evil' would leave the folder",
    "drive": "its member 'C:/evil' would leave the folder",
    "link": "its member 'link' is not a file",
    "device": "its member 'null' is not a file",
    "bomb": r"its \d+ bytes declare 2000\d+",
}
"""Kinds of hostile zips, and the message for each, a pattern."""


class MakesFile:
    """An object that creates a file when it is unpickled, as a harmless stand-in for other code."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def write_hostile_zip(path: Path, kind: str, content: bytes = b"", name: str = "first") -> str:
    """Write a zip of a harmless member, ``name`` with ``content``, and a hostile one; return the message, a pattern."""
    members = {
        "parent": ("../evil", 0),
        "parent of a folder": ("a/../../evil", 0),
        "absolute": ("/seqmem_hostile", 0),
        "backslashes": (r"..\evil", 0),
        "drive": ("C:/evil", 0),
        "link": ("link", stat.S_IFLNK | 0o777),
        "device": ("null", stat.S_IFCHR | 0o666),
        "bomb": ("zeros", 0),
    }
    member, mode = members[kind]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
        entry = zipfile.ZipInfo(member)
        entry.external_attr = mode << 16
        entry.compress_type = zipfile.ZIP_DEFLATED
        archive.writestr(entry, b"../outside")
        if kind == "bomb":
            entry.file_size = 200_000_000  # in the archive's directory, as if so many zeros followed
    return HOSTILE[kind]
