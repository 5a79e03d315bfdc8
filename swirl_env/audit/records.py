"""What an audit measures and keeps in the run folder: costs of signals, and values of a policy; append-only, one record per line.

run/audit/
  costs.jsonl              what each batch of ratings cost, by the table of verdicts that holds them
  values-<policy>.jsonl    how often fresh episodes of a policy from the states of an episode ended well
"""

from __future__ import annotations

from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from swirl_env.store.codec import Key
from swirl_env.store.lines import Appender, make_folder, read_lines
from swirl_env.store.verdicts import line_error
from swirl_env.types import Record

R = TypeVar("R", bound=Record)
FOLDER = "audit"
"""Folder of a run in which audits keep what is theirs."""


class Cost(Record, frozen=True):
    """What ratings cost."""

    table: str
    """Name of the table of verdicts."""
    steps: int
    """Steps that were rated."""
    calls: int | None = None
    """Prompts that a model was given, or actions that a policy took; None if nobody counted."""
    tokens: int | None = None
    """Tokens of these prompts and of the replies."""


class PolicyValues(Record, frozen=True):
    """How fresh episodes of a policy ended that went on from the states of a stored episode."""

    key: Key
    """The stored episode."""
    wins: tuple[int, ...]
    """For each state: how many of the fresh episodes ended with a right answer."""
    runs: tuple[int, ...]
    """For each state: how many there were; those that ended in an error are left out."""


class Records(Generic[R]):
    """An append-only file of records. The caller holds the run's lock while it writes.

    Args:
        path: the file; an absent one holds no records.
        kind: type of its records.
    """

    def __init__(self, path: Path, kind: type[R]) -> None:
        self.path = path
        self._decoder = msgspec.json.Decoder(kind)
        self._file: Appender | None = None

    def read(self) -> list[R]:
        """Returns all whole records.

        Raises:
            StoreError: at a damaged one, with its line.
        """
        records = []
        for number, _, line in read_lines(self.path):
            try:
                records.append(self._decoder.decode(line))
            except msgspec.MsgspecError as error:
                raise line_error(self.path, number, error, self._decoder.decode) from error
        return records

    def append(self, record: R) -> None:
        """Adds a record; once this returns, no kill loses it."""
        if self._file is None:
            make_folder(self.path.parent)
            self._file = Appender(self.path)
        self._file.append(msgspec.json.encode(record) + b"\n")

    def close(self) -> None:
        """Flushes and closes the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


def costs(run: Path) -> Records[Cost]:
    """Returns the costs that a run folder keeps."""
    return Records(run / FOLDER / "costs.jsonl", Cost)


def policy_values(run: Path, policy: str) -> Records[PolicyValues]:
    """Returns the values of a policy, named by its fingerprint, that a run folder keeps."""
    return Records(run / FOLDER / f"values-{policy}.jsonl", PolicyValues)
