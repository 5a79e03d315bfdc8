"""What a search shows: passages as text for the policy and as data for judges, or why there are none."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from swirl_env.errors import ConfigError
from swirl_env.types import Passage, ToolResult

Hit = tuple[Passage, float]
"""A passage and its score."""


def refuse(query: object, max_query_chars: int) -> ToolResult | None:
    """Returns the answer to what is not searched for, else None."""
    if not isinstance(query, str):
        return ToolResult(f"A search query must be text, not {type(query).__name__}.", "invalid")
    if len(query) > max_query_chars:
        return ToolResult(f"The query is too long: {len(query):,} characters, at most {max_query_chars:,} are allowed.", "limit")
    return None


def show(hits: Sequence[Hit], snippet_chars: int) -> ToolResult:
    """Returns passages, the best first, one per line and numbered.

    Args:
        hits: the passages.
        snippet_chars: how much of each is shown, in characters; 0 for all of it.
    """
    return ToolResult(
        "\n".join([f"[{rank}] {_line(passage, snippet_chars)}" for rank, (passage, _) in enumerate(hits, 1)]),
        None,
        {
            "ids": [passage.id for passage, _ in hits],
            "titles": [passage.title for passage, _ in hits],
            "scores": [score for _, score in hits],
        },
    )


def nothing(why: str) -> ToolResult:
    """Returns the result of a search that found nothing, which is no error."""
    return ToolResult(f"No results: {why}.", None, {"ids": [], "titles": [], "scores": []})


def _line(passage: Passage, limit: int) -> str:
    """Returns a passage on one line, cut between words."""
    text = passage.text
    if limit and len(text) > limit:
        text = text[: limit + 1].rpartition(" ")[0] or text[:limit]
        text = f"{text.rstrip()} ..."
    shown = f"{passage.title}: {text}" if passage.title else text
    # A line break would let a passage pretend to be two.
    return " ".join(shown.split()) if "\n" in shown or "\r" in shown else shown


def check_numbers(rules: Iterable[tuple[str, object, str, bool]]) -> None:
    """Refuses options out of their range.

    Args:
        rules: name, value, what is expected, and whether the value is.

    Raises:
        ConfigError: for the first that is not.
    """
    for name, value, expected, fine in rules:
        if not fine:
            raise ConfigError(f"Expected {name} to be {expected}, got {value!r}.")


def whole(value: object, least: int) -> bool:
    """Returns whether a value is a whole number from `least` on."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
