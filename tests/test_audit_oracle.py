"""The oracle against brute force: every sequence of actions over small worlds, in the real engine with the real tools."""

import re

import msgspec
import pytest

from swirl_env.audit.oracle import GAMMA, Oracle
from swirl_env.env import build_engine
from swirl_env.errors import ConfigError
from swirl_env.rollout import cut_short
from swirl_env.types import SEARCH, Action, Answer


class Tasks:
    """A list of tasks with a corpus."""

    split = "test"

    def __init__(self, tasks, corpus=None, tools=("search",), max_steps=5):
        self.tasks, self.corpus, self.tools, self.max_steps = tasks, corpus, tools, max_steps

    def __len__(self):
        return len(self.tasks)

    def __getitem__(self, index):
        return self.tasks[index]


def texts(state):
    """What the environment has shown, the question included."""
    return state.task.question, [turn.text for turn in state.turns[1:] if turn.role == "tool"]


class Player:
    """All that an agent may do in a state if it believes nothing but what it has read; told by texts, not by plans' masks."""

    def __init__(self, engine):
        self.engine = engine
        corpus = engine.tasks.corpus
        self.passages = {} if corpus is None else {p.id: p.text for p in corpus}

    def knows(self, state, i):
        """Whether the text of the fact of plan step i has been shown, and of all that it rests on."""
        task, (_, shown) = state.task, texts(state)
        step = task.plan[i]
        if step.evidence:
            fact = any(self.passages[p] in text for p in step.evidence for text in shown)
        else:
            values = [s.result.text for s in state.steps if s.result is not None and "value" in s.result.data]
            later = [j for j in range(len(task.plan)) if j == i or i in self.above(task, j)]
            fact = any(task.plan[j].result in values for j in later)
        return fact and all(self.knows(state, j) for j in step.needs)

    def actions(self, state):
        """Yields texts: the plan's calls that may be made, useless ones, and answers."""
        fmt, task = self.engine.format, state.task
        known = [self.knows(state, i) for i in range(len(task.plan))]
        for i, step in enumerate(task.plan):
            if step.evidence and all(known[j] for j in step.needs):
                yield fmt.call(step.tool, step.query)
                yield fmt.call(step.tool, step.subject)
            elif not step.evidence and all(known[j] for j in self.amounts(task, i)):
                yield fmt.call(step.tool, self.merged(task, i))
                if all(known[j] for j in step.needs):
                    yield fmt.call(step.tool, step.query)
        if any(step.evidence for step in task.plan):
            yield fmt.call(SEARCH, task.question)
            yield fmt.call(SEARCH, "cello")
        yield "hm"
        yield fmt.answer("nobody at all")
        if all(known):
            yield fmt.answer(task.answer)

    def amounts(self, task, i):
        """Returns the searches that a plan step rests on."""
        above = {k for j in task.plan[i].needs for k in (j, *self.above(task, j))}
        return [j for j in above if task.plan[j].evidence]

    def above(self, task, i):
        return {k for j in task.plan[i].needs for k in (j, *self.above(task, j))}

    def merged(self, task, i):
        """Returns the expression of a plan step with those that it rests on written into it."""
        query = task.plan[i].query
        for j in task.plan[i].needs:
            if not task.plan[j].evidence:
                query = re.sub(rf"(?<![\d.]){task.plan[j].result}(?![\d.])", f"({self.merged(task, j)})", query, count=1)
        return query


def solvable(player, state, memo):
    """Whether any sequence of actions solves the question from a state: all of them are tried."""
    shown = frozenset(texts(state)[1]), state.steps_left
    if shown not in memo:
        memo[shown] = False
        tried = [Action(text) for text in dict.fromkeys(player.actions(state))]
        for transition in player.engine.step([state] * len(tried), tried):
            right = transition.outcome is not None and transition.outcome.correct is True
            if right or (transition.ended is None and solvable(player, transition.state, memo)):
                memo[shown] = True
                break
    return memo[shown]


def check(engine, oracle, state):
    """Compares V*, and the oracle's fewest steps, in a state and in all that its actions lead to."""
    player = Player(engine)
    memo, todo, visited, count = {}, [state], set(), 0
    while todo:
        state = todo.pop()
        key = frozenset(texts(state)[1]), state.steps_left
        if key in visited:
            continue
        visited.add(key)
        tried = [Action(text) for text in dict.fromkeys(player.actions(state))]
        for transition in engine.step([state] * len(tried), tried):
            if transition.ended is None:
                todo.append(transition.state)
                continue
            values = oracle.values(engine.trajectory(transition))
            right = transition.outcome.correct is True
            assert values[-1].q == right and (values[-1].progress == right or not isinstance(transition.step.call, Answer))
        budget = msgspec.structs.replace(state, settings=msgspec.structs.replace(state.settings, max_steps=len(state.steps) + 9))
        table = oracle.table(state.task)
        seen = table.plan.progress(state.steps)[0]
        needed = table.needed(seen)
        value = needed is not None and needed <= state.steps_left
        assert value == solvable(player, state, memo), (state.task.question, texts(state), needed, state.steps_left)
        if needed is not None and needed <= 3:
            exact = msgspec.structs.replace(budget.settings, max_steps=len(state.steps) + needed)
            assert solvable(player, msgspec.structs.replace(state, settings=exact), {})
            short = msgspec.structs.replace(exact, max_steps=len(state.steps) + needed - 1)
            assert needed == 1 or not solvable(player, msgspec.structs.replace(state, settings=short), {})
        count += 1
    return count


def oracle_of(engine):
    tool = engine.tools.get(SEARCH)
    return Oracle(tool.run if tool is not None else None)


@pytest.mark.parametrize(
    ("task", "max_steps", "questions"),
    [
        ({"name": "atlas", "documents": 100, "max_hops": 2, "comparisons": 0.5}, 4, 4),
        ({"name": "atlas", "documents": 100, "min_hops": 3, "max_hops": 3, "comparisons": 0.5}, 4, 2),
        ({"name": "ledger", "min_operations": 1, "max_operations": 3}, 4, 6),
        ({"name": "atlas_ledger", "documents": 100, "max_hops": 2}, 5, 2),
    ],
    ids=["atlas", "three-hops", "ledger", "both"],
)
def test_v_star_is_what_brute_force_finds(task, max_steps, questions, own_cache):
    engine = build_engine({**task, "split": "test", "size": 50}, judge=None, max_steps=max_steps)
    oracle = oracle_of(engine)
    states = sum(check(engine, oracle, engine.begin(engine.tasks[i], i)) for i in range(questions))
    assert states > 20


# Hand-made episodes: what each step is worth


@pytest.fixture(scope="module")
def atlas(own_cache):
    tasks = {"name": "atlas", "documents": 400, "min_hops": 2, "max_hops": 2, "comparisons": 0, "split": "test", "size": 50}
    return build_engine(tasks, judge=None, max_steps=4)


def play(engine, task, *actions):
    """Plays texts; ``>i`` stands for the plan's query i, ``=`` for the right answer."""
    state = engine.begin(task)
    for action in actions:
        text = action
        if action[0] == ">":
            text = engine.format.call(task.plan[int(action[1:])].tool, task.plan[int(action[1:])].query)
        elif action == "=":
            text = engine.format.answer(task.answer)
        (transition,) = engine.step([state], [Action(text)])
        state = transition.state
    return engine.trajectory(transition) if transition.ended else cut_short(state)


def shows(engine, words):
    """Whether a search shows evidence of the first question."""
    return not {p for step in engine.tasks[0].plan for p in step.evidence}.isdisjoint(
        engine.tools[SEARCH].run([words])[0].data["ids"]
    )


def search(words):
    return f"<search_query>{words}</search_query>"


def test_a_shortest_way_makes_progress_at_every_step(atlas):
    values = oracle_of(atlas).values(play(atlas, atlas.tasks[0], ">0", ">1", "="))
    assert [(v.left, v.needed, v.needed_after) for v in values] == [(4, 3, 2), (3, 2, 1), (2, 1, 0)]
    assert all(v.progress and v.q and v.v for v in values)
    assert [v.q_discounted for v in values] == pytest.approx([GAMMA**2, GAMMA, 1])
    assert [v.v_discounted for v in values] == pytest.approx([GAMMA**2, GAMMA, 1])
    assert [v.kind for v in values] == ["search", "search", "answer"]


def test_one_wasted_step_can_be_spared_and_two_cannot(atlas):
    task = atlas.tasks[0]
    values = oracle_of(atlas).values(play(atlas, task, ">0", ">0", "hm", ">1"))
    assert [v.q for v in values] == [True, True, False, False]
    assert [v.v for v in values] == [True, True, True, False]
    assert [v.progress for v in values] == [True, False, False, True]
    assert [v.kind for v in values] == ["search", "repeated", "malformed", "search"]
    assert [v.q_discounted for v in values] == pytest.approx([GAMMA**2, GAMMA**2, 0, 0])


def test_an_answer_ends_it_right_or_wrong(atlas):
    task = atlas.tasks[0]
    oracle = oracle_of(atlas)
    wrong = oracle.values(play(atlas, task, ">0", "<answer>nobody</answer>"))[-1]
    assert (wrong.v, wrong.q, wrong.progress, wrong.kind) == (True, False, False, "premature")
    lucky = oracle.values(play(atlas, task, ">0", "="))[-1]
    assert (lucky.q, lucky.progress, lucky.kind) == (True, True, "unsupported")
    late = oracle.values(play(atlas, task, ">0", ">1", "<answer>nobody</answer>"))[-1]
    assert (late.q, late.kind) == (False, "wrong_answer")


def test_kinds_of_useless_calls(atlas):
    task = atlas.tasks[0]
    first = task.plan[0]
    other = next(t for t in map(atlas.tasks.__getitem__, range(1, 9)) if t.plan[0].subject not in task.question)
    oracle = oracle_of(atlas)

    def kind(*actions):
        return oracle.values(play(atlas, task, *actions))[-1].kind

    missed = next(
        words for words in ("cello", "chess by post", "stamps", "keeps bees") if not shows(atlas, f"{first.subject} {words}")
    )
    assert kind(search(other.plan[0].query)) == "wrong_entity"
    assert kind(search(f"{missed}, {first.subject.upper()}")) == "wrong_relation"
    assert kind(">0", search(first.query.upper() + " ")) == "repeated"
    assert kind(">0", search(f"{first.query} {first.query}")) == "redundant"
    assert kind(">0", ">1", search("anything else")) == "needless"
    assert kind(search("x" * 3_000)) == "tool_error"
    assert kind("<search_query>and no end") == "malformed"


def test_kinds_of_calculations(own_cache):
    tasks = {"name": "ledger", "min_operations": 2, "max_operations": 2, "split": "test", "size": 9}
    engine = build_engine(tasks, judge=None, max_steps=6)
    task, oracle = engine.tasks[0], oracle_of(engine)

    def kinds(*actions):
        return [value.kind for value in oracle.values(play(engine, task, *actions))]

    assert kinds(">0", ">1", ">1", "<math_exp>1+1</math_exp>", "=") == ["calculation"] * 2 + ["repeated", "needless", "answer"]
    assert kinds("<math_exp>1+1</math_exp>", "<math_exp>)(</math_exp>", "<math_exp>7</math_exp>", "=") == [
        "wrong_calculation",
        "tool_error",
        "wrong_calculation",
        "unsupported",
    ]
    merged = Player(engine).merged(task, 1)
    values = oracle.values(play(engine, task, f"<math_exp>{merged}</math_exp>", "="))
    assert [(v.needed, v.progress) for v in values] == [(2, True), (1, True)]


def test_tasks_without_a_plan_are_refused(atlas):
    trajectory = play(atlas, atlas.tasks[0], "=")
    bare = msgspec.structs.replace(trajectory, task=msgspec.structs.replace(trajectory.task, plan=()))
    with pytest.raises(ConfigError, match=r"reads gold plans, and task .* has none"):
        Oracle().values(bare)


def test_without_the_tool_every_search_shows_its_own_evidence(atlas):
    for i in range(20):
        task = atlas.tasks[i]
        assert Oracle().table(task).needed(0) == 3 >= oracle_of(atlas).table(task).needed(0)


def test_an_answer_that_nobody_graded_has_no_value(atlas):
    trajectory = play(atlas, atlas.tasks[0], ">0", "=")
    open_ = msgspec.structs.replace(trajectory, outcome=msgspec.structs.replace(trajectory.outcome, correct=None))
    last = oracle_of(atlas).values(open_)[-1]
    assert (last.q, last.progress, last.kind) == (None, None, "ungraded")


def test_an_episode_that_grew_too_long_is_lost(atlas):
    trajectory = msgspec.structs.replace(play(atlas, atlas.tasks[0], ">0"), ended="length")
    (value,) = oracle_of(atlas).values(trajectory)
    assert value.v and not value.q and value.progress
