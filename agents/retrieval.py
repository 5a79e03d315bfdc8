"""The retrieval agent: searches and guesses without a model and without gold, as a floor for real question sets."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from swirl_env.errors import ConfigError
from swirl_env.registry import make_format
from swirl_env.types import SEARCH, Action, State, ToolCall

_NAME = re.compile(r"(?:[A-Z][\w'.-]*|\d{4})(?:\s+(?:of|the|de|von|van|and)\s+[A-Z][\w'.-]*|\s+[A-Z][\w'.-]*)*")
_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")
_CHOICE = re.compile(r"\bor\b", re.IGNORECASE)
_YES_NO = ("is", "are", "was", "were", "do", "does", "did", "has", "have", "had", "can", "could")
_NAMES_A_QUERY = 3
# Sentences begin with them, so they look like names.
_OPENERS = frozenset("a after an and as at but during for from he her his in is it its on she the there they this to".split())


class RetrievalAgent:
    """Searches the question, then the names in the passages that it brings, and answers with a guess.

    It sees the question and the results alone: no gold answer, no plan. After the question, each query holds the first names
    (the title stands in front) of the best-ranked passage not used yet, those of the question left out. The guess is ``yes``
    for questions that ask for one, a side of the choice for "A or B", otherwise the name (for "how many" the number) that
    the passages repeat most, better ranks counting more, and the question does not hold. Where search is not on offer it
    answers at once, with a number of the question.

    Args:
        searches: how many searches to make, as far as the budget allows.
    """

    def __init__(self, searches: int = 2) -> None:
        if searches < 0:
            raise ConfigError(f"searches is a number from 0; got {searches}.")
        self._searches = searches

    def act(self, states: Sequence[State]) -> list[Action]:
        """Returns one action per state."""
        return [self._one(state) for state in states]

    def _one(self, state: State) -> Action:
        fmt = make_format(state.settings.format, state.settings.tools)
        if SEARCH in state.settings.tools and state.steps_left > 1 and len(state.steps) < self._searches:
            query = _next_query(state)
            if query is not None:
                return Action(fmt.call(SEARCH, query))
        return Action(fmt.answer(_guess(state)))


def _next_query(state: State) -> str | None:
    """Returns the question at first, then the names in the best passage not used yet; None when there are none."""
    question = _plain(state.task.question)
    asked = {step.call.query for step in state.steps if isinstance(step.call, ToolCall)}
    if question and question not in asked:
        return question
    for _, line in sorted(_passages(state), key=lambda passage: passage[0]):
        query = " ".join(list(dict.fromkeys(_names(line, question)))[:_NAMES_A_QUERY])
        if query and query not in asked:
            return query
    return None


def _passages(state: State) -> Iterator[tuple[int, str]]:
    """Yields the passages shown, as lines, with their ranks."""
    for step in state.steps:
        if step.result is not None and step.result.error is None:
            yield from enumerate(_plain(line) for line in step.result.text.split("\n"))


def _names(line: str, question: str) -> Iterator[str]:
    """Yields the names in a line that the question does not hold."""
    lowered = question.lower()
    for match in _NAME.findall(line):
        name = match.rstrip(".'-")
        if name.lower() not in lowered and name.lower() not in _OPENERS:
            yield name


def _guess(state: State) -> str:
    question = _plain(state.task.question)
    passages = list(_passages(state))
    sides: list[str] = [name.rstrip(".") for name in _NAME.findall(question)[-2:] if name.lower() not in ("which", "who", "what")]
    if _CHOICE.search(question) and len(sides) == 2:
        shown = "\n".join(line for _, line in passages)
        return max(sides, key=shown.count)
    if question.split(" ", 1)[0].lower() in _YES_NO:
        return "yes"
    counts: Counter[str] = Counter()
    if "how many" in question.lower() or "how much" in question.lower() or state.task.grading == "number":
        for line in [line for _, line in passages] or [question]:
            counts.update(_NUMBER.findall(line))
        return _most_common(counts) or "0"
    for rank, line in passages:
        for name in _names(line, question):
            counts[name] += 60 // (rank + 1)
    return _most_common(counts) or question or "unknown"


def _most_common(counts: Counter[str]) -> str:
    """Returns what counts most, the earliest of equals; "" for nothing."""
    return max(counts, key=counts.__getitem__, default="")


def _plain(text: str) -> str:
    """Returns `text` on one line and without what could be read as a tag."""
    return " ".join(text.replace("<", " ").split())
