"""Who plays the episodes of a run: this process, or workers of a cluster, each with an engine and an agent of its own."""

from __future__ import annotations

import functools
import sys
import time
from collections import deque
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple, Protocol

from swirl_env.adapters import adapted
from swirl_env.cluster import Pool
from swirl_env.config.options import EpisodeOptions
from swirl_env.episodes.acting import GuardedAgent
from swirl_env.episodes.rollout import collect, first_state, missing_episodes, play
from swirl_env.errors import ConfigError
from swirl_env.protocols import TaskSource
from swirl_env.registry import conforming, make_agent, make_tasks
from swirl_env.stages import runs
from swirl_env.stages.engines import engine_for
from swirl_env.store.codec import Key, decode_trajectory, encode_trajectory
from swirl_env.types import State, Trajectory

_RESULTS, _SECONDS = 64, 1.0
"""A worker hands over its episodes once it has so many, or after so long."""


class Player(Protocol):
    """Plays the episodes of a run."""

    tasks: TaskSource
    table: str | None
    """Name of the judge's table of verdicts; None without a judge."""

    def play(self, done: Container[Key]) -> Iterator[Trajectory]:
        """Yields the episodes that are not done yet, as they end."""
        ...


def open_player(options: EpisodeOptions) -> AbstractContextManager[Player]:
    """Returns who plays the episodes; whatever is wrong with the options is raised here, before anything is written."""
    if not options.cluster:
        player = LocalPlayer(options)
        _check_questions(options, player.tasks)
        return nullcontext(player)
    tasks = conforming("task", make_tasks(options.task))
    _check_questions(options, tasks)
    return ClusterPlayer(options, tasks)


def count_episodes(options: EpisodeOptions, tasks: TaskSource) -> int:
    """Returns how many episodes to run: ``n``, or all if there are not so many."""
    room = len(tasks) * options.samples
    return room if options.n is None else min(options.n, room)


def _check_questions(options: EpisodeOptions, tasks: TaskSource) -> None:
    if not len(tasks):
        raise ConfigError(f"The task {str(options.task['name'])!r} has no questions. Check its file, split and limit.")
    episodes = count_episodes(options, tasks)
    if options.n is not None and options.n > episodes:
        samples = "" if options.samples == 1 else f" with {options.samples} samples each"
        print(
            f"n={options.n}: the task has {len(tasks):,} questions{samples}, so all {episodes:,} episodes are run",
            file=sys.stderr,
        )


class LocalPlayer:
    """Plays episodes in this process.

    Args:
        options: what to play.
    """

    def __init__(self, options: EpisodeOptions) -> None:
        self._options = options
        self.engine, self.agent = engine_for(options.task, options), make_agent(options.agent)
        self.tasks: TaskSource = self.engine.tasks
        self.table = None if options.judge is None else runs.table_name(options.judge, self.engine.judge)

    def play(self, done: Container[Key]) -> Iterator[Trajectory]:
        """Yields the episodes that are not done yet, as they end."""
        options = self._options
        episodes, name = count_episodes(options, self.tasks), str(options.agent["name"])
        return collect(
            self.agent, self.engine, episodes, options.slots, options.seed, samples=options.samples, done=done, name=name
        )


class ClusterPlayer(AbstractContextManager["ClusterPlayer"]):
    """Has episodes played by the workers of a cluster; builds neither engine nor agent itself.

    Args:
        options: what to play, and the cluster.
        tasks: the questions, to tell which episodes are missing.
    """

    def __init__(self, options: EpisodeOptions, tasks: TaskSource) -> None:
        self._options, self.tasks = options, tasks
        self.pool = Pool(options.cluster, functools.partial(EpisodeWork, options))
        try:
            setup: EpisodeSetup = self.pool.description
            self.table = setup.table
            if setup.questions != len(tasks):
                raise ConfigError(
                    f"The workers have {setup.questions:,} questions, this process has {len(tasks):,}. Give all nodes the same "
                    f"data."
                )
        except BaseException:
            self.pool.close()
            raise

    def play(self, done: Container[Key]) -> Iterator[Trajectory]:
        """Yields the episodes that are not done yet, as the workers finish them."""
        options = self._options
        numbers = missing_episodes(self.tasks, count_episodes(options, self.tasks), options.samples, done)
        # Twice the slots: a worker whose reply is on its way has episodes to go on with.
        lines = self.pool.run(((k, None) for k in numbers), backlog=2 * options.slots, chunk=options.slots)
        return (decode_trajectory(line) for _, line in lines)

    def __exit__(self, *error: object) -> None:
        self.pool.close()


class EpisodeSetup(NamedTuple):
    """What must be equal in all workers."""

    table: str | None
    questions: int


class EpisodeWork:
    """Plays episodes in a worker: an item is the number of an episode, its result the episode's line in a store.

    The slots stay full from one exchange to the next: episodes under way go on where they were.

    Args:
        options: what to play.
    """

    def __init__(self, options: EpisodeOptions) -> None:
        self._options = options
        self._engine = engine_for(options.task, options)
        self._agent = GuardedAgent(adapted("agent", make_agent(options.agent)))
        self._waiting: deque[int] = deque()
        self._numbers: dict[Key, int] = {}
        """Numbers of the episodes under way."""
        self._stream: Iterator[Trajectory] | None = None

    def description(self) -> EpisodeSetup:
        """Returns the judge's table and the number of questions."""
        judge, engine = self._options.judge, self._engine
        return EpisodeSetup(None if judge is None else runs.table_name(judge, engine.judge), len(engine.tasks))

    def exchange(self, items: Sequence[tuple[int, None]]) -> list[tuple[int, bytes]]:
        """Takes numbers of episodes and returns episodes that have ended."""
        self._waiting.extend(k for k, _ in items)
        results: list[tuple[int, bytes]] = []
        begun = time.monotonic()
        while self._waiting or self._numbers:
            if self._stream is None:
                name = str(self._options.agent["name"])
                self._stream = play(self._agent, self._engine, self._options.slots, _Starts(self._start), name)
            trajectory = next(self._stream, None)
            if trajectory is None:
                self._stream = None
                continue
            results.append((self._numbers.pop(trajectory.key), encode_trajectory(trajectory)))
            if len(results) >= _RESULTS or time.monotonic() - begun > _SECONDS:
                break
        return results

    def _start(self) -> tuple[State, int] | None:
        """Returns the first state of the next episode; None while none is waiting."""
        if not self._waiting:
            return None
        k = self._waiting.popleft()
        state, sample = first_state(self._engine, k, self._options.samples, self._options.seed)
        self._numbers[state.task.id, sample] = k
        return state, sample


class _Starts(Iterator[tuple[State, int]]):
    """First states; may go on after it had none."""

    def __init__(self, start: Callable[[], tuple[State, int] | None]) -> None:
        self._start = start

    def __next__(self) -> tuple[State, int]:
        start = self._start()
        if start is None:
            raise StopIteration
        return start
