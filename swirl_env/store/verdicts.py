"""One judge's verdicts on the episodes of a run, read from disk on demand."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from swirl_env.errors import DuplicateKey, StoreError, VersionError
from swirl_env.store.codec import (
    BadLine,
    Head,
    Key,
    VerdictSummary,
    decode_verdict_summaries,
    decode_verdicts,
    is_withdrawal,
    read_head,
)
from swirl_env.store.lines import Appender, read_line, read_lines
from swirl_env.types import Verdict

log = logging.getLogger(__name__)
T = TypeVar("T")
_warned: set[tuple[Path, tuple[int, ...]]] = set()


def line_error(path: Path, number: int, error: Exception, decode: Callable[[bytes], object]) -> StoreError:
    """Returns the error for a line that cannot be read, with its file and number and those of all other damaged lines.

    Args:
        path: the file.
        number: the first such line.
        error: why it cannot be read.
        decode: reads a line of this file as a whole, and raises if it cannot.
    """
    if isinstance(error, VersionError):
        return VersionError(f"{path}, line {number}: {error}")
    damaged = [n for n, _, line in read_lines(path) if n == number or (n > number and not _is_readable(line, decode))]
    listed = ", ".join(map(str, damaged[1:6])) + (", ..." if len(damaged) > 6 else "")
    others = f" (so {'are lines' if damaged[2:] else 'is line'} {listed})" if damaged[1:] else ""
    return StoreError(
        f"{path}, line {number} is damaged: {str(error)[:200]}{others}. Restore the file, or go on without "
        f"{'these records' if damaged[1:] else 'this record'}: {deletion(path, damaged)}"
    )


def deletion(path: Path, numbers: Sequence[int]) -> str:
    """Returns the command that deletes lines of a file, and leaves the file as it was next to it."""
    return f"sed -i.bak {shlex.quote(';'.join(f'{number}d' for number in numbers))} {shlex.quote(str(path))}"


def _is_readable(line: bytes, decode: Callable[[bytes], object]) -> bool:
    try:
        decode(line)
    except (BadLine, VersionError):
        return False
    return True


def read_heads(
    path: Path, until: int | None = None, decode: Callable[[bytes], object] = read_head
) -> Iterator[tuple[int, int, Head, bytes]]:
    """Yields ``(number, offset, head, line)`` for every record of a file.

    Args:
        path: the file; one that is absent has no records.
        until: reads no record that begins at or after this byte.
        decode: reads a record as a whole, to find all damaged ones after the first.

    Raises:
        StoreError: at a damaged line, naming it.
        VersionError: at a line of another version.
    """
    for number, offset, line in read_lines(path, until):
        try:
            head = read_head(line)
        except (BadLine, VersionError) as error:
            raise line_error(path, number, error, decode) from error
        yield number, offset, head, line


def duplicate_error(path: Path, number: int, key: Key, first: tuple[Path, int]) -> DuplicateKey:
    """Returns the error for a record whose key an earlier one has, with other content."""
    place = f"line {first[1]}" if first[0] == path else f"{first[0]}, line {first[1]}"
    return DuplicateKey(
        f"{path}, line {number} holds task {key[0]!r}, sample {key[1]} a second time, and not as {place} does. Delete one of "
        f"the two lines, e.g. {deletion(path, [number])}"
    )


def warn_of_copies(path: Path, numbers: Sequence[int]) -> None:
    """Logs, once per process, that lines of a file are copies of earlier ones, and what is done about them."""
    if numbers and (path, tuple(numbers)) not in _warned:
        _warned.add((path, tuple(numbers)))
        some = ", ".join(map(str, numbers[:5])) + (", ..." if len(numbers) > 5 else "")
        log.warning("%s holds copies of earlier records (line %s): each record counts once", path, some)


class VerdictTable(Mapping[Key, tuple[Verdict, ...]]):
    """Key -> verdicts, one per step. Memory holds the offset of each line; the lines stay on disk.

    Args:
        path: the table's file; an absent file is an empty table.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offsets: dict[Key, int] = {}
        self._failed: set[Key] = set()
        copies: list[int] = []
        numbers: dict[Key, int] = {}
        for number, offset, head, line in read_heads(path, decode=decode_verdicts):
            if head.key in self._offsets and head.key not in self._failed and not is_withdrawal(line):
                if read_line(path, self._offsets[head.key]) != line:
                    raise duplicate_error(path, number, head.key, (path, numbers[head.key]))
                copies.append(number)
                continue
            numbers[head.key] = number
            self._index(head, offset, line)
        warn_of_copies(path, copies)

    def __getitem__(self, key: Key) -> tuple[Verdict, ...]:
        return self._decode(key, decode_verdicts)

    def __iter__(self) -> Iterator[Key]:
        return iter(self._offsets)

    def __len__(self) -> int:
        return len(self._offsets)

    def __contains__(self, key: object) -> bool:
        return key in self._offsets

    def failed(self, key: Key) -> bool:
        """Whether a verdict on this episode failed, so that it may be judged again."""
        return key in self._failed

    def judged(self) -> set[Key]:
        """Returns the episodes that need no judging: all verdicts are there and none of them failed."""
        return self._offsets.keys() - self._failed

    def summaries(self, key: Key) -> tuple[VerdictSummary, ...]:
        """Returns status and label of each verdict on an episode."""
        return self._decode(key, decode_verdict_summaries)

    def add(self, line: bytes, file: Appender) -> None:
        """Writes a line to the table's file and indexes it."""
        offset = file.append(line)
        self._index(read_head(line), offset, line)

    def _index(self, head: Head, offset: int, line: bytes) -> None:
        if is_withdrawal(line):
            self._offsets.pop(head.key, None)
            self._failed.discard(head.key)
            return
        self._offsets[head.key] = offset
        (self._failed.add if head.failed else self._failed.discard)(head.key)

    def _decode(self, key: Key, decode: Callable[[bytes], T]) -> T:
        line = read_line(self.path, self._offsets[key])
        try:
            if read_head(line).key != key:
                raise StoreError(f"{self.path} was changed while it was being read. Try again.")
            return decode(line)
        except (BadLine, VersionError) as error:
            number = next((n for n, offset, _ in read_lines(self.path) if offset == self._offsets[key]), 0)
            raise line_error(self.path, number, error, decode) from error
