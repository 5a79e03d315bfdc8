"""Actions and episodes of the current policy, shared among the processes: on questions, at frozen states, from states on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from swirl_env.algos.measure import Actor, generating
from swirl_env.algos.processes import Processes
from swirl_env.algos.subset import Subset
from swirl_env.episodes.engine import Engine
from swirl_env.episodes.rollout import collect, continue_episodes
from swirl_env.errors import ConfigError
from swirl_env.protocols import needs_results
from swirl_env.seeding import episode_seed
from swirl_env.types import Answer, State, Step, Trajectory


def sample_episodes(
    agent: Actor,
    engine: Engine,
    processes: Processes,
    order: Sequence[int],
    samples: int,
    slots: int,
    seed: int,
    watch: Callable[[Trajectory], None] | None = None,
) -> list[Trajectory]:
    """Returns finished episodes on questions, in their order, those of one question together.

    Args:
        agent: the policy.
        engine: questions, tools and judge.
        processes: share the questions; all get all episodes.
        order: indices of the questions.
        samples: episodes per question.
        slots: episodes in flight at once.
        seed: of the episodes.
        watch: called with each episode of this process when it ends.
    """
    questions = Subset(engine.tasks, order)
    share = Subset(questions, range(processes.rank, len(order), processes.world))
    with generating(agent):
        episodes = collect(
            agent, engine.with_tasks(share), len(share) * samples, slots, seed, samples=samples, name=agent.name
        )  # fmt: skip
        mine: list[Trajectory] = []
        for episode in episodes:
            mine.append(episode)
            if watch is not None:
                watch(episode)
    trajectories = processes.concatenate(mine)
    place = {questions[n].id: n for n in range(len(order))}
    trajectories.sort(key=lambda t: (place[t.task.id], t.sample))
    return trajectories


def sample_actions(
    agent: Actor, engine: Engine, processes: Processes, states: Sequence[State], samples: int, seed: int, update: int
) -> list[list[Step]]:
    """Returns judged actions at frozen states: for each state, `samples` steps.

    Args:
        agent: the policy.
        engine: tools and judge.
        processes: share the states; all get all steps.
        states: where to act.
        samples: actions per state.
        seed: of the run.
        update: number of the update that they are for.
    """
    share = processes.share(len(states))
    repeated = [_with_seed(states[i], episode_seed(seed, f"{states[i].seed}/{update}", k)) for i in share for k in range(samples)]
    with generating(agent):
        actions = agent.act(repeated)
    steps = engine.rate(repeated, actions, tools=needs_results(engine.judge))
    return processes.gather([steps[n * samples : (n + 1) * samples] for n in range(len(share))])


def branch_episodes(
    agent: Actor,
    engine: Engine,
    processes: Processes,
    states: Sequence[State],
    samples: int,
    slots: int,
    seed: int,
    purpose: str,
) -> list[list[Trajectory]]:
    """Returns finished episodes that go on from states: for each state, `samples` whole trajectories.

    Args:
        agent: the policy.
        engine: tools and judge.
        processes: share the states; all get all episodes.
        states: where the episodes begin.
        samples: episodes per state.
        slots: episodes in flight at once.
        seed: of the run.
        purpose: tells the random numbers of these branches from those of others.

    Raises:
        ConfigError: for states at which no episode can go on.
    """
    check_branching(engine, states, processes)
    share = processes.share(len(states))
    starts = [
        msgspec.structs.replace(states[i], seed=episode_seed(seed, f"{purpose}/{i}/{states[i].seed}", k))
        for i in share
        for k in range(samples)
    ]
    with generating(agent):
        episodes = sorted(continue_episodes(agent, engine, starts, slots, name=agent.name), key=lambda t: t.sample)
    numbered = [msgspec.structs.replace(t, sample=t.sample % samples) for t in episodes]
    return processes.gather([numbered[n * samples : (n + 1) * samples] for n in range(len(share))])


def check_branching(engine: Engine, states: Sequence[State], processes: Processes) -> None:
    """Refuses states at which no episode can go on in this engine.

    Raises:
        ConfigError: naming the first such state's task.
    """
    for state in states:
        task, settings = state.task.id, state.settings
        if state.steps_left < 1 or (state.steps and type(state.steps[-1].call) is Answer):
            raise ConfigError(
                f"The episode on task {task!r} is over in this state; branch at a state in which it could still act."
            )
        if (settings.tools, settings.format) != (engine.settings.tools, engine.settings.format):
            raise ConfigError(
                f"The state on task {task!r} offers the tools {settings.tools} in format {settings.format!r}, this run "
                f"{engine.settings.tools} in {engine.settings.format!r}. Branch at states of the run's own kind."
            )
        if state.sessions and processes.world > 1:
            raise ConfigError(
                f"The state on task {task!r} has open sessions of tools with state, which live in one process only. Branch at "
                f"states before the first call of such a tool, or train in one process."
            )
    engine.check_sessions(states)


def _with_seed(state: State, seed: int) -> State:
    """Returns the frozen state with a seed of its own, so that the samples at it differ."""
    return State(state.task, state.settings, state.turns, state.steps, seed, state.chars)
