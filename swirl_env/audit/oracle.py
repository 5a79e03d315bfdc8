"""The oracle: exact values of the states and actions of stored episodes, for tasks with a gold plan.

A question is *solved* by a right answer. Its optimal player knows the plan but no fact. It may search for what the plan asks
next (in the plan's words, by the bare subject, or with the question itself) once the results have shown all that the query rests
on; compute a plan step once they have shown the amounts in it, several steps in one expression if it likes; and answer once all
evidence has been shown and the final value has been computed. What a search reveals is what the search tool returns for it, so a
result that happens to show two facts saves a step. Every action costs one step, the answer too, useless ones (repetitions,
malformed actions, failed calls) as well as others, and an answer ends the episode, right or wrong.

The environment is deterministic, so

    needed(s)   fewest actions that solve the question from s, the answer included; None if no sequence does
    V*(s)       1 if needed(s) <= steps left, else 0
    Q*(s, a)    1 for a right answer and 0 for a wrong one; V* of the next state for every other action, 0 after the last step

V* is 0 or 1, and a wasted step costs nothing while there are steps to spare. Two finer measures stand next to it: `progress`
(the action shortens what the plan still asks for, or is a right answer) and the values discounted by gamma per step that is
still to be taken, ``gamma^(needed - 1)``, which are 0 if the question cannot be solved any more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from swirl_env.audit.kinds import kind_of
from swirl_env.episodes.transcript import subtrajectories
from swirl_env.errors import ConfigError
from swirl_env.gold_plan import Plan, plan_of
from swirl_env.types import Answer, SubTrajectory, Task, ToolCall, ToolResult, Trajectory

Run = Callable[[Sequence[str]], Sequence[ToolResult]]
"""What runs searches: the `run` of the search tool."""
GAMMA = 0.9
"""Discount per step of `StepValue.q_discounted`."""


class Move(NamedTuple):
    """A call that the optimal player may make."""

    needs: int
    """Plan steps that must have been seen, as bits."""
    reveals: int
    """Plan steps that it shows, as bits."""


class StepValue(NamedTuple):
    """What the oracle says of one step of an episode."""

    left: int
    """Actions that the budget allows, this one included."""
    needed: int | None
    """Fewest actions that solve the question from the state, the answer included; None if none do."""
    needed_after: int | None
    """The same after the action; 0 after a right answer, None after a wrong one."""
    progress: bool | None
    """Whether the action leaves less of the plan to be done, or is a right answer; None if its grade is not known."""
    q: bool | None
    """Q*(s, a); None if the grade of the answer is not known."""
    q_discounted: float | None
    """The same, discounted by `GAMMA` per step still to be taken."""
    kind: str
    """What kind of step, or of mistake, it is (see `swirl_env.audit.kinds`)."""

    @property
    def v(self) -> bool:
        """V*(s)."""
        return self.needed is not None and self.needed <= self.left

    @property
    def v_discounted(self) -> float:
        """V*(s), discounted by `GAMMA` per step to be taken before the answer."""
        return _discounted(self.needed, self.left)


class Oracle:
    """Values the steps of episodes on tasks with a gold plan.

    Args:
        search: runs searches, as the episodes' tool did; None takes each of the plan's own queries to show its evidence and
            nothing else, and knows no lucky results.
    """

    def __init__(self, search: Run | None = None) -> None:
        self._search = search
        self._table: tuple[Task, Table] | None = None

    def table(self, task: Task) -> Table:
        """Returns the values of a task's states by what they have shown; that of the last task is remembered.

        Raises:
            ConfigError: if the task has no gold plan.
        """
        if self._table is None or self._table[0] is not task:
            if not task.plan:
                raise ConfigError(
                    f"The oracle reads gold plans, and task {task.id!r} has none. Audit runs on atlas, ledger, atlas_ledger or "
                    f"another task with plans."
                )
            self._table = (task, Table(plan_of(task), self._search))
        return self._table[1]

    def values(self, trajectory: Trajectory) -> list[StepValue]:
        """Returns one value per step of an episode."""
        table = self.table(trajectory.task)
        values: list[StepValue] = []
        seen = 0
        steps = list(subtrajectories(trajectory))
        for i, step in enumerate(steps):
            after = table.seen_after(step)
            over = i == len(steps) - 1 and trajectory.ended != "answered"
            values.append(_value(table, step, seen, after, over))
            seen = after
        return values


class Table:
    """The values of one task's states, which depend on nothing but the plan steps seen and the steps left.

    Args:
        plan: the task's plan.
        search: see `Oracle`.
    """

    def __init__(self, plan: Plan, search: Run | None = None) -> None:
        self.plan = plan
        self.moves = list(dict.fromkeys([*_searches(plan, search), *_calculations(plan)]))
        self._needed: dict[int, int | None] = {}

    def is_known(self, seen: int) -> bool:
        """Whether the answer follows from what has been seen: all evidence, and the final value."""
        return self.plan.all_evidence_seen((seen, 0)) and self.plan.is_computed((seen, 0))

    def needed(self, seen: int) -> int | None:
        """Returns the fewest actions that solve the question, the answer included; None if no sequence of moves does."""
        if seen not in self._needed:
            self._needed[seen] = self._breadth_first(seen)
        return self._needed[seen]

    def _breadth_first(self, start: int) -> int | None:
        reached, frontier, depth = {start}, [start], 0
        while frontier:
            depth += 1
            if any(map(self.is_known, frontier)):
                return depth
            following = {seen | move.reveals for seen in frontier for move in self.moves if not move.needs & ~seen}
            frontier = sorted(following - reached)
            reached |= following
        return None

    def outstanding(self, seen: int) -> int:
        """Returns how many plan steps are still to be done, one by one and without luck."""
        plan = self.plan
        searches = (plan.search_steps & ~seen).bit_count()
        if plan.is_computed((seen, 0)):
            return searches
        return searches + min((_above(plan, bit) & plan.value_steps & ~seen).bit_count() for bit in _bits(plan.final))

    def seen_after(self, step: SubTrajectory) -> int:
        """Returns which plan steps have been seen after a step, as bits."""
        progress = self.plan.progress(step.state.steps)
        if isinstance(step.call, ToolCall) and step.result is not None:
            progress, _ = self.plan.advance(progress, step.call, step.result)
        return progress[0]


def _value(table: Table, step: SubTrajectory, seen: int, after: int, over: bool) -> StepValue:
    left, needed = step.state.steps_left, table.needed(seen)
    progress = table.outstanding(after) < table.outstanding(seen)
    kind = kind_of(table.plan, step, seen, progress)
    if isinstance(step.call, Answer):
        right = None if step.outcome is None else step.outcome.correct
        discounted = None if right is None else float(right)
        return StepValue(left, needed, 0 if right else None, right, right, discounted, kind)
    needed_after = table.needed(after)
    q = not over and needed_after is not None and needed_after <= left - 1
    discounted = GAMMA * _discounted(needed_after, left - 1) if q else 0.0
    return StepValue(left, needed, needed_after, progress, q, discounted, kind)


def _discounted(needed: int | None, left: int) -> float:
    return GAMMA ** (needed - 1) if needed is not None and needed <= left else 0.0


def _searches(plan: Plan, search: Run | None) -> Iterator[Move]:
    """Yields the searches that the optimal player may make, by what they need and reveal."""
    wordings: dict[tuple[str, int], int] = {}
    for bit in _bits(plan.search_steps):
        step = plan.steps[bit.bit_length() - 1]
        needs = plan.prerequisites[bit.bit_length() - 1] & plan.recognisable
        for query in filter(None, (step.query, step.subject)):
            wordings[query, needs] = bit
    if search is None:
        yield from (Move(needs, bit) for (_, needs), bit in wordings.items())
        return
    if plan.search_steps:
        wordings[plan.task.question, 0] = 0
    queries = list(dict.fromkeys(query for query, _ in wordings))
    results = dict(zip(queries, search(queries) if queries else [], strict=True))
    for query, needs in wordings:
        result = results[query]
        if result.error is None and (reveals := _revealed(plan, result)):
            yield Move(needs, reveals)


def _revealed(plan: Plan, result: ToolResult) -> int:
    mask = 0
    for passage in result.data.get("ids", ()):
        mask |= plan.by_passage.get(passage, 0)
    return mask


def _calculations(plan: Plan) -> Iterator[Move]:
    for bit in _bits(plan.value_steps):
        above = _above(plan, bit)
        yield Move(above & plan.search_steps, above & plan.value_steps)


def _above(plan: Plan, bit: int) -> int:
    """Returns a step and all that it depends on."""
    return bit | plan.prerequisites[bit.bit_length() - 1]


def _bits(mask: int) -> Iterator[int]:
    while mask:
        yield mask & -mask
        mask &= mask - 1
