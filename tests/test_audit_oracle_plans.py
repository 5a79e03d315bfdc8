"""Fewest steps over random plans and random search results, against trying every order of moves."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from swirl_env.audit.oracle import Oracle
from swirl_env.types import CALCULATOR, SEARCH, PlanStep, Task, ToolResult


@st.composite
def worlds(draw):
    """A task with up to four searches and up to two calculations, and what each search shows."""
    searches, sums = draw(st.integers(0, 4)), draw(st.integers(0, 2))
    if not searches + sums:
        searches = 1
    plan = []
    for i in range(searches):
        needs = draw(st.sets(st.integers(0, i - 1), max_size=2)) if i else set()
        plan.append(PlanStep(SEARCH, f"query {i}", f"fact {i}", tuple(sorted(needs)), (f"p{i}",), f"subject {i}"))
    for k in range(sums):
        before = draw(st.sets(st.integers(0, len(plan) - 1), min_size=1, max_size=2)) if plan else set()
        needs = {*before, *([len(plan) - 1] if k else [])}
        plan.append(PlanStep(CALCULATOR, f"1 + {k}", str(100 + k), tuple(sorted(needs))))
    answer = plan[-1].result if sums else "it"
    words = [f"query {i}" for i in range(searches)] + [f"subject {i}" for i in range(searches)] + ["the question"]
    shown = {query: draw(st.sets(st.integers(0, max(searches - 1, 0)), max_size=2)) if searches else set() for query in words}
    for i in range(searches):
        if draw(st.booleans()) or draw(st.booleans()):
            shown[f"query {i}"].add(i)  # a plan's query mostly finds its own fact
    return Task("t", "the question", answer, (), "text", tuple(plan)), shown


def fewest(task, shown):
    """Tries all sequences of moves, shortest first; a move is tried again if it is there again."""
    plan = task.plan
    searches = [i for i, step in enumerate(plan) if step.evidence]
    sums = [i for i, step in enumerate(plan) if not step.evidence]
    final = {i for i in sums if plan[i].result == task.answer} or set(sums[-1:])

    def above(i):
        return {i} | {k for j in plan[i].needs for k in above(j)}

    calls = [*shown, *sums] if searches else sums
    for length in range(8):
        if length > len(calls):
            return None
        for sequence in itertools.permutations(calls, length):
            read, done = set(), set()
            for call in sequence:
                if isinstance(call, int):
                    amounts = {j for j in above(call) if plan[j].evidence}
                    if amounts <= read:
                        done |= {j for j in above(call) if not plan[j].evidence}
                    continue
                word, _, number = call.partition(" ")
                if word == "the" or all(j in read | done for j in above(int(number)) - {int(number)}):
                    read |= shown[call]
            if set(searches) <= read and (not final or final & done):
                return length + 1
        if length == 5:
            return None if not searches else _none_or_long(task, shown)
    return None


def _none_or_long(task, shown):
    """Whether everything can be seen at all: grows what is known until nothing is new."""
    plan, read = task.plan, set()

    def above(i):
        return {k for j in plan[i].needs for k in above(j) | {j}}

    while True:
        usable = {"the question"} | {
            f"{word} {i}" for word in ("query", "subject") for i, s in enumerate(plan) if s.evidence and above(i) <= read
        }
        more = read | {j for call in usable for j in shown[call]}
        if more == read:
            break
        read = more
    return "long" if {i for i, s in enumerate(plan) if s.evidence} <= read else None


@settings(deadline=None, max_examples=40)
@given(worlds())
def test_fewest_steps_are_those_of_the_shortest_sequence(world):
    task, shown = world

    def search(queries):
        return [ToolResult("", None, {"ids": [f"p{j}" for j in sorted(shown[query])]}) for query in queries]

    needed, expected = Oracle(search).table(task).needed(0), fewest(task, shown)
    assert needed == expected or (expected == "long" and needed is not None and needed > 6)


@given(worlds())
def test_seeing_more_never_takes_more_steps(world):
    task, shown = world
    table = Oracle(lambda queries: [ToolResult("", None, {"ids": [f"p{j}" for j in shown[q]]}) for q in queries]).table(task)
    for seen in range(1 << len(task.plan)):
        for bit in range(len(task.plan)):
            less, more = table.needed(seen), table.needed(seen | 1 << bit)
            assert less is None or (more is not None and more <= less)
            assert table.outstanding(seen | 1 << bit) <= table.outstanding(seen)
