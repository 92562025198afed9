"""Downloads from a server of our own: what arrives whole stays, anything else leaves no trace."""

import gzip
import hashlib
import socket
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

import datasets
from datasets import download as download_module
from datasets.download import DownloadError, download
from seqmem.errors import UserError

from .conftest import idx_bytes


class SilentHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def mirror(tmp_path, tiny_mnist_arrays, monkeypatch):
    """A server of the tiny MNIST in place of the official ones; gives its folder."""
    from torchvision.datasets import MNIST

    served = tmp_path / "served"
    served.mkdir()
    resources = []
    for name, array in tiny_mnist_arrays.items():
        content = gzip.compress(idx_bytes(array), mtime=0)
        (served / f"{name}.gz").write_bytes(content)
        resources.append((f"{name}.gz", hashlib.md5(content).hexdigest()))
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SilentHandler, directory=served))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(MNIST, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
    monkeypatch.setattr(MNIST, "resources", resources)
    yield served
    server.shutdown()
    thread.join()
    server.server_close()


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
    import sys

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
