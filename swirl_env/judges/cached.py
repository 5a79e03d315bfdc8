"""Remembers another judge's verdicts on disk, by the content of what it was shown."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec

from swirl_env.cache import cache_root
from swirl_env.fingerprint import fingerprint
from swirl_env.protocols import is_pure, needs_results, spent_by
from swirl_env.registry import Spec, make_judge
from swirl_env.types import SCHEMA_VERSION, SubTrajectory, Verdict

log = logging.getLogger(__name__)
_WAIT_S = 30.0
"""How long a write waits for other processes' writes."""


class CachedJudge:
    """Asks a judge only about steps that it has not judged before, in this process or any other.

    A verdict is stored under the hash of the judge's fingerprint and of everything that the judge sees: task, settings,
    messages, earlier actions with their calls and results, and the action with its call and result. How a text was sampled
    (token ids, log-probabilities, seed) and other judges' verdicts on earlier steps are left out. Failed verdicts are not
    stored, so the judge is asked again. An unreadable or read-only cache only costs time, never a verdict.

    Args:
        judge: spec of the judge to ask.
        cache_dir: folder of the cache; None takes the cache folder of the package (`SWIRL_CACHE_DIR`).
    """

    name = "cached"

    def __init__(self, judge: Spec, cache_dir: str | None = None) -> None:
        self.inner = make_judge(judge)
        self.fingerprint = fingerprint(self.inner)
        """The fingerprint of the judge behind the cache: its verdicts are the same with and without one."""
        self.pure = is_pure(self.inner)
        self.needs_results = needs_results(self.inner)
        self.path = cache_root(cache_dir) / "judges" / "verdicts.sqlite"
        self.stats: Counter[str] = Counter()
        """Counts since the start: hits, misses, failed (verdicts not stored), errors (of the cache itself)."""

    @property
    def spent(self) -> Mapping[str, int] | None:
        """What the judge behind it has spent; None if that does not count."""
        return spent_by(self.inner)

    def judge(self, steps: Sequence[SubTrajectory]) -> list[Verdict]:
        """Returns one verdict per step; equal steps of a batch are judged once."""
        keys = [self.key(step) for step in steps]
        known = self._read(sorted(set(keys)))
        asked = {key: step for key, step in zip(keys, steps, strict=True) if key not in known}
        self.stats["hits"] += sum(key in known for key in keys)
        self.stats["misses"] += len(asked)
        if asked:
            fresh = dict(zip(asked, self.inner.judge(list(asked.values())), strict=True))
            usable = {key: verdict for key, verdict in fresh.items() if verdict.status != "failed"}
            self.stats["failed"] += len(fresh) - len(usable)
            self._write(usable)
            known |= fresh
        return [known[key] for key in keys]

    def key(self, step: SubTrajectory) -> bytes:
        """Returns the hash under which the verdict on a step is stored."""
        state = step.state
        seen = [
            *(SCHEMA_VERSION, self.fingerprint, state.task, state.settings, state.turns),
            [[s.action.text, s.call, s.result, s.observation] for s in state.steps],
            *(step.action.text, step.call, step.result, step.outcome),
        ]
        content = msgspec.json.encode(seen, enc_hook=repr, order="deterministic")
        return hashlib.blake2b(content, digest_size=20).digest()

    def _read(self, keys: Sequence[bytes]) -> dict[bytes, Verdict]:
        verdicts: dict[bytes, Verdict] = {}
        try:
            with contextlib.closing(self._connect()) as connection:
                for start in range(0, len(keys), 500):
                    some = keys[start : start + 500]
                    query = f"SELECT key, verdict FROM verdicts WHERE key IN ({','.join('?' * len(some))})"
                    rows = connection.execute(query, some).fetchall()
                    verdicts |= {key: msgspec.json.decode(verdict, type=Verdict) for key, verdict in rows}
        except (sqlite3.Error, OSError, msgspec.MsgspecError) as error:
            self._complain("read", error)
        return verdicts

    def _write(self, verdicts: dict[bytes, Verdict]) -> None:
        rows = [(key, msgspec.json.encode(verdict)) for key, verdict in verdicts.items()]
        try:
            with contextlib.closing(self._connect()) as connection, connection:
                connection.executemany("INSERT OR REPLACE INTO verdicts VALUES (?, ?)", rows)
        except (sqlite3.Error, OSError) as error:
            self._complain("write", error)

    def _connect(self) -> sqlite3.Connection:
        """Opens the cache for one call: a connection must not be used by another process or thread."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self.path, timeout=_WAIT_S)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute("CREATE TABLE IF NOT EXISTS verdicts (key BLOB PRIMARY KEY, verdict BLOB NOT NULL) WITHOUT ROWID")
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def _complain(self, what: str, error: Exception) -> None:
        self.stats["errors"] += 1
        if self.stats["errors"] == 1:
            log.warning("cannot %s the cache of verdicts %s (%s); judging goes on without it", what, self.path, error)
