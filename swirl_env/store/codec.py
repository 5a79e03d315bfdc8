"""Trajectory <-> one line of JSON.

    {"v":1,"key":["task id",0],"error":true,"shared":[...],"echo":[...],"task":{...},"settings":{...},"steps":[...],...}

The head (version, key, and ``error`` if the episode failed) identifies a line without decoding it. Two things that would
otherwise be repeated many times in a line are written once:

- ``shared``: of step i's ``prompt_ids``, the first ``shared[i]`` are those of step i-1's ``prompt_ids + token_ids``; only
  the rest is written.
- ``echo``: if ``echo[i]`` is 1, step i's ``observation`` ends with the text of its result, which is not written again.

A line holds no time, host or run id: the same seed gives the same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from swirl_env.errors import VersionError
from swirl_env.sequences import common_prefix
from swirl_env.store.storable import encode_value
from swirl_env.types import SCHEMA_VERSION, Ended, Label, Outcome, Record, Step, Trajectory, Verdict, VerdictStatus

Key = tuple[str, int]
"""What makes an episode unique in a run: task id and sample number."""


class Head(NamedTuple):
    """The beginning of a line: which episode it is about, and whether that waits to be run again."""

    key: Key
    failed: bool
    """Whether the episode ended in an error (for verdicts: whether one of them failed)."""


class VerdictSummary(Record, frozen=True):
    """The part of a verdict that filters read."""

    status: VerdictStatus
    label: Label | None = None


class StepSummary(Record, frozen=True):
    """The part of a step that filters read."""

    verdict: VerdictSummary = VerdictSummary("unscored")


class Summary(Record, frozen=True):
    """The part of a trajectory that filters read, under the same names; decoded several times faster than the whole."""

    key: Key
    steps: tuple[StepSummary, ...]
    ended: Ended
    outcome: Outcome


class _Stored(Trajectory, frozen=True, kw_only=True):
    """A whole line."""

    v: int
    head_key: Key = msgspec.field(name="key")
    error: bool = False
    shared: tuple[int, ...] = ()
    echo: tuple[int, ...] = ()


class _StoredVerdicts(Record, frozen=True):
    verdicts: tuple[Verdict, ...]


class _StoredVerdictSummaries(Record, frozen=True):
    verdicts: tuple[VerdictSummary, ...]


class _Head(msgspec.Struct):
    key: Key
    error: bool = False


class _Version(msgspec.Struct):
    v: int | None = None


_HEAD = re.compile(rb'\{"v":%d,"key":\["([^"\\]*)",(-?\d+)\](,"error":true)?,' % SCHEMA_VERSION)
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Stored).decode
_decode_summary = msgspec.json.Decoder(Summary).decode
_decode_verdicts = msgspec.json.Decoder(_StoredVerdicts).decode
_decode_verdict_summaries = msgspec.json.Decoder(_StoredVerdictSummaries).decode
_decode_head = msgspec.json.Decoder(_Head).decode
_decode_version = msgspec.json.Decoder(_Version).decode
_FIELDS = Trajectory.__struct_fields__


_WITHDRAWN = b',"error":true,"verdicts":[]}\n'
"""End of a line that takes back a judge's verdicts on an episode: they are as if they had never been."""


class BadLine(ValueError):
    """A line that cannot be read; the store adds file and line number."""


def read_head(line: bytes) -> Head:
    """Returns the head of a line of trajectories or verdicts.

    Raises:
        BadLine: if it is no such line.
        VersionError: if another version wrote it.
    """
    match = _HEAD.match(line) if line.endswith(b"}\n") else None
    try:
        if match:
            return Head((match[1].decode(), int(match[2])), match[3] is not None)
        check_version(line)
        head = _decode_head(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadLine(str(error)) from error
    return Head(head.key, head.error)


def check_version(line: bytes) -> None:
    """Raises `BadLine` if a line is no JSON object, `VersionError` if another version wrote it."""
    try:
        version = _decode_version(line).v
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadLine(str(error)) from error
    if version == SCHEMA_VERSION:
        return
    if version is not None and version > SCHEMA_VERSION:
        fix = "It comes from a newer swirl-env; to read it: pip install -U swirl-env."
    else:
        fix = (
            "To convert it, read it with the swirl-env that wrote it, rebuild each episode from its fields as a "
            "swirl_env.types.Trajectory of this release, and append that to a new Store."
        )
    got = "no version" if version is None else f"version {version}"
    raise VersionError(f"Expected records of schema version {SCHEMA_VERSION}, got {got}. {fix}")


def encode_trajectory(trajectory: Trajectory) -> bytes:
    """Returns the line of a trajectory, newline included, after checking that it reads back as the same trajectory.

    Numbers and arrays of numpy and torch are stored as plain numbers and lists.

    Raises:
        StoreError: if it holds values that JSON cannot hold (lone surrogates, NaN, objects) or that the schema does not allow.
        VersionError: if it was built for another schema version.
    """
    if trajectory.version != SCHEMA_VERSION:
        raise VersionError(f"Expected a trajectory of schema version {SCHEMA_VERSION}, got version {trajectory.version}.")
    return encode_value(trajectory, Trajectory, _encode_exactly, f"The trajectory {trajectory.key!r}")


def _encode_exactly(trajectory: Trajectory) -> bytes | None:
    """Returns the line of a trajectory, or None if another trajectory would be read from it."""
    shared = tuple(_shared(trajectory.steps))
    echo = tuple(int(_echoes(step)) for step in trajectory.steps)
    packed = msgspec.structs.replace(trajectory, steps=tuple(map(_pack, trajectory.steps, shared, echo)))
    parts = [b'{"v":%d,"key":%b' % (SCHEMA_VERSION, _encode(trajectory.key))]
    if trajectory.ended == "error":
        parts.append(b',"error":true')
    if any(shared):
        parts.append(b',"shared":%b' % _encode(shared))
    if any(echo):
        parts.append(b',"echo":%b' % _encode(echo))
    line = b"".join([*parts, b",", _encode(packed)[1:], b"\n"])
    stored = decode_trajectory(line)
    return line if stored == trajectory or _plain(stored) == _plain(trajectory) else None


def decode_trajectory(line: bytes) -> Trajectory:
    """Returns the trajectory of a line.

    Raises:
        BadLine: if the line cannot be read.
        VersionError: if another version wrote it.
    """
    try:
        stored = _decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        check_version(line)
        raise BadLine(str(error)) from error
    if stored.v != SCHEMA_VERSION:
        check_version(line)
    values = [getattr(stored, field) for field in _FIELDS]
    if stored.shared or stored.echo:
        values[_FIELDS.index("steps")] = _unpack(stored)
    trajectory = Trajectory(*values)
    if trajectory.key != stored.head_key:
        raise BadLine(f"its key {list(stored.head_key)} is not that of the episode it holds, {list(trajectory.key)}")
    return trajectory


def decode_summary(line: bytes) -> Summary:
    """Returns the part of a line that filters read; raises as `decode_trajectory`."""
    try:
        return _decode_summary(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        check_version(line)
        raise BadLine(str(error)) from error


def encode_verdicts(key: Key, verdicts: Sequence[Verdict]) -> bytes:
    """Returns the line that holds a judge's verdicts on the steps of one trajectory, newline included.

    Raises:
        StoreError: if they hold values that JSON cannot hold or that the schema does not allow.
    """

    def encode(verdicts: tuple[Verdict, ...]) -> bytes | None:
        failed = b',"error":true' if any(verdict.status == "failed" for verdict in verdicts) else b""
        line = b'{"v":%d,"key":%b%b,"verdicts":%b}\n' % (SCHEMA_VERSION, _encode(key), failed, _encode(verdicts))
        stored = decode_verdicts(line)
        return line if stored == verdicts or _plain(stored) == _plain(verdicts) else None

    return encode_value(tuple(verdicts), tuple[Verdict, ...], encode, f"Verdicts on {key!r}")


def encode_withdrawal(key: Key) -> bytes:
    """Returns the line that takes back a judge's verdicts on one trajectory, newline included."""
    return b'{"v":%d,"key":%b' % (SCHEMA_VERSION, _encode(key)) + _WITHDRAWN


def is_withdrawal(line: bytes) -> bool:
    """Whether a line of a verdict table takes verdicts back."""
    return line.endswith(_WITHDRAWN)


def decode_verdicts(line: bytes) -> tuple[Verdict, ...]:
    """Returns the verdicts of a line; raises as `decode_trajectory`."""
    try:
        return _decode_verdicts(line).verdicts
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        check_version(line)
        raise BadLine(str(error)) from error


def decode_verdict_summaries(line: bytes) -> tuple[VerdictSummary, ...]:
    """Returns the part of the verdicts of a line that filters read; raises as `decode_trajectory`."""
    try:
        return _decode_verdict_summaries(line).verdicts
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        check_version(line)
        raise BadLine(str(error)) from error


def _plain(value: object) -> object:
    return msgspec.to_builtins(value)


def _shared(steps: Sequence[Step]) -> list[int]:
    """Returns for each step how many of its prompt ids begin the ids of the step before."""
    known: tuple[int, ...] = ()
    counts = []
    for step in steps:
        ids = step.action.prompt_ids
        counts.append(common_prefix(known, ids))
        known = (*ids, *step.action.token_ids)
    return counts


def _echoes(step: Step) -> bool:
    return step.result is not None and bool(step.result.text) and step.observation.endswith(step.result.text)


def _pack(step: Step, shared: int, echo: int) -> Step:
    if shared:
        action = msgspec.structs.replace(step.action, prompt_ids=tuple(step.action.prompt_ids[shared:]))
        step = msgspec.structs.replace(step, action=action)
    if echo and step.result is not None:
        step = msgspec.structs.replace(step, observation=step.observation[: -len(step.result.text)])
    return step


def _unpack(stored: _Stored) -> tuple[Step, ...]:
    """Returns the steps with prompt ids and observations whole again."""
    none = (0,) * len(stored.steps)
    shared, echo = stored.shared or none, stored.echo or none
    if not len(shared) == len(echo) == len(stored.steps):
        raise BadLine(f"'shared' and 'echo' need one entry for each of its {len(stored.steps)} steps")
    known: tuple[int, ...] = ()
    steps = []
    for step, count, echoes in zip(stored.steps, shared, echo, strict=True):
        if not 0 <= count <= len(known):
            raise BadLine(f"'shared' names {count} ids, but the step before has {len(known)}")
        if count:
            action = msgspec.structs.replace(step.action, prompt_ids=known[:count] + step.action.prompt_ids)
            step = msgspec.structs.replace(step, action=action)
        if echoes and step.result is not None:
            step = msgspec.structs.replace(step, observation=step.observation + step.result.text)
        known = step.action.prompt_ids + step.action.token_ids
        steps.append(step)
    return tuple(steps)
