"""Folders of the index cache: written whole or not at all, checked when opened, read through memory maps.

Two processes that build the same folder at once both succeed: each writes its own temporary folder, the first to finish
renames it into place, and the other deletes its copy.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import shutil
import time
import uuid
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from swirl_env.errors import ConfigError
from swirl_env.types import Passage

_MANIFEST = "manifest.json"
_BLOCK = 1 << 16
_BLOCKS = 256
_ABANDONED_S = 24 * 3600


def ensure(folder: Path, build: Callable[[Path], None]) -> None:
    """Makes sure that `folder` holds what `build` writes, whoever builds it; a damaged one is rebuilt.

    Raises:
        ConfigError: if the cache cannot be written.
    """
    if intact(folder):
        return
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _sweep(folder.parent)
        own = folder.parent / f".building-{uuid.uuid4().hex}"
        own.mkdir()
    except OSError as error:
        raise ConfigError(
            f"The search index cannot be written to {folder.parent} ({error.strerror}). Set cache_dir, or SWIRL_CACHE_DIR."
        ) from error
    try:
        build(own)
        _seal(own)
        _publish(own, folder)
    finally:
        shutil.rmtree(own, ignore_errors=True)


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
    # A rename may reach the disk before the data does; after a power cut the folder would stand there, empty.
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


def _sweep(parent: Path) -> None:
    """Removes the folders of builders that were killed, once they are a day old."""
    for path in parent.glob(".building-*"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _ABANDONED_S:
                _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink()


def _checksum(path: Path) -> tuple[int, int]:
    """Returns size and CRC of a file; of one over 16 MiB, of 256 blocks spread over it, so that opening stays quick."""
    size = path.stat().st_size
    total = 0
    with path.open("rb", buffering=0) as file:
        step = max(_BLOCK, (size - _BLOCK) // (_BLOCKS - 1))
        for start in range(0, max(size - _BLOCK, 0) + step, step):
            file.seek(min(start, max(size - _BLOCK, 0)) if step > _BLOCK else start)
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
        ends = [0]
        with (folder / f"{name}.bin").open("wb") as file:
            for string in strings:
                file.write(string)
                ends.append(ends[-1] + len(string))
        np.save(folder / f"{name}.npy", np.array(ends, dtype=np.int64))


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

    @staticmethod
    def write(folder: Path, passages: Iterable[Passage]) -> None:
        """Writes passages in a stream. Lone surrogates, which no file or socket takes, become question marks."""
        parts = (part for passage in passages for part in (passage.id, passage.title, passage.text))
        PackedStrings.write(folder, "passages", (part.encode("utf-8", "replace") for part in parts))
