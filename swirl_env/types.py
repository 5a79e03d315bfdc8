"""The values that flow through swirl-env, one type per stage.

    Task -> State -> Action -> (ToolCall | Answer | Malformed) -> ToolResult -> Verdict -> Step -> Trajectory

All are immutable `msgspec.Struct`s: built about ten times faster than frozen dataclasses (an environment step makes nine
of them) and written to the store without a second schema.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

SEARCH = "search_query"
"""Tag of the search tool, as in the paper: the name that plans, prompts and judges know it by."""
CALCULATOR = "math_exp"
"""Tag of the calculator, as in the paper."""

SCHEMA_VERSION = 1
"""Version of the stored form of a `Trajectory`; a reader refuses any other."""

ToolError = Literal["invalid", "timeout", "limit", "unavailable"]
"""Why a tool gave no result: bad input, out of time, out of memory or size, or the tool itself is broken or away."""

ActionError = Literal["unavailable", "length"]
"""Why an agent gave no action: it (or its server) failed, or the state does not fit its context."""

VerdictStatus = Literal["scored", "unscored", "failed"]
Label = Literal["GOOD", "BAD"]
Role = Literal["user", "assistant", "tool"]
History = Literal["full", "calls"]
Grading = Literal["text", "number"]
Ended = Literal["answered", "budget", "length", "error"]


class Record(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Base of all values: immutable, compared by content, stored without its defaults."""


class Passage(Record, frozen=True):
    """One document of a corpus."""

    id: str
    title: str
    text: str


class PlanStep(Record, frozen=True):
    """One tool call of a gold plan."""

    tool: str
    """Tag of the tool to call, e.g. ``"search_query"``."""
    query: str
    """An argument that is known to find `result`."""
    result: str = ""
    """What the call is meant to find: an entity, a date, an amount; empty if only the evidence is known."""
    needs: tuple[int, ...] = ()
    """Indices of the earlier plan steps whose results this one uses."""
    evidence: tuple[str, ...] = ()
    """Ids of passages, any one of which states `result`; empty for calculations."""
    subject: str = ""
    """The entity that the call is about, as written in `query`."""


class Task(Record, frozen=True):
    """A question with its gold answer. `plan` and `evidence` are for judges and experts; no policy sees them."""

    id: str
    question: str
    answer: str | None = None
    """The gold answer; None if the set has none (such episodes have no accuracy)."""
    aliases: tuple[str, ...] = ()
    grading: Grading = "text"
    plan: tuple[PlanStep, ...] = ()
    evidence: tuple[str, ...] = ()
    """Ids of the supporting passages."""
    meta: dict[str, Any] = {}
    """What else the set says: hops, type, level, split."""


class ToolCall(Record, frozen=True, tag="call"):
    """A parsed request for a tool. ``text[start:end]`` of the action is the complete call, tags included."""

    tool: str
    """Tag of the tool."""
    query: str
    start: int
    end: int


class Answer(Record, frozen=True, tag="answer"):
    """A parsed final answer. ``text[start:end]`` of the action is the complete answer, tags included."""

    text: str
    start: int
    end: int


class Malformed(Record, frozen=True, tag="malformed"):
    """An action that holds no complete call or answer. `reason` is a sentence that tells the policy what to fix."""

    reason: str
    start: int
    end: int


ParsedAction = ToolCall | Answer | Malformed


class Action(Record, frozen=True):
    """One whole response of a policy: free reasoning, then a tool call or the final answer."""

    text: str
    token_ids: tuple[int, ...] = ()
    """Ids sampled for this action, [T]; they carry the loss. Empty for agents without tokens."""
    logprobs: tuple[float, ...] = ()
    """Log-probability (nats) of each sampled id under the model's own distribution (temperature 1, nothing cut off), [T]."""
    prompt_ids: tuple[int, ...] = ()
    """Ids of the state that the action was sampled from, [S]."""
    drift: int = 0
    """1 if tokenising `text` again gives other ids than `token_ids` (the stored ids win)."""
    error: ActionError | None = None
    """Set if the agent could not act; `text` is empty then and the episode ends."""
    opened: bool = False
    """Whether the generation prompt had opened a think block, so that `text` begins inside one."""
    behaviour_logprobs: tuple[float, ...] = ()
    """Log-probability (nats) of each id under the distribution it was drawn from, with temperature and `top_p` applied, [T];
    empty if that is the model's own, so that `logprobs` says it all."""
    truncated: bool = False
    """Whether generation was cut off by the limit on new tokens (or a full context) before the action had ended by itself."""


class ToolResult(Record, frozen=True):
    """What a tool gave for one query. `text` is shown to the policy; with an `error` it is a sentence saying why."""

    text: str
    error: ToolError | None = None
    data: dict[str, Any] = {}
    """Details for judges and users (JSON values only); search: ids, titles, scores; calculator: value."""


UNAVAILABLE = ToolResult("The tool is not available at the moment.", "unavailable")
"""The result of a call on which the tool itself failed."""


class Verdict(Record, frozen=True):
    """A judge's word on one step. Only ``status="scored"`` has a reward: a failed or missing verdict is never a zero."""

    status: VerdictStatus
    reward: float | None = None
    label: Label | None = None
    critique: str = ""
    judge: str = ""
    parts: dict[str, float] = {}
    """Named parts of the reward, before they were summed."""

    def __post_init__(self) -> None:
        if (self.reward is None) is (self.status == "scored") or (self.label is not None and self.status != "scored"):
            raise ValueError(
                f"A scored verdict, and no other, has a reward; got status {self.status!r:.40}, reward {self.reward!r:.40} and "
                f"label {self.label!r:.40}. Use Verdict.good, bad, unscored or failed."
            )

    @staticmethod
    def good(critique: str = "", judge: str = "", reward: float = 1.0) -> Verdict:
        """A step that helps."""
        return Verdict("scored", reward, "GOOD", critique, judge)

    @staticmethod
    def bad(critique: str = "", judge: str = "", reward: float = 0.0) -> Verdict:
        """A step that does not help."""
        return Verdict("scored", reward, "BAD", critique, judge)

    @staticmethod
    def unscored(critique: str = "", judge: str = "") -> Verdict:
        """The judge has no opinion on this step."""
        return Verdict("unscored", None, None, critique, judge)

    @staticmethod
    def failed(critique: str, judge: str = "") -> Verdict:
        """The judge could not judge: unreachable, unreadable or broken. Such a step leaves the loss and every baseline."""
        return Verdict("failed", None, None, critique, judge)


class Turn(Record, frozen=True):
    """One message of a state, as the policy sees it."""

    role: Role
    text: str


class Step(Record, frozen=True):
    """One transition of an episode: what the policy wrote, what followed, and the verdict on it."""

    action: Action
    call: ParsedAction
    result: ToolResult | None = None
    observation: str = ""
    """The environment's reply, escaped; empty at the end of an episode."""
    verdict: Verdict = Verdict("unscored")


class Settings(Record, frozen=True):
    """How an episode is run; stored with it, so that its states can be rebuilt."""

    tools: tuple[str, ...]
    """Tags of the tools on offer."""
    max_steps: int
    format: str = "xml"
    history: History = "full"
    """``full`` keeps earlier reasoning in later states, ``calls`` keeps only the calls (PAPER: figure against text)."""
    max_chars: int = 100_000
    """Longest state, in characters; an episode that outgrows it is truncated."""
    functions: str = ""
    """The tools as a JSON list of functions with their schemas, for formats whose tools the model's chat template offers."""


class State(Record, frozen=True):
    """What an agent acts on: the messages so far, and for judges and experts the steps behind them."""

    task: Task
    settings: Settings
    turns: tuple[Turn, ...]
    steps: tuple[Step, ...] = ()
    seed: int = 0
    """Seed of the episode; an agent that draws at random derives its generator from this and ``len(steps)``."""
    chars: int = 0
    """Length of all turns together."""
    sessions: int = 0
    """Which open sessions of tools with state belong to this state (a number of its engine); 0 if none is open."""

    @property
    def steps_left(self) -> int:
        """Actions that the budget still allows, the one to come included."""
        return self.settings.max_steps - len(self.steps)


class Outcome(Record, frozen=True):
    """How the final answer compares with gold."""

    answer: str | None = None
    """The policy's final answer; None if it gave none."""
    correct: bool | None = None
    """False without an answer; None if the task has no gold answer or the episode ended in an error."""
    f1: float | None = None
    """Token F1 against the best of answer and aliases; None as for `correct`."""


class SubTrajectory(Record, frozen=True):
    """What a judge rates: the action `action` in `state`, with what the tool gave for it (None for an answer)."""

    state: State
    action: Action
    call: ParsedAction
    result: ToolResult | None = None
    outcome: Outcome | None = None
    """The grade of a final answer, by the episode's own grader if it has one; None for other steps or if nobody graded it."""


class Trajectory(Record, frozen=True):
    """One finished episode, self-contained: task, settings and prompt are enough to rebuild and judge each of its states."""

    task: Task
    settings: Settings
    prompt: str
    steps: tuple[Step, ...]
    ended: Ended
    outcome: Outcome
    sample: int = 0
    seed: int = 0
    agent: str = ""
    version: int = SCHEMA_VERSION

    @property
    def key(self) -> tuple[str, int]:
        """What makes an episode unique in a run: task id and sample number."""
        return (self.task.id, self.sample)

    @property
    def terminated(self) -> bool:
        """Whether the policy answered."""
        return self.ended == "answered"

    @property
    def truncated(self) -> bool:
        """Whether the step budget or the state length was used up."""
        return self.ended in ("budget", "length")
