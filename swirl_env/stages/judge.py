"""``swirl judge``: a further judge's verdicts on a run, or those verdicts again that failed; a table next to the episodes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from omegaconf import DictConfig

from swirl_env.config.options import JudgeOptions, read
from swirl_env.config.overrides import choice, command, override
from swirl_env.episodes.guarded import run_judge
from swirl_env.episodes.transcript import subtrajectories
from swirl_env.errors import Interrupted
from swirl_env.protocols import Judge
from swirl_env.registry import make_judge
from swirl_env.stages import folders, runs
from swirl_env.stages.generate import refuse_failed_judge
from swirl_env.stages.progress import progress
from swirl_env.store import Store
from swirl_env.types import Trajectory, Verdict


def main(config: DictConfig) -> None:
    """Runs the stage on a run, or on every run of a sweep."""
    options = read("judge", JudgeOptions, config)
    paths = folders.episode_runs(Path(options.out))
    judge = make_judge(options.judge)
    name = runs.table_name(options.judge, judge)
    for path in paths:
        _judge_folder(path, judge, name, options)
    if len(paths) > 1:
        words = (override("out", options.out), override("verdicts", name))
        print(f"next: {command('eval', *words)}   or   {command('filter', *words)}")


def _judge_folder(path: Path, judge: Judge, name: str, options: JudgeOptions) -> None:
    with Store(path) as store:
        table = _table(store, name, options.force)
        new, failed = judge_run(store, judge, table, options)
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


def judge_run(store: Store, judge: Judge, table: str, options: JudgeOptions) -> tuple[int, int]:
    """Judges the episodes that a table lacks, and again the steps on which it holds failed verdicts.

    Every batch is stored before the next is judged.

    Args:
        store: the run folder, open for writing.
        judge: the judge.
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
            for group in batches(waiting, options.batch):
                for trajectory, verdicts in zip(group, _verdicts(judge, group, known), strict=True):
                    store.append_verdicts(table, trajectory.key, verdicts)
                    failed += any(verdict.status == "failed" for verdict in verdicts)
                    done += 1
                advance(len(group))
    except KeyboardInterrupt:
        again = command("judge", override("out", str(store.path)), *choice("judge", options.judge))
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


def _verdicts(
    judge: Judge, group: Sequence[Trajectory], known: Mapping[tuple[str, int], Sequence[Verdict]]
) -> Iterator[list[Verdict]]:
    """Yields the verdicts on each trajectory; those that it lacks, or that failed, are asked for in one batch."""
    before = [_earlier(trajectory, known) for trajectory in group]
    steps = [
        step
        for trajectory, earlier in zip(group, before, strict=True)
        for step, verdict in zip(subtrajectories(trajectory), earlier, strict=True)
        if verdict is None
    ]
    verdicts = iter(run_judge(judge, steps) if steps else [])
    for earlier in before:
        yield [next(verdicts) if verdict is None else verdict for verdict in earlier]


def _earlier(trajectory: Trajectory, known: Mapping[tuple[str, int], Sequence[Verdict]]) -> list[Verdict | None]:
    """Returns what a table says of each step; None if it says nothing, or that the judge failed."""
    verdicts = known.get(trajectory.key, ())
    if len(verdicts) != len(trajectory.steps):
        return [None] * len(trajectory.steps)
    return [None if verdict.status == "failed" else verdict for verdict in verdicts]
