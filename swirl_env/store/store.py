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
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import msgspec

from swirl_env.errors import ConfigError, DuplicateKey, StoreError
from swirl_env.store.codec import Key, encode_trajectory, encode_verdicts
from swirl_env.store.filters import Filter, Selection
from swirl_env.store.lines import Appender, WriterLock, replace_file
from swirl_env.store.reader import Reader
from swirl_env.store.verdicts import VerdictTable
from swirl_env.types import Trajectory, Verdict

Mode = Literal["a", "r"]
_SHARD = re.compile(r"\d{5,}\.jsonl")


class Store(Reader):
    """A run folder. Reading never blocks and is never blocked; the first write takes the writer's lock until `close`.

    Args:
        path: the folder; made at the first write.
        mode: ``"a"`` to read and append, ``"r"`` to read a folder that must exist.
        shard_bytes: size at which a new trajectory file is begun.
        sync: flush every record to the device, against power cuts as well as killed processes.

    Iterating streams the trajectories, ``len`` counts them, ``(task_id, sample) in store`` says whether that one is done.

    An episode with ``ended="error"`` is a record that waits to be replaced: `keys` leaves it out, a later record of its key
    takes its place, and reading gives only the latest.
    """

    def __init__(self, path: str | os.PathLike[str], mode: Mode = "a", *, shard_bytes: int = 1 << 28, sync: bool = False) -> None:
        if mode not in ("a", "r"):
            raise ConfigError(f"Expected mode 'a' (read and append) or 'r' (read); got {mode!r}.")
        super().__init__(path)
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
        line = encode_verdicts(key, verdicts)
        try:
            table.add(key, line, self._appender(table.path))
        except BaseException:
            self._tables.pop(judge, None)  # as in `append`
            raise

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

    def verdicts(self, judge: str) -> VerdictTable:
        """Returns a judge's table: key -> verdicts, one a step (see `Reader`); the writer's grows with it."""
        if self._lock is None:
            return super().verdicts(judge)
        if judge not in self._tables:
            path = self._verdict_file(judge)
            if path.exists():
                self._appender(path)  # cuts off a torn tail before the table is read
            self._tables[judge] = super().verdicts(judge)
        return self._tables[judge]

    def __del__(self) -> None:
        if hasattr(self, "_lock"):  # absent where __init__ raised
            self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _index(self) -> dict[Key, bool]:
        return super()._index() if self._known is None else self._known

    def _write_index(self) -> dict[Key, bool]:
        """Takes the lock, mends what an earlier writer left torn, and returns the index."""
        self.lock()
        if self._known is None:
            self._shard = None
            for path in self._shards():
                Appender(path).close()
            self._known = super()._index()
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

    def _current(self, filter: str | Filter, judge: str | None) -> Selection:
        """Saves the selection of a named filter where it had to be made."""
        selection = super()._current(filter, judge)
        if self.mode == "a" and isinstance(filter, str) and selection != self.selection(filter, judge):
            self.save(selection)
        return selection


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{path} cannot be made: {error.strerror}. Choose another folder for the run.") from error
