"""Downloads from a server of our own: what arrives whole stays, anything else leaves no trace."""

import gzip
import hashlib
import socket
import sys
import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from seqmem import datasets
from seqmem.datasets import download as download_module
from seqmem.datasets import imdb, text8
from seqmem.errors import UserError
from seqmem.io.download import DownloadError, download, download_file
from tests.hostile import HOSTILE, write_hostile_zip

from .conftest import idx_bytes


class SilentHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server of our own; gives the folder of its files and its address."""
    served = tmp_path / "served"
    served.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SilentHandler, directory=served))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("no_proxy", "*")
    yield served, f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def mirror(server, tiny_mnist_arrays, monkeypatch):
    """The tiny MNIST in place of the official one; gives the server's folder."""
    from torchvision.datasets import MNIST

    served, address = server
    resources = []
    for name, array in tiny_mnist_arrays.items():
        content = gzip.compress(idx_bytes(array), mtime=0)
        (served / f"{name}.gz").write_bytes(content)
        resources.append((f"{name}.gz", hashlib.md5(content).hexdigest()))
    monkeypatch.setattr(MNIST, "mirrors", [address])
    monkeypatch.setattr(MNIST, "resources", resources)
    return served


@pytest.fixture
def official_reviews(server, tiny_imdb, monkeypatch):
    """The tiny reviews in place of the official ones; gives the archive on the server."""
    served, address = server
    archive = served / imdb.ARCHIVE
    (tiny_imdb / imdb.ARCHIVE).replace(archive)
    monkeypatch.setattr(imdb, "URL", address + imdb.ARCHIVE)
    monkeypatch.setattr(imdb, "MD5", hashlib.md5(archive.read_bytes()).hexdigest())
    return archive


@pytest.fixture
def official_text8(server, tiny_text, monkeypatch):
    """The tiny text in place of text8; gives the archive on the server."""
    served, address = server
    archive = served / text8.ARCHIVE
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("text8", tiny_text)
    monkeypatch.setattr(text8, "MIRRORS", ["http://127.0.0.1:9/", address])
    monkeypatch.setattr(text8, "MD5", hashlib.md5(archive.read_bytes()).hexdigest())
    return archive


def test_text8_is_downloaded_once(official_text8, tmp_path, tiny_text, capfd):
    arguments = {"name": "text8", "data_dir": str(tmp_path / "data")}
    first = datasets.load(arguments)
    assert [path.name for path in (tmp_path / "data/text8").iterdir()] == ["text8"]
    assert (tmp_path / "data/text8/text8").read_text() == tiny_text
    assert capfd.readouterr() == ("", "")
    official_text8.unlink()
    assert datasets.load(arguments).describe() == first.describe()


def test_a_damaged_text8_leaves_nothing(official_text8, tmp_path):
    official_text8.write_bytes(official_text8.read_bytes()[:-5])
    with pytest.raises(UserError, match=r"text8 lacks text8.zip \(31344016 bytes, md5 \w+\); the download failed .*; put the"):
        datasets.load({"name": "text8", "data_dir": str(tmp_path / "data")})
    assert not (tmp_path / "data").exists()


def test_missing_files_are_downloaded_silently_and_once(mirror, tmp_path, tiny_mnist_arrays, capfd):
    arguments = {"name": "mnist", "data_dir": str(tmp_path / "new" / "data")}
    assert datasets.load(arguments).sizes == {"train": 33, "validation": 4, "test": 11}
    raw = tmp_path / "new/data/MNIST/raw"
    assert {path.name: path.read_bytes() for path in raw.iterdir()} == {
        name: idx_bytes(array) for name, array in tiny_mnist_arrays.items()
    }
    assert capfd.readouterr() == ("", "")
    for archive in mirror.iterdir():
        archive.unlink()
    assert datasets.load(arguments).sizes["train"] == 33


def test_a_terminal_sees_progress(mirror, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    datasets.load({"name": "mnist", "data_dir": str(tmp_path / "data")})
    assert "100%" in capsys.readouterr().err


def test_files_of_the_user_are_kept(mirror, tiny_mnist):
    mine = tiny_mnist / "MNIST/raw/train-images-idx3-ubyte"
    before = mine.stat().st_mtime_ns
    (tiny_mnist / "MNIST/raw/t10k-labels-idx1-ubyte").unlink()
    datasets.load({"name": "mnist", "data_dir": str(tiny_mnist)})
    assert mine.stat().st_mtime_ns == before
    assert len(list((tiny_mnist / "MNIST/raw").iterdir())) == 4


@pytest.mark.parametrize("damage", ["other content", "cut off", "absent"])
def test_a_damaged_download_leaves_nothing(damage, mirror, tmp_path):
    last = mirror / "t10k-labels-idx1-ubyte.gz"
    if damage == "absent":
        last.unlink()
    else:
        last.write_bytes(gzip.compress(b"something else") if damage == "other content" else last.read_bytes()[:-5])
    with pytest.raises(UserError, match=r"download failed \(http://127.0.0.1:\d+/t10k-labels-idx1-ubyte.gz: .+\); put the"):
        datasets.load({"name": "mnist", "data_dir": str(tmp_path / "data")})
    assert not (tmp_path / "data").exists()


def test_the_second_mirror_is_tried(mirror, tmp_path, monkeypatch):
    from torchvision.datasets import MNIST

    monkeypatch.setattr(MNIST, "mirrors", ["http://127.0.0.1:9/", *MNIST.mirrors])
    assert datasets.load({"name": "mnist", "data_dir": str(tmp_path / "data")}).sizes["test"] == 11


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_archive_leaves_nothing(kind, server, tmp_path):
    served, address = server
    message = write_hostile_zip(served / "x.zip", kind)
    with pytest.raises(DownloadError, match=rf"^{address}x.zip: .*{message}"):
        download(tmp_path / "new" / "data", {"x.zip": None}, [address])
    assert [path.name for path in tmp_path.iterdir()] == ["served"]
    assert not Path("/seqmem_hostile").exists()


def test_a_folder_in_the_way_of_a_file_is_named(official_text8, tmp_path):
    (tmp_path / "data/text8/text8").mkdir(parents=True)
    with pytest.raises(UserError, match=r"the download failed \(\S+/data/text8/text8: Is a directory\)"):
        datasets.load({"name": "text8", "data_dir": str(tmp_path / "data")})
    assert [path.name for path in (tmp_path / "data/text8").iterdir()] == ["text8"]


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, MemoryError])
def test_an_interrupted_download_leaves_nothing(interruption, tmp_path, monkeypatch):
    def half_a_file(folder, name, md5, mirrors):
        # On the same file system as the goal, or the move at the end would not be atomic.
        assert folder.parent == tmp_path / "a" / "b"
        (folder / name).write_bytes(b"half")
        raise interruption

    monkeypatch.setattr(download_module, "_download_archive", half_a_file)
    with pytest.raises(interruption):
        download(tmp_path / "a" / "b", {"x.gz": "0"}, [])
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_never_answers_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(download_module, "TIMEOUT", 0.2)
    monkeypatch.setenv("no_proxy", "*")
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}/"
        with pytest.raises(DownloadError, match="timed out"):
            download(tmp_path / "data", {"x.gz": "0"}, [address])
    assert list(tmp_path.iterdir()) == []
    assert socket.getdefaulttimeout() is None


def test_a_single_file_is_downloaded_silently_once_and_as_it_is(official_reviews, tmp_path, capfd):
    arguments = {"name": "imdb", "data_dir": str(tmp_path / "new" / "data")}
    assert datasets.load(arguments).sizes == {"train": 37, "validation": 4, "test": 11}
    assert [path.name for path in (tmp_path / "new/data").iterdir()] == [imdb.ARCHIVE]
    assert (tmp_path / "new/data" / imdb.ARCHIVE).read_bytes() == official_reviews.read_bytes()
    assert capfd.readouterr() == ("", "")
    official_reviews.unlink()
    assert datasets.load(arguments).sizes["test"] == 11


def test_a_terminal_sees_progress_of_a_single_file(official_reviews, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    datasets.load({"name": "imdb", "data_dir": str(tmp_path / "new")})
    assert "100%" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["other content", "cut off", "absent"])
def test_a_damaged_single_file_leaves_nothing(damage, official_reviews, tmp_path):
    if damage == "absent":
        official_reviews.unlink()
    else:
        official_reviews.write_bytes(b"else" if damage == "other content" else official_reviews.read_bytes()[:-5])
    with pytest.raises(UserError, match=r"download failed \(http://127.0.0.1:\d+/aclImdb_v1.tar.gz: .+\); put the file"):
        datasets.load({"name": "imdb", "data_dir": str(tmp_path / "new" / "data")})
    assert not (tmp_path / "new").exists()


def test_an_interrupted_single_file_leaves_nothing(tmp_path, monkeypatch):
    def half_a_file(url, known_hash, name, folder, downloader):
        (folder / name).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr("pooch.retrieve", half_a_file)
    with pytest.raises(KeyboardInterrupt):
        download_file(tmp_path / "a" / "b", "x.gz", "0", "http://127.0.0.1:9/x.gz")
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_never_answers_with_a_single_file_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(download_module, "TIMEOUT", 0.2)
    monkeypatch.setenv("no_proxy", "*")
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(DownloadError, match="timed out"):
        download_file(tmp_path / "data", "x.gz", "0", f"http://127.0.0.1:{server.getsockname()[1]}/x.gz")
    assert list(tmp_path.iterdir()) == []
