"""Folders of the index cache: written whole or not at all, checked when opened, read through memory maps.

A folder is built by one process of a machine at a time, the others wait for it; what a killed build has left is what the next
one goes on from.
"""

from __future__ import annotations

import bisect
import contextlib
import fcntl
import hashlib
import itertools
import json
import mmap
import os
import shutil
import time
import uuid
import zlib
from array import array
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from swirl_env.corpus import stream_from
from swirl_env.errors import ConfigError
from swirl_env.protocols import Corpus
from swirl_env.types import Passage

_MANIFEST = "manifest.json"
_BLOCK = 1 << 16
_BLOCKS = 64
_WHOLE = 16 << 20
_ABANDONED_S = 7 * 24 * 3600
_CHUNK = 1 << 17
"""Passages after which an interrupted copy can go on."""
_TOGETHER = 1_000


def ensure(folder: Path, build: Callable[[Path], None]) -> None:
    """Makes sure that `folder` holds what `build` writes, whoever builds it; a damaged one is rebuilt.

    Args:
        folder: the folder.
        build: writes into the folder that it gets, which holds what a killed build of the same folder has left there.

    Raises:
        ConfigError: if the cache cannot be written.
    """
    if intact(folder):
        return
    own = folder.parent / f".building-{folder.name}"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        locks = folder.parent.parent / "locks"
        locks.mkdir(exist_ok=True)
        lock = (locks / folder.name).open("w")
    except OSError as error:
        raise _unwritable(folder, error) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # released when the file is closed, also by a kill
        if intact(folder):
            return
        _sweep(folder.parent, own)
        try:
            own.mkdir(exist_ok=True)
            build(own)
            _seal(own)
            _publish(own, folder)
        except Exception:
            # What cannot be finished is not worth its place; after Ctrl-C or a kill the next build goes on from there.
            shutil.rmtree(own, ignore_errors=True)
            raise


def _unwritable(folder: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"The search index cannot be written to {folder.parent} ({error.strerror}). Set cache_dir, or SWIRL_CACHE_DIR."
    )


def intact(folder: Path) -> bool:
    """Returns whether every file that was written to `folder` still has its size and checksum."""
    try:
        files = json.loads((folder / _MANIFEST).read_bytes())
        return all(_checksum(folder / name) == tuple(expected) for name, expected in files.items())
    except (OSError, ValueError, AttributeError, TypeError):
        return False


def _seal(folder: Path) -> None:
    files = {path.name: _checksum(path) for path in sorted(folder.iterdir())}
    (folder / _MANIFEST).write_text(json.dumps(files), "ascii")
    sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Writes the files of a folder to the disk: a rename may reach it before the data does."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())


def _publish(own: Path, folder: Path) -> None:
    for _ in range(10):
        try:
            os.rename(own, folder)
            return
        except OSError:
            if intact(folder):
                return
            # Somebody's damaged copy is in the way. Readers that still map it keep their pages.
            with contextlib.suppress(OSError):
                broken = folder.parent / f".building-{uuid.uuid4().hex}"
                os.rename(folder, broken)
                _remove(broken)
    raise ConfigError(f"The search index cannot be moved to {folder}. Remove that path, or set cache_dir.")


def _sweep(parent: Path, own: Path) -> None:
    """Removes what killed builds of other folders have left, once it is a week old."""
    for path in parent.glob(".building-*"):
        with contextlib.suppress(OSError):
            if path != own and time.time() - path.stat().st_mtime > _ABANDONED_S:
                _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink()


def _checksum(path: Path) -> tuple[int, int]:
    """Returns size and CRC of a file; of one over 16 MiB, of 64 blocks spread over it, so that opening stays quick."""
    size = path.stat().st_size
    total = 0
    with path.open("rb", buffering=0) as file:
        last = max(size - _BLOCK, 0)
        step = _BLOCK if size <= _WHOLE else last // (_BLOCKS - 1)
        for start in range(0, last + step, step):
            file.seek(start if step == _BLOCK else min(start, last))
            total = zlib.crc32(file.read(_BLOCK), total)
    return size, total


def map_bytes(path: Path) -> mmap.mmap | bytes:
    """Returns the content of a file, memory-mapped; an empty file cannot be mapped and gives ``b""``."""
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if os.fstat(file.fileno()).st_size else b""


def map_array(path: Path) -> np.ndarray[Any, Any]:
    """Returns the array of a ``.npy`` file, memory-mapped and read-only."""
    # The subclass numpy.memmap makes every slice three times slower; a plain array over the same pages does not.
    mapped: np.ndarray[Any, Any] = np.load(path, mmap_mode="r").view(np.ndarray)
    return mapped


class PackedStrings:
    """Byte strings laid end to end in one memory-mapped file, with the end of each in another."""

    def __init__(self, folder: Path, name: str) -> None:
        self.content = map_bytes(folder / f"{name}.bin")
        self.ends = map_array(folder / f"{name}.npy").data

    def __len__(self) -> int:
        return len(self.ends) - 1

    def __getitem__(self, index: int, /) -> bytes:
        return self.content[self.ends[index] : self.ends[index + 1]]

    @staticmethod
    def write(folder: Path, name: str, strings: Iterable[bytes]) -> None:
        """Writes the strings in a stream."""
        lengths = array("q", [0])
        with (folder / f"{name}.bin").open("wb") as file:
            for string in strings:
                file.write(string)
                lengths.append(len(string))
        np.save(folder / f"{name}.npy", np.cumsum(np.frombuffer(lengths, np.int64)))


class PassageStore:
    """The passages of a corpus in a cache folder, readable by position without loading them."""

    def __init__(self, folder: Path) -> None:
        strings = PackedStrings(folder, "passages")
        self._bytes, self._ends = strings.content, strings.ends

    def __len__(self) -> int:
        return len(self._ends) // 3

    def __getitem__(self, index: int, /) -> Passage:
        start, title, text, end = self._ends[3 * index : 3 * index + 4].tolist()
        content = self._bytes[start:end]
        return Passage(
            content[: title - start].decode(),
            content[title - start : text - start].decode(),
            content[text - start :].decode(),
        )

    def __iter__(self) -> Iterator[Passage]:
        return (self[index] for index in range(len(self)))

    def raw(self, start: int, stop: int) -> Iterator[tuple[bytes, bytes]]:
        """Yields titles and texts in UTF-8, from one position to another."""
        ends = self._ends[3 * start : 3 * stop + 1].tolist()
        content = self._bytes[ends[0] : ends[-1]] if ends else b""
        offset = ends[0] if ends else 0
        for i in range(1, len(ends), 3):
            title, text, end = ends[i] - offset, ends[i + 1] - offset, ends[i + 2] - offset
            yield content[title:text], content[text:end]

    def stop_of_block(self, start: int, most: int, size: int) -> int:
        """Returns where a block of passages stops: after `most` of them, or once they have `size` bytes together."""
        ends = self._ends[3 * start : 3 * (start + most) + 1 : 3]
        return start + max(1, min(len(ends) - 1, bisect.bisect_left(ends.tolist(), int(ends[0]) + size)))

    @staticmethod
    def write(folder: Path, corpus: Corpus) -> None:
        """Writes passages in a stream, from where a killed build of the folder has stopped.

        Lone surrogates, which no file or socket takes, become question marks.
        """
        # Reading this file says how many passages are safely on the disk, and how many bytes they have.
        note = folder / "progress"
        done, size = json.loads(note.read_bytes()) if note.is_file() else (0, 0)
        lengths, content = folder / "lengths", folder / "passages.bin"
        whole = done and lengths.stat().st_size >= 24 * done and content.stat().st_size >= size
        done, size = (done, size) if whole else (0, 0)
        for path, length in ((lengths, 24 * done), (content, size)):
            path.touch()
            os.truncate(path, length)
        passages = stream_from(corpus, done)
        with content.open("ab") as to_content, lengths.open("ab") as to_lengths:
            while chunk := list(itertools.islice(passages, _TOGETHER)):
                parts = [part for passage in chunk for part in (passage.id, passage.title, passage.text)]
                text = "".join(parts)
                if text.isascii():
                    data, own = text.encode("ascii"), array("q", map(len, parts))
                else:
                    encoded = [part.encode("utf-8", "replace") for part in parts]
                    data, own = b"".join(encoded), array("q", map(len, encoded))
                to_content.write(data)
                own.tofile(to_lengths)
                before, done, size = done, done + len(chunk), size + len(data)
                if before // _CHUNK != done // _CHUNK:
                    for file in (to_content, to_lengths):
                        file.flush()
                        os.fsync(file.fileno())
                    _replace(note, json.dumps([done, size]))
        np.save(folder / "passages.npy", np.cumsum(np.append(np.int64(0), np.fromfile(lengths, np.int64))))
        lengths.unlink()
        note.unlink(missing_ok=True)


def ensure_passages(root: Path, corpus: Corpus) -> PassageStore:
    """Returns the passages of a corpus, which are copied into the cache once."""
    folder = root / f"passages-{hashlib.blake2b(corpus.fingerprint.encode(), digest_size=16).hexdigest()}"
    ensure(folder, lambda own: PassageStore.write(own, corpus))
    return PassageStore(folder)


def _replace(path: Path, text: str) -> None:
    aside = path.with_name(f"{path.name}.tmp")
    aside.write_text(text, "ascii")
    os.replace(aside, path)
