"""Atlas: questions of one to six hops over a fictional world, with a gold plan for each."""

from __future__ import annotations

import random
from collections.abc import Sequence

from swirl_env.errors import ConfigError
from swirl_env.tasks.atlas.questions import Walk, chain_question, comparison_question, draw_chain, draw_pair, plan
from swirl_env.tasks.atlas.relations import RELATIONS, Relation
from swirl_env.tasks.atlas.world import VERSION, world
from swirl_env.tasks.generated import GeneratedTasks, check_whole
from swirl_env.tasks.names import Split
from swirl_env.types import Grading, Task

MAX_HOPS = 6
_VALUES = [relation for relation in RELATIONS if relation.is_value]
_USUAL = {"documents": 1_300, "min_hops": 1, "max_hops": 4, "comparisons": 0.25, "seed": 0, "words": None, "values": True}


class Atlas(GeneratedTasks):
    """Questions over people, firms, schools, cities and regions that do not exist, one short document for each fact.

    Nothing has to be held or downloaded: documents and tasks are computed from their numbers. Training on many worlds means
    a larger one, or several seeds: in one corpus every name is unique, so ten small worlds side by side are one large one.

    Args:
        split: ``train``, ``validation`` or ``test``; their entities have no name in common, whatever the other options.
        size: how many questions there are.
        documents: how many documents describe the world, 100 to about a million (train: ten million).
        min_hops: fewest searches that a question needs.
        max_hops: most searches that a question needs, at most 6. The step budget is three more: the answer and two to spare.
        comparisons: share of the questions of two hops or more that compare two dates or amounts; the others are chains.
        seed: which world, and which questions.
        words: how many words of each list names are made of, a multiple of ten; None for as many as a test world of that
            size needs. Give train and test the same number if their sizes differ, and no test name has an unknown word.
        values: whether the last relation of a chain may lead to a date or an amount; otherwise every answer of a chain is a name.
    """

    tools = ("search",)

    def __init__(
        self,
        split: Split = "train",
        size: int = 10_000,
        documents: int = 1_300,
        min_hops: int = 1,
        max_hops: int = 4,
        comparisons: float = 0.25,
        seed: int = 0,
        words: int | None = None,
        values: bool = True,
    ) -> None:
        check_whole(documents=documents, min_hops=min_hops, max_hops=max_hops, seed=seed, words=words or 0)
        check_hops(min_hops, max_hops, 1)
        if not isinstance(comparisons, int | float) or not 0 <= comparisons <= 1:
            raise ConfigError(f"comparisons is a share between 0 and 1; got {comparisons!r}.")
        options = {
            "documents": documents,
            "min_hops": min_hops,
            "max_hops": max_hops,
            "comparisons": float(comparisons),
            "seed": seed,
            "words": words,
            "values": values,
        }
        super().__init__("atlas", VERSION, size, split, options, _USUAL)
        self.world = world(documents, split, seed, words)
        self.corpus = self.world.corpus
        self.max_steps = max_hops + 3
        self._hops = (min_hops, max_hops)
        self._comparisons = comparisons
        self._values = values

    def draw(self, rng: random.Random, task_id: str) -> Task:
        """Returns the task that `rng` decides."""
        hops = rng.randint(*self._hops)
        if hops > 1 and rng.random() < self._comparisons:
            return self._comparison(rng, task_id, hops)
        walk = draw_chain(self.world, rng, hops, self._values)
        last = walk.relations[-1]
        answer = self.world.text(last, walk.facts[-1])
        return self._task(
            task_id,
            chain_question(self.world, rng, walk),
            answer,
            last,
            [walk],
            {"hops": hops, "type": "chain", "relations": [r.name for r in walk.relations]},
        )

    def _comparison(self, rng: random.Random, task_id: str, hops: int) -> Task:
        pair = draw_pair(self.world, rng, hops, _VALUES)
        more = rng.random() < 0.5
        question = comparison_question(self.world, rng, pair, more)
        one, two = pair
        winner = one if (one.facts[-1] > two.facts[-1]) == more else two
        last = winner.relations[-1]
        answer = self.world.name(last.subject, winner.subjects[-1])
        relations = [[r.name for r in walk.relations] for walk in pair]
        return self._task(task_id, question, answer, None, pair, {"hops": hops, "type": "comparison", "relations": relations})

    def _task(
        self,
        task_id: str,
        question: str,
        answer: str,
        last: Relation | None,
        walks: Sequence[Walk],
        meta: dict[str, object],
    ) -> Task:
        """Returns the task; `last` is the relation that leads to the answer, None if the answer is one of two subjects."""
        steps = plan(self.world, walks)
        evidence = tuple(passage for step in steps for passage in step.evidence)
        number = last is not None and last.object == "amount"
        aliases = date_aliases(answer) if last is not None and last.object == "date" else ()
        grading: Grading = "number" if number else "text"
        return Task(task_id, question, answer, aliases, grading, tuple(steps), evidence, {**meta, "split": self.split})


def check_hops(low: int, high: int, least: int) -> None:
    """Refuses a range of hops that no question can have."""
    if not least <= low <= high <= MAX_HOPS:
        raise ConfigError(f"Expected {least} <= min_hops <= max_hops <= {MAX_HOPS}; got {low} and {high}.")


def date_aliases(date: str) -> tuple[str, ...]:
    """Returns other ways to write a date: ``March 14, 1923`` for ``14 March 1923``."""
    day, month, year = date.split()
    return (f"{month} {day}, {year}",)
