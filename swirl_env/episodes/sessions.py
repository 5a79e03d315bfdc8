"""The open sessions of tools with state: opened by the first call, forked when an episode branches.

A state names its sessions by a number (`State.sessions`). Every call of a session gives the number of the state after it, and
the old one is void: a session cannot go back. So no state is ever answered from what happened on another branch; a state
whose sessions have moved on is refused, with a sentence that says how to branch.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

from swirl_env.episodes.guarded import run_session
from swirl_env.errors import ConfigError, PluginError, SwirlError, log_once, plugin_failure, printable
from swirl_env.protocols import EndsEpisodes, ForkableSession, Session, StatefulTool
from swirl_env.types import UNAVAILABLE, Outcome, State, ToolCall, ToolResult

Sessions = dict[str, Session]
"""Tag -> open session, of one episode."""
Call = tuple[State, str, Any]
"""State, tag of the tool, query."""


class SessionTable:
    """The sessions of all episodes of an engine.

    Args:
        tools: the tools with state, by tag.
    """

    def __init__(self, tools: Mapping[str, StatefulTool]) -> None:
        self.tools = tools
        self._open: dict[int, Sessions] = {}
        self._numbers = itertools.count(1)
        weakref.finalize(self, _close_all, tools, self._open)

    def __len__(self) -> int:
        return sum(map(len, self._open.values()))

    def run(self, calls: Sequence[Call], *, frozen: bool = False) -> tuple[list[ToolResult], list[int], list[Outcome | None]]:
        """Runs calls in the sessions of their states; a session is opened if a call is the first of its episode.

        Args:
            calls: state, tag of the tool, and query of each call.
            frozen: whether the states stay as they are: then each call runs in a fork that is closed afterwards.

        Returns:
            The result of each call, the number of the sessions after it, and how it ended the episode, if it did.

        Raises:
            ConfigError: if the sessions of a state are not there any more, or cannot be forked; then none of the calls is run.
        """
        for state, tag, _ in calls:
            self.check(state, tag)
        seen: set[int] = set()
        numbers = []
        for state, _, _ in calls:  # of several calls in one state, each but the first runs in a fork
            numbers.append(self.fork(state) if frozen or state.sessions in seen else state.sessions)
            seen.add(state.sessions)
        moved = [self._run(number, *call) for number, call in zip(numbers, calls, strict=True)]
        if frozen:
            for _, number, _ in moved:
                self.close(number)
        return [result for result, _, _ in moved], [number for _, number, _ in moved], [outcome for _, _, outcome in moved]

    def _run(self, number: int, state: State, tag: str, query: Any) -> tuple[ToolResult, int, Outcome | None]:
        sessions = self._open.pop(number, {})
        if tag not in sessions:
            try:
                sessions[tag] = _checked(self.tools[tag].open(state.task, state.seed))
            except BaseException as error:  # the next call tries again
                log_once(self.tools[tag], f"opening a session of the tool {tag}", plugin_failure(error), state.task.id)
        result = run_session(self.tools[tag], sessions[tag], query) if tag in sessions else UNAVAILABLE
        number = next(self._numbers)
        self._open[number] = sessions
        session = sessions.get(tag)
        return result, number, session.outcome if isinstance(session, EndsEpisodes) else None

    def check(self, state: State, tag: str) -> None:
        """Refuses a call in a state whose sessions are not there any more.

        Raises:
            ConfigError: if they have moved on, were closed, or belong to an episode that was played elsewhere.
        """
        if state.sessions and state.sessions not in self._open:
            raise ConfigError(
                f"The episode on task {state.task.id!r} has gone on (or is over) since this state, and its session of the tool "
                f"{tag!r} with it. Branch first: states = engine.fork([state])."
            )
        if not state.sessions and any(type(step.call) is ToolCall and step.call.tool == tag for step in state.steps):
            raise ConfigError(
                f"This state on task {state.task.id!r} holds earlier calls of the tool {tag!r} whose session is not open here. "
                f"Play the episode again from its beginning."
            )

    def fork(self, state: State) -> int:
        """Returns the number of sessions in the same state as those of `state`; 0 if none is open.

        Raises:
            ConfigError: if one of them cannot be forked.
            PluginError: if forking one of them fails.
        """
        if not state.sessions:
            return 0
        self.check(state, ", ".join(self.tools))
        copies: Sessions = {}
        for tag, session in self._open[state.sessions].items():
            try:
                if not isinstance(session, ForkableSession):
                    raise _cannot_fork(tag)
                copies[tag] = _checked(session.fork())
            except BaseException as error:
                self._close(copies)
                failure = plugin_failure(error)
                if isinstance(failure, SwirlError):
                    raise
                raise PluginError(
                    f"The episode cannot branch: forking its session of the tool {tag!r} raised {type(failure).__name__}: "
                    f"{printable(str(failure)[:200])}"
                ) from failure
        number = next(self._numbers)
        self._open[number] = copies
        return number

    def check_forking(self, state: State) -> None:
        """Refuses a state at which an episode cannot branch, without forking anything.

        Raises:
            ConfigError: as `check` and `fork` do.
        """
        for tag in self.tools:
            self.check(state, tag)
        for tag, session in self._open.get(state.sessions, {}).items():
            if not isinstance(session, ForkableSession):
                raise _cannot_fork(tag)

    def close(self, number: int) -> None:
        """Closes the sessions of a number, if they are open."""
        self._close(self._open.pop(number, {}))

    def _close(self, sessions: Sessions) -> None:
        _close_all(self.tools, {0: sessions})


def _checked(session: object) -> Session:
    """Returns what `open` or `fork` gave, if it is a session."""
    if not isinstance(session, Session) or isinstance(session, type):
        raise TypeError(f"expected a session, an object with run and close, got {printable(repr(session)[:80])}")
    return session


def _cannot_fork(tag: str) -> ConfigError:
    return ConfigError(
        f"The tool {tag!r} cannot fork its sessions, so an episode that has used it cannot branch. Give its session a method "
        f"fork(), or branch before its first call."
    )


def _close_all(tools: Mapping[str, StatefulTool], open_: dict[int, Sessions]) -> None:
    while open_:
        for tag, session in open_.popitem()[1].items():
            try:
                session.close()
            except BaseException as error:
                log_once(tools[tag], f"closing a session of the tool {tag}", plugin_failure(error), tag)


def stateful(tools: Mapping[str, object]) -> dict[str, StatefulTool]:
    """Returns the tools with state, by tag."""
    return {tag: tool for tag, tool in tools.items() if isinstance(tool, StatefulTool)}
