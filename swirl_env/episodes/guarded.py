"""Calls of plugins by the engine: whatever a tool, a judge, a grader or an agent does or returns, the episode goes on.

A failure is recorded as the plugin's: a tool that was ``unavailable``, a verdict that ``failed``, a grade left open. One bad
item never spoils a batch: a batch that raises is tried again item by item, and only the items that raise again carry the
error. So a batch gives what single calls would give.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import msgspec

from swirl_env.episodes.failures import Failures
from swirl_env.episodes.transcript import clean
from swirl_env.episodes.values import all_usual, are_plain, checked_result, checked_verdict
from swirl_env.errors import log_once, plugin_failure, printable
from swirl_env.protocols import Grader, Judge, Session, StatefulTool, Tool, is_pure
from swirl_env.types import UNAVAILABLE, SubTrajectory, Task, ToolResult, Verdict

Item = TypeVar("Item")
Result = TypeVar("Result")

_encode = msgspec.json.Encoder().encode
_decode_steps = msgspec.json.Decoder(list[SubTrajectory]).decode


def each(call: Callable[[Sequence[Item]], Sequence[Result]], items: Sequence[Item]) -> list[Result | Exception]:
    """Returns for each item what the call returns for it, or the exception that it raises.

    Args:
        call: takes a batch and returns one result per item, in their order.
        items: the batch; each call gets a list of its own.
    """
    try:
        results = call([*items])
        if type(results) is list and len(results) == len(items):
            return results
        return _listed(results, len(items))
    except BaseException as error:
        failure = plugin_failure(error)
        if len(items) == 1:
            return [failure]
    return [result for item in items for result in each(call, [item])]


def _listed(results: Iterable[Result], n: int) -> list[Result | Exception]:
    try:
        listed: list[Result | Exception] = list(results)
    except TypeError as error:
        raise TypeError(f"expected a list with one result per input, got {printable(repr(results)[:80])}") from error
    if len(listed) != n:
        raise ValueError(f"expected one result per input, got {len(listed)} for {n}")
    return listed


def run_tool(tool: Tool, queries: Sequence[Any], failures: Failures | None = None) -> list[ToolResult]:
    """Calls a tool; a query on which it raises or returns something invalid is ``unavailable``, and the episode goes on.

    Args:
        tool: the tool.
        queries: its input.
        failures: counts the calls that failed.
    """
    results = each(tool.run, queries)
    details = []
    for result in results:
        if type(result) is not ToolResult or result.error is not None or type(result.data) is not dict:
            break
        if type(result.text) is not str or not result.text.isascii():
            break
        if result.data:
            details.append(result.data)
    else:
        if not details or are_plain(details):
            if failures is not None and failures.batches:
                failures.clear()
            return results  # type: ignore[return-value]  # as was just seen
    checked = [_result(tool, query, result) for query, result in zip(queries, results, strict=True)]
    if failures is not None:
        failures.add(sum(result is UNAVAILABLE for result in checked), len(checked))
    return checked


def run_session(tool: StatefulTool, session: Session, query: Any) -> ToolResult:
    """Calls a session of a tool; one that raises or returns something invalid is ``unavailable`` for this call."""
    (result,) = each(session.run, [query])
    return _result(tool, query, result)


def _result(tool: Tool | StatefulTool, query: object, result: object) -> ToolResult:
    try:
        if isinstance(result, Exception):
            raise result
        return checked_result(result)
    except Exception as error:
        log_once(tool, f"tool {tool.tag}", error, query)
        return UNAVAILABLE


def run_judge(
    judge: Judge, steps: Sequence[SubTrajectory], pure: bool | None = None, failures: Failures | None = None
) -> list[Verdict]:
    """Calls a judge; a step on which it raises or returns something invalid has a ``failed`` verdict, never a zero.

    Args:
        judge: the judge.
        steps: its input; a judge that is not known to leave it alone gets a copy.
        pure: whether it is known to (see `swirl_env.protocols.PureJudge`); None asks the judge.
        failures: counts the steps on which it failed itself; a verdict ``failed`` that it returns is none of them.
    """
    pure = is_pure(judge) if pure is None else pure
    verdicts: list[Any] = each(judge.judge, steps if pure else copied(steps))
    failed = 0
    if not all_usual(verdicts):
        checked = [_verdict(judge, step, verdict) for step, verdict in zip(steps, verdicts, strict=True)]
        verdicts = [verdict for verdict, _ in checked]
        failed = sum(is_broken for _, is_broken in checked)
    if failures is not None and (failed or failures.batches):
        failures.add(failed, len(verdicts))
    return verdicts


def _verdict(judge: Judge, step: SubTrajectory, verdict: object) -> tuple[Verdict, bool]:
    """Returns a verdict that can be stored, and whether the judge itself failed."""
    name = type(judge).__name__
    try:
        if isinstance(verdict, Exception):
            raise verdict
        return checked_verdict(verdict, name), False
    except Exception as error:
        log_once(judge, f"judge {name}", error, step.action.text)
        return Verdict.failed(clean(f"{type(error).__name__}: {error}"), name), True


def copied(steps: Sequence[SubTrajectory]) -> list[SubTrajectory]:
    """Returns steps that share no list or dict with `steps`, meta of tasks and data of earlier results included."""
    try:
        return _decode_steps(_encode(steps))
    except (TypeError, ValueError, RecursionError):  # steps that did not come through the engine
        return copy.deepcopy(list(steps))


def run_grader(
    grader: Grader, tasks: Sequence[Task], answers: Sequence[str], failures: Failures | None = None
) -> list[bool | None]:
    """Calls a grader; an answer on which it raises or returns something invalid is left open, and counted in `failures`."""
    pairs = list(zip(tasks, answers, strict=True))

    def call(some: Sequence[tuple[Task, str]]) -> Sequence[bool | None]:
        return grader.grade([task for task, _ in some], [answer for _, answer in some])

    grades = [_grade(grader, pair, grade) for pair, grade in zip(pairs, each(call, pairs), strict=True)]
    if failures is not None:
        failures.add(sum(is_broken for _, is_broken in grades), len(grades))
    return [grade for grade, _ in grades]


def _grade(grader: Grader, pair: tuple[Task, str], grade: object) -> tuple[bool | None, bool]:
    """Returns a grade, and whether the grader itself failed."""
    try:
        if isinstance(grade, Exception):
            raise grade
        if grade is None or isinstance(grade, bool):
            return grade, False
        if type(grade).__name__ in ("bool", "bool_"):  # NumPy's
            return bool(grade), False
        raise TypeError(f"expected True, False or None as a grade, got {grade!r:.40}")
    except Exception as error:
        log_once(grader, f"grader {type(grader).__name__}", error, pair[1])
        return None, True
