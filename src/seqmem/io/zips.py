"""Zips: what one of a stranger's may hold, and how one is written whatever the clock says."""

import lzma
import stat
import struct
import zipfile
import zlib
from pathlib import Path, PurePosixPath, PureWindowsPath

DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    KeyError,
    ValueError,
    OverflowError,
    RuntimeError,  # a password, an unknown compression, a nesting too deep
    MemoryError,
)
"""What reading a zip ends in, beside OSError, where it is damaged, or made by someone who means harm."""

_ALWAYS = 2**27
_EXPANSION = 100


def check_size(archive: zipfile.ZipFile) -> None:
    """Refuse a zip, before anything of it is read, that could fill memory or disk.

    Args:
        archive: an open one, of a file.

    Raises:
        zipfile.BadZipFile: the members are of more than 128 MiB together, and of more than a hundred times the file's size.
    """
    assert archive.filename is not None
    packed, unpacked = Path(archive.filename).stat().st_size, sum(member.file_size for member in archive.infolist())
    if unpacked > max(_ALWAYS, _EXPANSION * packed):
        raise zipfile.BadZipFile(f"its {packed} bytes announce {unpacked}")


def check_members(archive: zipfile.ZipFile) -> None:
    """Refuse a zip, before anything of it is unpacked, that could write elsewhere, or fill memory or disk.

    Args:
        archive: as for :func:`check_size`.

    Raises:
        zipfile.BadZipFile: a member would leave the folder it is unpacked to, or is a link or a device; or as in
            :func:`check_size`.
    """
    for member in archive.infolist():
        name = member.orig_filename.replace("\\", "/")
        if PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive or ".." in PurePosixPath(name).parts:
            raise zipfile.BadZipFile(f"its member {name!r} would leave the folder")
        if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise zipfile.BadZipFile(f"its member {name!r} is no file")
    check_size(archive)


def add_member(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    """Add a file to an open zip, compressed and without a date: a zip knows none before 1980, where clocks may well stand."""
    member = zipfile.ZipInfo(name)
    member.external_attr = 0o644 << 16
    archive.writestr(member, content, zipfile.ZIP_DEFLATED)
