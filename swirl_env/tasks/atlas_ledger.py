"""AtlasLedger: amounts to be found in an Atlas world and computed with, so that a question needs both tools."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple

from swirl_env.tasks.atlas.questions import Walk, draw_pair, draw_single, phrase, plan
from swirl_env.tasks.atlas.relations import RELATIONS
from swirl_env.tasks.atlas.tasks import check_hops
from swirl_env.tasks.atlas.world import VERSION, world
from swirl_env.tasks.generated import GeneratedTasks, check_whole
from swirl_env.tasks.ledger.story import number_text
from swirl_env.tasks.names import Split
from swirl_env.types import CALCULATOR, PlanStep, Task

_AMOUNTS = [relation for relation in RELATIONS if relation.object == "amount"]
_PERCENT = (4, 5, 8, 10, 12, 15, 20, 25, 30, 35, 40, 60, 75)
_MOST_OPERATIONS = 2
_PAIRS = 0.6
_USUAL = {"documents": 1_300, "min_hops": 1, "max_hops": 4, "seed": 0, "words": None}


class Sum(NamedTuple):
    """What to compute from the amounts; the last value is the answer."""

    kind: str
    question: str
    """With ``{a}`` and ``{b}`` for the amounts in words."""
    expressions: tuple[tuple[str, int, str], ...]
    """Expressions, their values in hundredths, and what they use: amount ``a``, amount ``b``, ``=`` the value before."""


def percentage(rng: random.Random, a: int) -> Sum:
    """A percentage of an amount."""
    p = rng.choice(_PERCENT)
    return Sum("percentage", f"What is {p} percent of {{a}}?", ((f"{a} * {p} / 100", a * p, "a"),))


def multiple(rng: random.Random, a: int) -> Sum:
    """A multiple of an amount."""
    k = rng.randint(3, 12)
    return Sum("multiple", f"What is {k} times {{a}}?", ((f"{a} * {k}", 100 * a * k, "a"),))


def growth(rng: random.Random, a: int) -> Sum:
    """An amount and a percentage on top."""
    p = rng.choice(_PERCENT)
    part = number_text(a * p)
    expressions = ((f"{a} * {p} / 100", a * p, "a"), (f"{a} + {part}", a * (100 + p), "a="))
    return Sum("growth", f"What would {{a}} be if it grew by {p} percent?", expressions)


def difference(rng: random.Random, a: int, b: int) -> Sum:
    """How much larger one amount is."""
    return Sum("difference", "By how much does {a} exceed {b}?", ((f"{a} - {b}", 100 * (a - b), "ab"),))


def total(rng: random.Random, a: int, b: int) -> Sum:
    """Two amounts together."""
    return Sum("total", "What do {a} and {b} add up to?", ((f"{a} + {b}", 100 * (a + b), "ab"),))


def average(rng: random.Random, a: int, b: int) -> Sum:
    """The mean of two amounts."""
    expressions = ((f"{a} + {b}", 100 * (a + b), "ab"), (f"{a + b} / 2", 50 * (a + b), "="))
    return Sum("average", "What is the average of {a} and {b}?", expressions)


def mixture(rng: random.Random, a: int, b: int) -> Sum:
    """A multiple of one amount and another amount."""
    k = rng.randint(3, 12)
    expressions = ((f"{a} * {k}", 100 * a * k, "a"), (f"{a * k} + {b}", 100 * (a * k + b), "b="))
    return Sum("mixture", f"What do {k} times {{a}} and {{b}} add up to?", expressions)


_ONE: tuple[Callable[[random.Random, int], Sum], ...] = (percentage, multiple, growth)
_TWO: tuple[Callable[[random.Random, int, int], Sum], ...] = (difference, total, average, mixture)


class AtlasLedger(GeneratedTasks):
    """Questions that take searches for one or two amounts in an Atlas world, and one or two calculations with them.

    Args:
        split: ``train``, ``validation`` or ``test``; their entities have no name in common, whatever the other options.
        size: how many questions there are.
        documents: how many documents describe the world, 100 to about a million (train: ten million).
        min_hops: fewest searches that a question needs.
        max_hops: most searches that a question needs, at most 6. The step budget is five more: at most two calculations, the
            answer, and two to spare.
        seed: which world, and which questions.
        words: how many words of each list names are made of, a multiple of ten; None for as many as a test world of that
            size needs. Give train and test the same number if their sizes differ, and no test name has an unknown word.
    """

    tools = ("search", "calculator")

    def __init__(
        self,
        split: Split = "train",
        size: int = 10_000,
        documents: int = 1_300,
        min_hops: int = 1,
        max_hops: int = 4,
        seed: int = 0,
        words: int | None = None,
    ) -> None:
        check_whole(documents=documents, min_hops=min_hops, max_hops=max_hops, seed=seed, words=words or 0)
        check_hops(min_hops, max_hops, 1)
        options = {"documents": documents, "min_hops": min_hops, "max_hops": max_hops, "seed": seed, "words": words}
        super().__init__("atlas-ledger", VERSION, size, split, options, _USUAL)
        self.world = world(documents, split, seed, words)
        self.corpus = self.world.corpus
        self.max_steps = max_hops + _MOST_OPERATIONS + 3
        self._hops = (min_hops, max_hops)

    def draw(self, rng: random.Random, task_id: str) -> Task:
        """Returns the task that `rng` decides."""
        hops = rng.randint(*self._hops)
        while True:
            walks, todo = self._draw(rng, hops)
            amounts = {100 * walk.facts[-1] for walk in walks}
            values = {value for _, value, _ in todo.expressions}
            # A value that is also an amount could be copied, and two equal values could not be told apart.
            if len(values) == len(todo.expressions) and values.isdisjoint(amounts):
                return self._task(rng, task_id, walks, todo, hops)

    def _draw(self, rng: random.Random, hops: int) -> tuple[list[Walk], Sum]:
        if hops == 1 or rng.random() >= _PAIRS:
            walk = draw_single(self.world, rng, hops, _AMOUNTS)
            return [walk], rng.choice(_ONE)(rng, walk.facts[-1])
        pair = draw_pair(self.world, rng, hops, _AMOUNTS)
        make = rng.choice(_TWO)
        swap = make is difference and pair[0].facts[-1] < pair[1].facts[-1]
        one, two = pair[::-1] if swap else pair
        return [one, two], make(rng, one.facts[-1], two.facts[-1])

    def _task(self, rng: random.Random, task_id: str, walks: list[Walk], todo: Sum, hops: int) -> Task:
        steps = plan(self.world, walks)
        evidence = tuple(passage for step in steps for passage in step.evidence)
        position = {"a": len(walks[0].relations) - 1, "b": len(steps) - 1}
        for expression, value, uses in todo.expressions:
            steps.append(PlanStep(CALCULATOR, expression, number_text(value), tuple(position[part] for part in uses)))
            position["="] = len(steps) - 1
        words = [phrase(self.world, rng, walk.start, walk.relations, walk.relations[0].subject) for walk in walks]
        question = todo.question.format(a=words[0], b=words[-1])
        meta = {
            "hops": hops,
            "operations": len(todo.expressions),
            "type": todo.kind,
            "relations": [[relation.name for relation in walk.relations] for walk in walks],
            "split": self.split,
        }
        return Task(task_id, question, steps[-1].result, (), "number", tuple(steps), evidence, meta)
