"""What may enter an episode: values that a run folder can hold.

Plugins return what they like: NumPy scalars, NaN, lone surrogates, wrong types. Each value is converted here, or refused with
a sentence, at the moment it enters; nothing of it comes up later in the store.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any, SupportsFloat, get_args

import msgspec

from swirl_env.episodes.transcript import clean
from swirl_env.errors import ConfigError, PluginError, SwirlError, plugin_failure, printable
from swirl_env.protocols import TaskSource
from swirl_env.types import Action, ActionError, Grading, Label, Task, ToolError, ToolResult, Verdict, VerdictStatus

MAX_DEPTH = 50
"""Deepest nesting of data: deeper values are not read back everywhere."""
MAX_REWARD = 3.4e38
"""Largest size of a reward: that of a 32-bit float, in which losses are computed."""

_LARGEST_ID = 2**31 - 1
_ROUNDING = 0.01
"""How far above 0 a log-probability may be: bfloat16 rounds."""
_NONE: tuple[()] = ()
"""The one empty tuple: token ids and log-probabilities of an agent that has none."""
_NO_DRIFT = 0
_SHALLOW = 2 * MAX_DEPTH
_TOOL_ERRORS = (None, *get_args(ToolError))
_ACTION_ERRORS = (None, *get_args(ActionError))
_STATUSES = get_args(VerdictStatus)
_GRADINGS = get_args(Grading)
_LABELS = (None, *get_args(Label))
_WITHOUT_REWARD = ("unscored", "failed")
_encode = msgspec.json.Encoder().encode


def are_plain(values: Sequence[dict[str, Any]]) -> bool:
    """Returns whether values can be written as JSON just as they are; False if that needs a closer look.

    One pass of the encoder over all of them costs half a microsecond each, a look at every value in Python ten times that.
    """
    try:
        written = _encode(values)
    except (TypeError, ValueError, RecursionError):
        return False
    # "null" may have been NaN; many brackets in few values may be deep nesting, for which a short text has no room.
    if written.find(b"null") >= 0:  # half the time of `in`
        return False
    if len(written) < _SHALLOW or (brackets := written.count(b"[") + written.count(b"{")) <= MAX_DEPTH:
        return True
    return brackets <= MAX_DEPTH + 4 * min(len(values), 64)


def json_data(data: object) -> dict[str, Any]:
    """Returns the details of a result or a task in JSON values.

    NumPy values become Python's, keys text, and numbers that are not finite None, as JSON has none. Tuples, dates and the
    like, which JSON writes as lists or text, may stay as they are.

    Raises:
        TypeError: for a value that JSON cannot hold.
        ValueError: for nesting beyond `MAX_DEPTH`.
    """
    if not isinstance(data, Mapping):
        raise TypeError(f"expected a dict as data, got {type(data).__name__}")
    if type(data) is dict and are_plain([data]):
        return data
    return {_key(key): _json(item, 1) for key, item in data.items()}


def _json(value: Any, depth: int) -> Any:
    """Returns a JSON value; anything else is brought to one first."""
    if depth > MAX_DEPTH:
        raise ValueError(f"data may be nested {MAX_DEPTH} deep, not deeper")
    if value is None or value is True or value is False:
        return value
    if isinstance(value, str):
        return clean(str(value))
    if isinstance(value, Mapping):
        return {_key(key): _json(item, depth + 1) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return [_json(item, depth + 1) for item in value]
    if isinstance(value, Set):
        return sorted((_json(item, depth + 1) for item in value), key=repr)
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    to_list = getattr(value, "tolist", None)
    if to_list is not None and not isinstance(value, type):  # NumPy's and torch's arrays and scalars
        return _json(to_list(), depth + 1)
    plain = msgspec.to_builtins(value, str_keys=True)
    if type(plain) is type(value):
        raise TypeError(f"data holds a {type(value).__name__}, which JSON cannot hold; convert it")
    return _json(plain, depth + 1)


def _key(key: object) -> str:
    if isinstance(key, str):
        return clean(str(key))
    if isinstance(key, numbers.Number) or key is None:
        return str(key)
    raise TypeError(f"data has a {type(key).__name__} as a key, which JSON cannot hold; use text")


def task_at(tasks: TaskSource, index: int) -> Task:
    """Returns a question of a task source, ready to be stored.

    Raises:
        PluginError: if the source raises, or gives something else than a `Task`.
        ConfigError: if the task has values that make no sense.
    """
    try:
        task = tasks[index]
    except SwirlError:
        raise
    except BaseException as error:
        failure = plugin_failure(error)
        raise PluginError(
            f"{type(tasks).__name__} raised {type(failure).__name__} for question {index} of {len(tasks)}: "
            f"{printable(str(failure)[:200])}"
        ) from failure
    return checked_task(task)


def checked_task(task: Task) -> Task:
    """Returns a task that can be stored.

    Raises:
        PluginError: if the source gave something else than a `Task`.
        ConfigError: if it has values that make no sense, or `meta` that cannot be stored.
    """
    if not isinstance(task, Task):
        raise PluginError(f"A task source gave {task!r:.80}; expected a Task. Write Task(id, question, answer).")
    texts = (task.id, task.question, task.answer or "", *task.aliases, *task.evidence)
    if not all([type(text) is str for text in texts]) or task.grading not in _GRADINGS:
        raise ConfigError(f"A task cannot be used: {_odd_field(task)}.")
    if not "".join(texts).isascii():
        task = _clean_task(task)
    if task.meta == {}:
        return task
    try:
        meta = json_data(task.meta)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"The meta of task {task.id!r} cannot be stored: {error}.") from error
    return task if meta is task.meta else msgspec.structs.replace(task, meta=meta)


def _odd_field(task: Task) -> str:
    """Returns in words which field of a task has a value that it cannot have."""
    for name in ("id", "question", "answer"):
        value = getattr(task, name)
        if not isinstance(value, str) and not (name == "answer" and value is None):
            return f"its {name} is text{' or None' if name == 'answer' else ''}; got {value!r:.60}"
    for name in ("aliases", "evidence"):
        odd = [value for value in getattr(task, name) if not isinstance(value, str)]
        if odd:
            return f"its {name} are texts; got {odd[0]!r:.60}"
    if task.grading not in _GRADINGS:
        return f"its grading is {' or '.join(_GRADINGS)}; got {task.grading!r:.60}"
    return "its texts are of a type of their own; make each a str"


def _clean_task(task: Task) -> Task:
    """Returns a task whose texts hold no lone surrogate."""
    if clean(task.id) != task.id:
        raise ConfigError(f"A task cannot be used: its id holds characters that no file can hold; got {ascii(task.id)[:80]}.")
    answer = None if task.answer is None else clean(task.answer)
    changes = {"question": clean(task.question), "answer": answer, "aliases": tuple(map(clean, task.aliases))}
    same = all([value == getattr(task, name) for name, value in changes.items()])
    return task if same else msgspec.structs.replace(task, **changes)


def checked_result(result: object) -> ToolResult:
    """Returns a tool's result with text and data that can be stored.

    Raises:
        TypeError, ValueError: for what is no result, with a sentence that says why.
    """
    if not isinstance(result, ToolResult):
        raise TypeError(f"expected a ToolResult, got {type(result).__name__}")
    if not isinstance(result.text, str):
        raise TypeError(f"expected text in a ToolResult, got {type(result.text).__name__}")
    if result.error not in _TOOL_ERRORS:
        raise ValueError(f"expected an error of {', '.join(map(str, _TOOL_ERRORS))}, got {result.error!r:.40}")
    data = json_data(result.data)
    if type(result) is ToolResult and data is result.data and type(result.text) is str and result.text.isascii():
        return result
    return ToolResult(clean(str(result.text)), result.error, data)


def all_usual(verdicts: Iterable[object]) -> bool:
    """Returns whether all verdicts can be stored just as they are, as nearly all can; False if one needs a closer look."""
    for verdict in verdicts:
        if type(verdict) is not Verdict:
            return False
        reward, label, critique, judge, parts = verdict.reward, verdict.label, verdict.critique, verdict.judge, verdict.parts
        if type(reward) is float:
            if verdict.status != "scored" or not -MAX_REWARD <= reward <= MAX_REWARD:
                return False
        elif reward is not None or verdict.status not in _WITHOUT_REWARD:
            return False
        if type(critique) is not str or type(judge) is not str or not judge or not critique.isascii() or not judge.isascii():
            return False
        if type(parts) is not dict or parts or (label is not None and (type(label) is not str or label not in _LABELS)):
            return False
    return True


def checked_verdict(verdict: object, judge: str) -> Verdict:
    """Returns a verdict that can be stored and trained on, or left out: a reward that is no number counts as failed.

    Raises:
        TypeError: for what is no `Verdict`.
    """
    if not isinstance(verdict, Verdict):
        raise TypeError(f"expected a Verdict, got {type(verdict).__name__}")
    judge = clean(str(verdict.judge or "")) or judge
    critique = "" if verdict.critique is None else clean(str(verdict.critique))
    parts = {clean(str(name)): _number(part) for name, part in (verdict.parts or {}).items()}
    reward = _number(verdict.reward)
    if verdict.status not in _STATUSES:
        return Verdict.failed(
            f"The status was {verdict.status!r:.40}; expected {', '.join(_STATUSES)}. {critique}".strip(), judge
        )
    if verdict.status == "scored" and reward is None:
        return Verdict.failed(f"The reward was {verdict.reward!r:.60}, which is not a usable number. {critique}".strip(), judge)
    if None in parts.values():
        part = next(name for name, value in parts.items() if value is None)
        return Verdict.failed(f"The part {part!r:.40} of the reward is not a usable number. {critique}".strip(), judge)
    if verdict.label not in _LABELS:
        return Verdict.failed(f"The label was {verdict.label!r:.40}; expected GOOD, BAD or None. {critique}".strip(), judge)
    return Verdict(verdict.status, reward, verdict.label, critique, judge, parts)  # type: ignore[arg-type]


def _number(value: object) -> float | None:
    """Returns a finite number as a float, also one of NumPy, torch, `fractions` or a bool; None for anything else."""
    if isinstance(value, str | bytes) or not isinstance(value, SupportsFloat):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if abs(number) <= MAX_REWARD else None


def is_plain_action(action: Action) -> bool:
    """Returns whether an action is text that needs no cleaning and nothing else, as that of an agent without tokens."""
    return (
        action.token_ids is _NONE
        and action.logprobs is _NONE
        and action.prompt_ids is _NONE
        and action.behaviour_logprobs is _NONE
        and action.drift is _NO_DRIFT
        and action.opened is action.truncated is False
        and type(action.text) is str
        and action.text.isascii()
    )


def checked_action(action: Action) -> Action:
    """Returns an action with text, ids and log-probabilities that can be stored and trained on.

    Token ids stay with text that needed no cleaning; other text has no ids.

    Raises:
        ValueError: for values that make no sense, with a sentence that says which.
    """
    if not isinstance(action.text, str):
        raise ValueError(f"expected text in an Action, got {type(action.text).__name__}")
    if action.error not in _ACTION_ERRORS:
        raise ValueError(f"expected an error of {', '.join(map(str, _ACTION_ERRORS))}, got {action.error!r:.40}")
    text = clean(str(action.text))
    if text != action.text:
        return Action(text, opened=bool(action.opened), error=action.error, truncated=bool(action.truncated))
    ids, prompt = _ids(action.token_ids, "token_ids"), _ids(action.prompt_ids, "prompt_ids")
    logprobs, behaviour = (_logprobs(values, len(ids)) for values in (action.logprobs, action.behaviour_logprobs))
    if not isinstance(action.drift, numbers.Integral) or action.drift < 0:
        raise ValueError(f"drift is 0 or 1; got {action.drift!r:.40}")
    flags = int(action.drift), action.error, bool(action.opened)
    checked = Action(text, ids, logprobs, prompt, *flags, behaviour, bool(action.truncated))
    return action if _is_same(action, checked) else checked


def _is_same(action: Action, checked: Action) -> bool:
    """Returns whether nothing had to be converted."""
    if type(action) is not Action or type(action.text) is not str or type(action.drift) is not int:
        return False
    fields = ("token_ids", "logprobs", "prompt_ids", "behaviour_logprobs", "opened", "truncated")
    return all([getattr(action, field) is getattr(checked, field) for field in fields])


def _ids(ids: Iterable[Any], name: str) -> tuple[int, ...]:
    if type(ids) is not tuple or not set(map(type, ids)) <= {int}:
        entries = list(ids)
        odd = [i for i in entries if isinstance(i, bool) or not (isinstance(i, numbers.Integral) or hasattr(i, "__index__"))]
        if odd:
            raise ValueError(f"{name} are whole numbers; got {odd[0]!r:.40}")
        ids = tuple(map(int, entries))
    if ids and not 0 <= min(ids) <= max(ids) <= _LARGEST_ID:
        raise ValueError(f"{name} are entries of a vocabulary, 0 or above; got {min(ids) if min(ids) < 0 else max(ids)}")
    return ids


def _logprobs(logprobs: Iterable[Any], n: int) -> tuple[float, ...]:
    plain = logprobs if type(logprobs) is tuple and set(map(type, logprobs)) <= {float} else tuple(map(float, logprobs))
    if plain and len(plain) != n:
        raise ValueError(f"logprobs holds one value for each of the {n} token ids, or none; got {len(plain)}")
    # A sum of finite numbers that overflows is looked at one by one.
    if (plain and not math.isfinite(math.fsum(plain))) or any(not math.isfinite(x) for x in plain):
        worst = next(x for x in plain if not math.isfinite(x))
        raise ValueError(f"the log-probability of a sampled token is a finite number; got {worst}")
    if plain and max(plain) > _ROUNDING:
        raise ValueError(f"the logarithm of a probability is 0 or below; got {max(plain)}")
    return plain
