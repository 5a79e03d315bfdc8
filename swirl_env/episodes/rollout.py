"""Episodes by an agent, many in flight at once: finished ones make room at once for the next."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Container, Iterator
from contextlib import nullcontext

from swirl_env.errors import ConfigError, PluginError, SwirlError
from swirl_env.protocols import Agent
from swirl_env.types import Action, State, Trajectory
from swirl_env.vector import ToolVectorEnv

log = logging.getLogger(__name__)


def collect(
    agent: Agent,
    venv: ToolVectorEnv,
    episodes: int,
    seed: int = 0,
    *,
    samples: int = 1,
    done: Container[tuple[str, int]] = (),
    name: str = "",
) -> Iterator[Trajectory]:
    """Yields finished episodes as they end, at most ``venv.num_envs`` in flight.

    Episode k is sample ``k % samples`` of question ``k // samples``. What happens in it depends on `seed`, the task and the
    sample alone, so a run that is resumed with `done` gives what an uninterrupted one would have given.

    Args:
        agent: chooses the actions; gets all states in flight at once.
        venv: gives the engine and the number of slots; its own episodes are left alone.
        episodes: how many to run in all, those in `done` included.
        seed: seed of the run.
        samples: episodes a question.
        done: keys (task id, sample) to leave out.
        name: recorded as the trajectories' agent.

    An agent that raises (a server that is away, memory that runs out) ends the episodes in flight with ``ended="error"``, which
    are kept out of every rate and run again on resume; the others go on.

    Raises:
        ConfigError: where the task source has too few questions, or the agent cannot take its tasks on.
        PluginError: where the agent does not give one action a state.
    """
    engine = venv.engine
    room = len(engine.tasks) * samples
    if episodes > room:
        raise ConfigError(
            f"{episodes} episodes were asked for, but {len(engine.tasks)} questions x {samples} samples give {room}. "
            f"Ask for fewer, or raise samples."
        )
    waiting = _episodes(venv, episodes, seed, samples, done)
    # Each call holds the states after those of the call before: an agent that can builds on what it has read.
    with getattr(agent, "prefix_caching", nullcontext)():
        yield from _run(agent, venv, waiting, name)


def _run(agent: Agent, venv: ToolVectorEnv, waiting: Iterator[tuple[State, int]], name: str) -> Iterator[Trajectory]:
    engine = venv.engine
    flying: list[tuple[State, int]] = []
    while True:
        while len(flying) < venv.num_envs and (fresh := next(waiting, None)) is not None:
            flying.append(fresh)
        if not flying:
            return
        states = [state for state, _ in flying]
        moved = engine.step(states, _act(agent, states))
        ended = [(t, sample) for t, (_, sample) in zip(moved, flying, strict=True) if t.ended is not None]
        flying = [(t.state, sample) for t, (_, sample) in zip(moved, flying, strict=True) if t.ended is None]
        for transition, sample in ended:
            yield engine.trajectory(transition, sample, name)


def episode_seed(seed: int, task_id: str, sample: int) -> int:
    """Returns the seed of an episode, the same wherever and whenever it is run: 63 bits of BLAKE2b."""
    digest = hashlib.blake2b(f"{seed}\0{task_id}\0{sample}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest) >> 1


def _episodes(
    venv: ToolVectorEnv, episodes: int, seed: int, samples: int, done: Container[tuple[str, int]]
) -> Iterator[tuple[State, int]]:
    engine = venv.engine
    known: set[str] = set()
    for k in range(episodes):
        task, sample = engine.tasks[k // samples], k % samples
        if sample == 0:
            if task.id in known:
                raise ConfigError(
                    f"Two questions have the id {task.id!r}, so their episodes cannot be told apart. Give each its own."
                )
            known.add(task.id)
        if (task.id, sample) not in done:
            yield engine.begin(task, episode_seed(seed, task.id, sample)), sample


def _act(agent: Agent, states: list[State]) -> list[Action]:
    """Asks the agent; where it raises, none of these episodes has an action, and they end in an error, to be run again."""
    try:
        actions = agent.act(states)
    except SwirlError:  # it says what is wrong with the options or the tasks: no other episode would fare better
        raise
    except Exception as error:
        log.warning("agent failed on %d episodes: %s: %s", len(states), type(error).__name__, error)
        return [Action("", error="unavailable")] * len(states)
    if len(actions) != len(states):
        raise PluginError(f"An agent gives one action a state: {type(agent).__name__} gave {len(actions)} for {len(states)}.")
    for action in actions:
        if not isinstance(action, Action):
            raise PluginError(f"{type(agent).__name__}.act gave {action!r:.80}; expected an Action. Write Action(text).")
    return actions
