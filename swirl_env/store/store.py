"""The run folder: episodes, the verdicts of judges on them, and the selections of filters.

    run/
      trajectories/00000.jsonl ...      one episode per line, append-only, a new file every `shard_bytes`
      verdicts/<judge fingerprint>.jsonl  one judge's verdicts, one episode per line, append-only
      selections/<filter>.json          the keys of the episodes that pass a filter
      config.yaml  metrics.jsonl

One process writes at a time; readers need no lock and see whole records only. Once `append` returns, the record is on disk:
a process killed at any byte loses at most the episodes in flight, and a full disk raises with nothing half-written.
"""

from __future__ import annotations

import os
import re
import weakref
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import msgspec

from swirl_env.errors import ConfigError, DuplicateKey, StoreError
from swirl_env.store.codec import Key, encode_trajectory, encode_verdicts, encode_withdrawal
from swirl_env.store.filters import Filter, Selection
from swirl_env.store.lines import Appender, WriterLock, make_folder, replace_file
from swirl_env.store.reader import Reader
from swirl_env.store.verdicts import VerdictTable
from swirl_env.types import Trajectory, Verdict

Mode = Literal["a", "r"]
_SHARD = re.compile(r"\d{5,}\.jsonl")


class Store(Reader):
    """A run folder. Reading needs no lock; the first write takes the writer's lock until `close`.

    Args:
        path: the folder; created at the first write.
        mode: ``"a"`` to read and append, ``"r"`` to read a folder that must exist.
        shard_bytes: size at which a new trajectory file begins.
        sync: flush every record to the device, against power cuts as well as killed processes.

    Iterating streams the trajectories, ``len`` counts them, ``(task_id, sample) in store`` tells whether that one is done.

    An episode with ``ended="error"`` waits to be replaced: `keys` leaves it out, a later record of its key replaces it, and
    reading returns only the latest.
    """

    def __init__(self, path: str | os.PathLike[str], mode: Mode = "a", *, shard_bytes: int = 1 << 28, sync: bool = False) -> None:
        if mode not in ("a", "r"):
            raise ConfigError(f"Expected mode 'a' (read and append) or 'r' (read); got {mode!r}.")
        super().__init__(path)
        self.mode: Mode = mode
        self.shard_bytes = shard_bytes
        self.sync = sync
        self._open = _OpenFiles()
        weakref.finalize(self, self._open.close)
        self._shard: Appender | None = None
        self._known: dict[Key, bool] | None = None  # key -> whether its record is an error
        self._tables: dict[str, VerdictTable] = {}
        self._samples: dict[str, int] = {}  # task -> the sample after its last; filled when it is first needed
        self._orphans: dict[str, set[Key]] = {}  # judge -> keys with verdicts, but without an episode
        if mode == "r" and not self.path.is_dir():
            raise StoreError(f"There is no run folder at {self.path}. Give the folder that `swirl generate` wrote to.")

    def append(self, trajectory: Trajectory, sample: int | None = None) -> Key:
        """Stores an episode; once this returns, no kill and no full disk loses it.

        Episodes of a loop of your own are all sample 0. If the task has a finished episode already, such a one is stored as
        its next sample.

        Args:
            trajectory: the episode.
            sample: the number to store it under, which must be free; None numbers it as above.

        Returns:
            The key under which it is stored: task id and sample.

        Raises:
            DuplicateKey: if an episode of this task and sample is stored already (and did not end in an error).
            StoreError: if it cannot be stored; nothing of it is.
            StoreLocked: if another process is writing.
        """
        known = self._write_index()
        if sample is None and trajectory.sample == 0 and known.get(trajectory.key) is False:
            sample = self._next_sample(trajectory.task.id)
        if sample is not None and sample != trajectory.sample:
            trajectory = msgspec.structs.replace(trajectory, sample=sample)
        key = trajectory.key
        if known.get(key) is False:
            raise DuplicateKey(
                f"{self.path} already holds task {key[0]!r}, sample {key[1]}. Resume (skip the keys it holds), give the new "
                f"episode another sample number, or choose another folder."
            )
        line = encode_trajectory(trajectory)
        try:
            self._withdraw_orphans(key)
            self._append_line(line)
            known[key] = trajectory.ended == "error"
            self._samples[key[0]] = max(self._samples.get(key[0], 0), key[1] + 1)
        except BaseException:
            self._known = None  # an interrupt may have come between file and index: the file decides
            raise
        return key

    def append_verdicts(self, judge: str, key: Key, verdicts: Sequence[Verdict]) -> None:
        """Stores a judge's verdicts on the steps of one episode; if one of them is ``failed``, they may be stored again.

        Args:
            judge: fingerprint of the judge; names the table.
            key: the episode; one that ended in an error is not judged, since it will be run again.
            verdicts: one per step.

        Raises:
            DuplicateKey: if the table already holds verdicts on it, none of them failed.
            StoreError: if the store holds no such episode, or the line cannot be stored.
        """
        if self._write_index().get(key) is not False:
            raise StoreError(f"{self.path} holds no finished episode of task {key[0]!r}, sample {key[1]}, to be judged.")
        table = self.verdicts(judge)
        if key in table and not table.failed(key):
            raise DuplicateKey(f"The judge {judge!r} has judged task {key[0]!r}, sample {key[1]}, already.")
        line = encode_verdicts(key, verdicts)
        try:
            table.add(line, self._appender(table.path))
        except BaseException:
            self._tables.pop(judge, None)  # as in `append`
            raise

    def begin_verdicts(self, judge: str) -> None:
        """Creates the table of a judge, empty, if there is none yet."""
        self.lock()
        self._appender(self.verdicts(judge).path)

    def withdraw_verdicts(self, judge: str, keys: Iterable[Key]) -> int:
        """Takes back a judge's verdicts, so that the episodes can be judged again; the lines stay in the table's file.

        Args:
            judge: fingerprint of the judge.
            keys: the episodes; those that it has not judged are left alone.

        Returns:
            How many episodes had verdicts.
        """
        self.lock()
        table = self.verdicts(judge)
        judged = [key for key in keys if key in table]
        for key in judged:
            table.add(encode_withdrawal(key), self._appender(table.path))
        return len(judged)

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
            StoreLocked: if another process is writing.
            StoreError: if the folder is open for reading only, or this process is a fork of the writer.
        """
        if self.mode == "r":
            raise StoreError(f"{self.path} is open for reading only; open it with mode='a' to write.")
        if self._open.lock is None:
            for folder in ("trajectories", "verdicts", "selections"):
                make_folder(self.path / folder)
            self._open.lock = WriterLock(self.path / ".lock")
        elif not self._open.lock.is_held:
            raise StoreError(
                f"{self.path} is being written to by the process that this one was forked from; hand episodes to it."
            )

    def close(self) -> None:
        """Flushes everything to the device and releases the lock; the store can still be read, and written to again."""
        self._open.close()
        self._shard, self._known, self._tables = None, None, {}
        self._samples, self._orphans = {}, {}

    def verdicts(self, judge: str) -> VerdictTable:
        """Returns a judge's table: key -> verdicts, one per step (see `Reader`); the writer's grows with each append."""
        if self._open.lock is None:
            return super().verdicts(judge)
        if judge not in self._tables:
            path = self._verdict_file(judge)
            if path.exists():
                self._appender(path)  # removes a torn tail before the table is read
            self._tables[judge] = super().verdicts(judge)
        return self._tables[judge]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _index(self) -> dict[Key, bool]:
        return super()._index() if self._known is None else self._known

    def _write_index(self) -> dict[Key, bool]:
        """Takes the lock, removes what an earlier writer left torn, and returns the index.

        If the folder turns out to be damaged, a lock taken for this is released: the user is about to repair it.
        """
        was_locked = self._open.lock is not None
        self.lock()
        if self._known is None:
            try:
                self._shard = None
                for path in self._shards():
                    Appender(path).close()
                known = super()._index()
                self._orphans = {judge: self.verdicts(judge).keys() - known.keys() for judge in self.judges()}
                self._samples, self._known = {}, known
            except BaseException:
                if not was_locked:
                    self.close()
                raise
        return self._known

    def _next_sample(self, task: str) -> int:
        """Returns the number after the last sample of a task."""
        if task not in self._samples:
            for task_id, sample in self._write_index():
                self._samples[task_id] = max(self._samples.get(task_id, 0), sample + 1)
        return self._samples.get(task, 0)

    def _withdraw_orphans(self, key: Key) -> None:
        """Takes back verdicts on an episode that is gone (its line was damaged and deleted) before another takes its key."""
        for judge, orphans in self._orphans.items():
            if key in orphans:
                self.withdraw_verdicts(judge, [key])
                orphans.discard(key)

    def _append_line(self, line: bytes) -> None:
        """Appends to the last shard, or to a new one if that is full."""
        if self._shard is None or self._shard.size >= self.shard_bytes:
            last = max((int(path.stem) for path in self._shards() if _SHARD.fullmatch(path.name)), default=0)
            path = self.path / "trajectories" / f"{last:05d}.jsonl"
            if path.exists() and path.stat().st_size >= self.shard_bytes:
                path = path.with_name(f"{last + 1:05d}.jsonl")
            self._shard = self._appender(path)
        self._shard.append(line)

    def _appender(self, path: Path) -> Appender:
        if path not in self._open.files:
            self._open.files[path] = Appender(path, self.sync)
        return self._open.files[path]

    def _current(self, filter: str | Filter, judge: str | None) -> Selection:
        """Saves the selection of a named filter if it is new."""
        selection = super()._current(filter, judge)
        if self.mode == "a" and isinstance(filter, str) and selection != self.selection(filter, judge):
            self.save(selection)
        return selection


class _OpenFiles:
    """The open files and the lock of a store, apart from it so that they can be closed after it is gone (`weakref.finalize`)."""

    def __init__(self) -> None:
        self.files: dict[Path, Appender] = {}
        self.lock: WriterLock | None = None

    def close(self) -> None:
        """Closes everything; a fork of the writer leaves the lock alone."""
        files, self.files = self.files, {}
        lock, self.lock = self.lock, None
        for file in files.values():
            file.close()
        if lock is not None:
            lock.release()
