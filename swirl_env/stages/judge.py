"""``swirl judge``: a further judge's verdicts on a run, or those verdicts again that failed; a table next to the episodes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from omegaconf import DictConfig

from swirl_env.config.options import JudgeOptions, read
from swirl_env.config.overrides import command, override
from swirl_env.episodes.guarded import run_judge
from swirl_env.episodes.transcript import subtrajectories
from swirl_env.errors import Interrupted
from swirl_env.protocols import Judge
from swirl_env.registry import make_judge
from swirl_env.stages import runs
from swirl_env.stages.progress import progress
from swirl_env.store import Store
from swirl_env.types import Trajectory, Verdict


def main(config: DictConfig) -> None:
    """Runs the stage."""
    options = read("judge", JudgeOptions, config)
    runs.config_of(options.out)
    judge = make_judge(options.judge)
    table = runs.table_name(options.judge, judge)
    with Store(options.out) as store:
        new, failed = judge_run(store, judge, table, options.batch)
        total = len(store.verdicts(table))
    broken = f"; {failed:,} hold failed verdicts, the same command asks for those again" if failed else ""
    print(f"{new:,} episodes judged, {total:,} in the table {table} of {store.path}{broken}")
    words = (override("out", str(store.path)), override("verdicts", table))
    print(f"next: {command('filter', *words)}   or   {command('eval', *words)}")


def judge_run(store: Store, judge: Judge, table: str, batch: int = 64) -> tuple[int, int]:
    """Judges the episodes that a table lacks, or holds failed verdicts on.

    Args:
        store: the run folder, open for writing.
        judge: the judge.
        table: its table's name.
        batch: episodes whose steps go to the judge together.

    Returns:
        How many episodes were judged, and how many of these hold a failed verdict.
    """
    known = store.verdicts(table)
    wanted = store.keys() - known.judged()
    failed = done = 0
    waiting = (trajectory for trajectory in store if trajectory.key in wanted)
    try:
        with progress("judge", len(wanted)) as advance:
            while group := list(islice(waiting, batch)):
                for trajectory, verdicts in zip(group, _verdicts(judge, group), strict=True):
                    store.append_verdicts(table, trajectory.key, verdicts)
                    failed += any(verdict.status == "failed" for verdict in verdicts)
                done += len(group)
                advance(len(group))
    except KeyboardInterrupt:
        raise Interrupted(f"{done} of {len(wanted)} episodes are judged; the same command goes on.") from None
    return done, failed


def _verdicts(judge: Judge, group: Sequence[Trajectory]) -> Iterator[list[Verdict]]:
    """Yields the verdicts on each trajectory, asked for in one batch."""
    steps = [list(subtrajectories(trajectory)) for trajectory in group]
    flat = [step for of_one in steps for step in of_one]
    verdicts = iter(run_judge(judge, flat) if flat else [])
    for of_one in steps:
        yield list(islice(verdicts, len(of_one)))
