"""The seams of swirl-env: what a plugin has to offer (a plain attribute serves for every property).

Whatever costs takes a batch; a single one is a batch of one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

from swirl_env.types import Action, Malformed, ParsedAction, Passage, State, SubTrajectory, Task, ToolResult, Verdict


@runtime_checkable
class Tool(Protocol):
    """Answers queries. Never raises for bad input (that is a `ToolResult` with an error) and never touches reward."""

    @property
    def tag(self) -> str:
        """The XML tag that a policy writes, e.g. ``search_query``; the tool's name in every format."""
        ...

    @property
    def description(self) -> str:
        """One sentence for the prompt: what the tool does and what to write into the call."""
        ...

    def run(self, queries: Sequence[str]) -> list[ToolResult]:
        """Returns one result a query, in their order."""
        ...


@runtime_checkable
class Judge(Protocol):
    """Rates single steps.

    A judge that rates a call by what it found says so with an attribute ``needs_results = True``: then calls are run even
    where an action is only judged and the episode does not go on (`swirl_env.episodes.engine.Engine.rate`).
    """

    def judge(self, steps: Sequence[SubTrajectory]) -> list[Verdict]:
        """Returns one verdict a step, in their order; what cannot be judged is `Verdict.failed`, never a zero."""
        ...


@runtime_checkable
class Agent(Protocol):
    """Chooses actions.

    An agent to which it helps that the next states continue these ones may have a method ``prefix_caching()``, a context
    manager inside which they do (`swirl_env.episodes.rollout.collect` runs episodes in it).
    """

    def act(self, states: Sequence[State]) -> list[Action]:
        """Returns one action a state, in their order; where it cannot act, an `Action` with `error` set."""
        ...


@runtime_checkable
class Corpus(Protocol):
    """The passages that a search runs over, readable in a stream and by position."""

    @property
    def fingerprint(self) -> str:
        """Hash of the content (or of everything that it is generated from); names the index cache."""
        ...

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Passage]: ...
    def __getitem__(self, index: int, /) -> Passage: ...


@runtime_checkable
class TaskSource(Protocol):
    """A set of questions, with the corpus that answers them."""

    @property
    def corpus(self) -> Corpus | None:
        """All passages of the set; None where no search is needed."""
        ...

    @property
    def split(self) -> str:
        """Which part of the set this is, e.g. ``train``."""
        ...

    @property
    def tools(self) -> tuple[str, ...]:
        """Names of the tools that an environment offers unless told otherwise."""
        ...

    @property
    def max_steps(self) -> int:
        """Step budget of an environment unless told otherwise."""
        ...

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Task: ...


@runtime_checkable
class Grader(Protocol):
    """Compares final answers with gold."""

    def grade(self, tasks: Sequence[Task], answers: Sequence[str]) -> list[bool | None]:
        """Returns for each answer whether it is right; None where that could not be found out."""
        ...


@runtime_checkable
class ActionFormat(Protocol):
    """How calls and answers are written in text."""

    @property
    def stop(self) -> tuple[str, ...]:
        """Strings at which a generation may stop: one of them ends every complete call or answer."""
        ...

    def parse(self, text: str, opened: bool = False) -> ParsedAction:
        """Reads an action; total over all strings, in linear time. The first complete call or answer decides.

        Args:
            text: what the policy wrote.
            opened: whether the generation prompt had opened a think block, so that `text` begins inside one.
        """
        ...

    def call(self, tool: str, query: str) -> str:
        """Writes a tool call."""
        ...

    def answer(self, text: str) -> str:
        """Writes a final answer."""
        ...

    def instructions(self, tools: Sequence[Tool]) -> str:
        """Tells a policy how to write calls and answers."""
        ...

    def correction(self, malformed: Malformed) -> str:
        """The environment's reply to an action that could not be read."""
        ...
