"""Append-only files with one JSON record per line, safe against a kill at any byte and against a full disk.

Only a newline ends a record: text after the last one was being written when the writer died. It was never acknowledged,
so readers skip it and the next writer removes it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import stat
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from swirl_env.errors import StoreError, StoreLocked

log = logging.getLogger(__name__)

_BLOCK = 1 << 20


def read_lines(path: Path, until: int | None = None) -> Iterator[tuple[int, int, bytes]]:
    """Yields ``(number, offset, line)`` for every whole line of a file, numbered from 1; memory is that of one line.

    Args:
        path: the file; one that is absent has no lines.
        until: reads no line that begins at or after this byte, so that a reader sees the file as it was when it began.
    """
    try:
        file = open_file(path)
    except FileNotFoundError:
        if path.is_symlink():
            raise StoreError(f"{path} is a link to a file that is not there. Restore that file, or delete the link.") from None
        return
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}.") from error
    with file:
        offset = 0
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n") or (until is not None and offset >= until):
                return
            yield number, offset, line
            offset += len(line)


def open_file(path: Path) -> BinaryIO:
    """Opens an ordinary file for reading; a pipe or a device, for which one would wait for ever, is refused.

    Raises:
        OSError: if it cannot be opened, or is something else.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "It is no ordinary file", str(path))
        return os.fdopen(fd, "rb", buffering=_BLOCK)
    except BaseException:
        os.close(fd)
        raise


def read_file(path: Path) -> bytes | None:
    """Returns the content of a small file; None if it is absent."""
    try:
        with open_file(path) as file:
            return file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}.") from error


def list_files(folder: Path, ending: str) -> list[Path]:
    """Returns the files of a folder with an ending, sorted; none if the folder is absent.

    Raises:
        StoreError: if the folder cannot be read, which must not look like an empty one.
    """
    try:
        return sorted(folder / name for name in os.listdir(folder) if name.endswith(ending) and not name.startswith("."))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StoreError(f"{folder} cannot be read: {error.strerror}.") from error


def read_line(path: Path, offset: int) -> bytes:
    """Returns the line that begins at a byte of a file."""
    with path.open("rb") as file:
        file.seek(offset)
        return file.readline()


class Appender:
    """One file open for appending. A record is on disk as a whole or not at all.

    Args:
        path: the file, created if it is absent; a torn tail is removed. A link is refused: in a run folder that somebody sent it
            may lead to any file of this user's, which would lose its end.
        sync: flush every record to the device, against power cuts as well as killed processes (about 1 ms each on an SSD).
    """

    def __init__(self, path: Path, sync: bool = False) -> None:
        self.path = path
        self.sync = sync
        self._torn = False
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
            self._repair()
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise StoreError(f"{path} is a link, and is not written through. Put the file itself in its place.") from error
            raise StoreError(f"{path} cannot be opened for writing: {error.strerror}.") from error

    @property
    def size(self) -> int:
        """Length of the file in bytes."""
        return os.fstat(self._fd).st_size

    def append(self, line: bytes) -> int:
        """Writes one line (with its newline) and returns the offset at which it begins.

        Raises:
            StoreError: if it could not be written as a whole; the file is then as it was before.
        """
        if self._torn:
            self._repair()
        start = self.size
        rest = memoryview(line)
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
            if self.sync:
                os.fsync(self._fd)
        except BaseException as error:  # an interrupt between two partial writes tears a line as a full disk does
            self._torn = True
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, start)
                self._torn = False
            if isinstance(error, OSError):
                raise StoreError(
                    f"{self.path} could not be written: {error.strerror}. This record of {len(line):,} bytes is not stored; "
                    f"all earlier ones are. Make room and resume."
                ) from error
            raise
        return start

    def close(self) -> None:
        """Flushes the file to the device and closes it."""
        with contextlib.suppress(OSError):
            os.fsync(self._fd)
        os.close(self._fd)

    def _repair(self) -> None:
        """Removes the text after the last newline."""
        size = end = self.size
        while end:
            start = max(0, end - _BLOCK)
            newline = os.pread(self._fd, end - start, start).rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end = start
        if end < size:
            log.warning("%s: removed %d bytes of a record that was being written when its writer died", self.path, size - end)
            os.ftruncate(self._fd, end)
        self._torn = False


class WriterLock:
    """The exclusive right to write to a run folder; the kernel releases it when the process dies, however it dies.

    The lock belongs to this one opening of the lock file (`flock`): another process, or this one, may open, read and copy
    the file without releasing it, as it would with POSIX record locks.

    Args:
        path: the lock file, created if it is absent.

    Raises:
        StoreLocked: if another process, or another store of this one, has the lock.
        StoreError: if the file cannot be opened or locked.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = _open_locked(path)
        self._pid = os.getpid()
        _locks[_identity(os.fstat(self._fd))] = self

    @property
    def is_held(self) -> bool:
        """Whether this process has the lock: a forked child does not inherit it."""
        return self._pid == os.getpid() and self._fd >= 0

    def release(self) -> None:
        """Releases the lock; does nothing in a fork of the process that took it."""
        if self.is_held:
            _locks.pop(_identity(os.fstat(self._fd)), None)
            os.close(self._fd)
            self._fd = -1

    def forget(self) -> None:
        """Closes a forked child's copy of the open file, which would keep the lock alive after its parent's death."""
        os.close(self._fd)
        self._fd = -1


_locks: weakref.WeakValueDictionary[tuple[int, int], WriterLock] = weakref.WeakValueDictionary()
"""(device, inode) of a lock file -> the lock that this process has on it."""


def _forget_locks() -> None:
    for lock in list(_locks.values()):
        lock.forget()
    _locks.clear()


os.register_at_fork(after_in_child=_forget_locks)


def _open_locked(path: Path) -> int:
    """Returns the descriptor of the lock file, locked."""
    while True:
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StoreError(
                f"{path.parent} cannot be written to: {error.strerror}. Give this user the right to write there, or choose "
                f"another folder."
            ) from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and _identity(path.stat()) == _identity(os.fstat(fd)):
                return fd
            os.close(fd)  # the file was replaced between opening and locking: lock the one that is there now
        except BaseException as error:
            own = _locks.get(_identity(os.fstat(fd)))
            os.close(fd)
            if not isinstance(error, OSError):
                raise
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise StoreError(f"{path} cannot be locked: {error.strerror}. Keep the run folder on another disk.") from error
            if own is not None:
                raise StoreLocked(
                    f"This process is writing to {path.parent} through another Store; close that one first, or use it."
                ) from error
            raise StoreLocked(
                f"Another process is writing to {path.parent}; wait for it to end, or open the folder with mode='r' to read."
            ) from error


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def replace_file(path: Path, content: bytes) -> None:
    """Writes a small file atomically: readers see the old content or the new, never a part.

    Raises:
        StoreError: if it could not be written; the old content is then still there.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(content)
        os.replace(draft, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise StoreError(f"{path} could not be written: {error.strerror}. Its old content is still there.") from error


def make_folder(path: Path) -> Path:
    """Creates a folder, if it is absent, and returns it.

    Raises:
        StoreError: if it cannot be created.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{path} cannot be created: {error.strerror}. Choose another folder for the run.") from error
    return path
