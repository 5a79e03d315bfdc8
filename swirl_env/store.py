"""The run folder: what a run generated, how judges rated it, what filters chose.

    run/
      trajectories/00000.jsonl ...      one episode a line, append-only, a new file every `shard_bytes`
      verdicts/<judge fingerprint>.jsonl  one judge's verdicts, one episode a line, append-only
      selections/<filter>.json          what a filter chose, by key
      config.yaml  metrics.jsonl

One process writes at a time; readers need no lock and see whole records only. A record that `append` has taken is on disk:
a process killed at any byte loses at most the episodes in flight, and a full disk raises with nothing half-written.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import msgspec

from swirl_env.codec import (
    BadLine,
    Head,
    Key,
    StepSummary,
    Summary,
    VerdictSummary,
    decode_summary,
    decode_trajectory,
    encode_trajectory,
    encode_verdicts,
)
from swirl_env.errors import ConfigError, DuplicateKey, StoreError, VersionError, unknown_name
from swirl_env.filters import FILTERS, Filter, Selection, cut, make_filter, why_not
from swirl_env.records import Appender, WriterLock, read_lines, replace_file
from swirl_env.types import Step, Trajectory, Verdict
from swirl_env.verdicts import VerdictTable, located, read_heads

Mode = Literal["a", "r"]
_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,199}")
_SHARD = re.compile(r"\d{5,}\.jsonl")


class Store:
    """A run folder. Reading never blocks and is never blocked; the first write takes the writer's lock until `close`.

    Args:
        path: the folder; made at the first write.
        mode: ``"a"`` to read and append, ``"r"`` to read a folder that must exist.
        shard_bytes: size at which a new trajectory file is begun.
        sync: flush every record to the device, against power cuts as well as killed processes.

    An episode with ``ended="error"`` is a record that waits to be replaced: `keys` leaves it out, a later record of its key
    takes its place, and reading gives only the latest.
    """

    def __init__(
        self, path: str | os.PathLike[str], mode: Mode = "a", *, shard_bytes: int = 1 << 28, sync: bool = False
    ) -> None:
        if mode not in ("a", "r"):
            raise ConfigError(f"Expected mode 'a' (read and append) or 'r' (read); got {mode!r}.")
        self.path = Path(path)
        self.mode: Mode = mode
        self.shard_bytes = shard_bytes
        self.sync = sync
        self._lock: WriterLock | None = None
        self._files: dict[Path, Appender] = {}
        self._shard: Appender | None = None
        self._known: dict[Key, bool] | None = None  # key -> whether its record is an error
        self._tables: dict[str, VerdictTable] = {}
        if mode == "r" and not self.path.is_dir():
            raise StoreError(f"There is no run folder at {self.path}. Give the folder that `swirl generate` wrote to.")

    # Writing

    def append(self, trajectory: Trajectory) -> None:
        """Stores an episode; once this returns, no kill and no full disk loses it.

        Raises:
            DuplicateKey: where an episode of this task and sample is stored already (and did not end in an error).
            StoreError: where it cannot be stored; nothing of it is.
            StoreLocked: where another process is writing.
        """
        known = self._write_index()
        key = trajectory.key
        if known.get(key) is False:
            raise DuplicateKey(
                f"{self.path} already holds task {key[0]!r}, sample {key[1]}. Resume (skip the keys it holds), give the new "
                f"episode another sample number, or choose another folder."
            )
        line = encode_trajectory(trajectory)
        try:
            self._append_line(line)
            known[key] = trajectory.ended == "error"
        except BaseException:
            self._known = None  # an interrupt may have come between file and index: what the file holds counts
            raise

    def append_verdicts(self, judge: str, key: Key, verdicts: Sequence[Verdict]) -> None:
        """Stores a judge's verdicts on the steps of one episode; those that hold a ``failed`` one may be given again.

        Args:
            judge: fingerprint of the judge; names the table.
            key: the episode; one that ended in an error is not judged, since it will be run again.
            verdicts: one a step.

        Raises:
            DuplicateKey: where the table already holds verdicts on it, none of them failed.
            StoreError: where the store holds no such episode, or the line cannot be stored.
        """
        if self._write_index().get(key) is not False:
            raise StoreError(f"{self.path} holds no finished episode of task {key[0]!r}, sample {key[1]}, to be judged.")
        table = self.verdicts(judge)
        if key in table and not table.failed(key):
            raise DuplicateKey(f"The judge {judge!r} has judged task {key[0]!r}, sample {key[1]}, already.")
        table.add(key, encode_verdicts(key, verdicts), self._appender(table.path))

    def append_metrics(self, **values: Any) -> None:
        """Adds a line to ``metrics.jsonl``: ``append_metrics(step=10, loss=0.3)``."""
        self.lock()
        self._appender(self.path / "metrics.jsonl").append(msgspec.json.encode(values) + b"\n")

    def write_config(self, config: str) -> None:
        """Writes ``config.yaml``, the text of the run's resolved configuration."""
        self.lock()
        replace_file(self.path / "config.yaml", config.encode())

    def save(self, selection: Selection) -> Path:
        """Writes a selection under its filter's name and returns the file."""
        if self.mode == "r":
            raise StoreError(f"{self.path} is open for reading only; open it with mode='a' to save selections.")
        file = self._selection_file(selection.filter, selection.judge)
        replace_file(file, msgspec.json.format(msgspec.json.encode(selection), indent=1) + b"\n")
        return file

    def lock(self) -> None:
        """Takes the writer's lock now, rather than at the first write.

        Raises:
            StoreLocked: where another process is writing.
            StoreError: where the folder is open for reading only, or this process is a fork of the writer.
        """
        if self.mode == "r":
            raise StoreError(f"{self.path} is open for reading only; open it with mode='a' to write.")
        if self._lock is None:
            for folder in ("trajectories", "verdicts", "selections"):
                _make_folder(self.path / folder)
            self._lock = WriterLock(self.path / ".lock")
        elif not self._lock.held:
            raise StoreError(
                f"{self.path} is being written to by the process that this one was forked from; hand episodes to it."
            )

    def close(self) -> None:
        """Flushes everything to the device and gives the lock back; the store can still be read, and written to again."""
        for file in self._files.values():
            file.close()
        self._files, self._shard, self._known, self._tables = {}, None, None, {}
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    # Reading

    def __iter__(self) -> Iterator[Trajectory]:
        """Streams the latest record of every key, in the order they were stored; memory is that of one episode."""
        for path, number, _, line in self._lines():
            yield _read(path, number, line)

    def __len__(self) -> int:
        """How many episodes there are, those that ended in an error included."""
        return sum(1 for _ in self._lines())

    def __contains__(self, key: object) -> bool:
        """Whether an episode is stored and finished; the first question costs a pass over the files."""
        return self._index().get(key) is False  # type: ignore[call-overload]

    def keys(self, errors: bool = False) -> set[Key]:
        """Returns (task id, sample) of every finished episode: what `resume` skips. Reads the head of each line only.

        Args:
            errors: whether to count the episodes that ended in an error, too.

        Raises:
            DuplicateKey: where two lines hold the same finished episode.
        """
        return {key for key, failed in self._index().items() if errors or not failed}

    def get(self, key: Key) -> Trajectory:
        """Returns one episode by task id and sample; a pass over the heads finds it.

        Raises:
            KeyError: where it is not stored.
        """
        for path, number, head, line in self._lines():
            if head.key == key:
                return _read(path, number, line)
        raise KeyError(key)

    def judges(self) -> list[str]:
        """Returns the fingerprints of the judges that have a table of verdicts."""
        return sorted(file.stem for file in (self.path / "verdicts").glob("*.jsonl"))

    def verdicts(self, judge: str) -> VerdictTable:
        """Returns a judge's table: key -> verdicts, one a step, as it stands now (empty for a judge that has none).

        Its ``judged()`` gives the keys that need no judging.
        """
        path = self.path / "verdicts" / f"{_safe('judge fingerprint', judge)}.jsonl"
        if self._lock is None:
            return VerdictTable(path)
        if judge not in self._tables:
            self._appender(path)  # repairs it
            self._tables[judge] = VerdictTable(path)
        return self._tables[judge]

    def with_verdicts(self, judge: str | None) -> Iterator[Trajectory]:
        """Streams the trajectories with a judge's verdicts in place of those of the episode.

        Args:
            judge: fingerprint; None leaves the verdicts as they are. Episodes it has not judged have ``unscored`` steps.
        """
        table = None if judge is None else self._table(judge)
        for trajectory in self:
            yield trajectory if table is None else _rejudged(trajectory, table)

    def filter(self, filter: str | Filter, judge: str | None = None, limit: int | None = None, seed: int = 0) -> Selection:
        """Applies a filter to the whole store and returns what it chose; writes nothing (see `save`).

        Args:
            filter: a name of `swirl_env.filters.FILTERS`, ``"package.module:function"``, or a function.
            judge: fingerprint of the verdicts to go by; None for those of the episodes.
            limit: keep at most so many, drawn with `seed`.
            seed: seed of the draw.
        """
        name, keeps = make_filter(filter)
        table = None if judge is None else self._table(judge)
        source = self._source(judge)
        kept: list[Key] = []
        excluded: dict[str, int] = {}
        total = 0
        for path, number, head, line in self._lines():
            total += 1
            seen: Any
            if FILTERS.get(name) is keeps:
                seen = _summary(_read_summary(path, number, line), table)
            else:
                seen = _read(path, number, line) if table is None else _rejudged(_read(path, number, line), table)
            if not head.failed and keeps(seen):
                kept.append(head.key)
            else:
                reason = why_not(name, seen)
                excluded[reason] = excluded.get(reason, 0) + 1
        selection = Selection(name, tuple(kept), total, dict(sorted(excluded.items())), judge, source=source)
        return selection if limit is None else cut(selection, limit, seed)

    def selection(self, filter: str, judge: str | None = None) -> Selection | None:
        """Returns the saved selection of a filter; None where there is none."""
        file = self._selection_file(filter, judge)
        try:
            return msgspec.json.decode(file.read_bytes(), type=Selection)
        except FileNotFoundError:
            return None
        except msgspec.MsgspecError as error:
            raise StoreError(f"{file} is no selection: {error}. Delete it; `swirl filter` writes it anew.") from error

    def select(self, filter: str | Filter | Selection, judge: str | None = None) -> Iterator[Trajectory]:
        """Streams the trajectories that a filter chooses, with the verdicts it went by.

        A selection saved under the filter's name is followed, its limit and seed included; where there is none, or the store
        has grown since, the filter is applied and (unless the store is open for reading only) the selection saved.
        """
        selection = filter if isinstance(filter, Selection) else self._current(filter, judge)
        table = None if selection.judge is None else self._table(selection.judge)
        chosen = set(selection.keys)
        for path, number, head, line in self._lines():
            if head.key in chosen:
                trajectory = _read(path, number, line)
                yield trajectory if table is None else _rejudged(trajectory, table)

    def metrics(self) -> Iterator[dict[str, Any]]:
        """Streams the lines of ``metrics.jsonl``."""
        path = self.path / "metrics.jsonl"
        for number, _, line in read_lines(path):
            try:
                yield msgspec.json.decode(line, type=dict[str, Any])
            except msgspec.MsgspecError as error:
                raise StoreError(f"{path}, line {number} is damaged: {error}. Delete that line.") from error

    def config(self) -> str:
        """Returns the text of ``config.yaml``; empty where none was written."""
        try:
            return (self.path / "config.yaml").read_text(encoding="utf-8")
        except FileNotFoundError:
            return ""

    # Inside

    def _shards(self) -> list[Path]:
        return sorted((self.path / "trajectories").glob("*.jsonl"))

    def _lines(self) -> Iterator[tuple[Path, int, Head, bytes]]:
        """Yields file, line number, head and line of the latest record of every key, up to what there is now."""
        sizes = [(path, path.stat().st_size) for path in self._shards()]
        old = _superseded(sizes)
        for path, size in sizes:
            for number, _, head, line in read_heads(path, size):
                if (path, number) not in old:
                    yield path, number, head, line

    def _index(self) -> dict[Key, bool]:
        """Returns key -> whether its record is an error; the writer's is kept, a reader's made anew."""
        if self._known is not None:
            return self._known
        known: dict[Key, bool] = {}
        for path in self._shards():
            for number, _, head, _ in read_heads(path):
                if known.get(head.key) is False:
                    raise DuplicateKey(
                        f"{path}, line {number} holds task {head.key[0]!r}, sample {head.key[1]} a second time. "
                        f"Delete one of the lines."
                    )
                known[head.key] = head.failed
        return known

    def _write_index(self) -> dict[Key, bool]:
        """Takes the lock, mends what an earlier writer left torn, and returns the index."""
        self.lock()
        if self._known is None:
            self._shard = None
            for path in self._shards():
                Appender(path).close()
            self._known = self._index()
        return self._known

    def _append_line(self, line: bytes) -> None:
        """Appends to the last shard, or to a new one where that is full."""
        if self._shard is None or self._shard.size >= self.shard_bytes:
            last = max((int(path.stem) for path in self._shards() if _SHARD.fullmatch(path.name)), default=0)
            path = self.path / "trajectories" / f"{last:05d}.jsonl"
            if path.exists() and path.stat().st_size >= self.shard_bytes:
                path = path.with_name(f"{last + 1:05d}.jsonl")
            self._shard = self._appender(path)
        self._shard.append(line)

    def _appender(self, path: Path) -> Appender:
        if path not in self._files:
            self._files[path] = Appender(path, self.sync)
        return self._files[path]

    def _table(self, judge: str) -> VerdictTable:
        """Returns the table of a judge that is expected to have one."""
        table = self.verdicts(judge)
        if not table.path.exists():
            raise unknown_name(f"verdict table in {self.path}", judge, self.judges())
        return table

    def _current(self, filter: str | Filter, judge: str | None) -> Selection:
        """Returns the saved selection of a filter, made anew where it is absent or older than the records."""
        name, _ = make_filter(filter)
        saved = self.selection(name, judge)
        if saved is not None and saved.source == self._source(judge):
            return saved
        limit, seed = (None, 0) if saved is None else (saved.limit, saved.seed)
        selection = self.filter(filter, judge, limit, seed)
        if self.mode == "a":
            self.save(selection)
        return selection

    def _source(self, judge: str | None) -> tuple[int, int]:
        table = 0 if judge is None else _size(self.path / "verdicts" / f"{judge}.jsonl")
        return sum(map(_size, self._shards())), table

    def _selection_file(self, filter: str, judge: str | None) -> Path:
        stem = _safe("filter name", filter) + ("" if judge is None else f".{_safe('judge fingerprint', judge)}")
        return self.path / "selections" / f"{stem}.json"


def _superseded(sizes: Sequence[tuple[Path, int]]) -> set[tuple[Path, int]]:
    """Returns file and line number of every error record whose key has a later record."""
    waiting: dict[Key, tuple[Path, int]] = {}
    old: set[tuple[Path, int]] = set()
    for path, size in sizes:
        for number, _, head, _ in read_heads(path, size):
            if head.key in waiting:
                old.add(waiting.pop(head.key))
            if head.failed:
                waiting[head.key] = (path, number)
    return old


def _read(path: Path, number: int, line: bytes) -> Trajectory:
    try:
        return decode_trajectory(line)
    except (BadLine, VersionError) as error:
        raise located(path, number, error) from error


def _read_summary(path: Path, number: int, line: bytes) -> Summary:
    try:
        return decode_summary(line)
    except (BadLine, VersionError) as error:
        raise located(path, number, error) from error


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


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{path} cannot be made: {error.strerror}. Choose another folder for the run.") from error


def _safe(what: str, name: str) -> str:
    """Returns a name that may be part of a file name."""
    if not _SAFE.fullmatch(name):
        raise ConfigError(f"A {what} is made of letters, digits and . _ + - (it names a file); got {name!r}.")
    return name
