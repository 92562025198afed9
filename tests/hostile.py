"""Files that a stranger might send."""

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
"""Kinds of hostile zips, and what is said of them."""


class MakesFile:
    """Unpickled, it makes a file: what a hostile pickle does, but for the harm."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def write_hostile_zip(path: Path, kind: str, content: bytes = b"", name: str = "first") -> str:
    """Write a zip of a harmless member, ``name`` with ``content``, and a hostile one; what is said of it, a pattern."""
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
        if kind == "bomb":
            with archive.open(entry, "w") as file:
                for _ in range(200):
                    file.write(bytes(10**6))
        else:
            archive.writestr(entry, b"../outside")
    return HOSTILE[kind]
