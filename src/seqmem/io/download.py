"""Downloads that leave either the whole file or nothing."""

import contextlib
import gzip
import os
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from seqmem.io.zips import DAMAGE, check_members

TIMEOUT = 15.0
"""Seconds without an answer after which a server is given up."""


class DownloadError(Exception):
    """No server could be reached, what it sent was damaged or hostile, or there is no place to write it to."""


def download(folder: Path, archives: Mapping[str, str | None], mirrors: Sequence[str]) -> None:
    """Download archives and put what they hold into a folder, which is made if it is not there.

    Everything is loaded into a temporary folder inside and moved from there once all of it is complete, so a failed or
    interrupted download leaves no file behind that a later run could take for a whole one. A terminal sees a progress bar.

    Args:
        folder: where the unpacked files go.
        archives: md5 of each archive, a .zip or .gz, by its name; None where its publisher gives none.
        mirrors: addresses of folders that hold the archives, with a trailing slash, tried in this order.

    Raises:
        DownloadError: no mirror gave an archive with the right md5 that can be unpacked and holds nothing that would go
            elsewhere, or the folder cannot be made or written.
    """
    with _staging(folder) as staging:
        for name, md5 in archives.items():
            _download_archive(staging, name, md5, mirrors)


def download_file(folder: Path, name: str, md5: str, url: str) -> None:
    """Download one file as it is into a folder, which is made if it is not there, with the promises of :func:`download`.

    Args:
        folder: where the file goes.
        name: its name there.
        md5: of the file.
        url: its address.

    Raises:
        DownloadError: no file with the right md5 came, or the folder cannot be made or written.
    """
    with _staging(folder) as staging:
        try:
            _fetch(staging, name, md5, url)
        except (OSError, ValueError) as error:
            raise DownloadError(f"{url}: {error}") from None


def _fetch(folder: Path, name: str, md5: str | None, url: str) -> None:
    # Imported here because most runs download nothing.
    import pooch

    pooch.get_logger().setLevel("WARNING")
    downloader = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), chunk_size=2**20, timeout=TIMEOUT)
    pooch.retrieve(url, md5 and f"md5:{md5}", name, folder, downloader=downloader)


def _download_archive(folder: Path, name: str, md5: str | None, mirrors: Sequence[str]) -> None:
    failures = []
    for mirror in mirrors:
        try:
            _fetch(folder, name, md5, mirror + name)
            _unpack(folder / name)
            return
        except (OSError, *DAMAGE) as error:
            failures.append(f"{mirror}{name}: {error}")
        finally:
            (folder / name).unlink(missing_ok=True)
    raise DownloadError("; ".join(failures))


def _unpack(archive: Path) -> None:
    if archive.suffix == ".gz":
        with gzip.open(archive) as packed, open(archive.with_suffix(""), "wb") as file:
            shutil.copyfileobj(packed, file)
    else:
        with zipfile.ZipFile(archive) as members:
            check_members(members)
            members.extractall(archive.parent)


@contextlib.contextmanager
def _staging(folder: Path) -> Iterator[Path]:
    made = [path for path in (folder, *folder.parents) if not os.path.exists(path)]
    try:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            temporary = tempfile.TemporaryDirectory(prefix=".incomplete-", dir=folder)
        except OSError as error:
            raise DownloadError(f"the folder cannot be written: {error.strerror}") from None
        with temporary as name:
            yield Path(name)
            try:
                for file in Path(name).iterdir():
                    file.replace(folder / file.name)
            except OSError as error:
                raise DownloadError(f"{error.filename2}: {error.strerror}") from None
    finally:
        for path in made:
            # Fails where a folder is in use, which is as it should be.
            with contextlib.suppress(OSError):
                path.rmdir()
