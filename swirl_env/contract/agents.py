"""The contract of agents."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import get_args

import msgspec

from swirl_env.contract.rules import Broken, Unchecked, attempt, count, expect, quiet, shown, storable
from swirl_env.contract.samples import states
from swirl_env.episodes.acting import GuardedAgent
from swirl_env.errors import ConfigError
from swirl_env.types import Action, ActionError, State

_UNABLE = "if it cannot act, return Action('', error='unavailable')"
_ERRORS = get_args(ActionError)


class _Awaited:
    """An agent that is asked state by state (`act_one`) in the form that the rules ask: a batch at a time."""

    def __init__(self, agent: Unchecked) -> None:
        self.agent = agent

    def act(self, states: Sequence[State]) -> list[Unchecked]:
        return asyncio.run(self._all(states))

    async def _all(self, states: Sequence[State]) -> list[Unchecked]:
        try:
            return [await self.agent.act_one(state) for state in states]
        finally:
            await self.agent.aclose()


def in_batches(agent: Unchecked) -> Unchecked:
    """Returns an agent that has `act`: an agent with `act_one` alone is asked state by state."""
    one_by_one = not hasattr(agent, "act") and callable(getattr(agent, "act_one", None))
    return _Awaited(agent) if one_by_one else agent


def has_act(agent: Unchecked) -> None:
    """Has the method `act`, or async `act_one` together with async `aclose`."""
    own = agent.agent if isinstance(agent, _Awaited) else agent
    expect(callable(getattr(agent, "act", None)), f"expected a method `act`, got none; add it to {type(own).__name__}.")
    if own is not agent:
        closes = callable(getattr(own, "aclose", None))
        expect(closes, f"expected a method `aclose` next to `act_one`, got none; add it to {type(own).__name__}.")


def one_action_per_state(agent: Unchecked) -> None:
    """Gives one action per state, and none for an empty batch."""
    count(attempt(agent.act, [], given="an empty batch", fix="return []"), 0, "actions for an empty batch", "act")
    inputs = _suited(agent)
    actions = attempt(agent.act, inputs, given=f"{len(inputs)} states", fix=_UNABLE)
    count(actions, len(inputs), f"actions for {len(inputs)} states", "act")


def actions_are_well_formed(agent: Unchecked) -> None:
    """Every action is an `Action`; with an error it has no text; token ids and log-probs go together."""
    for state, action in _answers(agent, _suited(agent)):
        place = _named(state)
        kind = type(action).__name__
        expect(isinstance(action, Action), f"expected an Action at {place}, got {kind}; wrap it: Action(text).")
        expect(isinstance(action.text, str), f"expected text at {place}, got {shown(action.text)}.")
        known = action.error is None or action.error in _ERRORS
        expect(known, f"expected the error at {place} to be None or {' or '.join(_ERRORS)}, got {shown(action.error)}.")
        expect(
            action.error is None or not action.text,
            f"expected no text with the error {action.error!r} at {place}, got {shown(action.text)!r}; leave it empty.",
        )
        ids, logprobs = len(action.token_ids), len(action.logprobs)
        expect(
            ids == logprobs or not logprobs,
            f"expected a log-probability for each of {ids} token ids at {place}, got {logprobs}; give both, [T] each.",
        )
        nats = all(math.isfinite(x) and x <= 1e-6 for x in action.logprobs)
        expect(nats, f"expected finite log-probabilities of at most 0 at {place}, got {shown(action.logprobs)}.")


def actions_can_be_stored(agent: Unchecked) -> None:
    """Actions can be written as JSON and read back."""
    inputs = _suited(agent)
    for state, action in zip(inputs, agent.act(inputs), strict=True):
        why = storable(action)
        expect(why is None, f"expected JSON values at {_named(state)}, but {why}; convert them.")


def equal_states_give_equal_actions(agent: Unchecked) -> None:
    """The same states give the same actions, alone or in a batch, in any order, every time."""
    inputs = _suited(agent)
    batch = agent.act(inputs)
    _same(inputs, batch, agent.act(inputs), "the same batch again")
    _same(inputs, batch, agent.act(inputs[::-1])[::-1], "the batch in reverse")
    _same(inputs, batch, [action for _, action in _answers(agent, inputs)], "single calls")


def one_bad_state_spoils_no_other(agent: Unchecked) -> None:
    """If a batch raises because of one state, rollouts give the others the actions that they get alone."""
    inputs = _suited(agent)
    bad = inputs[-1]

    class Raising:
        def act(self, states: Sequence[State]) -> Unchecked:
            if bad in states:
                raise RuntimeError("one bad state")
            return agent.act(states)

    with quiet():
        actions = GuardedAgent(Raising()).act(inputs)
    good = [(state, action) for state, action in zip(inputs, actions, strict=True) if state != bad]
    states_, taken = [state for state, _ in good], [action for _, action in good]
    _same(states_, [action for _, action in _answers(agent, states_)], taken, "a batch with a state that raises")
    expect(actions[-1].error == "unavailable", f"expected no action for the bad state, got {shown(actions[-1].text)!r}.")


def leaves_its_input_alone(agent: Unchecked) -> None:
    """Changes nothing in the states that it acts on."""
    inputs = _suited(agent)
    before = msgspec.json.encode(inputs)
    agent.act(inputs)
    same = msgspec.json.encode(inputs) == before
    expect(same, "expected the states unchanged after act, got changed ones; copy before changing.")


def built_twice_it_acts_the_same(agent: Unchecked, twin: Unchecked) -> None:
    """A second agent with the same options acts the same on the same states."""
    inputs = _suited(agent)
    _same(inputs, agent.act(inputs), twin.act(inputs), "a second agent of the same options")


def _suited(agent: Unchecked) -> list[State]:
    """Returns the sample states of the tasks that the agent does not refuse: it may raise ConfigError for the others."""
    inputs = states()
    fresh = [state for state in inputs if not state.steps]
    if not _refusal(agent, fresh):
        return inputs
    refused = {state.task.id: _refusal(agent, [state]) for state in fresh}
    suited = [state for state in inputs if not refused[state.task.id]]
    expect(bool(suited), f"expected an action on some task, got ConfigError on all: {next(iter(refused.values()))}")
    return suited


def _refusal(agent: Unchecked, inputs: Sequence[State]) -> str:
    """Returns why the agent does not take tasks on, empty if it does (or fails in another way, which the rules name)."""
    try:
        agent.act(inputs)
    except ConfigError as error:
        return str(error)
    except Exception:
        return ""
    return ""


def _same(inputs: Sequence[State], these: Unchecked, those: Unchecked, who: str) -> None:
    for state, a, b in zip(inputs, these, those, strict=True):
        if (a.text, a.error) != (b.text, b.error):
            raise Broken(
                f"expected {who} to give {shown(a.text)!r} at {_named(state)}, got {shown(b.text)!r}; "
                f"draw from a generator made of state.seed and len(state.steps), not from one that the agent keeps."
            )


def _answers(agent: Unchecked, inputs: Sequence[State]) -> list[tuple[State, Unchecked]]:
    suited = []
    for state in inputs:
        actions = attempt(agent.act, [state], given=f"the state at {_named(state)}", fix=_UNABLE)
        count(actions, 1, f"action at {_named(state)}", "act")
        suited.append((state, actions[0]))
    return suited


def _named(state: State) -> str:
    return f"step {len(state.steps) + 1} of {shown(state.task.question)!r}"


RULES = (
    has_act,
    actions_are_well_formed,
    one_action_per_state,
    actions_can_be_stored,
    equal_states_give_equal_actions,
    one_bad_state_spoils_no_other,
    leaves_its_input_alone,
)
GATES = (has_act, actions_are_well_formed)
TWIN_RULES = (built_twice_it_acts_the_same,)
