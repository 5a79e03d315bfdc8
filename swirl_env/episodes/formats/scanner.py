"""Finds the first complete element of an action, outside think blocks."""

from __future__ import annotations

import re
from collections.abc import Sequence

from swirl_env.episodes.reasoning import CLOSE, THINK

ANSWER = "answer"
Element = tuple[str, int, int, int, int]
"""``(tag, start, inner_start, inner_end, end)``"""


class TagScanner:
    """Finds the first complete ``<tag>...</tag>`` among a fixed set of tags, outside think blocks."""

    def __init__(self, tags: Sequence[str]) -> None:
        self.tags = tuple(tags)
        names = "|".join(re.escape(tag) for tag in sorted({*self.tags, THINK}, key=len, reverse=True))
        self._token = re.compile(f"<(/?)({names})>")
        self.plain = re.compile(f"[^<]*+<(?!{THINK}>)({names})>([^<]*+)</\\1>").match
        """Matches tag and content of a text that holds no other ``<`` up to the end of its first element, as most actions do;
        one with a ``</think>`` after it has to be read in full."""

    def first(self, text: str, opened: bool = False) -> Element | str:
        """Returns the first complete element, or the tag that was left open, or ``""``.

        Of several openings the last before the closing counts: the ones before it are prose about tags. An element with a
        think block inside is not complete.

        Args:
            text: what the policy wrote.
            opened: whether it begins inside a think block.
        """
        plain = None if opened else self.plain(text)
        if plain is not None:  # half the time that the tokens take
            end = plain.end()
            if end == len(text) or text.find(CLOSE, end) < 0:
                tag, (inner, inner_end) = plain[1], plain.span(2)
                return tag, inner - len(tag) - 2, inner, inner_end, end
        starts: dict[str, tuple[int, int]] = {}
        thinking, last = opened, THINK if opened else ""
        first: Element | None = None
        for token in self._token.finditer(text):
            closing, tag = token.groups()
            if tag == THINK:
                starts.clear()
                if closing:
                    # One that closes no block was opened by the generation prompt: all of the text before it is reasoning.
                    first = first if thinking else None
                    last = ""
                elif not first:
                    last = THINK
                thinking = not closing
            elif thinking or first:
                continue
            elif not closing:
                starts[tag] = token.span()
                last = tag
            elif tag in starts:
                start, inner = starts[tag]
                first = tag, start, inner, token.start(), token.end()
                if text.find(CLOSE, token.end()) < 0:
                    return first
        return first or last


def unread(opened: str) -> str:
    """Returns why a text holds no complete element, by the tag that `TagScanner.first` returned."""
    return f"<{opened}> was opened but not closed." if opened else "No tool call and no answer was found."
