"""Places of figures in Markdown pages whose words are written by hand: what stands between two comments that name it."""

from __future__ import annotations

import re

FIGURES = "figures"
"""Name of the place on pages with only one."""


def place(name: str, block: str) -> str:
    """Returns a text with the comments around it, as lines of a page."""
    return f"<!-- {name}: begin -->\n{block.rstrip()}\n<!-- {name}: end -->\n"


def comments(name: str) -> str:
    """Returns the lines that a page needs around a place, for a message."""
    return " and ".join(f"'<!-- {name}: {which} -->'" for which in ("begin", "end"))


def has_place(page: str, name: str) -> bool:
    """Returns whether a page has a place of this name."""
    return _find(page, name) is not None


def replaced(page: str, name: str, block: str) -> str:
    """Returns the page with a text in a place of it; the words before and after stay.

    Raises:
        LookupError: if it has no such place.
    """
    if (found := _find(page, name)) is None:
        raise LookupError(f"The page has no lines {comments(name)}.")
    return page[: found.start()] + place(name, block) + page[found.end() :]


def _find(page: str, name: str) -> re.Match[str] | None:
    begin, end = (re.escape(f"<!-- {name}: {which} -->") for which in ("begin", "end"))
    return re.search(rf"{begin}\n.*?{end}(?:\n|\Z)", page, re.DOTALL)
