"""Ledger: arithmetic word problems of two to six calculations, with a gold plan for each."""

from __future__ import annotations

import contextlib
import random

from swirl_env.errors import ConfigError
from swirl_env.tasks.generated import GeneratedTasks, check_whole
from swirl_env.tasks.ledger.story import Misfit, Story, draw_plot, write_story
from swirl_env.tasks.ledger.words import THEMES
from swirl_env.tasks.names import Names, Split
from swirl_env.types import Task

VERSION = 2
"""To be raised whenever the same options give other tasks."""
MAX_OPERATIONS = 6
_PEOPLE = 1_000
_TRIES = 12
_USUAL = {"min_operations": 2, "max_operations": 6, "seed": 0}


class Ledger(GeneratedTasks):
    """Word problems about shops, farms and workshops: sums, differences, products, equal parts, percentages and fractions.

    Every value on the way is an integer, or for money a decimal that ends. The gold plan has one calculation per step; the
    answer and the values on the way are stated nowhere in the text, and some texts have a number that plays no part.

    Args:
        split: ``train``, ``validation`` or ``test``; their people have no name in common.
        size: how many questions there are.
        min_operations: fewest calculations that a question needs.
        max_operations: most calculations that a question needs, at most 6. The step budget is three more.
        seed: which questions.
    """

    tools = ("calculator",)

    def __init__(
        self, split: Split = "train", size: int = 10_000, min_operations: int = 2, max_operations: int = 6, seed: int = 0
    ) -> None:
        check_whole(min_operations=min_operations, max_operations=max_operations, seed=seed)
        if not 1 <= min_operations <= max_operations <= MAX_OPERATIONS:
            raise ConfigError(
                f"Expected 1 <= min_operations <= max_operations <= {MAX_OPERATIONS}; got {min_operations} and {max_operations}."
            )
        options = {"min_operations": min_operations, "max_operations": max_operations, "seed": seed}
        super().__init__("ledger", VERSION, size, split, options, _USUAL)
        self.max_steps = max_operations + 3
        self._operations = (min_operations, max_operations)
        self._people = Names("person", _PEOPLE, split, seed)

    def draw(self, rng: random.Random, task_id: str) -> Task:
        """Returns the task that `rng` decides."""
        operations = rng.randint(*self._operations)
        story = self._story(rng, operations)
        meta = {"operations": operations, "type": story.theme.place.split(" ", 1)[1], "split": self.split}
        return Task(task_id, story.question(), story.now, (), "number", tuple(story.steps), (), meta)

    def _story(self, rng: random.Random, operations: int) -> Story:
        theme = rng.choice(THEMES)
        while True:
            person, other = (self._people(i) for i in rng.sample(range(_PEOPLE), 2))
            if person.split()[0] == other.split()[0]:
                continue
            turns = draw_plot(rng, operations)
            # New numbers are tried a few times before a new plot is, or plots that seldom fit would hardly occur.
            for _ in range(_TRIES):
                with contextlib.suppress(Misfit):
                    return write_story(rng, turns, theme, person, other)
