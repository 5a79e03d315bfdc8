"""Pieces of the table put together at random, and the same inputs in other dress: no crash, and no other value."""

import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from swirl_env.tools.calculator.goal import plan
from swirl_env.tools.calculator.rational import Irrational
from swirl_env.tools.calculator.text import CalcError
from swirl_env.tools.calculator.tool import Calculator, in_process

LINES = (Path(__file__).parent / "calculator_table.txt").read_text("utf-8").split("\n")
QUERIES = [line.rsplit(" ==> ", 1)[0].replace("⏎", "\n") for line in LINES if " ==> " in line]
PIECES = [piece for query in QUERIES for piece in re.findall(r"\\?[A-Za-z]+|\d+|\s|[^\sA-Za-z\d]", query)]


def mixture(rng: random.Random) -> str:
    """Returns pieces side by side, the beginning of one input with the end of another, or an input with some pieces changed."""
    kind = rng.randrange(3)
    if kind == 0:
        return "".join(rng.choices(PIECES, k=rng.randint(1, 14)))
    first, second = rng.choices(QUERIES, k=2)
    if kind == 1:
        return first[: rng.randint(0, len(first))] + second[rng.randint(0, len(second)) :]
    letters = list(first)
    for _ in range(rng.randint(1, 3)):
        letters[rng.randrange(len(letters))] = rng.choice(PIECES)
    return "".join(letters)


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_any_mixture_is_a_value_or_a_refusal(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(50_000 if seed else 3_000):
        query = mixture(rng)
        try:
            in_process(plan(query))
        except (CalcError, Irrational):
            continue
        except Exception as error:
            raise AssertionError(query) from error


DRESSES: dict[str, Callable[[str], str]] = {
    "double blanks": lambda query: query.replace(" ", "  "),
    "unbreakable blanks": lambda query: query.replace(" ", "\u00a0"),
    "tabs around": lambda query: f"\t{query}\t",
    "an equals sign": lambda query: query if "=" in query else f"{query} =",
    "fences": lambda query: f"```\n{query}\n```",
    "tags": lambda query: f"<math_exp>{query}</math_exp>",
    "invisible characters": lambda query: f"\u200b{query}\u200b",
    "signs of print": lambda query: query.replace("*", "×").replace("-", "−"),
    "a period": lambda query: f"{query}.",
}


@pytest.mark.slow
@pytest.mark.parametrize("dress", DRESSES)
def test_an_input_in_another_dress_has_the_same_value(dress: str) -> None:
    calculator = Calculator(timeout_s=20, memory_mb=512)
    pairs = [(query, DRESSES[dress](query)) for query in QUERIES if DRESSES[dress](query) != query]
    plain = calculator.run([query for query, _ in pairs])
    dressed = calculator.run([query for _, query in pairs])
    values = [(query, a.data.get("value"), b.data.get("value")) for (query, _), a, b in zip(pairs, plain, dressed, strict=True)]
    assert [row for row in values if row[2] is not None and row[1] != row[2]] == []
