"""The scripted expert: follows a task's gold plan, with settable noise."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from swirl_env.errors import ConfigError, unknown_name
from swirl_env.gold_plan import Plan, Progress, plan_of
from swirl_env.protocols import ActionFormat
from swirl_env.registry import make_format
from swirl_env.seeding import generator
from swirl_env.types import SEARCH, Action, Malformed, PlanStep, State, ToolCall

NOISE_KINDS = ("wrong_entity", "repeat", "premature", "malformed")
_NAME = re.compile(r"[A-Z][^\W\d_]+(?: [A-Z][^\W\d_]+)+")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


class ScriptedAgent:
    """Takes the next open step of the gold plan, answers when all are resolved, and at times goes astray.

    It uses only what the results shown so far justify: a plan step is open once everything it rests on has been shown. After
    a stray action it goes on with the plan while the budget lasts. Needs tasks with a plan (Atlas, Ledger, AtlasLedger, GSM8K).

    Noise kinds: ``wrong_entity`` asks about, computes with or answers another name or number of the context; ``repeat``
    sends an earlier query again; ``premature`` answers before the results allow it; ``malformed`` leaves the closing tag
    off. If a kind does not apply (nothing to repeat yet), another one is drawn.

    Args:
        noise: how often an action is a stray one, from 0 to 1.
        seed: seed of the noise.
        kinds: the kinds of noise to draw from, evenly.
        reasoning: whether a short line of reasoning stands in front of each call and answer.
    """

    def __init__(self, noise: float = 0.0, seed: int = 0, kinds: Sequence[str] = NOISE_KINDS, reasoning: bool = True) -> None:
        if not isinstance(noise, int | float) or not 0 <= noise <= 1:
            raise ConfigError(f"noise is a rate between 0 and 1; got {noise!r}.")
        if isinstance(kinds, str) or not kinds:
            raise ConfigError(f"kinds lists one or more of {', '.join(NOISE_KINDS)}; got {kinds!r}. Set noise=0 for no noise.")
        strays: dict[str, Callable[[_View, random.Random], str | None]] = {
            "wrong_entity": _wrong_entity,
            "repeat": _repeat,
            "premature": _premature,
            "malformed": _malformed,
        }
        for kind in kinds:
            if kind not in strays:
                raise unknown_name("kind of noise", kind, NOISE_KINDS)
        self._noise = noise
        self._seed = seed
        self._strays = [strays[kind] for kind in kinds]
        self._reasoning = reasoning

    def act(self, states: Sequence[State]) -> list[Action]:
        """Returns one action per state."""
        return [self._one(state) for state in states]

    def _one(self, state: State) -> Action:
        if not state.task.plan:
            raise ConfigError(
                f"The scripted agent follows gold plans, and task {state.task.id!r} has none. Use agent=retrieval or another."
            )
        view = _look(state)
        body = self._stray(view) if self._noise else None
        if body is None:
            body = _expert(view)
        return Action(f"{_last_result(view)}{_intent(view, body)}\n{body}" if self._reasoning else body)

    def _stray(self, view: _View) -> str | None:
        rng = generator(self._seed, view.state)
        if rng.random() >= self._noise:
            return None
        for stray in rng.sample(self._strays, len(self._strays)):
            body = stray(view, rng)
            if body is not None:
                return body
        return None


class _View(NamedTuple):
    """What the expert makes of a state."""

    state: State
    format: ActionFormat
    plan: Plan
    progress: Progress
    step: PlanStep | None
    """The plan step to take now; None when it is time to answer."""
    query: str
    """What to write for it."""
    stuck: bool
    """Whether a search keeps failing, so that only a guess is left."""


def _look(state: State) -> _View:
    plan = plan_of(state.task)
    progress = plan.progress(state.steps)
    tried = {
        step.call.query
        for step in state.steps
        if isinstance(step.call, ToolCall) and step.result is not None and step.result.error is None
    }
    fmt = make_format(state.settings.format, state.settings.tools)
    for i, step in enumerate(plan.steps):
        if progress[1] >> i & 1:
            continue
        query = next((q for q in _wordings(step, state) if q not in tried), None)
        if query is not None:
            return _View(state, fmt, plan, progress, step, query, False)
        if plan.search_steps >> i & 1:
            return _View(state, fmt, plan, progress, None, "", True)
        # A calculation that gave another value than the plan's (rounding, say) has been done all the same.
    return _View(state, fmt, plan, progress, None, "", False)


def _wordings(step: PlanStep, state: State) -> list[str]:
    """Returns what to try for a step, best first."""
    if not step.evidence:
        return [step.query]
    return list(dict.fromkeys(q for q in (step.query, step.subject, state.task.question) if q))


def _expert(view: _View) -> str:
    if view.step is not None:
        return view.format.call(view.step.tool, view.query)
    if view.stuck:
        return view.format.answer(_guesses(view)[-1])
    return view.format.answer(view.state.task.answer or _guesses(view)[-1])


def _last_result(view: _View) -> str:
    """Returns what the last call brought, in words."""
    if not view.state.steps:
        return ""
    news = view.progress[1] & ~view.plan.progress(view.state.steps[:-1])[1]
    if not news:
        return ""
    step = view.plan.steps[news.bit_length() - 1]
    sentence = f"{step.query}{':' if step.evidence else ' ='} {step.result}. "
    return sentence[0].upper() + sentence[1:]


def _intent(view: _View, body: str) -> str:
    """Returns what an action is about to do, in words; for a stray one that is what it does, not what it should."""
    call = view.format.parse(body)
    if isinstance(call, ToolCall):
        return f"Next: {call.query}."
    if isinstance(call, Malformed) and view.step is not None:
        return f"Next: {view.query}."
    return "That is enough to answer."


def _names(view: _View) -> list[str]:
    """Returns the names in sight, oldest first: those the question gives, then those in the results."""
    known = [step.subject for step in view.plan.steps if step.subject and not step.needs]
    for step in view.state.steps:
        if step.result is not None and step.result.error is None:
            known.extend(_NAME.findall(step.result.text))
    return list(dict.fromkeys(known))


def _numbers(view: _View) -> list[str]:
    """Returns the numbers in sight: those of the question, then those in the results."""
    text = [view.state.task.question, *(step.result.text for step in view.state.steps if step.result is not None)]
    return list(dict.fromkeys(_NUMBER.findall("\n".join(text))))


def _guesses(view: _View) -> list[str]:
    """Returns candidates for the answer, best last; never empty."""
    seen = _numbers(view) if view.state.task.grading == "number" else _names(view)
    return seen or ["unknown"]


def _wrong_entity(view: _View, rng: random.Random) -> str | None:
    if view.step is None:
        others = [guess for guess in _guesses(view) if guess != view.state.task.answer]
        return view.format.answer(rng.choice(others)) if others else None
    swaps = _other_names(view, view.step) if view.step.tool == SEARCH else _other_numbers(view, view.step)
    planned = {step.query for step in view.plan.steps}
    queries = [query for query in swaps if query not in planned]
    return view.format.call(view.step.tool, rng.choice(queries)) if queries else None


def _other_names(view: _View, step: PlanStep) -> list[str]:
    """Returns the query with each other name in sight; without any, later queries with the name at hand."""
    if not step.subject:
        return []
    names = [name for name in _names(view) if name != step.subject]
    if names:
        return [step.query.replace(step.subject, name) for name in names]
    return [s.query.replace(s.subject, step.subject) for s in view.plan.steps if s.subject]


def _other_numbers(view: _View, step: PlanStep) -> list[str]:
    """Returns the expression with each of its numbers replaced by each other number in sight."""
    numbers = _numbers(view)
    return [
        step.query[: match.start()] + number + step.query[match.end() :]
        for match in _NUMBER.finditer(step.query)
        for number in numbers
        if number != match.group()
    ]


def _repeat(view: _View, rng: random.Random) -> str | None:
    calls = [step.call for step in view.state.steps if isinstance(step.call, ToolCall)]
    if not calls:
        return None
    call = rng.choice(calls)
    return view.format.call(call.tool, call.query)


def _premature(view: _View, rng: random.Random) -> str | None:
    return None if view.step is None else view.format.answer(rng.choice(_guesses(view)))


def _malformed(view: _View, rng: random.Random) -> str | None:
    body = _expert(view)
    return body[: body.rfind("</")]
