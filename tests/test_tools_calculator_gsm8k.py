"""GSM8K's solutions: the calculator annotations, and the prose in front of them as a model would send it."""

import gzip
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import pytest

from swirl_env.tools.calculator.tool import Calculator
from swirl_env.types import ToolResult

pytestmark = [pytest.mark.slow, pytest.mark.data]

ANNOTATION = re.compile(r"<<([^<>]*)>>")
SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n")
INSIDE = re.compile(r"(?:[-–−+*/×÷]|\d,?|(?<=[\d ])[xX])\s*\Z")
"""What stands before a place in the middle of a calculation: an operator or a number."""
LEGITIMATE = {
    "84 + .82": "the solution forgets a term and a decimal point",
    "6*2.5": "the price is 3 dollars, the solution writes 2.5",
    "8*3": "there are 80 cookies, the solution writes 8",
    "50-8": "there are 52 bracelets, the solution writes 50",
    "364 / 4": "the solution forgets the factor 3",
    "$240k mortgage balance / 10 years": "the annotation counts thousands, the text does not",
    "38 million/19": "the annotation counts millions, the text does not",
    "2 million/2": "the annotation counts millions, the text does not",
    "1 * 2": "1 is the number of a day, which only the words before it tell",
}
"""Prose that plainly asks for another value than its annotation has, and why."""


def annotations(data_dir: Path) -> Iterator[tuple[str, str, str]]:
    """Yields (calculation, result, text of the sentence before it) of every annotation of both splits."""
    folder = data_dir / "gsm8k"
    texts = (gzip.decompress((folder / "train.jsonl.gz").read_bytes()).decode(), (folder / "test.jsonl").read_text("utf-8"))
    for line in filter(None, "\n".join(texts).split("\n")):
        solution = json.loads(line)["solution"]
        for match in ANNOTATION.finditer(solution):
            calculation, _, result = match[1].rpartition("=")
            yield calculation, result, SENTENCE_END.split(ANNOTATION.sub("", solution[: match.start()]))[-1]


def number(text: str) -> Fraction | None:
    try:
        return Fraction(text.replace(",", ""))
    except (ValueError, ZeroDivisionError):
        return None


def close(result: ToolResult, wanted: str) -> bool:
    got, want = number(result.data.get("value", "")), number(wanted)
    return got is not None and want is not None and abs(got - want) <= Fraction(1, 10**6) * max(Fraction(1), abs(want))


def whole_sentence(ask: Callable[[str], ToolResult], sentence: str) -> tuple[str, ToolResult]:
    return sentence, ask(sentence)


def longest_tail(ask: Callable[[str], ToolResult], sentence: str) -> tuple[str, ToolResult]:
    """The longest end of the sentence, from the beginning of a word, that is not refused."""
    return _first_tail(ask, sentence, lambda before: True)


def longest_calculation(ask: Callable[[str], ToolResult], sentence: str) -> tuple[str, ToolResult]:
    """The same, but no end that begins in the middle of a calculation: "3 - 1" is no part of "2 students * 3 - 1"."""
    return _first_tail(ask, sentence, lambda before: not INSIDE.search(before))


def _first_tail(ask: Callable[[str], ToolResult], sentence: str, begins: Callable[[str], bool]) -> tuple[str, ToolResult]:
    for match in re.finditer(r"(?<!\S)\S", sentence):
        if begins(sentence[: match.start()]) and (result := ask(sentence[match.start() :])).error is None:
            return sentence[match.start() :], result
    return sentence, ask(sentence)


@pytest.fixture(scope="module")
def ask() -> Iterator[Callable[[str], ToolResult]]:
    """Asks one calculator; what the tests of this module have asked before it need not compute again."""
    calculator, memory = Calculator(), dict[str, ToolResult]()

    def answer(text: str) -> ToolResult:
        if text not in memory:
            (memory[text],) = calculator.run([text])
        return memory[text]

    yield answer
    calculator.close()


def count(
    ask: Callable[[str], ToolResult],
    data_dir: Path,
    read: Callable[[Callable[[str], ToolResult], str], tuple[str, ToolResult]],
) -> tuple[Counter[str], set[tuple[str, str]]]:
    """Returns how often the prose is right, refused, no number or wrong; and the wrong texts with their sentences."""
    counts: Counter[str] = Counter()
    wrong: set[tuple[str, str]] = set()
    for _, result, sentence in annotations(data_dir):
        text, reply = read(ask, sentence)
        kind = "refused" if reply.error else "right" if close(reply, result) else "wrong"
        if kind == "wrong" and number(reply.data["value"]) is None:
            kind = "no number"
        counts[kind] += 1
        if kind == "wrong" and text.lstrip(" =").rstrip(" =$") not in LEGITIMATE:
            wrong.add((text, sentence))
    return counts, wrong


def test_every_annotation_is_exact(data_dir: Path) -> None:
    calculator = Calculator()
    pairs = [(calculation, result) for calculation, result, _ in annotations(data_dir)]
    replies = calculator.run([calculation for calculation, _ in pairs])
    assert len(pairs) == 27_998
    assert [pair for pair, reply in zip(pairs, replies, strict=True) if not close(reply, pair[1])] == []


def test_no_sentence_comes_out_as_a_wrong_number(ask: Callable[[str], ToolResult], data_dir: Path) -> None:
    counts, wrong = count(ask, data_dir, whole_sentence)
    print(dict(counts))
    assert wrong == set()
    assert counts["right"] >= 850


def test_the_calculations_in_the_prose_are_found_and_none_is_wrong(ask: Callable[[str], ToolResult], data_dir: Path) -> None:
    counts, wrong = count(ask, data_dir, longest_calculation)
    print(dict(counts))
    assert wrong == set()
    assert counts["right"] >= 26_700 and counts["wrong"] == len(LEGITIMATE)


def test_a_wrong_end_of_a_sentence_begins_in_the_middle_of_a_calculation(
    ask: Callable[[str], ToolResult], data_dir: Path
) -> None:
    counts, wrong = count(ask, data_dir, longest_tail)
    print(dict(counts))
    assert counts["right"] >= 26_700 and counts["wrong"] < 25
    assert [text for text, sentence in wrong if not INSIDE.search(sentence.removesuffix(text))] == []
