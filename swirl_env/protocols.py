"""The seams of swirl-env: what a plugin must have (a plain attribute serves for every property).

Expensive calls are batched; a single call is a batch of one. Each kind of plugin has one Protocol; what it may have on top
of that is an optional Protocol of its own, which the code asks for with `isinstance`:

    tool    TypedTool       takes typed arguments in place of a text
    tool    StatefulTool    keeps something from one call of an episode to the next
    session EndsEpisodes    a call can end the episode, without an answer
    judge   RatesResults    rates a call by its result
    judge   PureJudge       never changes its input
    judge   Metered         counts what it spends
    agent   PrefixCaching   reuses what it has read of a state in the states that continue it
    task    FindsTasks      finds a task by its id without a search
    task    BringsGrader    grades final answers in its own way
    format  OffersFunctions leaves it to the model's chat template to offer the tools
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, runtime_checkable

from swirl_env.types import Action, Malformed, Outcome, ParsedAction, Passage, State, SubTrajectory, Task, ToolResult, Verdict


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
        """Returns one result per query, in their order."""
        ...


@runtime_checkable
class TypedTool(Protocol):
    """An optional capability of tools: typed arguments; `run` then gets a dict per call in place of a text."""

    @property
    def tag(self) -> str:
        """As in `Tool`."""
        ...

    @property
    def description(self) -> str:
        """As in `Tool`."""
        ...

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The arguments as a JSON Schema object: ``{"type": "object", "properties": {...}, "required": [...]}``."""
        ...

    def run(self, queries: Sequence[Any]) -> list[ToolResult]:
        """Returns one result per dict of arguments, which fit the schema, in their order."""
        ...


@runtime_checkable
class Session(Protocol):
    """What a tool keeps for one episode; nothing of it may reach another episode."""

    def run(self, queries: Sequence[Any]) -> list[ToolResult]:
        """Returns one result per query, in their order; as `Tool.run` does, with what earlier calls left behind."""
        ...

    def close(self) -> None:
        """Frees what the session holds; called once, when the episode ends, errors or is abandoned."""
        ...


@runtime_checkable
class ForkableSession(Session, Protocol):
    """A session that can be branched together with its episode."""

    def fork(self) -> Session:
        """Returns a session in the same state; what is done in one of the two never shows in the other."""
        ...


@runtime_checkable
class EndsEpisodes(Session, Protocol):
    """A session of something that has an end of its own, such as a game: the call that reaches it ends the episode."""

    @property
    def outcome(self) -> Outcome | None:
        """How the episode ended; None while it goes on."""
        ...


@runtime_checkable
class StatefulTool(Protocol):
    """A tool that keeps something from one call of an episode to the next: notes, an interpreter, a database.

    It has `open` in place of `Tool.run`. The engine opens a session with the first call of an episode and closes it when the
    episode ends, errors or is abandoned. When an episode branches, its session is forked; one that has no `fork` refuses.
    Sessions are called one by one, as a batch that failed could not be tried again without doing things twice.
    """

    @property
    def tag(self) -> str:
        """As in `Tool`."""
        ...

    @property
    def description(self) -> str:
        """As in `Tool`."""
        ...

    def open(self, task: Task, seed: int) -> Session:
        """Returns the session of one episode.

        Args:
            task: the question of the episode.
            seed: seed of the episode, for everything that the session draws at random.
        """
        ...


@runtime_checkable
class Judge(Protocol):
    """Rates single steps."""

    def judge(self, steps: Sequence[SubTrajectory]) -> list[Verdict]:
        """Returns one verdict per step, in their order; what cannot be judged is `Verdict.failed`, never a zero."""
        ...


@runtime_checkable
class RatesResults(Protocol):
    """An optional capability of judges: a call is rated by its result, not by its text alone."""

    @property
    def needs_results(self) -> bool:
        """Whether calls must be run even if an action is only judged and its episode does not go on (`Engine.rate`)."""
        ...


def needs_results(judge: Judge | None) -> bool:
    """Returns whether a judge rates calls by their results."""
    return isinstance(judge, RatesResults) and bool(judge.needs_results)


@runtime_checkable
class PureJudge(Protocol):
    """An optional capability of judges: the input is never changed, so that the engine need not copy it first."""

    @property
    def pure(self) -> bool:
        """Whether `judge` leaves all that it can reach from its steps as it is, meta of tasks and data of results included."""
        ...


def is_pure(judge: Judge) -> bool:
    """Returns whether a judge says that it never changes its input."""
    return isinstance(judge, PureJudge) and bool(judge.pure)


@runtime_checkable
class Metered(Protocol):
    """An optional capability of judges: they count what they spend on models."""

    @property
    def spent(self) -> Mapping[str, int] | None:
        """Counts since the judge was made: ``calls`` (prompts given to a model), ``tokens`` (of the prompts and the replies).

        Empty if the judge asks no model; None if it cannot tell.
        """
        ...


def spent_by(judge: Judge) -> Mapping[str, int] | None:
    """Returns what a judge has spent; None if it does not count."""
    spent = judge.spent if isinstance(judge, Metered) else None
    return None if spent is None else dict(spent)


@runtime_checkable
class Agent(Protocol):
    """Chooses actions."""

    def act(self, states: Sequence[State]) -> list[Action]:
        """Returns one action per state, in their order; if it cannot act, an `Action` with `error` set."""
        ...


@runtime_checkable
class AsyncAgent(Protocol):
    """An optional capability of agents that wait for servers: they are asked one state at a time, many at once.

    `swirl_env.rollout.collect` then keeps all its slots full instead of waiting for the slowest reply of a batch.
    """

    async def act_one(self, state: State) -> Action:
        """Returns the action for one state; any number of calls may run at once."""
        ...

    async def aclose(self) -> None:
        """Closes what the calls of `act_one` opened in the running event loop."""
        ...


@runtime_checkable
class PrefixCaching(Protocol):
    """An optional capability of agents: what they have read of a state is reused in the states that continue it."""

    def prefix_caching(self) -> AbstractContextManager[None]:
        """Returns a context in which each call of `act` brings states that continue those of the call before.

        `swirl_env.episodes.rollout.collect` runs its episodes inside it.
        """
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
class StreamsFrom(Protocol):
    """A corpus that can start its stream in the middle without making the passages before: a killed index build needs it."""

    def stream_from(self, start: int) -> Iterator[Passage]:
        """Yields the passages from a position on."""
        ...


@runtime_checkable
class TaskSource(Protocol):
    """A set of questions, with the corpus that answers them."""

    @property
    def corpus(self) -> Corpus | None:
        """All passages of the set; None if no search is needed."""
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
class FindsTasks(Protocol):
    """An optional capability of task sources: a task is found by its id without looking through all of them."""

    def find(self, task_id: str, /) -> Task | None:
        """Returns the task with an id, None (or an `UnknownName`) if there is none."""
        ...


@runtime_checkable
class BringsGrader(Protocol):
    """An optional capability of task sources: final answers are graded by them unless an environment is told otherwise."""

    @property
    def grader(self) -> Grader | None:
        """Takes the place of the tasks' own grading; None leaves it to that."""
        ...


@runtime_checkable
class Grader(Protocol):
    """Compares final answers with gold."""

    def grade(self, tasks: Sequence[Task], answers: Sequence[str]) -> list[bool | None]:
        """Returns for each answer whether it is right; None if that could not be decided."""
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


@runtime_checkable
class OffersFunctions(Protocol):
    """An optional capability of formats: the tools are offered by the chat template of the model or its server.

    Calls are then part of the conversation's structure, as objects with arguments, and not of its text alone.
    """

    def functions(self, tools: Sequence[Tool]) -> list[dict[str, Any]]:
        """Returns the tools as OpenAI's function schemas, ``{"type": "function", "function": {"name": ..., ...}}``."""
        ...

    def arguments(self, tool: str, query: str) -> dict[str, Any]:
        """Returns the arguments that the text of a call stands for."""
        ...
