"""Append-only files of one JSON record a line, safe against a kill at any byte and against a full disk.

A newline ends a record and nothing else does: whatever stands after the last one was being written when the writer died. It
was never acknowledged, so readers skip it and the next writer cuts it off.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from swirl_env.errors import StoreError, StoreLocked

log = logging.getLogger(__name__)

_BLOCK = 1 << 20
_held: dict[tuple[int, int], int] = {}
"""(device, inode) of each lock file this process holds -> process id; POSIX locks do not exclude within one process."""


def read_lines(path: Path, until: int | None = None) -> Iterator[tuple[int, int, bytes]]:
    """Yields ``(number, offset, line)`` for every whole line of a file, numbers from 1; memory is that of one line.

    Args:
        path: the file; one that is absent has no lines.
        until: reads no line that begins at or after this byte, so that a reader can keep to what there was when it began.
    """
    try:
        file = path.open("rb", buffering=_BLOCK)
    except FileNotFoundError:
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


def read_line(path: Path, offset: int) -> bytes:
    """Returns the line that begins at a byte of a file."""
    with path.open("rb") as file:
        file.seek(offset)
        return file.readline()


class Appender:
    """One file open for appending. A record is on disk in whole or not at all.

    Args:
        path: the file, made where it is absent; a torn tail is cut off.
        sync: flush every record to the device, against power cuts as well as killed processes (about 1 ms each on an SSD).
    """

    def __init__(self, path: Path, sync: bool = False) -> None:
        self.path = path
        self.sync = sync
        self._torn = False
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            self._repair()
        except OSError as error:
            raise StoreError(f"{path} cannot be opened for writing: {error.strerror}.") from error

    @property
    def size(self) -> int:
        """Length of the file in bytes."""
        return os.fstat(self._fd).st_size

    def append(self, line: bytes) -> int:
        """Writes one line (with its newline) and returns the offset at which it begins.

        Raises:
            StoreError: where it could not be written in whole; the file is then as it was before.
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
        """Cuts off what stands after the last newline."""
        size = end = self.size
        while end:
            start = max(0, end - _BLOCK)
            newline = os.pread(self._fd, end - start, start).rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end = start
        if end < size:
            log.warning("%s: cut off %d bytes of a record that was being written when its writer died", self.path, size - end)
            os.ftruncate(self._fd, end)
        self._torn = False


class WriterLock:
    """The right to write to a run folder; the kernel gives it back when the process dies, however it dies.

    Args:
        path: the lock file.
    """

    def __init__(self, path: Path) -> None:
        # Asked before the file is opened: closing any descriptor of it would drop the lock that this process has on it.
        if path.exists() and _held.get(_identity(os.stat(path))) == os.getpid():
            raise StoreLocked(f"This process is writing to {path.parent} through another Store; close that one first, or use it.")
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StoreError(f"{path.parent} cannot be written to: {error.strerror}.") from error
        self._id = _identity(os.fstat(self._fd))
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._fd)
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise StoreError(f"{path} cannot be locked: {error.strerror}. Keep the run folder on another disk.") from error
            raise StoreLocked(
                f"Another process is writing to {path.parent}; wait for it to end, or open the folder with mode='r' to read."
            ) from error
        _held[self._id] = os.getpid()

    @property
    def held(self) -> bool:
        """Whether this process has the right: a forked child does not inherit it."""
        return _held.get(self._id) == os.getpid()

    def release(self) -> None:
        """Gives the right back."""
        if self.held:
            del _held[self._id]
        os.close(self._fd)


def _identity(stat: os.stat_result) -> tuple[int, int]:
    return stat.st_dev, stat.st_ino


def replace_file(path: Path, content: bytes) -> None:
    """Writes a small file in one go: readers see the old content or the new, never a part.

    Raises:
        StoreError: where it could not be written; the old content is then still there.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(content)
        os.replace(draft, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise StoreError(f"{path} could not be written: {error.strerror}. What it held before is still there.") from error
