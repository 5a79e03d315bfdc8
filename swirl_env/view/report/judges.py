"""What the judges of a run say of its steps: the share that each calls GOOD, and how far any two agree."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping

import msgspec
import numpy as np

from swirl_env.audit.agreement import kappa
from swirl_env.store import Store
from swirl_env.types import Trajectory, Verdict

EPISODE = "the episodes"
"""Name of the verdicts that the episodes were stored with, if no judge's table repeats them."""
_LABELS = ("GOOD", "BAD")


class JudgeFigures(msgspec.Struct, frozen=True):
    """One judge's verdicts on the finished episodes of a run."""

    judge: str
    good: float | None
    """Share of GOOD among the steps it labelled."""
    labelled: int
    failed: int
    """Verdicts that failed."""


class Agreement(msgspec.Struct, frozen=True):
    """Two judges of one run, over the steps that both labelled."""

    first: str
    second: str
    steps: int
    both_good: int
    only_first_good: int
    only_second_good: int
    both_bad: int
    share: float
    """Steps with equal labels."""
    kappa: float | None
    """Agreement above chance (Cohen 1960); None if both gave one and the same label throughout."""


class Judgements:
    """Collects every judge's verdicts on the episodes that pass by."""

    def __init__(self, store: Store) -> None:
        self._tables = {judge: store.verdicts(judge) for judge in store.judges()}
        self._labels: dict[str, Counter[str]] = {}
        self._pairs: dict[tuple[str, str], Counter[tuple[str, str]]] = {}

    def watch(self, store: Store, table: str | None) -> Iterator[Trajectory]:
        """Yields the episodes with the verdicts of a table (None for their own) and counts those of all judges."""
        pairs = ((t, t) for t in store) if table is None else zip(store, store.with_verdicts(table), strict=True)
        for plain, trajectory in pairs:
            if plain.ended != "error":
                self._count(self._verdicts(plain))
            yield trajectory

    def _verdicts(self, trajectory: Trajectory) -> Mapping[str, tuple[Verdict, ...]]:
        own = tuple(step.verdict for step in trajectory.steps)
        verdicts = {judge: table[trajectory.key] for judge, table in self._tables.items() if trajectory.key in table}
        repeated = own in verdicts.values() or all(verdict.status == "unscored" for verdict in own)
        return verdicts if repeated else {EPISODE: own, **verdicts}

    def _count(self, verdicts: Mapping[str, tuple[Verdict, ...]]) -> None:
        labels = {judge: [_label(verdict) for verdict in of_steps] for judge, of_steps in verdicts.items()}
        for judge, of_judge in labels.items():
            self._labels.setdefault(judge, Counter()).update(of_judge)
        for (first, a), (second, b) in itertools.combinations(sorted(labels.items()), 2):
            both = (pair for pair in zip(a, b, strict=False) if pair[0] in _LABELS and pair[1] in _LABELS)
            self._pairs.setdefault((first, second), Counter()).update(both)

    def figures(self) -> tuple[JudgeFigures, ...]:
        """Returns the judges by name."""
        figures = []
        for judge, counts in sorted(self._labels.items()):
            labelled = counts["GOOD"] + counts["BAD"]
            figures.append(JudgeFigures(judge, counts["GOOD"] / labelled if labelled else None, labelled, counts["failed"]))
        return tuple(figures)

    def agreement(self) -> tuple[Agreement, ...]:
        """Returns the pairs of judges that labelled the same steps."""
        pairs = []
        for (first, second), counts in sorted(self._pairs.items()):
            table = [[counts[a, b] for b in _LABELS] for a in _LABELS]
            (both_good, only_first), (only_second, both_bad) = table
            steps = sum(map(sum, table))
            if steps:
                share = (both_good + both_bad) / steps
                above_chance = float(kappa(np.array([table], dtype=np.float64))[0])
                pairs.append(
                    Agreement(
                        first,
                        second,
                        steps,
                        both_good,
                        only_first,
                        only_second,
                        both_bad,
                        share,
                        None if np.isnan(above_chance) else above_chance,
                    )
                )
        return tuple(pairs)


def _label(verdict: Verdict) -> str:
    return verdict.label if verdict.status == "scored" and verdict.label is not None else verdict.status
