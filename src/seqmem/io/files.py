"""Reading and atomic writing of files, and locks between processes."""

import fcntl
import hashlib
import json
import os
import re
import secrets
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from seqmem.errors import UserError

_longest_name = 100  # of 255 bytes, which file systems allow


def file_name(text: str) -> str:
    """Return a text as a part of a file's name that needs no quotes in a shell or on the command line of train.py.

    >>> file_name("text8 prefix"), file_name("M\u00fcller=1")
    ('text8_prefix', 'Muller_1')
    """
    letters = [letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter)]
    return re.sub(r"[^A-Za-z0-9._-]+", "_", "".join(letters)).lstrip("-.")[:_longest_name]


def write_text(path: Path, text: str) -> None:
    """Write a file atomically: a kill at any moment leaves the old content or the new one.

    Raises:
        UserError: the file cannot be written, for example because the disk is full; no temporary file is left.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a value that JSON can hold, as :func:`write_text` does."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def json_object(path: Path) -> dict[str, Any]:
    """Return the object that a JSON file holds.

    Raises:
        OSError: the file cannot be read.
        UserError: it is damaged.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({error})") from None
    if not isinstance(found, dict):
        raise UserError(f"{path} is damaged (got a {type(found).__name__}, expected an object)")
    return found


def read_json(path: Path) -> dict[str, Any]:
    """Return the object that a JSON file holds, as :func:`json_object` does.

    Raises:
        UserError: the file cannot be read, or is damaged.
    """
    try:
        return json_object(path)
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror or error})") from None


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary file that replaces ``path`` on success and is removed on failure.

    Raises:
        UserError: the file cannot be written.
    """
    temporary = path.with_name(f".{secrets.token_hex(6)}.{path.name}")  # hosts that share the folder may share process numbers
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror or error})") from None
    finally:
        with suppress(OSError):
            temporary.unlink()


def remove_left_behind(folder: Path) -> None:
    """Remove the temporary files of killed processes; no other process may be writing to the folder."""
    for path in folder.glob(f".{'[0-9a-f]' * 12}.*"):
        with suppress(OSError):
            path.unlink()


@contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[bool]:
    """Hold a lock in a ``with`` block; the system releases the lock of a process that dies.

    Args:
        path: an empty file that represents the lock; created with its folder if it does not exist, and never removed.
        wait: wait until another process releases the lock.

    Yields:
        Whether the lock is held; false only without ``wait``, if another process holds it.

    Raises:
        UserError: the file cannot be created, or its file system has no locks.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror or error})") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            held = False
        except OSError as error:
            raise UserError(f"cannot lock {path} ({error.strerror or error})") from None
        else:
            held = True
        yield held
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # processes forked in the meantime also have the file open
        os.close(descriptor)


def make_folder(folder: Path) -> Path:
    """Create a folder if it does not exist, and return it.

    Raises:
        UserError: the folder cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot create the folder {folder} ({error.strerror})") from None
    return folder


def decoded(where: object, content: bytes, otherwise: str | None = None) -> str:
    """Decode a text file: UTF-8, or UTF-16 with a byte order mark, as some editors and spreadsheets write.

    Args:
        where: the file or its name, for the message.
        content: of the file.
        otherwise: the encoding of a file that is neither; None refuses it.

    Returns:
        The text with line ends \\n.

    Raises:
        UserError: the content is not a text in one of these encodings.
    """
    utf_16 = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        text = content.decode("utf-16" if utf_16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        if utf_16 or otherwise is None:
            kind = "UTF-16" if utf_16 else "UTF-8"
            raise UserError(
                f"{where}: got a byte at {error.start} that is not {kind}, expected a plain text in UTF-8"
            ) from None
        text = content.decode(otherwise)
    if "\0" in text:
        raise UserError(f"{where}: got a zero byte at character {text.index(chr(0))}, expected a plain text in UTF-8")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_bytes(path: Path) -> bytes:
    """Return the content of a file.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror or error})") from None


def checksum(path: Path) -> str:
    """Return the sha256 of a file of any size, in hexadecimal.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror or error})") from None


def listing(folder: Path) -> str:
    """Return what a folder has, as a part of a message: "FOLDER has a.csv, b.csv and 3 more"."""
    shown = "the current folder" if folder == Path() else folder
    try:
        names = sorted(path.name for path in folder.iterdir())
    except FileNotFoundError:
        return f"{shown} does not exist"
    except OSError as error:
        return f"{shown} cannot be listed ({error.strerror})"
    if not names:
        return f"{shown} is empty"
    more = f" and {len(names) - 6} more" if len(names) > 6 else ""
    return f"{shown} has {', '.join(names[:6])}{more}"


def check_new_file(path: Path, key: str, suffixes: Sequence[str]) -> None:
    """Check that a new file can be written, before its content is computed.

    Args:
        path: the file.
        key: by which the user chose it, for messages.
        suffixes: that its name may have, such as ``.csv``.

    Raises:
        UserError: a different suffix, no such folder, or the file exists.
    """
    if path.suffix.lower() not in suffixes:
        raise UserError(f"{key}: got {path}, expected a name that ends in {' or '.join(suffixes)}")
    if not path.parent.is_dir():
        raise UserError(f"{key}: got {path}, but there is no folder {path.parent}")
    if path.exists():
        raise UserError(f"{key}: got {path}, which exists already; expected the name of a new file")


def refuse_existing(path: Path) -> None:
    """Refuse to overwrite an existing file or folder.

    Raises:
        UserError: ``path`` exists.
    """
    if path.exists():
        raise UserError(f"--output: {path} exists and would be overwritten; give a different --output, or remove it")
