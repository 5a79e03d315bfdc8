"""A table of some 2,600 inputs in twenty kinds, each with the replies that a careful reader would accept.

A line is ``input ==> reply | reply``, where ``refused`` stands for any refusal and ``⏎`` in an input for a new line. The first
rule of the calculator is what counts: whatever is not in the list of a line is a wrong reply, never a matter of taste.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from swirl_env.tools.calculator.tool import Calculator

CALCULATOR = Calculator(timeout_s=20, memory_mb=512)


def kinds() -> Iterator[tuple[str, list[tuple[str, list[str]]]]]:
    """Yields every heading of the table with its lines."""
    text = (Path(__file__).parent / "calculator_table.txt").read_text("utf-8")
    for part in text.removeprefix("## ").split("\n## "):
        name, *lines = filter(None, part.split("\n"))
        pairs = [line.rsplit(" ==> ", 1) for line in lines]
        yield name, [(query.replace("⏎", "\n"), replies.split(" | ")) for query, replies in pairs]


KINDS = dict(kinds())


@pytest.mark.parametrize("kind", KINDS)
def test_replies_are_right_or_refusals(kind: str) -> None:
    rows = KINDS[kind]
    replies = ["refused" if r.error else r.data["value"] for r in CALCULATOR.run([query for query, _ in rows])]
    wrong = [(query, reply, accepted) for (query, accepted), reply in zip(rows, replies, strict=True) if reply not in accepted]
    assert wrong == []


def test_the_table_is_large_and_mostly_asks_for_values() -> None:
    rows = [row for rows in KINDS.values() for row in rows]
    assert len(rows) > 2_600 and len({query for query, _ in rows}) == len(rows)
    assert sum("refused" not in accepted for _, accepted in rows) > 1_100
