"""Which trajectories are worth training on: named filters, and selections drawn down to equal sizes.

A filter is a plain function from a trajectory to a bool. Episodes with ``ended="error"`` pass none of them, and a failed or
missing verdict never counts as GOOD.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import msgspec

from swirl_env.errors import ConfigError, PluginError, SwirlError, plugin_failure, unknown_name
from swirl_env.registry import load
from swirl_env.store.codec import Key, Summary
from swirl_env.types import Record, Trajectory

Filter = Callable[[Trajectory], bool]
"""Returns whether a trajectory passes."""


class Selection(Record, frozen=True):
    """The trajectories that pass a filter, by key."""

    filter: str
    keys: tuple[Key, ...]
    """The trajectories that pass, in the order of the store."""
    total: int
    """Trajectories examined; ``total == len(keys) + sum(excluded.values())``."""
    excluded: dict[str, int] = {}
    """Reason -> number of trajectories; each one counts once, under the first reason that applies."""
    judge: str | None = None
    """Fingerprint of the verdict table; None for the verdicts of the episodes themselves."""
    limit: int | None = None
    seed: int = 0
    """Seed of the draw that reduced the selection to `limit`."""
    source: tuple[int, ...] = ()
    """Sizes in bytes of the files it was made from: after the store has grown, the filter is applied again."""

    @property
    def size(self) -> int:
        """Number of trajectories that pass."""
        return len(self.keys)

    def table(self) -> list[tuple[str, str]]:
        """Returns rows ``(what, count)`` for a terminal table."""
        rows = [(f"excluded: {reason}", f"{count:,}") for reason, count in self.excluded.items()]
        return [("trajectories", f"{self.total:,}"), *rows, ("kept", f"{self.size:,}")]


def none(trajectory: Trajectory | Summary) -> bool:
    """Keeps every finished episode."""
    return not _why_error(trajectory)


def process(trajectory: Trajectory | Summary) -> bool:
    """Keeps a finished episode of which *every* step is judged GOOD, right or wrong as its answer may be."""
    return not (_why_error(trajectory) or _why_process(trajectory))


def outcome(trajectory: Trajectory | Summary) -> bool:
    """Keeps a finished episode whose answer is correct."""
    return not (_why_error(trajectory) or _why_outcome(trajectory))


def both(trajectory: Trajectory | Summary) -> bool:
    """Keeps what `process` and `outcome` both keep."""
    return process(trajectory) and outcome(trajectory)


FILTERS: dict[str, Callable[[Trajectory | Summary], bool]] = {
    "none": none,
    "process": process,
    "outcome": outcome,
    "both": both,
}
"""The named filters."""


def make_filter(spec: str | Filter) -> tuple[str, Filter]:
    """Returns name and function of a filter.

    Args:
        spec: a name of `FILTERS`, ``"package.module:function"``, or a function.

    Raises:
        UnknownName: if no filter has this name.
    """
    if isinstance(spec, str) and spec in FILTERS:
        return spec, FILTERS[spec]
    if isinstance(spec, str) and ":" not in spec:
        raise unknown_name("filter", spec, FILTERS)
    passes: Filter = load("filter", spec) if isinstance(spec, str) else spec
    if not callable(passes):
        raise PluginError(f"{spec!r:.80} is no filter: it is {passes!r:.80}. A filter is a function from a trajectory to a bool.")
    name = spec.rpartition(":")[2] if isinstance(spec, str) else str(getattr(spec, "__name__", type(spec).__name__))
    if FILTERS.get(name, passes) is not passes:
        raise ConfigError(f"{name!r} is the name of a built-in filter; give your function another name.")
    return name, passes


def call_filter(name: str, passes: Filter, trajectory: Trajectory) -> bool:
    """Returns whether a trajectory passes a user's filter.

    Raises:
        PluginError: if the filter raises, or returns something else than a bool: neither would be a selection.
    """
    try:
        result: object = passes(trajectory)
    except SwirlError:
        raise
    except BaseException as error:
        failure = plugin_failure(error)
        raise PluginError(
            f"The filter {name!r} raised {type(failure).__name__} on task {trajectory.task.id!r:.80}: {str(failure)[:200]}"
        ) from failure
    if isinstance(result, bool) or type(result).__name__ in ("bool", "bool_"):  # NumPy's
        return bool(result)
    raise PluginError(f"The filter {name!r} returned {result!r:.80} on task {trajectory.task.id!r:.80}; expected True or False.")


def why_not(name: str, trajectory: Trajectory | Summary) -> str:
    """Returns the reason, in a word or two, why the filter `name` rejects a trajectory; for users' filters, ``not <name>``."""
    reason = _why_error(trajectory)
    if not reason and name in ("process", "both"):
        reason = _why_process(trajectory)
    if not reason and name in ("outcome", "both"):
        reason = _why_outcome(trajectory)
    return reason or f"not {name}"


def match_sizes(selections: Sequence[Selection], seed: int = 0, limit: int | None = None) -> list[Selection]:
    """Draws all selections down to the size of the smallest, so that filters are compared on equally many trajectories.

    Args:
        selections: one per filter.
        seed: seed of the draw.
        limit: a size that none may exceed.
    """
    sizes = [selection.size for selection in selections] + ([] if limit is None else [limit])
    return [subsample(selection, min(sizes), seed) for selection in selections]


def subsample(selection: Selection, limit: int, seed: int = 0) -> Selection:
    """Returns a selection of at most `limit` of the trajectories, drawn at random.

    Each key has a fixed rank for a seed, whatever else was selected: selections that share trajectories get samples that
    share as many as possible, and a smaller limit gives a subset of a larger one.
    """
    if limit < 0:
        raise ConfigError(f"A limit counts trajectories and cannot be negative; got {limit}.")
    if selection.size <= limit:
        return msgspec.structs.replace(selection, limit=limit, seed=seed)
    sample = set(sorted(selection.keys, key=lambda key: _rank(key, seed))[:limit])
    excluded = {**selection.excluded, "limit": selection.excluded.get("limit", 0) + selection.size - limit}
    keys = tuple(key for key in selection.keys if key in sample)
    return msgspec.structs.replace(selection, keys=keys, excluded=excluded, limit=limit, seed=seed)


def _rank(key: Key, seed: int) -> tuple[bytes, Key]:
    return hashlib.blake2b(f"{seed}:{key[1]}:{key[0]}".encode(), digest_size=8).digest(), key


def _why_error(trajectory: Trajectory | Summary) -> str:
    return "error" if trajectory.ended == "error" else ""


def _why_process(trajectory: Trajectory | Summary) -> str:
    if not trajectory.steps:
        return "no steps"
    verdicts = [step.verdict for step in trajectory.steps]
    if any(verdict.status == "failed" for verdict in verdicts):
        return "failed verdict"
    if any(verdict.status != "scored" or verdict.label is None for verdict in verdicts):
        return "unscored step"
    return "" if all(verdict.label == "GOOD" for verdict in verdicts) else "bad step"


def _why_outcome(trajectory: Trajectory | Summary) -> str:
    if trajectory.outcome.correct is None:
        return "ungradable"
    return "" if trajectory.outcome.correct else "wrong answer"
