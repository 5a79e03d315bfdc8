"""One judge's verdicts on the episodes of a run, read from disk on demand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from swirl_env.errors import DuplicateKey, StoreError, VersionError
from swirl_env.store.codec import BadLine, Head, Key, VerdictSummary, decode_verdict_summaries, decode_verdicts, read_head
from swirl_env.store.lines import Appender, read_line, read_lines
from swirl_env.types import Verdict


def line_error(path: Path, number: int, error: Exception) -> StoreError:
    """Returns the error for a line that cannot be read, with its file and number."""
    place = f"{path}, line {number}"
    if isinstance(error, VersionError):
        return VersionError(f"{place}: {error}")
    return StoreError(f"{place} is damaged: {error}. Restore the file, or delete that line to go on without its episode.")


def read_heads(path: Path, until: int | None = None) -> Iterator[tuple[int, int, Head, bytes]]:
    """Yields ``(number, offset, head, line)`` for every record of a file.

    Raises:
        StoreError: at a damaged line, naming it.
        VersionError: at a line of another version.
    """
    for number, offset, line in read_lines(path, until):
        try:
            head = read_head(line)
        except (BadLine, VersionError) as error:
            raise line_error(path, number, error) from error
        yield number, offset, head, line


class VerdictTable(Mapping[Key, tuple[Verdict, ...]]):
    """Key -> verdicts, one per step. Memory holds the offset of each line; the lines stay on disk.

    Args:
        path: the table's file; an absent file is an empty table.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offsets: dict[Key, int] = {}
        self._failed: set[Key] = set()
        for number, offset, head, _ in read_heads(path):
            if head.key in self._offsets and head.key not in self._failed:
                raise DuplicateKey(
                    f"{path}, line {number} judges task {head.key[0]!r}, sample {head.key[1]} a second time. "
                    f"Delete one of the lines."
                )
            self._index(head.key, offset, head.failed)

    def __getitem__(self, key: Key) -> tuple[Verdict, ...]:
        return decode_verdicts(self._line(key))

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
        return decode_verdict_summaries(self._line(key))

    def add(self, key: Key, line: bytes, file: Appender) -> None:
        """Writes a line to the table's file and indexes it."""
        offset = file.append(line)
        self._index(key, offset, read_head(line).failed)

    def _index(self, key: Key, offset: int, failed: bool) -> None:
        self._offsets[key] = offset
        (self._failed.add if failed else self._failed.discard)(key)

    def _line(self, key: Key) -> bytes:
        line = read_line(self.path, self._offsets[key])
        try:
            if read_head(line).key != key:
                raise BadLine("it was changed while it was being read")
        except (BadLine, VersionError) as error:
            raise StoreError(f"{self.path}, byte {self._offsets[key]} is damaged: {error}.") from error
        return line
