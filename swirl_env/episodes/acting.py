"""Calls of an agent: one failed state ends one episode, and a failure on every state ends the run."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

from swirl_env.episodes.values import checked_action
from swirl_env.errors import PluginError, SwirlError, error_place, log_once, plugin_failure
from swirl_env.protocols import Agent, AsyncAgent
from swirl_env.types import Action, State

PERMANENT_BATCHES, PERMANENT_STATES = 3, 8
"""A failure is permanent once this many whole batches in a row, of this many states together, have failed with one error."""


class GuardedAgent:
    """Asks an agent for actions and sorts its failures.

    - A state on which it raises, alone too, gets an action with the error ``unavailable``; the others of the batch do not.
    - A `SwirlError` is raised at once: it says what is wrong with options or tasks, and no other episode would fare better.
    - The same error on every state of `PERMANENT_BATCHES` batches in a row is permanent and is raised; so is a failure on
      every state of a run (see `finish`).

    Args:
        agent: the agent.
    """

    def __init__(self, agent: Agent | AsyncAgent) -> None:
        self.agent = agent
        self.name = type(agent).__name__
        self._acted = False
        self._total = 0
        self._batches = self._states = 0
        """How many batches in a row, and states in them, have failed with one error."""
        self._error: Exception | None = None

    def act(self, states: Sequence[State]) -> list[Action]:
        """Returns one action per state, asked for in one batch.

        Raises:
            PluginError: if the agent returns something else than one `Action` per state, or if its failure is permanent.
        """
        assert isinstance(self.agent, Agent)
        return self.sort(states, self._results(self.agent, states))

    def sort(self, states: Sequence[State], results: Sequence[object]) -> list[Action]:
        """Returns one action per state from what the agent returned or raised for each.

        Raises:
            PluginError: as `act` does.
        """
        actions = [self._checked(state, result) for state, result in zip(states, results, strict=True)]
        failures = [action for action in actions if isinstance(action, Exception)]
        self._count(failures, len(states))
        return [Action("", error="unavailable") if isinstance(action, Exception) else action for action in actions]

    def finish(self) -> None:
        """Ends the run.

        Raises:
            PluginError: if the agent has failed on every state of it.
        """
        if not self._acted and self._error is not None:
            raise self._permanent(self._error, f"on every state, {self._total} in all; the last error was")

    def _results(self, agent: Agent, states: Sequence[State]) -> list[object]:
        try:
            actions: object = agent.act(list(states))
        except SwirlError:
            raise
        except BaseException as error:
            failure = plugin_failure(error)
            return [failure] if len(states) == 1 else [r for state in states for r in self._results(agent, [state])]
        if inspect.iscoroutine(actions):
            actions.close()
            raise PluginError(
                f"{self.name}.act is async, and nothing waits for it. Write async act_one(state), as AsyncAgent has."
            )
        if not isinstance(actions, list | tuple):
            raise PluginError(f"{self.name}.act returned {actions!r:.80}; expected a list with one Action per state.")
        if len(actions) != len(states):
            raise PluginError(
                f"{self.name}.act returned {len(actions)} actions for {len(states)} states; expected one per state."
            )
        return list(actions)

    def _checked(self, state: State, action: object) -> Action | Exception:
        if isinstance(action, SwirlError):
            raise action
        if isinstance(action, Exception):
            log_once(self.agent, f"agent {self.name}", action, f"task {state.task.id}, step {len(state.steps) + 1}")
            return action
        if not isinstance(action, Action):
            method = "act_one" if isinstance(self.agent, AsyncAgent) else "act"
            raise PluginError(f"{self.name}.{method} gave {action!r:.80}; expected an Action. Write Action(text).")
        try:
            return checked_action(action)
        except (TypeError, ValueError) as error:
            log_once(self.agent, f"agent {self.name}", error, action.text)
            return error

    def _count(self, failures: Sequence[Exception], n: int) -> None:
        self._total += n
        if len(failures) < n or not failures:
            self._acted = self._acted or n > 0
            self._batches = self._states = 0
            return
        places = {error_place(error) for error in failures}
        if len(places) > 1 or self._error is None or error_place(self._error) not in places:
            self._batches = self._states = 0
        self._error = failures[0]
        self._batches += len(places) == 1
        self._states += n
        if self._batches >= PERMANENT_BATCHES and self._states >= PERMANENT_STATES:
            raise self._permanent(self._error, f"on every one of the last {self._states} states with the same error:")

    def _permanent(self, error: Exception, how: str) -> PluginError:
        message = PluginError(f"The agent {self.name} failed {how} {type(error).__name__}: {error}")
        message.__cause__ = error
        return message
