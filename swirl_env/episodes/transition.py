"""What one action led to, and the records of episodes that have ended."""

from __future__ import annotations

from swirl_env.errors import ConfigError
from swirl_env.types import Ended, Outcome, Record, State, Step, SubTrajectory, Task, Trajectory, Verdict


class Transition(Record, frozen=True):
    """What one action led to. `step` is None if the agent could not act; `ended` is None while the episode goes on."""

    state: State
    step: Step | None
    ended: Ended | None = None
    outcome: Outcome | None = None


def ended_by(tried: SubTrajectory, verdict: Verdict, ended: Ended, outcome: Outcome) -> Transition:
    """Returns the end of an episode by its last step, whose observation nobody reads.

    The turns of the final state are those that the last action was chosen on; its steps hold that action too.
    """
    state = tried.state
    last = Step(tried.action, tried.call, tried.result, "", verdict)
    final = State(state.task, state.settings, state.turns, (*state.steps, last), state.seed, state.chars)
    return Transition(final, last, ended, outcome)


def no_answer(task: Task) -> Outcome:
    """Returns the outcome of an episode that ended without an answer: wrong if it could have been right."""
    return Outcome(None, None, None) if task.answer is None else Outcome(None, False, 0.0)


def record(end: Transition, sample: int = 0, agent: str = "") -> Trajectory:
    """Returns the record of a finished episode.

    Args:
        end: its last transition.
        sample: which sample of the task this is.
        agent: name of the agent that acted.

    Raises:
        ConfigError: if the episode goes on.
    """
    if end.ended is None or end.outcome is None:
        raise ConfigError("A trajectory is the record of a finished episode; this one goes on.")
    return _record(end.state, end.ended, end.outcome, sample, agent)


def cut_short(state: State, sample: int = 0, agent: str = "") -> Trajectory:
    """Returns the record of an episode that was ended from outside, by a step limit: ``ended="budget"``, without an answer.

    Args:
        state: the state after its last step, ``info["state"]`` of an environment.
        sample: which sample of the task this is.
        agent: name of the agent that acted.
    """
    return _record(state, "budget", no_answer(state.task), sample, agent)


def _record(state: State, ended: Ended, outcome: Outcome, sample: int, agent: str) -> Trajectory:
    prompt = state.turns[0].text
    return Trajectory(state.task, state.settings, prompt, state.steps, ended, outcome, sample, state.seed, agent)
