"""The retrieval agent: searches and guesses without a model and without gold, as a floor for real question sets."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from swirl_env.errors import ConfigError
from swirl_env.registry import make_format
from swirl_env.types import Action, State, ToolCall

SEARCH = "search_query"
_NAME = re.compile(r"(?:[A-Z][\w'.-]*|\d{4})(?:\s+(?:of|the|de|von|van|and)\s+[A-Z][\w'.-]*|\s+[A-Z][\w'.-]*)*")
_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")
_CHOICE = re.compile(r"\bor\b", re.IGNORECASE)
_YES_NO = ("is", "are", "was", "were", "do", "does", "did", "has", "have", "had", "can", "could")


class RetrievalAgent:
    """Searches the question, then the question with titles it has brought, and answers with a guess.

    It sees the question and the results alone: no gold answer, no plan. The guess is ``yes`` for questions that ask for one,
    a side of the choice for "A or B", otherwise the name (for "how many" the number) that the passages repeat most and the
    question does not hold. Where search is not on offer it answers at once, with a number of the question.

    Args:
        searches: how many searches to make, as far as the budget allows.
    """

    def __init__(self, searches: int = 3) -> None:
        if searches < 0:
            raise ConfigError(f"searches is a number from 0; got {searches}.")
        self._searches = searches

    def act(self, states: Sequence[State]) -> list[Action]:
        """Returns one action a state."""
        return [self._one(state) for state in states]

    def _one(self, state: State) -> Action:
        fmt = make_format(state.settings.format, state.settings.tools)
        if SEARCH in state.settings.tools and state.steps_left > 1 and len(state.steps) < self._searches:
            query = _next_query(state)
            if query is not None:
                return Action(fmt.call(SEARCH, query))
        return Action(fmt.answer(_guess(state)))


def _next_query(state: State) -> str | None:
    """Returns the question at first, then the question with the best title not used yet; None when there is none."""
    question = _plain(state.task.question)
    asked = {step.call.query for step in state.steps if isinstance(step.call, ToolCall)}
    if question not in asked:
        return question
    for title in _titles(state):
        query = f"{title} {question}"
        if query not in asked and title.lower() not in question.lower():
            return query
    return None


def _titles(state: State) -> list[str]:
    """Returns titles of the passages shown, best ranks first; passages without one lend their first name."""
    found: list[tuple[int, str]] = []
    for step in state.steps:
        if step.result is None or step.result.error is not None:
            continue
        titles = step.result.data.get("titles", ())
        for rank, title in enumerate(titles):
            name = _plain(str(title)) or _first_name(step.result.text, rank)
            if name:
                found.append((rank, name))
    return list(dict.fromkeys(name for _, name in sorted(found, key=lambda pair: pair[0])))


def _first_name(text: str, rank: int) -> str:
    lines = text.split("\n")
    name = _NAME.search(lines[rank]) if rank < len(lines) else None
    return name.group() if name else ""


def _guess(state: State) -> str:
    question = _plain(state.task.question)
    shown = "\n".join(step.result.text for step in state.steps if step.result is not None and step.result.error is None)
    first = question.split(" ", 1)[0].lower()
    sides = [name for name in _NAME.findall(question)[-2:] if name.lower() not in ("which", "who", "what")]
    if _CHOICE.search(question) and len(sides) == 2:
        return max(sides, key=shown.count)
    if first in _YES_NO:
        return "yes"
    if "how many" in question.lower() or "how much" in question.lower() or state.task.grading == "number":
        numbers = _NUMBER.findall(shown) or _NUMBER.findall(question)
        return _most_common(numbers) or "0"
    held = question.lower()
    names = [name for name in _NAME.findall(shown) if name.lower() not in held]
    return _most_common(names) or question or "unknown"


def _most_common(found: Sequence[str]) -> str:
    """Returns what occurs most, the earliest of equals; "" for nothing."""
    return max(Counter(found).items(), key=lambda pair: pair[1])[0] if found else ""


def _plain(text: str) -> str:
    """Returns `text` on one line and without what could be read as a tag."""
    return " ".join(text.replace("<", " ").split())
