"""Downloads from a server of the test's own: a whole file stays, anything else leaves no trace."""

import gzip
import hashlib
import socket
import sys
from pathlib import Path

import pytest

from seqmem.io import download as download_module
from seqmem.io.download import DownloadError, download, download_file
from tests.hostile import HOSTILE, write_hostile_zip
from tests.serving import serving


@pytest.fixture
def server(tmp_path, monkeypatch):
    """The folder of the server's files, and its URL."""
    monkeypatch.setenv("no_proxy", "*")
    with serving(tmp_path / "served") as url:
        yield tmp_path / "served", url


@pytest.fixture
def archives(server):
    """Two gzipped files on the server: the md5 of each archive by name."""
    served, _ = server
    found = {}
    for name in ("first.gz", "second.gz"):
        (served / name).write_bytes(gzip.compress(name.encode(), mtime=0))
        found[name] = hashlib.md5((served / name).read_bytes()).hexdigest()
    return found


def test_archives_are_unpacked_silently(server, archives, tmp_path, capfd):
    download(tmp_path / "new" / "data", archives, ["http://127.0.0.1:9/", server[1]])  # the first mirror does not respond
    assert {path.name: path.read_text() for path in (tmp_path / "new/data").iterdir()} == {
        "first": "first.gz",
        "second": "second.gz",
    }
    assert capfd.readouterr() == ("", "")


def test_a_single_file_is_not_unpacked(server, archives, tmp_path, capfd):
    served, url = server
    download_file(tmp_path / "data", "first.gz", archives["first.gz"], f"{url}first.gz")
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["first.gz"]
    assert (tmp_path / "data/first.gz").read_bytes() == (served / "first.gz").read_bytes()
    assert capfd.readouterr() == ("", "")


def test_a_terminal_shows_progress(server, archives, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    download(tmp_path / "data", archives, [server[1]])
    assert "100%" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["other content", "cut off", "absent"])
def test_a_damaged_download_leaves_nothing(damage, server, archives, tmp_path):
    served, url = server
    last = served / "second.gz"
    if damage == "absent":
        last.unlink()
    else:
        last.write_bytes(gzip.compress(b"something else") if damage == "other content" else last.read_bytes()[:-5])
    with pytest.raises(DownloadError, match=rf"^{url}second.gz: ."):
        download(tmp_path / "new" / "data", archives, [url])
    with pytest.raises(DownloadError, match=rf"^{url}second.gz: ."):
        download_file(tmp_path / "new" / "data", "second.gz", archives["second.gz"], f"{url}second.gz")
    assert [path.name for path in tmp_path.iterdir()] == ["served"]


def test_a_hostile_archive_leaves_nothing(server, tmp_path):
    for kind in HOSTILE:
        served, url = server
        message = write_hostile_zip(served / "x.zip", kind)
        with pytest.raises(DownloadError, match=rf"^{url}x.zip: .*{message}"):
            download(tmp_path / "new" / "data", {"x.zip": None}, [url])
        assert [path.name for path in tmp_path.iterdir()] == ["served"]
        assert not Path("/seqmem_hostile").exists()


def test_a_folder_in_the_way_of_a_file_is_named(server, archives, tmp_path):
    (tmp_path / "data/second").mkdir(parents=True)
    with pytest.raises(DownloadError, match=r"^\S+/data/second: Is a directory$"):
        download(tmp_path / "data", archives, [server[1]])
    assert "second" in [path.name for path in (tmp_path / "data").iterdir()]


def test_an_interrupted_download_leaves_nothing(tmp_path, monkeypatch):
    def half_a_file(url, known_hash, name, folder, downloader):
        # On the same file system as the destination, or the move at the end would not be atomic.
        assert folder.parent == tmp_path / "a" / "b"
        (folder / name).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr("pooch.retrieve", half_a_file)
    with pytest.raises(KeyboardInterrupt):
        download(tmp_path / "a" / "b", {"x.gz": "0"}, ["http://127.0.0.1:9/"])
    with pytest.raises(KeyboardInterrupt):
        download_file(tmp_path / "a" / "b", "x.gz", "0", "http://127.0.0.1:9/x.gz")
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_never_responds_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(download_module, "TIMEOUT", 0.2)
    monkeypatch.setenv("no_proxy", "*")
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        with pytest.raises(DownloadError, match="timed out"):
            download(tmp_path / "data", {"x.gz": "0"}, [url])
        with pytest.raises(DownloadError, match="timed out"):
            download_file(tmp_path / "data", "x.gz", "0", f"{url}x.gz")
    assert list(tmp_path.iterdir()) == []
    assert socket.getdefaulttimeout() is None
