"""The figures of a section: each cell over its seeds, each pair of cells on the same seeds or questions."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import msgspec
import numpy as np

from swirl_env.view.report.cells import Cell, Section, seed_of
from swirl_env.view.report.statistics import (
    FEWEST,
    Interval,
    improvement_interval,
    interquartile_mean,
    mean,
    paired_interval,
    probability_of_improvement,
    stratified_interval,
)


class Summary(msgspec.Struct, frozen=True):
    """One figure of one cell over its seeds."""

    values: tuple[float, ...]
    """One per finished run."""
    mean: float
    iqm: float
    interval: Interval | None
    """95 % stratified bootstrap interval of the interquartile mean; None for fewer than three seeds."""

    @property
    def seeds(self) -> str:
        """How many seeds there are, as a table says it."""
        count = len(self.values)
        return f"{count} seed{'' if count == 1 else 's'}"

    @property
    def too_few(self) -> bool:
        """Whether there are too few seeds for an interval."""
        return len(self.values) < FEWEST


def summarise(values: Sequence[float], strata: Sequence[Sequence[float]] | None = None) -> Summary | None:
    """Returns a figure over its seeds; None if no run has it.

    Args:
        values: one per run.
        strata: the same values by the set of questions they were measured on; None for one set.
    """
    if not values:
        return None
    interval = stratified_interval([values] if strata is None else strata)
    return Summary(tuple(values), float(mean(values)), float(interquartile_mean(values)), interval)


def summaries(cell: Cell) -> dict[str, Summary]:
    """Returns every figure of a cell that its finished runs have."""
    names = dict.fromkeys(name for result in cell.results for name in result.figures)
    return {name: summary for name in names if (summary := summarise(cell.values(name))) is not None}


class Comparison(msgspec.Struct, frozen=True):
    """Two cells on the same questions: the first minus the second."""

    section: str
    first: str
    second: str
    figure: str
    unit: str
    """What is paired: ``seed`` or ``question``."""
    pairs: int
    difference: float
    """Mean over the pairs."""
    interval: Interval | None
    """95 % bootstrap interval over the pairs."""
    better: int
    """Pairs in which the first is higher."""
    worse: int
    improvement: float | None
    """Probability of improvement over runs (Agarwal et al. 2021); None for fewer than three seeds in either cell."""
    improvement_interval: Interval | None


MOST_IN_PAIRS = 12
"""Most cells of which each is compared with every other; of more, each is compared with the best."""


def comparisons(section: Section) -> Iterator[Comparison]:
    """Yields the pairs of cells of a section that have something to pair."""
    for first, second in _cells_in_pairs(section):
        unit, pairs = _pairs(first, second, section.main_figure)
        if not pairs:
            continue
        differences = [a - b for a, b in pairs]
        new, old = first.values(section.main_figure), second.values(section.main_figure)
        enough = min(len(new), len(old)) >= FEWEST
        yield Comparison(
            section=section.label,
            first=first.label,
            second=second.label,
            figure=section.main_figure,
            unit=unit,
            pairs=len(pairs),
            difference=float(np.mean(differences)),
            interval=paired_interval(differences),
            better=sum(difference > 0 for difference in differences),
            worse=sum(difference < 0 for difference in differences),
            improvement=probability_of_improvement([new], [old]) if enough else None,
            improvement_interval=improvement_interval([new], [old]) if enough else None,
        )


def _cells_in_pairs(section: Section) -> Iterator[tuple[Cell, Cell]]:
    if len(section.cells) <= MOST_IN_PAIRS:
        yield from itertools.combinations(section.cells, 2)
        return
    means = {cell.label: float(np.mean(values)) for cell in section.cells if (values := cell.values(section.main_figure))}
    best = next((cell for cell in section.cells if means and cell.label == max(means, key=lambda label: means[label])), None)
    if best is None:
        return
    yield from ((best, cell) for cell in section.cells if cell is not best)


def _pairs(first: Cell, second: Cell, figure: str) -> tuple[str, list[tuple[float, float]]]:
    """Returns what is paired and the pairs: runs of the same seed, or questions if there are fewer than three such seeds."""
    ours, theirs = ({seed_of(r): r for r in cell.results if r.finished} for cell in (first, second))
    common = [seed for seed in ours if seed in theirs]
    by_seed = [(ours[seed].value(figure), theirs[seed].value(figure)) for seed in common]
    pairs = [(a, b) for a, b in by_seed if a is not None and b is not None]
    if len(pairs) >= FEWEST or _lack_questions(first, second):
        return "seed", pairs
    a, b = _by_question(first), _by_question(second)
    return "question", [(a[task], b[task]) for task in a if task in b]


def _lack_questions(*cells: Cell) -> bool:
    """Whether the single questions of some cell are not stored, as with the evaluations of trained policies."""
    return any(not result.questions for cell in cells for result in cell.results if result.finished)


def _by_question(cell: Cell) -> dict[str, float]:
    """Returns the share of right episodes per question, mean over the runs that have it."""
    shares: dict[str, list[float]] = {}
    for result in cell.results:
        for task, share in result.questions.items():
            shares.setdefault(task, []).append(share)
    return {task: sum(values) / len(values) for task, values in shares.items()}


class Overall(msgspec.Struct, frozen=True):
    """A cell over several sets of questions: its strata."""

    label: str
    sections: int
    summary: Summary


def overall(sections: Sequence[Section]) -> list[Overall]:
    """Returns the cells that stand in each of several sections of one kind, over all of them; empty for a single section."""
    if len(sections) < 2:
        return []
    rows: list[Overall] = []
    for first in sections[0].cells:
        cells = [cell for section in sections for cell in section.cells if cell.compared == first.compared]
        strata = [cell.values(section.main_figure) for section, cell in zip(sections, cells, strict=False)]
        if len(cells) == len(sections) and all(strata):
            summary = summarise([value for values in strata for value in values], strata)
            if summary is not None:
                rows.append(Overall(first.label, len(sections), summary))
    return rows


def collapsed(section: Section) -> list[str]:
    """Returns a sentence for each trained policy that ended below the one it began with."""
    sentences: list[str] = []
    for cell in section.cells:
        for result in cell.results:
            for figure in ("success", "greedy"):
                before, after = result.value(f"before.{figure}"), result.value(figure)
                if result.finished and before is not None and after is not None and after < before:
                    how = "sampled" if figure == "success" else "greedy"
                    sentences.append(
                        f"{cell.label}, seed {seed_of(result)}: {how} success fell from {100 * before:.1f} to "
                        f"{100 * after:.1f} % ({result.path})"
                    )
    return sentences
