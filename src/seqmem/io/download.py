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
from urllib.parse import urlsplit

from seqmem.errors import UserError
from seqmem.io.files import listing
from seqmem.io.zips import DAMAGE, check_members

TIMEOUT = 15.0
"""Seconds without a response after which a server is given up."""

_UNREACHED = ("NameResolutionError", "NewConnectionError", "ConnectTimeoutError")
"""Names of urllib3's errors of a server that was not reached. This project does not depend on urllib3 itself; pooch does."""


class DownloadError(Exception):
    """No server was reached, its file was damaged or hostile, or the folder cannot be written."""


def missing_files(data_set: str, files: Sequence[str], folder: Path, layout: str, reason: str) -> UserError:
    """Return the error of files that are neither on this machine nor can be downloaded. It ends with the remedy.

    Args:
        data_set: its name.
        files: name of each file.
        folder: where they belong.
        layout: path below ``dataset.data_dir`` that is searched for them.
        reason: why they were not downloaded.
    """
    return UserError(
        f"{data_set}: {listing(folder)}, and {reason}; put {', '.join(files)} there, or set dataset.data_dir to the folder "
        f"that has {layout}"
    )


def download(folder: Path, archives: Mapping[str, str | None], mirrors: Sequence[str]) -> None:
    """Download archives and unpack them into a folder, which is created if it does not exist.

    Everything is written to a temporary folder inside and moved from there once it is complete, so a failed or interrupted
    download leaves no partial file that a later run could mistake for a whole one. A terminal shows a progress bar.

    Args:
        folder: destination of the unpacked files.
        archives: md5 of each archive, a .zip or .gz, by its name; None if its publisher gives none.
        mirrors: URLs of folders with the archives, with a trailing slash, tried in this order.

    Raises:
        DownloadError: no mirror has an archive with the right md5 that unpacks into the folder alone, or the folder cannot be
            created or written.
    """
    with _staging(folder) as staging:
        for name, md5 in archives.items():
            _download_archive(staging, name, md5, mirrors)


def download_file(folder: Path, name: str, md5: str, url: str) -> None:
    """Download one file without unpacking it, with the guarantees of :func:`download`.

    Args:
        folder: destination, created if it does not exist.
        name: name of the file there.
        md5: md5 of the file.
        url: URL of the file.

    Raises:
        DownloadError: the file cannot be downloaded or has a different md5, or the folder cannot be created or written.
    """
    with _staging(folder) as staging:
        try:
            _fetch(staging, name, md5, url)
        except (OSError, ValueError) as error:
            raise DownloadError(_reason(url, error)) from None


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
            failures.append(_reason(mirror + name, error))
        finally:
            (folder / name).unlink(missing_ok=True)
    raise DownloadError("; ".join(failures))


def _reason(url: str, error: Exception) -> str:
    """Return why a file was not downloaded; a server that was not reached is named alone, without the many words of urllib3."""
    cause = error.args[0] if error.args else None
    if type(getattr(cause, "reason", None)).__name__ in _UNREACHED:
        return f"no connection to {urlsplit(url).netloc}"
    return f"{url}: {error}"


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
    created = [path for path in (folder, *folder.parents) if not os.path.exists(path)]
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
        for path in created:
            # Removes empty folders only.
            with contextlib.suppress(OSError):
                path.rmdir()
