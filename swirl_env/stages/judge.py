"""``swirl judge``: a further judge's verdicts on a run, or those verdicts again that failed; a table next to the episodes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from omegaconf import DictConfig

from swirl_env.config.options import JudgeOptions, read
from swirl_env.config.overrides import choice, cluster_words, command, override
from swirl_env.errors import Interrupted
from swirl_env.stages import folders
from swirl_env.stages.generate import refuse_failed_judge
from swirl_env.stages.judging import Judging, Request, open_judging
from swirl_env.stages.progress import progress
from swirl_env.store import Store
from swirl_env.types import Trajectory, Verdict

Table = Mapping[tuple[str, int], Sequence[Verdict]]
"""Key -> verdicts, one per step."""


def main(config: DictConfig) -> None:
    """Runs the stage on a run, or on every run of a sweep."""
    options = read("judge", JudgeOptions, config)
    paths = folders.episode_runs(Path(options.out))
    with open_judging(options) as judging:
        if options.force:  # of all runs first: whoever goes on after an interrupt asks no run twice and leaves none out
            for path in paths:
                _begin_again(path, judging.table)
        tables = [_judge_folder(path, judging, options) for path in paths]
    if len(paths) > 1:
        # The judge's name stands for the newest table of each run, if these are not all called the same.
        table = tables[0] if len(set(tables)) == 1 else (judging.table.rpartition("-")[0] or judging.table)
        words = (override("out", options.out), override("verdicts", table))
        print(f"next: {command('eval', *words)}   or   {command('filter', *words)}")


def _judge_folder(path: Path, judging: Judging, options: JudgeOptions) -> str:
    """Judges a run; returns the name of the table."""
    with Store(path) as store:
        table = _newest(store, judging.table)
        new, failed = judge_run(store, judging, table, options)
        total = len(store.verdicts(table))
        if new and failed == new:
            refuse_failed_judge(store, table)
    again = f"; {failed:,} hold failed verdicts, the same command asks for those again" if failed else ""
    print(f"{new:,} episode{'' if new == 1 else 's'} judged, {total:,} in the table {table} of {path}{again}")
    words = (override("out", str(path)), override("verdicts", table))
    report = command("report", path)
    print(f"next: {command('filter', *words)}   or   {command('eval', *words)}   or, to compare judges,   {report}")
    return table


def _newest(store: Store, name: str, after: int = 0) -> str:
    """Returns the name of a judge's newest table in a run, or of one after it.

    Tables are never rewritten: the second one of a judge ends in ``.2``, and so on.
    """
    number = 1
    while f"{name}.{number + 1}" in store.judges():
        number += 1
    return name if number + after == 1 else f"{name}.{number + after}"


def _begin_again(path: Path, name: str) -> None:
    """Begins a new table of a judge in a run, if there is one already that holds something."""
    with Store(path) as store:
        if store.verdicts(_newest(store, name)):
            store.begin_verdicts(_newest(store, name, after=1))


def judge_run(store: Store, judging: Judging, table: str, options: JudgeOptions) -> tuple[int, int]:
    """Judges the episodes that a table lacks, and again the steps on which it holds failed verdicts.

    Every batch is stored before the next is judged.

    Args:
        store: the run folder, open for writing.
        judging: asks the judge.
        table: its table's name.
        options: how many steps go to the judge together, and which judge it is.

    Returns:
        How many episodes were judged, and how many of these hold a failed verdict.
    """
    known = store.verdicts(table)
    wanted = store.keys() - known.judged()
    failed = done = 0
    waiting = (trajectory for trajectory in store if trajectory.key in wanted)
    try:
        with progress("judge", len(wanted)) as advance:
            requests = (_request(group, known) for group in batches(waiting, options.batch))
            for request, answers in judging.judge(requests):
                for trajectory, new in zip(request.trajectories, answers, strict=True):
                    verdicts = _merge(trajectory, known, new)
                    store.append_verdicts(table, trajectory.key, verdicts)
                    failed += any(verdict.status == "failed" for verdict in verdicts)
                    done += 1
                advance(len(answers))
    except KeyboardInterrupt:
        words = (*choice("judge", options.judge), *cluster_words(options.cluster))
        again = command("judge", override("out", options.out), *words)
        raise Interrupted(f"{done} of {len(wanted)} episodes are judged. To go on: {again}") from None
    return done, failed


def batches(trajectories: Iterable[Trajectory], steps: int) -> Iterator[list[Trajectory]]:
    """Yields whole episodes in groups of about so many steps."""
    group: list[Trajectory] = []
    size = 0
    for trajectory in trajectories:
        group.append(trajectory)
        size += len(trajectory.steps)
        if size >= steps:
            yield group
            group, size = [], 0
    if group:
        yield group


def _request(group: Sequence[Trajectory], known: Table) -> Request:
    """Returns the request for the verdicts that a table lacks, or that failed."""
    return Request(
        group,
        [[place for place, verdict in enumerate(_earlier(trajectory, known)) if verdict is None] for trajectory in group],
    )


def _merge(trajectory: Trajectory, known: Table, new: Iterable[Verdict]) -> list[Verdict]:
    """Returns the verdicts on all steps of an episode: those that a table has, and the new ones."""
    verdicts = iter(new)
    return [next(verdicts) if verdict is None else verdict for verdict in _earlier(trajectory, known)]


def _earlier(trajectory: Trajectory, known: Table) -> list[Verdict | None]:
    """Returns what a table says of each step; None if it says nothing, or that the judge failed."""
    verdicts = known.get(trajectory.key, ())
    if len(verdicts) != len(trajectory.steps):
        return [None] * len(trajectory.steps)
    return [None if verdict.status == "failed" else verdict for verdict in verdicts]
