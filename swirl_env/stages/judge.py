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
        for path in paths:
            _judge_folder(path, judging, options)
    if len(paths) > 1:
        words = (override("out", options.out), override("verdicts", judging.table))
        print(f"next: {command('eval', *words)}   or   {command('filter', *words)}")


def _judge_folder(path: Path, judging: Judging, options: JudgeOptions) -> None:
    with Store(path) as store:
        table = _table(store, judging.table, options.force)
        new, failed = judge_run(store, judging, table, options)
        total = len(store.verdicts(table))
        if new and failed == new:
            refuse_failed_judge(store, table)
    again = f"; {failed:,} hold failed verdicts, the same command asks for those again" if failed else ""
    print(f"{new:,} episodes judged, {total:,} in the table {table} of {path}{again}")
    words = (override("out", str(path)), override("verdicts", table))
    report = command("report", path)
    print(f"next: {command('filter', *words)}   or   {command('eval', *words)}   or, to compare judges,   {report}")


def _table(store: Store, name: str, force: bool) -> str:
    """Returns the newest table of a judge in a run; to judge everything again, the name of a new one.

    Tables are never rewritten: the second one of a judge ends in ``.2``, and so on.
    """
    number = 1
    while f"{name}.{number + 1}" in store.judges():
        number += 1
    if force and name in store.judges():
        number += 1
    return name if number == 1 else f"{name}.{number}"


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
        again = command("judge", override("out", str(store.path)), *words)
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
