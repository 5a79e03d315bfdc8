"""Base of the loaders: finds a question file, caches its tasks, and explains what is missing and how to get it.

A source is a thin handle: the file's bytes, its tasks and its corpus are cached per process by path, size and time of change,
so that building a source per environment costs next to nothing and a pickled source holds no data.
"""

from __future__ import annotations

import functools
import operator
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

import msgspec

from swirl_env.errors import ConfigError, DataNotFound, unknown_name
from swirl_env.tasks.files.layouts import ID_COLUMNS
from swirl_env.tasks.files.rows import Location, Row, locate, read_ids
from swirl_env.types import Task

DATA_DIR = "SWIRL_DATA_DIR"
"""Environment variable that names the folder of the question sets."""

OptionsT = TypeVar("OptionsT", bound=Hashable)
"""What decides how rows are read, apart from the file: part of the key under which its tasks are cached."""

_ENDINGS = (".jsonl", ".json", ".parquet")
_SHARD = re.compile(r"(.+?)-(\d{5})-of-(\d{5})(?:-[0-9a-f]{16})?")
"""The hub's names of the files that a split is spread over."""


class Table:
    """The tasks of one file, each read on first access."""

    def __init__(
        self,
        rows: Sequence[Row],
        read: Callable[[Row, int], Task],
        select: Callable[[Row], bool] | None = None,
        ids: Sequence[str] = ID_COLUMNS,
    ) -> None:
        self._rows = rows
        self._read = read
        self._selected = None if select is None else [i for i in range(len(rows)) if select(rows[i])]
        self._tasks: dict[int, Task] = {}
        self._numbers: dict[str, int] = {}
        self._new_ids = _unique_ids(read_ids(rows, ids))

    def __len__(self) -> int:
        return len(self._rows if self._selected is None else self._selected)

    def task(self, index: int) -> Task:
        """Returns the task at `index`."""
        task = self._tasks.get(index)
        if task is None:
            row = index if self._selected is None else self._selected[index]
            task = self._read(self._rows[row], row)
            if row in self._new_ids:
                task = msgspec.structs.replace(task, id=self._new_ids[row])
            self._tasks[index] = task
        return task

    def map(self, change: Callable[[Task], Task]) -> Table:
        """Makes every task what `change` returns for it, and returns the table."""
        read = self._read
        self._read = lambda row, index: change(read(row, index))
        return self

    def number(self, task_id: str) -> int | None:
        """Returns the index of a task id, None if there is none."""
        if not self._numbers:
            self._numbers = {self.task(i).id: i for i in range(len(self))}
        return self._numbers.get(task_id)


def _unique_ids(ids: Sequence[str | None]) -> dict[int, str]:
    """Returns new ids for the rows whose id has occurred before, as in MuSiQue-Full: ``x-2`` for the second ``x``."""
    counts = dict.fromkeys((name for name in ids if name is not None), 0)
    new: dict[int, str] = {}
    for row, name in enumerate(ids):
        if name is None:
            continue
        counts[name] += 1
        if counts[name] > 1:
            while (unique := f"{name}-{counts[name]}") in counts:
                counts[name] += 1
            counts[unique] = 1
            new[row] = unique
    return new


def require_answers(rows: Sequence[Row], has_answer: Callable[[Row], bool], source: object, fix: str) -> None:
    """Refuses a file none of whose rows has a gold answer, since nothing could be graded.

    Raises:
        ConfigError: naming the columns of the file.
    """
    for i in range(len(rows)):
        try:
            if has_answer(rows[i]):
                return
        except ConfigError as error:
            raise ConfigError(str(error) if str(source) in str(error) else f"{source}, row {i + 1}: {error}") from error
    columns = sorted({str(key) for i in range(min(len(rows), 100)) for key in rows[i]})
    raise ConfigError(f"{source}: expected gold answers, but no row has one in a known column; the columns are {columns}. {fix}")


class QuestionSet(ABC, Generic[OptionsT]):
    """Base of the loaders: a set in files that a user has, or on the hub if `hub` is set.

    Args:
        split: which part; None takes the first of `preferred` whose file is there.
        data_dir: folder that holds the set's folder, or is it; None takes the environment variable ``SWIRL_DATA_DIR``.
        limit: only the first questions.
        hub: True downloads the set with the `datasets` library, a name (``"owner/name"`` or ``"owner/name:config"``) another
            copy of it. Without it nothing is ever downloaded.
        skip: how many questions at the beginning to leave out; `limit` counts from there.
    """

    name: ClassVar[str]
    """Folder of the set and its name in messages."""
    files: ClassVar[Mapping[str, tuple[str, ...]]]
    """Split -> names that its file may have, without the ending; the first that is there is read."""
    preferred: ClassVar[tuple[str, ...]]
    """Splits to take if none is named."""
    hub_name: ClassVar[str | None] = None
    hub_splits: ClassVar[Mapping[str, str]] = {"train": "train", "dev": "validation", "test": "test"}
    unanswered: ClassVar[tuple[str, ...]] = ("test",)
    """Splits that are published without gold answers."""
    homepage: ClassVar[str]
    """Where the official files are."""

    tools: tuple[str, ...] = ()
    """Names of the tools that the questions call for."""
    max_steps: int = 1
    skip: int = 0

    def __init__(self, split: str | None, data_dir: str | None, limit: int | None, hub: bool | str, skip: int = 0) -> None:
        self.limit, self.skip = check_limit(limit), check_skip(skip)
        self.split, self.location = self._on_hub(split, hub) if hub else self._in_files(split, data_dir)

    def __len__(self) -> int:
        count = max(0, len(self.table) - self.skip)
        return count if self.limit is None else min(count, self.limit)

    def __getitem__(self, index: int, /) -> Task:
        index, count = operator.index(index), len(self)
        if not -count <= index < count:
            raise IndexError(f"Question {index} of a set of {count}.")
        return self.table.task(self.skip + index % count)

    def __iter__(self) -> Iterator[Task]:
        return map(self.table.task, range(self.skip, self.skip + len(self)))

    def __repr__(self) -> str:
        return f"{type(self).__name__}(split={self.split!r}, {self.location})"

    def find(self, task_id: str) -> Task | None:
        """Returns the task of an id, None if there is none."""
        number = self.table.number(task_id)
        return None if number is None or not 0 <= number - self.skip < len(self) else self.table.task(number)

    @property
    def table(self) -> Table:
        """The tasks of the file, shared by all sources of the process that read it in the same way."""
        return _open_table(type(self).read_table, self.location, self.split, self.options())

    @abstractmethod
    def options(self) -> OptionsT:
        """Returns everything apart from the file that decides how its rows are read."""

    @classmethod
    @abstractmethod
    def read_table(cls, location: Location, split: str, options: OptionsT) -> Table:
        """Opens a file (called once per process for the same arguments)."""

    def _in_files(self, split: str | None, data_dir: str | None) -> tuple[str, Location]:
        root = data_dir or os.environ.get(DATA_DIR) or None
        folder = Path(root).expanduser() / self.name if root else None
        if data_dir and folder and not folder.is_dir():
            folder = folder.parent
        available = dict(self._available(folder)) if folder and folder.is_dir() else {}
        if split is not None and split not in available and split not in self.files:
            raise unknown_name(f"split of {self.name}", split, {*self.files, *available})
        candidates = self.preferred if split is None else (split,)
        for name in candidates:
            if name in available:
                return name, locate_shards(available[name])
        raise self._missing(candidates, root, sorted(available))

    def _available(self, folder: Path) -> Iterator[tuple[str, list[Path]]]:
        """Yields the splits that have files; one called ``questions_<split>`` needs no entry in `files`."""
        _, _, config = (self.hub_name or "").partition(":")
        # A copy of a hub repository keeps its files in `data` or in a folder named after the configuration.
        folders = [inner for inner in (folder, folder / "data", folder / config) if inner.is_dir()]
        present: dict[str, list[Path]] = {}
        for inner in dict.fromkeys(folders):
            for stem, files in _data_files(inner).items():
                present.setdefault(stem, files)
        listed = {stem for stems in self.files.values() for stem in stems}
        for stem, files in present.items():
            if stem.startswith("questions_") and stem not in listed:
                yield stem.removeprefix("questions_"), files
        for name, stems in self.files.items():
            named = [present[stem] for stem in stems if stem in present]
            if named:
                yield name, named[0]

    def _missing(self, splits: Sequence[str], root: str | None, available: Sequence[str]) -> DataNotFound:
        stems = " or ".join(f"{self.name}/{stem}" for name in splits for stem in self.files.get(name, ())[:1])
        place = f"under {root}" if root else f"(neither data_dir nor the environment variable {DATA_DIR} is set)"
        others = f" Splits that are there: {', '.join(available)}." if available else ""
        copies = f", or hub=True for {self.hub_name!r} on the hub (needs 'datasets')" if self.hub_name else ""
        return DataNotFound(
            f"{self.name}, split {' or '.join(map(repr, splits))}: expected the file {stems} (ending in .jsonl, .jsonl.gz, "
            f".json or .parquet) {place}; found none.{others} Get the official files at {self.homepage} and pass "
            f"data_dir=FOLDER or set {DATA_DIR}=FOLDER, where FOLDER/{self.name}/ holds them{copies}."
        )

    def _on_hub(self, split: str | None, hub: bool | str) -> tuple[str, Location]:
        name = self.hub_name if hub is True else str(hub)
        if name is None:
            raise DataNotFound(
                f"{self.name} has no known copy on the hub: pass its name as hub='owner/name', or get the official files at "
                f"{self.homepage} and pass data_dir=FOLDER."
            )
        split = split or next(name for name in (*self.preferred, *self.hub_splits) if name in self.hub_splits)
        if split not in self.hub_splits:
            raise unknown_name(f"split of {self.name} on the hub", split, self.hub_splits)
        owner, _, config = name.partition(":")
        return split, Location("", hub=(owner, config or None, self.hub_splits[split]))


def check_limit(limit: int | None) -> int | None:
    """Returns `limit` if it is valid."""
    if limit is not None and limit < 1:
        raise ConfigError(f"limit: expected a positive number of questions or null, got {limit}.")
    return limit


def check_skip(skip: int) -> int:
    """Returns `skip` if it is valid."""
    if skip < 0:
        raise ConfigError(f"skip: expected a number of questions from 0, got {skip}.")
    return skip


@functools.lru_cache(maxsize=32)
def _open_table(
    read_table: Callable[[Location, str, OptionsT], Table], location: Location, split: str, options: OptionsT
) -> Table:
    return read_table(location, split, options)


def _data_files(folder: Path) -> dict[str, list[Path]]:
    """Returns the data files of a folder by name without ending; the shards of one name together, in their order."""
    files: dict[str, list[Path]] = {}
    for file in sorted(folder.iterdir()):
        stem = _stem(file)
        shard = _SHARD.fullmatch(stem)
        if shard:
            files.setdefault(shard[1], []).append(file)
        elif file.is_dir() and (parts := sorted(file.glob("[0-9][0-9][0-9][0-9].parquet"))):
            files[file.name] = parts  # the hub's own conversion to Parquet: train/0000.parquet
    for file in sorted(folder.iterdir(), reverse=True):
        if (stem := _stem(file)) and not _SHARD.fullmatch(stem):
            files[stem] = [file]
    return files


def locate_shards(files: Sequence[Path]) -> Location:
    """Returns the location of a file, or of all the shards of one.

    Raises:
        ConfigError: if a shard is missing or there twice.
    """
    first, *rest = map(locate, files)
    shard = _SHARD.fullmatch(_stem(files[0]))
    if shard:
        numbers = [int(match[2]) for file in files if (match := _SHARD.fullmatch(_stem(file)))]
        if numbers != list(range(int(shard[3]))):
            raise ConfigError(
                f"{files[0].parent}: expected the shards 0 to {int(shard[3]) - 1} of {shard[1]!r}, each once; "
                f"got {numbers}. Download the missing files or remove the others."
            )
    return first._replace(more=tuple(rest))


def _stem(file: Path) -> str:
    """Returns the name of a data file without its ending, "" for any other file."""
    name = file.name.removesuffix(".gz")
    return next((name.removesuffix(ending) for ending in _ENDINGS if name.endswith(ending)), "")
