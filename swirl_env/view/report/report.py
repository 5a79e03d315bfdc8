"""A report: the sections of some runs with all their statistics, ready to be shown and written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from swirl_env.config.overrides import command, override
from swirl_env.stages.folders import Kind
from swirl_env.view.report.cells import Section
from swirl_env.view.report.comparisons import (
    MOST_IN_PAIRS,
    Comparison,
    Overall,
    Summary,
    collapsed,
    comparisons,
    overall,
    summaries,
)
from swirl_env.view.report.results import Result
from swirl_env.view.report.training import Panel, panels, progress

KINDS: dict[Kind, str] = {"training": "Trained policies", "episodes": "Runs of episodes"}


class Dashboard(msgspec.Struct, frozen=True):
    """What a training run logs of its updates, while it goes on or afterwards."""

    path: str
    finished: bool
    updates: int
    sampled_tokens: int
    budget: float | None
    """Sampled tokens after which it ends, None for no such limit."""
    panels: tuple[Panel, ...]


class Block(msgspec.Struct, frozen=True):
    """A section and its statistics."""

    section: Section
    summaries: tuple[dict[str, Summary], ...]
    """Of each cell: figure -> summary."""
    comparisons: tuple[Comparison, ...]


class Command(msgspec.Struct, frozen=True):
    """Something to run next."""

    text: str
    about: str


class Report(msgspec.Struct, frozen=True):
    """Everything that a report shows."""

    folders: tuple[str, ...]
    """As they were asked for."""
    compared: tuple[str, ...]
    blocks: tuple[Block, ...]
    overall: dict[Kind, tuple[Overall, ...]]
    dashboards: tuple[Dashboard, ...]
    notes: tuple[str, ...]
    commands: tuple[Command, ...] = ()

    def results(self) -> list[Result]:
        """Returns all runs."""
        return [result for block in self.blocks for cell in block.section.cells for result in cell.results]


def build(asked: Sequence[str], by: Sequence[str], sections: Sequence[Section], again: Sequence[str]) -> Report:
    """Computes the statistics of a report.

    Args:
        asked: the folders.
        by: the compared keys.
        sections: the runs, sorted.
        again: arguments of the command that makes the report again.
    """
    blocks = tuple(
        Block(section, tuple(summaries(cell) for cell in section.cells), tuple(comparisons(section))) for section in sections
    )
    by_kind: dict[Kind, tuple[Overall, ...]] = {kind: tuple(overall([s for s in sections if s.kind == kind])) for kind in KINDS}
    trained = [result for section in sections for cell in section.cells for result in cell.results if result.kind == "training"]
    dashboards = tuple(_dashboard(result) for result in trained)
    report = Report(tuple(asked), tuple(by), blocks, by_kind, dashboards, tuple(_notes(blocks)))
    return msgspec.structs.replace(report, commands=tuple(_commands(report, again)))


def _commands(report: Report, again: Sequence[str]) -> Iterator[Command]:
    """Yields what to run next: look at a wrong answer, at all episodes, judge again, see how a live run goes on."""
    results = report.results()
    episodes = [result for result in results if result.kind == "episodes"]
    # A wrong answer of an agent that gives right ones, too, tells more than one of an agent that never does.
    wrong = [(not result.value(result.main_figure), i, result.wrong) for i, result in enumerate(episodes) if result.wrong]
    if wrong:
        _, number, (task, sample) = min(wrong)
        yield Command(command("show", episodes[number].path, task, sample), "a wrong answer, step by step")
    holding = [folder for folder in report.folders if any(Path(r.path).is_relative_to(Path(folder)) for r in episodes)]
    if holding:
        yield Command(command("view", *holding), "all episodes as a page")
    if any(not dashboard.finished for dashboard in report.dashboards):
        yield Command(command("report", *again), "how the run has gone on")
    yield Command(command("eval", override("out", results[0].path)), "one run in full")


def _dashboard(result: Result) -> Dashboard:
    updates, sampled = progress(Path(result.path))
    shown = tuple(panels(Path(result.path)))
    return Dashboard(result.path, result.finished, updates, sampled, result.config.get("budget"), shown)


def _notes(blocks: Sequence[Block]) -> Iterator[str]:
    """Yields what a reader has to know before the figures."""
    for block in blocks:
        figure = block.section.main_figure
        few = [
            f"{cell.label} ({summary[figure].seeds})"
            for cell, summary in zip(block.section.cells, block.summaries, strict=True)
            if figure in summary and summary[figure].too_few
        ]
        if few:
            yield (
                f"{block.section.label}: fewer than 3 seeds, so there is no interval over seeds and no probability of "
                f"improvement: {', '.join(few)}"
            )
        yield from (f"collapsed: {sentence}" for sentence in collapsed(block.section))
        yield from block.section.notes
        if len(block.section.cells) > MOST_IN_PAIRS:
            yield f"{block.section.label}: more than {MOST_IN_PAIRS} cells, so each is compared with the best one alone"
        unfinished = [result.path for cell in block.section.cells for result in cell.results if not result.finished]
        if unfinished:
            yield f"without results yet, in no figure: {', '.join(unfinished)}"
        excluded = sum(
            result.counts.get(name, 0)
            for cell in block.section.cells
            for result in cell.results
            for name in ("failed", "ungradable")
        )
        if excluded:
            yield f"{block.section.label}: {excluded:,} episodes failed or cannot be graded and are in no accuracy"
