"""Reading a run folder: streams that need no lock, see whole records only and use the memory of one episode."""

from __future__ import annotations

import os
import re
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np

from swirl_env.errors import ConfigError, StoreError, VersionError, unknown_name
from swirl_env.store.codec import BadLine, Head, Key, StepSummary, Summary, VerdictSummary, decode_summary, decode_trajectory
from swirl_env.store.filters import FILTERS, Filter, Selection, call_filter, make_filter, subsample, why_not
from swirl_env.store.lines import list_files, read_file, read_line
from swirl_env.store.verdicts import VerdictTable, duplicate_error, line_error, read_heads, warn_of_copies
from swirl_env.types import Step, Trajectory, Verdict

_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,199}")


class Reader:
    """The reading half of `swirl_env.store.Store`.

    Args:
        path: the run folder.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._cached_index: tuple[list[tuple[Path, int]], dict[Key, bool]] | None = None

    def __iter__(self) -> Iterator[Trajectory]:
        """Streams the latest record of every key, in the order they were stored; memory is that of one episode."""
        for path, number, _, line in self._lines():
            yield _read(path, number, line)

    def __len__(self) -> int:
        """How many episodes there are, those that ended in an error included."""
        return sum(1 for _ in self._lines())

    def __contains__(self, key: object) -> bool:
        """Whether an episode is stored and finished; the first call costs a pass over the files."""
        return isinstance(key, tuple) and self._index().get(key) is False

    def keys(self, errors: bool = False) -> set[Key]:
        """Returns (task id, sample) of every finished episode, which `resume` skips. Reads only the head of each line.

        Args:
            errors: whether to include episodes that ended in an error.

        Raises:
            DuplicateKey: if two lines hold the same finished episode.
        """
        return {key for key, failed in self._index().items() if errors or not failed}

    def get(self, key: Key) -> Trajectory:
        """Returns one episode by task id and sample, after a pass over the heads of lines.

        Raises:
            KeyError: if it is not stored.
        """
        for path, number, head, line in self._lines():
            if head.key == key:
                return _read(path, number, line)
        raise KeyError(key)

    def judges(self) -> list[str]:
        """Returns the fingerprints of the judges that have a table of verdicts."""
        return [file.stem for file in list_files(self.path / "verdicts", ".jsonl")]

    def verdicts(self, judge: str) -> VerdictTable:
        """Returns a judge's table: key -> verdicts, one per step, as it is now (empty for a judge that has none).

        Its ``judged()`` returns the keys that need no judging.
        """
        return VerdictTable(self._verdict_file(judge))

    def with_verdicts(self, judge: str | None) -> Iterator[Trajectory]:
        """Streams the trajectories with a judge's verdicts instead of those of the episode.

        Args:
            judge: fingerprint; None leaves the verdicts as they are. Episodes it has not judged have ``unscored`` steps.
        """
        table = None if judge is None else self._table(judge)
        for trajectory in self:
            yield trajectory if table is None else _rejudged(trajectory, table)

    def filter(self, filter: str | Filter, judge: str | None = None, limit: int | None = None, seed: int = 0) -> Selection:
        """Applies a filter to the whole store and returns the selection; writes nothing (see `save`).

        Args:
            filter: a name of `swirl_env.store.filters.FILTERS`, ``"package.module:function"``, or a function.
            judge: fingerprint of the verdict table to use; None for the verdicts of the episodes.
            limit: largest size of the selection, drawn with `seed`.
            seed: seed of the draw.
        """
        name, passes = make_filter(filter)
        builtin = FILTERS.get(name)
        table = None if judge is None else self._table(judge)
        source = self._source(judge)
        keys: list[Key] = []
        excluded: dict[str, int] = {}
        total = 0
        for path, number, head, line in self._lines():
            total += 1
            if builtin is not None:
                summary = _summary(_read_summary(path, number, line), table)
                ok = not head.failed and builtin(summary)
                reason = "" if ok else why_not(name, summary)
            else:
                trajectory = _read(path, number, line) if table is None else _rejudged(_read(path, number, line), table)
                ok = not head.failed and call_filter(name, passes, trajectory)
                reason = "" if ok else why_not(name, trajectory)
            if ok:
                keys.append(head.key)
            else:
                excluded[reason] = excluded.get(reason, 0) + 1
        selection = Selection(name, tuple(keys), total, dict(sorted(excluded.items())), judge, source=source)
        return selection if limit is None else subsample(selection, limit, seed)

    def selection(self, filter: str, judge: str | None = None) -> Selection | None:
        """Returns the saved selection of a filter; None if there is none."""
        file = self._selection_file(make_filter(filter)[0], judge)
        content = read_file(file)
        try:
            return None if content is None else msgspec.json.decode(content, type=Selection)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise StoreError(f"{file} is no selection: {error}. Delete it; `swirl filter` writes it again.") from error

    def select(self, filter: str | Filter | Selection, judge: str | None = None) -> Iterator[Trajectory]:
        """Streams the trajectories that pass a filter, with the verdicts it was applied to.

        A selection saved under the filter's name is used, its limit and seed included. If there is none, or the store has
        grown since, the filter is applied again and (unless the store is open for reading only) the selection saved. A
        function is applied as it is, and nothing is saved.

        Raises:
            StoreError: if a selection names trajectories that are not in this store.
        """
        selection = filter if isinstance(filter, Selection) else self._current(filter, judge)
        table = None if selection.judge is None else self._table(selection.judge)
        missing = set(selection.keys)
        for path, number, head, line in self._lines():
            if head.key in missing:
                missing.remove(head.key)
                trajectory = _read(path, number, line)
                yield trajectory if table is None else _rejudged(trajectory, table)
        if missing:
            raise StoreError(
                f"{len(missing)} of the {selection.size} trajectories of the selection {selection.filter!r} are not in "
                f"{self.path}, e.g. {min(missing)!r}. It belongs to another run."
            )

    def config(self) -> str:
        """Returns the text of ``config.yaml``; empty if there is none."""
        return (read_file(self.path / "config.yaml") or b"").decode(errors="replace")

    def _shards(self) -> list[Path]:
        return list_files(self.path / "trajectories", ".jsonl")

    def _sizes(self) -> list[tuple[Path, int]]:
        """Returns the trajectory files with their sizes: a reader keeps to these, whatever is appended meanwhile."""
        return [(path, _size(path)) for path in self._shards()]

    def _lines(self) -> Iterator[tuple[Path, int, Head, bytes]]:
        """Yields file, line number, head and line of the latest record of every key, as the files are now."""
        sizes = self._sizes()
        old = _superseded(sizes)
        for path, size in sizes:
            for number, _, head, line in read_heads(path, size, decode_trajectory):
                if (path, number) not in old:
                    yield path, number, head, line

    def _index(self) -> dict[Key, bool]:
        """Returns key -> whether its record is an error, cached until the files have grown."""
        sizes = self._sizes()
        if self._cached_index is None or self._cached_index[0] != sizes:
            self._cached_index = (sizes, _read_index(sizes))
        return self._cached_index[1]

    def _verdict_file(self, judge: str) -> Path:
        return self.path / "verdicts" / f"{check_name('judge fingerprint', judge)}.jsonl"

    def _table(self, judge: str) -> VerdictTable:
        """Returns the table of a judge that is expected to have one."""
        table = self.verdicts(judge)
        if not table.path.exists():
            raise unknown_name(f"verdict table in {self.path}", judge, self.judges())
        return table

    def _current(self, filter: str | Filter, judge: str | None) -> Selection:
        """Returns the saved selection of a named filter, or a new one if it is absent or older than the records."""
        if not isinstance(filter, str):
            return self.filter(filter, judge)
        saved = self.selection(filter, judge)
        if saved is not None and saved.source == self._source(judge):
            return saved
        limit, seed = (None, 0) if saved is None else (saved.limit, saved.seed)
        return self.filter(filter, judge, limit, seed)

    def _source(self, judge: str | None) -> tuple[int, int]:
        table = 0 if judge is None else _size(self._verdict_file(judge))
        return sum(size for _, size in self._sizes()), table

    def _selection_file(self, filter: str, judge: str | None) -> Path:
        stem = check_name("filter name", filter) + ("" if judge is None else f".{check_name('judge fingerprint', judge)}")
        return self.path / "selections" / f"{stem}.json"


def _superseded(sizes: Sequence[tuple[Path, int]]) -> set[tuple[Path, int]]:
    """Returns file and line number of every record that does not count: errors that were run again, and copies.

    Memory is 8 bytes per record: keys are compared by hash first, and only those that clash by content.

    Raises:
        DuplicateKey: if two records of one finished episode differ.
    """
    waiting: dict[Key, tuple[Path, int]] = {}
    old: set[tuple[Path, int]] = set()
    hashes = array("q")
    for path, number, _, head in _heads(sizes):
        if head.key in waiting:
            old.add(waiting.pop(head.key))
        if head.failed:
            waiting[head.key] = (path, number)
        hashes.append(hash(head.key))
    if len(clashes := _repeated(hashes)):
        old |= _copies(sizes, set(clashes))
    return old


def _heads(sizes: Sequence[tuple[Path, int]]) -> Iterator[tuple[Path, int, int, Head]]:
    """Yields file, line number, offset and head of every record."""
    for path, size in sizes:
        for number, offset, head, _ in read_heads(path, size, decode_trajectory):
            yield path, number, offset, head


def _repeated(hashes: array[int]) -> list[int]:
    """Returns the numbers that occur more than once."""
    values, counts = np.unique(np.frombuffer(hashes, dtype=np.int64), return_counts=True)
    return [int(value) for value in values[counts > 1]]


def _copies(sizes: Sequence[tuple[Path, int]], clashes: set[int]) -> set[tuple[Path, int]]:
    """Returns file and line number of the records that are copies of an earlier one, of the keys with these hashes."""
    finished: dict[Key, tuple[Path, int, int]] = {}
    copies: list[tuple[Path, int]] = []
    for path, number, offset, head in _heads(sizes):
        if hash(head.key) not in clashes:
            continue
        if head.key in finished:
            first, line, start = finished[head.key]
            if read_line(first, start) != read_line(path, offset):
                raise duplicate_error(path, number, head.key, (first, line))
            copies.append((path, number))
        elif not head.failed:
            finished[head.key] = (path, number, offset)
    for path in {path for path, _ in copies}:
        warn_of_copies(path, [number for copy, number in copies if copy == path])
    return set(copies)


def _read(path: Path, number: int, line: bytes) -> Trajectory:
    try:
        return decode_trajectory(line)
    except (BadLine, VersionError) as error:
        raise line_error(path, number, error, decode_trajectory) from error


def _read_summary(path: Path, number: int, line: bytes) -> Summary:
    try:
        return decode_summary(line)
    except (BadLine, VersionError) as error:
        raise line_error(path, number, error, decode_trajectory) from error


def _summary(summary: Summary, table: VerdictTable | None) -> Summary:
    """Returns the summary with the verdicts of a table."""
    if table is None:
        return summary
    if summary.key not in table:
        verdicts: Sequence[VerdictSummary] = [VerdictSummary("unscored")] * len(summary.steps)
    else:
        verdicts = table.summaries(summary.key)
        _check_count(table, summary.key, len(verdicts), len(summary.steps))
    return msgspec.structs.replace(summary, steps=tuple(map(StepSummary, verdicts)))


def _rejudged(trajectory: Trajectory, table: VerdictTable) -> Trajectory:
    """Returns the trajectory with the verdicts of a table."""
    if trajectory.key not in table:
        verdicts: Sequence[Verdict] = [Verdict.unscored()] * len(trajectory.steps)
    else:
        verdicts = table[trajectory.key]
        _check_count(table, trajectory.key, len(verdicts), len(trajectory.steps))
    steps = [
        Step(step.action, step.call, step.result, step.observation, verdict)
        for step, verdict in zip(trajectory.steps, verdicts, strict=True)
    ]
    return msgspec.structs.replace(trajectory, steps=tuple(steps))


def _check_count(table: VerdictTable, key: Key, verdicts: int, steps: int) -> None:
    if verdicts != steps:
        raise StoreError(
            f"{table.path} holds {verdicts} verdicts on task {key[0]!r}, sample {key[1]}, which has {steps} steps: the "
            f"table belongs to another run. Delete it and judge again."
        )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _read_index(sizes: Sequence[tuple[Path, int]]) -> dict[Key, bool]:
    known: dict[Key, bool] = {}
    clashes: set[int] = set()
    for _, _, _, head in _heads(sizes):
        if known.get(head.key) is False:
            clashes.add(hash(head.key))
        else:
            known[head.key] = head.failed
    if clashes:
        _copies(sizes, clashes)
    return known


def check_name(what: str, name: str) -> str:
    """Returns a name if it may be part of a file name, and raises otherwise."""
    if not _SAFE.fullmatch(name):
        raise ConfigError(f"A {what} is made of letters, digits and . _ + - (it names a file); got {name!r}.")
    return name
