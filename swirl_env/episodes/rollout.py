"""Episodes by an agent, many in flight at once: a finished one makes room for the next at once."""

from __future__ import annotations

import numbers
from collections.abc import Awaitable, Callable, Container, Iterator, Sequence
from contextlib import nullcontext

from swirl_env.adapters import adapted
from swirl_env.episodes.acting import GuardedAgent
from swirl_env.episodes.async_rollout import run_async
from swirl_env.episodes.engine import Engine
from swirl_env.episodes.values import task_at
from swirl_env.errors import ConfigError
from swirl_env.protocols import Agent, AsyncAgent, PrefixCaching, TaskSource
from swirl_env.registry import conforming
from swirl_env.seeding import episode_seed
from swirl_env.types import Action, State, Trajectory


def collect(
    agent: Agent | AsyncAgent | Callable[[State], Action | str | Awaitable[Action | str]],
    engine: Engine,
    episodes: int,
    slots: int = 64,
    seed: int = 0,
    *,
    samples: int = 1,
    done: Container[tuple[str, int]] = (),
    name: str = "",
) -> Iterator[Trajectory]:
    """Yields finished episodes as they end, at most `slots` in flight.

    Episode k is sample ``k % samples`` of question ``k // samples``. What happens in it depends on `seed`, the task and the
    sample alone, so a run that is resumed with `done` gives what an uninterrupted one would have given.

    Args:
        agent: chooses the actions, and gets all states in flight at once; or a function of one state, which may be async: then
            many calls of it run at once.
        engine: tasks, tools and judge of the episodes (see `swirl_env.env.build_engine`).
        episodes: how many to run in all, those in `done` included.
        slots: how many episodes are in flight at once, and so the most states in one call of the agent.
        seed: seed of the run.
        samples: episodes per question.
        done: keys (task id, sample) to leave out.
        name: recorded as the trajectories' agent.

    An agent that raises (a server that is away, memory that runs out) is asked again state by state; the episodes on which it
    raises again end with ``ended="error"``. They are kept out of every rate and run again on resume; the others go on. The same
    error on every state of three whole batches in a row (of at least 8 states together), or of all batches of the run, is
    permanent: it stops the run. So does an error that a tool, the judge or the grader raises on all calls of three batches in a
    row (of at least 8 calls together); what it returns, a verdict ``failed`` for one, never stops the run.

    Raises:
        ConfigError: if the task source has too few questions, or the agent cannot take its tasks on.
        PluginError: if the agent does not return one action per state, or fails on every state with the same error; or
            if a tool, the judge or the grader does.
    """
    if slots < 1:
        raise ConfigError(f"slots must be at least 1; got {slots}.")
    for what, count in (("episodes", episodes), ("samples", samples)):
        if not isinstance(count, numbers.Integral) or int(count) < (what == "samples"):
            raise ConfigError(f"{what} is a whole number of at least {int(what == 'samples')}; got {count!r:.40}.")
    room = len(engine.tasks) * samples
    if episodes > room:
        raise ConfigError(
            f"{episodes} episodes were asked for, but {len(engine.tasks)} questions x {samples} samples give {room}. "
            f"Ask for fewer, or raise samples."
        )
    waiting = (first_state(engine, k, samples, seed) for k in missing_episodes(engine.tasks, episodes, samples, done))
    guarded = GuardedAgent(adapted("agent", agent))
    yield from play(guarded, engine, slots, waiting, name)
    guarded.finish()


def continue_episodes(
    agent: Agent | Callable[[State], Action | str],
    engine: Engine,
    states: Sequence[State],
    slots: int = 64,
    *,
    name: str = "",
) -> Iterator[Trajectory]:
    """Yields the episodes that begin at `states` and are played to their end, as they end, at most `slots` in flight.

    A trajectory's steps are those of its state and the ones after it; its `sample` is the index of its state. The states stay
    as they are, the sessions of their tools too: each episode goes on in a fork, made when its turn comes.

    Args:
        agent: as in `collect`.
        engine: tools and judge of the episodes; its tasks are not used.
        states: where the episodes begin, any number of times the same one.
        slots: how many episodes are in flight at once.
        name: recorded as the trajectories' agent.

    Raises:
        ConfigError: if a state's sessions are not open in `engine`, or cannot be forked.
        PluginError: as in `collect`.
    """
    if slots < 1:
        raise ConfigError(f"slots must be at least 1; got {slots}.")
    engine.check_sessions(states)
    guarded = GuardedAgent(adapted("agent", agent))
    yield from play(guarded, engine, slots, ((engine.fork([state])[0], i) for i, state in enumerate(states)), name)
    guarded.finish()


def play(
    guarded: GuardedAgent, engine: Engine, slots: int, waiting: Iterator[tuple[State, int]], name: str
) -> Iterator[Trajectory]:
    """Yields the episodes that begin at the states of `waiting`, each with its sample number, as they end.

    `waiting` is asked again whenever a slot is free, also after it had nothing: it may be filled while episodes are under way.

    Raises:
        PluginError: if a failure is permanent (see `collect`).
    """
    agent = guarded.agent
    if isinstance(agent, AsyncAgent):
        yield from run_async(guarded, engine, slots, waiting, name)
        return
    batched: Agent = conforming("agent", agent)
    # Each call holds the states after those of the call before: an agent that can builds on what it has read.
    with batched.prefix_caching() if isinstance(batched, PrefixCaching) else nullcontext():
        yield from _run(guarded, engine, slots, waiting, name)


def _run(
    guarded: GuardedAgent, engine: Engine, slots: int, waiting: Iterator[tuple[State, int]], name: str
) -> Iterator[Trajectory]:
    flying: list[tuple[State, int]] = []
    try:
        while True:
            while len(flying) < slots and (fresh := next(waiting, None)) is not None:
                flying.append(fresh)
            if not flying:
                return
            states = [state for state, _ in flying]
            moved = engine.step(states, guarded.act(states))
            ended = [(t, sample) for t, (_, sample) in zip(moved, flying, strict=True) if t.ended is not None]
            flying = [(t.state, sample) for t, (_, sample) in zip(moved, flying, strict=True) if t.ended is None]
            engine.raise_permanent()
            for transition, sample in ended:
                yield engine.trajectory(transition, sample, name)
    finally:
        engine.abandon(state for state, _ in flying)


def missing_episodes(tasks: TaskSource, episodes: int, samples: int, done: Container[tuple[str, int]]) -> Iterator[int]:
    """Yields the numbers of the episodes that are not done yet; number k is sample ``k % samples`` of question ``k // samples``.

    Raises:
        ConfigError: if two questions have the same id.
    """
    known: set[str] = set()
    for k in range(episodes):
        task, sample = task_at(tasks, k // samples), k % samples
        if sample == 0:
            if task.id in known:
                raise ConfigError(
                    f"Two questions have the id {task.id!r}, so their episodes cannot be told apart. Give each its own."
                )
            known.add(task.id)
        if (task.id, sample) not in done:
            yield k


def first_state(engine: Engine, k: int, samples: int, seed: int) -> tuple[State, int]:
    """Returns the first state of episode k of a run, and its sample number."""
    task, sample = task_at(engine.tasks, k // samples), k % samples
    return engine.begin(task, episode_seed(seed, task.id, sample)), sample
