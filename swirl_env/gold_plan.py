"""How far the steps of an episode have come along a task's gold plan: shared by judges and scripted experts.

Two sets of plan steps, kept as bit masks, describe progress:

- *seen*: evidence for the step has been shown, or its value computed;
- *resolved*: the episode has spent a call on the step.

A search resolves one step at a time, the best-ranked open one among its passages, so that looking up the second of two facts
that one result happened to show is neither punished nor required. A step is *open* while it is unresolved and everything it
depends on has been seen. A computed value resolves its step and all that it depends on.

A task without a plan but with supporting passages is treated as a plan with one search per passage, in any order; there a
search resolves all that it shows.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from swirl_env.grading import numeric_equal
from swirl_env.types import SEARCH, Step, Task, ToolCall, ToolResult

Progress = tuple[int, int]
"""Which plan steps are seen, and which are resolved: bit i for step i. A plain tuple, since each step makes several."""

START: Progress = (0, 0)
_MAX_MEMOS = 64
"""Calls that a plan remembers."""


class Plan:
    """A task's gold plan, indexed by passage and by value. Build it with `plan_of`."""

    __slots__ = (
        "_memory",
        "by_passage",
        "by_value",
        "final",
        "one_at_a_time",
        "prerequisites",
        "recognisable",
        "search_steps",
        "size",
        "steps",
        "task",
        "value_steps",
    )

    def __init__(self, task: Task) -> None:
        self.task = task
        """The task; `plan_of` knows plans by its identity."""
        self.steps = task.plan
        self.one_at_a_time = bool(task.plan)
        """Whether a search resolves a single step."""
        self.by_passage: dict[str, int] = {}
        """Passage id -> the steps that it is evidence for."""
        self.by_value: dict[str, int] = {}
        """Result -> the steps that compute it."""
        self.search_steps = 0
        """The steps that passages resolve."""
        self.value_steps = 0
        """The steps that values resolve."""
        self._memory: dict[int, tuple[ToolCall, ToolResult, tuple[Step, ...], Progress]] = {}
        self.prerequisites: list[int] = []
        """Step -> all steps that it depends on, itself excluded."""
        for i, step in enumerate(task.plan):
            self._add(1 << i, step.evidence, step.result)
            above = 0
            for needed in step.needs:
                above |= 1 << needed | self.prerequisites[needed]
            self.prerequisites.append(above)
        if not task.plan:
            for i, passage in enumerate(dict.fromkeys(task.evidence)):
                self._add(1 << i, (passage,), "")
                self.prerequisites.append(0)
        self.size = len(self.prerequisites)
        self.recognisable = self.search_steps | self.value_steps
        """The steps that can be recognised."""
        self.final = self._final()
        """The steps whose values give the answer, any of them; 0 if nothing has to be computed."""

    def _add(self, bit: int, evidence: tuple[str, ...], result: str) -> None:
        # A search step of which the evidence is not known cannot be recognised, so nobody has to take it.
        if evidence:
            self.search_steps |= bit
            for passage in evidence:
                self.by_passage[passage] = self.by_passage.get(passage, 0) | bit
        elif result and self.steps[bit.bit_length() - 1].tool != SEARCH:
            self.value_steps |= bit
            self.by_value[result] = self.by_value.get(result, 0) | bit

    def _final(self) -> int:
        if not self.value_steps:
            return 0
        answer = self.task.answer or ""
        equal = sum(mask for result, mask in self.by_value.items() if same_value(result, answer))
        return equal or 1 << self.value_steps.bit_length() - 1

    def advance(self, progress: Progress, call: ToolCall, result: ToolResult) -> tuple[Progress, int]:
        """Returns the progress after a call, and the steps that the call resolved (0 if it resolved none)."""
        if result.error is not None:
            return progress, 0
        data = result.data
        if "ids" in data:
            return self._read(progress, data["ids"]) if self.by_passage else (progress, 0)
        if self.value_steps and is_computation(call.query):
            return self._compute(progress, call.tool, str(data.get("value", result.text)))
        return progress, 0

    def _read(self, progress: Progress, ids: Sequence[str]) -> tuple[Progress, int]:
        seen, resolved = progress
        matched = hit = 0
        for mask in map(self.by_passage.get, ids):
            if mask is None:
                continue
            matched |= mask
            if not self.one_at_a_time:
                hit |= mask & ~resolved
            elif not hit:
                hit = self._first_open(mask & ~resolved, seen)
        return (progress, 0) if not matched else ((seen | matched, resolved | hit), hit)

    def _first_open(self, mask: int, seen: int) -> int:
        """Returns the first step in `mask` whose searches are all seen, as a bit, or 0."""
        while mask:
            bit = mask & -mask
            if not self.prerequisites[bit.bit_length() - 1] & ~seen & self.recognisable:
                return bit
            mask ^= bit
        return 0

    def _compute(self, progress: Progress, tool: str, value: str) -> tuple[Progress, int]:
        seen, resolved = progress
        mask = self._with_value(value) & ~resolved
        while mask:
            bit = mask & -mask
            index = bit.bit_length() - 1
            above = self.prerequisites[index]
            # One expression may do several steps at once, but the amounts in it must have been shown.
            if self.steps[index].tool == tool and not above & self.search_steps & ~seen:
                done = bit | above & self.value_steps
                return (seen | done, resolved | done), done & ~resolved
            mask ^= bit
        return progress, 0

    def _with_value(self, value: str) -> int:
        mask = self.by_value.get(value)
        if mask is not None:
            return mask
        return sum(mask for result, mask in self.by_value.items() if same_value(result, value))

    def progress(self, steps: tuple[Step, ...]) -> Progress:
        """Returns the progress that `steps` have made."""
        if not steps:
            return START
        last = steps[-1]
        memo = self._memory.get(id(last.call))
        # Equal tuples of the same objects compare at once; the memory is a matter of speed alone.
        if memo is not None and memo[0] is last.call and memo[1] is last.result and memo[2] == steps[:-1]:
            return memo[3]
        progress = START
        for step in steps:
            call, result = step.call, step.result
            if result is not None and type(call) is ToolCall:
                progress, _ = self.advance(progress, call, result)
        return progress

    def follow(self, steps: tuple[Step, ...], call: ToolCall, result: ToolResult) -> tuple[Progress, Progress, int]:
        """Returns the progress before and after a call made after `steps`, and the plan steps that it resolved.

        What it led to is remembered, so that `progress` need not read an episode again that is followed call by call.
        """
        before = self.progress(steps) if steps else START
        after, hit = self.advance(before, call, result)
        if len(self._memory) >= _MAX_MEMOS:
            self._memory.clear()
        self._memory[id(call)] = (call, result, steps, after)
        return before, after, hit

    def open(self, progress: Progress) -> list[int]:
        """Returns the steps that can be taken now, in the plan's order: unresolved, and all they depend on is seen."""
        seen, resolved = progress
        remaining = self.recognisable & ~resolved
        missing = self.recognisable & ~seen
        return [i for i in range(self.size) if remaining >> i & 1 and not self.prerequisites[i] & missing]

    def all_evidence_seen(self, progress: Progress) -> bool:
        """Whether the evidence of every search step has been shown."""
        return not self.search_steps & ~progress[0]

    def is_computed(self, progress: Progress) -> bool:
        """Whether the final value has been computed (True if nothing has to be)."""
        return not self.final or bool(self.final & progress[0])


_NUMBER = "0123456789.,$€£% =\t\n"


def is_computation(query: str) -> bool:
    """Whether an expression does something: a bare number, with or without sign, brackets or unit, does not."""
    return query.lstrip("-+( ").strip(_NUMBER).strip(")").strip(_NUMBER) != ""


def same_value(a: str, b: str) -> bool:
    """Whether two texts are equal, or state the same number."""
    return a == b or numeric_equal(a, b)


_MAX_PLANS = 128
"""Plans in memory: more than episodes are usually in flight, and few enough that a dropped one is still in the CPU cache."""
_plans: OrderedDict[int, Plan] = OrderedDict()


def plan_of(task: Task) -> Plan:
    """Returns the plan of a task, the same object for the same task object."""
    plan = _plans.get(id(task))
    if plan is None or plan.task is not task:
        if len(_plans) >= _MAX_PLANS:
            _plans.popitem(last=False)
        plan = _plans[id(task)] = Plan(task)
    return plan


def forget(task: Task) -> None:
    """Drops a task's plan when an episode on it has ended: freeing it now is cheaper than after it has left the CPU cache."""
    _plans.pop(id(task), None)
