"""How far the steps of an episode have got along a task's gold plan: what judges and scripted experts share.

Two sets of plan steps, kept as bit masks, describe progress:

- *seen*: evidence for the step has been shown, or its value computed;
- *resolved*: the episode has spent a call on the step.

A search resolves one step at a time, the best-ranked open one among its passages, so that looking up the second of two facts
that one result happened to show is neither punished nor required. A step is *open* while it is unresolved and everything it
rests on has been seen. A computed value resolves its step and all that it rests on.

A task without a plan but with supporting passages is treated as a plan with one search a passage, in any order; there a
search resolves all that it shows.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from swirl_env.grading import numeric_equal
from swirl_env.types import SEARCH, Step, Task, ToolCall, ToolResult

"""Tag of the search tool."""


Progress = tuple[int, int]
"""Which plan steps are seen, and which are resolved: bit i for step i. A plain tuple, since each step makes several."""

START: Progress = (0, 0)
_MEMORY = 64
"""Calls that a plan remembers."""


class Plan:
    """A task's gold plan, made ready for looking things up. Build it with `plan_of`."""

    __slots__ = (
        "_known",
        "above",
        "bound",
        "by_passage",
        "by_value",
        "computed",
        "final",
        "found",
        "one_at_a_time",
        "size",
        "steps",
        "task",
    )

    def __init__(self, task: Task) -> None:
        self.task = task
        """The task; kept, since `plan_of` knows plans by its identity."""
        self.steps = task.plan
        self.one_at_a_time = bool(task.plan)
        """Whether a search resolves a single step."""
        self.by_passage: dict[str, int] = {}
        """Passage id -> the steps that it is evidence for."""
        self.by_value: dict[str, int] = {}
        """Result -> the steps that compute it."""
        self.found = 0
        """The steps that passages resolve."""
        self.computed = 0
        """The steps that values resolve."""
        self._known: dict[int, tuple[ToolCall, ToolResult, tuple[Step, ...], Progress]] = {}
        self.above: list[int] = []
        """Step -> all that it rests on, itself excluded."""
        for i, step in enumerate(task.plan):
            self._add(1 << i, step.evidence, step.result)
            above = 0
            for needed in step.needs:
                above |= 1 << needed | self.above[needed]
            self.above.append(above)
        if not task.plan:
            for i, passage in enumerate(dict.fromkeys(task.evidence)):
                self._add(1 << i, (passage,), "")
                self.above.append(0)
        self.size = len(self.above)
        self.bound = self.found | self.computed
        """The steps that can be recognised."""
        self.final = self._final()
        """The steps whose values give the answer, any of them; 0 where nothing has to be computed."""

    def _add(self, bit: int, evidence: tuple[str, ...], result: str) -> None:
        # A search step of which the evidence is not known cannot be recognised and binds nobody.
        if evidence:
            self.found |= bit
            for passage in evidence:
                self.by_passage[passage] = self.by_passage.get(passage, 0) | bit
        elif result and self.steps[bit.bit_length() - 1].tool != SEARCH:
            self.computed |= bit
            self.by_value[result] = self.by_value.get(result, 0) | bit

    def _final(self) -> int:
        if not self.computed:
            return 0
        answer = self.task.answer or ""
        equal = sum(mask for result, mask in self.by_value.items() if same_value(result, answer))
        return equal or 1 << self.computed.bit_length() - 1

    def advance(self, progress: Progress, call: ToolCall, result: ToolResult) -> tuple[Progress, int]:
        """Returns the progress after a call, and the steps that the call resolved (0 where it brought nothing)."""
        if result.error is not None:
            return progress, 0
        data = result.data
        if "ids" in data:
            return self._read(progress, data["ids"]) if self.by_passage else (progress, 0)
        if self.computed and is_computation(call.query):
            return self._compute(progress, call.tool, str(data.get("value", result.text)))
        return progress, 0

    def _read(self, progress: Progress, ids: Sequence[str]) -> tuple[Progress, int]:
        seen, resolved = progress
        shown = hit = 0
        by_passage = self.by_passage
        for passage in ids:
            mask = by_passage.get(passage)
            if mask is None:
                continue
            shown |= mask
            if not self.one_at_a_time:
                hit |= mask & ~resolved
            elif not hit:
                hit = self._first_open(mask & ~resolved, seen)
        return (progress, 0) if not shown else ((seen | shown, resolved | hit), hit)

    def _first_open(self, mask: int, seen: int) -> int:
        """Returns the first step in `mask` whose searches are all seen, as a bit, or 0."""
        while mask:
            bit = mask & -mask
            if not self.above[bit.bit_length() - 1] & ~seen & self.bound:
                return bit
            mask ^= bit
        return 0

    def _compute(self, progress: Progress, tool: str, value: str) -> tuple[Progress, int]:
        seen, resolved = progress
        mask = self._with_value(value) & ~resolved
        while mask:
            bit = mask & -mask
            index = bit.bit_length() - 1
            above = self.above[index]
            # One expression may do several steps at once, but the amounts in it must have been found.
            if self.steps[index].tool == tool and not above & self.found & ~seen:
                done = bit | above & self.computed
                return (seen | done, resolved | done), done & ~resolved
            mask ^= bit
        return progress, 0

    def _with_value(self, value: str) -> int:
        mask = self.by_value.get(value)
        if mask is not None:
            return mask
        return sum(mask for result, mask in self.by_value.items() if same_value(result, value))

    def progress(self, steps: tuple[Step, ...]) -> Progress:
        """Returns how far `steps` have got."""
        if not steps:
            return START
        last = steps[-1]
        known = self._known.get(id(last.call))
        # Equal tuples of the same objects compare at once; the memory is a matter of speed alone.
        if known is not None and known[0] is last.call and known[1] is last.result and known[2] == steps[:-1]:
            return known[3]
        progress = START
        for step in steps:
            call, result = step.call, step.result
            if result is not None and type(call) is ToolCall:
                progress, _ = self.advance(progress, call, result)
        return progress

    def follow(self, steps: tuple[Step, ...], call: ToolCall, result: ToolResult) -> tuple[Progress, Progress, int]:
        """Returns the progress before and after a call made after `steps`, and the plan steps that it resolved.

        What it led to is remembered, so that `progress` need not read an episode anew that is followed call by call.
        """
        before = self.progress(steps)
        after, hit = self.advance(before, call, result)
        if len(self._known) >= _MEMORY:
            self._known.clear()
        self._known[id(call)] = (call, result, steps, after)
        return before, after, hit

    def open(self, progress: Progress) -> list[int]:
        """Returns the steps that can be taken now, in the plan's order: unresolved, and all they rest on is seen."""
        seen, resolved = progress
        left = self.bound & ~resolved
        missing = self.bound & ~seen
        return [i for i in range(self.size) if left >> i & 1 and not self.above[i] & missing]

    def all_found(self, progress: Progress) -> bool:
        """Whether every search has its evidence shown."""
        return not self.found & ~progress[0]

    def is_computed(self, progress: Progress) -> bool:
        """Whether the final value has been computed (True where nothing has to be)."""
        return not self.final or bool(self.final & progress[0])


_NUMBER = "0123456789.,$€£% =\t\n"


def is_computation(query: str) -> bool:
    """Whether an expression does something: a bare number, whatever its sign, brackets or unit, does not."""
    return query.lstrip("-+( ").strip(_NUMBER).strip(")").strip(_NUMBER) != ""


def same_value(a: str, b: str) -> bool:
    """Whether two texts are equal, or state the same number."""
    return a == b or numeric_equal(a, b)


_KEPT = 128
"""Plans held at once: more than episodes are usually in flight, and few enough that those let go are still in the cache."""
_plans: OrderedDict[int, Plan] = OrderedDict()


def plan_of(task: Task) -> Plan:
    """Returns the plan of a task, the same object for the same task object."""
    plan = _plans.get(id(task))
    if plan is None or plan.task is not task:
        if len(_plans) >= _KEPT:
            _plans.popitem(last=False)
        plan = _plans[id(task)] = Plan(task)
    return plan


def forget(task: Task) -> None:
    """Lets go of a task's plan, when an episode on it has ended: freed now, and not later when it has left the cache."""
    _plans.pop(id(task), None)
