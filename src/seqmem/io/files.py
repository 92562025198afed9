"""Writing files so that a kill at any moment leaves the old content or the new one, by one process at a time."""

import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from seqmem.errors import UserError


def write_text(path: Path, text: str) -> None:
    """Write a file so that a kill at any moment leaves the old content or the new one.

    Raises:
        UserError: the file cannot be written, the disk is full say; nothing is left behind.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a value that JSON can hold, as :func:`write_text` does."""
    write_text(path, json.dumps(value, indent=2) + "\n")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary file beside ``path`` to write to, which takes its place if all goes well, and is removed if not.

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
    """Remove what :func:`replacing` could not, because its process was killed; nobody else may be writing to the folder."""
    for path in folder.glob(f".{'[0-9a-f]' * 12}.*"):
        with suppress(OSError):
            path.unlink()


@contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[bool]:
    """Hold a lock within, which the system takes back from a process that dies, however it dies.

    Args:
        path: an empty file that stands for what is locked; made with its folder if it does not exist, and never removed.
        wait: until another process lets go of it.

    Returns:
        Whether the lock is held: without ``wait``, another process may have it.

    Raises:
        UserError: the file cannot be made, or its file system has no locks.
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
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # workers forked meanwhile have the file open, too
        os.close(descriptor)


def make_folder(folder: Path) -> Path:
    """The folder, made if it is not there.

    Raises:
        UserError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {folder} ({error.strerror})") from None
    return folder


def refuse_existing(path: Path) -> None:
    """Let no command write over what an earlier one, or the user, left.

    Raises:
        UserError: ``path`` is there.
    """
    if path.exists():
        raise UserError(f"{path} is there already, and would be lost; give another --output, or remove it")
