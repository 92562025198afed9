"""Compressed files: checks of zips and gzip files from untrusted sources, and zips independent of the date."""

import gzip
import io
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
"""Exceptions, in addition to OSError, of reading a zip that is damaged or hostile."""

_ALWAYS = 2**27
_EXPANSION = 100


def check_size(archive: zipfile.ZipFile) -> None:
    """Refuse a zip that could fill memory or disk, before any member is read.

    Args:
        archive: an open zip with a file name.

    Raises:
        zipfile.BadZipFile: all members together have more than 128 MiB, and more than a hundred times the file's size.
    """
    assert archive.filename is not None
    packed, unpacked = Path(archive.filename).stat().st_size, sum(member.file_size for member in archive.infolist())
    if unpacked > max(_ALWAYS, _EXPANSION * packed):
        raise zipfile.BadZipFile(f"its {packed} bytes declare {unpacked}")


def check_members(archive: zipfile.ZipFile) -> None:
    """Refuse a zip that could write outside of its folder, or fill memory or disk.

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
            raise zipfile.BadZipFile(f"its member {name!r} is not a file")
    check_size(archive)


def add_member(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    """Add a file to an open zip, compressed and dated 1980-01-01, as a zip cannot store earlier dates."""
    member = zipfile.ZipInfo(name)
    member.external_attr = 0o644 << 16
    archive.writestr(member, content, zipfile.ZIP_DEFLATED)


def gunzip(content: bytes, limit: int) -> bytes:
    """Unpack the content of a gzip file.

    Raises:
        OSError: the content is damaged or longer than ``limit`` bytes.
    """
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
            unpacked = file.read(limit + 1)
    except (EOFError, zlib.error) as error:
        raise gzip.BadGzipFile(str(error)) from None
    if len(unpacked) > limit:
        raise gzip.BadGzipFile(f"its {len(content)} bytes have more than {limit} unpacked")
    return unpacked
