"""Downloads that leave either the whole file or nothing."""

import contextlib
import http.client
import io
import os
import socket
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

TIMEOUT = 15.0
"""Seconds without an answer after which a server is given up."""


class DownloadError(Exception):
    """No server could be reached, what it sent was damaged, or there is no place to write it to."""


def download(folder: Path, archives: Mapping[str, str | None], mirrors: Sequence[str]) -> None:
    """Download archives and put what they hold into a folder, which is made if it is not there.

    Everything is loaded into a temporary folder inside and moved from there once all of it is complete, so a failed or
    interrupted download leaves no file behind that a later run could take for a whole one. A terminal sees a progress bar.

    Args:
        folder: where the unpacked files go.
        archives: md5 of each archive by its name; None where its publisher gives none.
        mirrors: addresses of folders that hold the archives, with a trailing slash, tried in this order.

    Raises:
        DownloadError: no mirror gave an archive with the right md5, or the folder cannot be made or written.
    """
    with _staging(folder) as staging, _default_timeout(TIMEOUT), _progress_on_terminals_only():
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
    # Imported here because most runs download nothing.
    import pooch

    pooch.get_logger().setLevel("WARNING")
    downloader = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), chunk_size=2**20, timeout=TIMEOUT)
    with _staging(folder) as staging:
        try:
            pooch.retrieve(url, f"md5:{md5}", name, staging, downloader=downloader)
        except (OSError, ValueError) as error:
            raise DownloadError(f"{url}: {error}") from None


def _download_archive(folder: Path, name: str, md5: str | None, mirrors: Sequence[str]) -> None:
    # Imported here because it takes a second and most runs download nothing.
    from torchvision.datasets.utils import download_and_extract_archive

    failures = []
    for mirror in mirrors:
        try:
            download_and_extract_archive(mirror + name, str(folder), md5=md5, remove_finished=True)
            return
        except (OSError, EOFError, RuntimeError, http.client.HTTPException, zipfile.BadZipFile, zlib.error) as error:
            failures.append(f"{mirror}{name}: {error}")
    raise DownloadError("; ".join(failures))


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
            for file in Path(name).iterdir():
                file.replace(folder / file.name)
    finally:
        for path in made:
            # Fails where a folder is in use, which is as it should be.
            with contextlib.suppress(OSError):
                path.rmdir()


@contextlib.contextmanager
def _default_timeout(seconds: float) -> Iterator[None]:
    # torchvision offers no timeout of its own.
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


@contextlib.contextmanager
def _progress_on_terminals_only() -> Iterator[None]:
    if sys.stderr.isatty():
        yield
    else:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
