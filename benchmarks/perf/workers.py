"""Workers of a local Ray: episodes while a worker is killed every five seconds, and a judge that sleeps, shared by two."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import signal
import tempfile
import threading
import time
from collections.abc import Container, Iterator, Sequence
from pathlib import Path

import msgspec

from swirl_env.benchmarks.perf.timing import Report, Row, memory_mb, row, stopwatch
from swirl_env.cluster import ClusterOptions
from swirl_env.config.options import EpisodeOptions, JudgeOptions, episode_defaults
from swirl_env.stages.generate import generate
from swirl_env.stages.judge import judge_run
from swirl_env.stages.judging import ClusterJudging, Judging, LocalJudging
from swirl_env.stages.playing import ClusterPlayer, LocalPlayer
from swirl_env.store import Store
from swirl_env.store.codec import Key
from swirl_env.types import SubTrajectory, Trajectory, Verdict

EPISODES, WORKERS, KILL_EVERY_S, SLEEP_S, BATCH = 20_000, 2, 5.0, 0.05, 64
CALLS = 400
MEMORY_MB = 30.0
"""Growth of the driver that still counts as flat: its index of keys grows, by some hundred bytes per episode."""
SPEED_UP = 0.9
_CLUSTER = ClusterOptions(name="ray", workers=WORKERS, cpus=0.01)


class SlowJudge:
    """Takes as long per call as a judge behind a server."""

    def judge(self, steps: Sequence[SubTrajectory]) -> list[Verdict]:
        """Sleeps, and calls every step GOOD."""
        time.sleep(SLEEP_S)
        return [Verdict.good(judge="slow")] * len(steps)


def workers(size: int = EPISODES) -> Report:
    """Runs both parts.

    Args:
        size: how many episodes are played; the judge judges a part of them.
    """
    with tempfile.TemporaryDirectory() as folder:
        rows = [*_episodes(Path(folder), size), *_judge(Path(folder) / "alone", size)]
    return Report("ray", f"a local Ray, {WORKERS} workers, {size:,} episodes of the scripted agent on Atlas", tuple(rows))


def _episodes(folder: Path, size: int) -> Iterator[Row]:
    alone, shared = _options(folder / "alone", size), _options(folder / "shared", size)
    times: list[int] = []
    with Store(alone.out or "") as store, stopwatch(times):
        generate(alone, store, LocalPlayer(alone), "without Ray")
    player = ClusterPlayer(shared, LocalPlayer(alone).tasks)
    with player, Store(shared.out or "") as store:
        watched = _Watched(player, size)
        with stopwatch(times), _killing(player) as kills:
            generate(shared, store, watched, "two workers")
        lost = player.pool.lost
    for part in ("trajectories", "verdicts"):
        one, other = (_digest(Path(options.out or "") / part) for options in (alone, shared))
        if one != other:
            raise RuntimeError(f"the {part} of the two runs differ: {one} without Ray, {other} with it")
    killed = f"{len(kills)} kills, {lost} lost"
    what = f"{size:,} episodes, a worker killed every {KILL_EVERY_S:g} s: {killed}, driver +{watched.grown:.1f} MB"
    bar = f"every key once, same bytes, driver < +{MEMORY_MB:g} MB"
    ratio = times[0] / times[1]
    yield row(what, times[1:], "s", baseline="one process", ratio=ratio, bar=bar, met=watched.grown < MEMORY_MB)


def _options(out: Path, size: int) -> EpisodeOptions:
    asked = {"task": {"name": "atlas", "size": size}, "agent": {"name": "scripted", "noise": 0.2}, "n": size, "out": str(out)}
    options = msgspec.convert({**episode_defaults(), **asked}, EpisodeOptions)
    return msgspec.structs.replace(options, cluster=_CLUSTER)


class _Watched:
    """A player that notes how far memory grows after the first tenth of its episodes."""

    def __init__(self, player: ClusterPlayer, size: int) -> None:
        self._player, self._size = player, size
        self.tasks, self.table = player.tasks, player.table
        self.grown = 0.0

    def play(self, done: Container[Key]) -> Iterator[Trajectory]:
        """Yields the episodes."""
        before = 0.0
        for number, trajectory in enumerate(self._player.play(done)):
            yield trajectory
            if number == self._size // 10:
                before = memory_mb()
            elif number > self._size // 10 and number % 100 == 0:
                self.grown = max(self.grown, memory_mb() - before)


@contextlib.contextmanager
def _killing(player: ClusterPlayer) -> Iterator[list[int]]:
    """Kills a worker now and then; yields the processes that were killed."""
    done, kills = threading.Event(), list[int]()
    draws = random.Random(0)

    def kill() -> None:
        while not done.wait(KILL_EVERY_S):
            if alive := [pid for pid in player.pool.pids if pid not in kills]:
                kills.append(draws.choice(alive))
                with contextlib.suppress(ProcessLookupError):
                    os.kill(kills[-1], signal.SIGKILL)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    try:
        yield kills
    finally:
        done.set()
        killer.join()


def _digest(folder: Path) -> str:
    """Returns the number of lines and their hash, in the order of their content."""
    lines = sorted(line for file in folder.glob("*.jsonl") for line in file.read_bytes().splitlines())
    return f"{len(lines)} lines, {hashlib.blake2b(b''.join(lines), digest_size=8).hexdigest()}"


def _judge(run: Path, size: int) -> Iterator[Row]:
    judge = {"name": f"{__name__}:SlowJudge"}
    options = JudgeOptions(judge=judge, out=str(run), batch=max(1, min(BATCH, size // 4)), force=False, cluster=_CLUSTER)
    times, starts = list[int](), list[int]()
    with Store(run) as store:
        calls = _judged(store, LocalJudging(options), "one", options, times)
        with stopwatch(starts):
            judging = ClusterJudging(options)
        with judging:
            _judged(store, judging, "two", options, times)
        if store.verdicts("one").keys() != store.verdicts("two").keys():
            raise RuntimeError("two workers judged other episodes than one process")
    share = times[0] / times[1] / WORKERS
    took = f"{calls} calls of {SLEEP_S * 1e3:g} ms on {WORKERS} workers"
    what = f"a judge that sleeps, {took}: {100 * share:.0f} % of the ideal speed-up"
    bar = f"at least {SPEED_UP} of ideal"
    yield row(what, times[1:], "s", baseline="one process", ratio=times[0] / times[1], bar=bar, met=share >= SPEED_UP)
    yield row("until the first worker is there", starts, "s")


def _judged(store: Store, judging: Judging, table: str, options: JudgeOptions, times: list[int]) -> int:
    """Judges a run's episodes into a table; returns the number of calls."""
    steps = sum(len(trajectory.steps) for trajectory in store)
    with stopwatch(times):
        judge_run(store, judging, table, options)
    return -(-steps // options.batch)
