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
LEGITIMATE = {"84 + .82": "the solution itself forgets a term and a decimal point"}
"""Prose that plainly asks for another value than its annotation has."""


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
    for match in re.finditer(r"(?<!\S)\S", sentence):
        result = ask(sentence[match.start() :])
        if result.error is None:
            return sentence[match.start() :], result
    return sentence, ask(sentence)


def count(
    data_dir: Path, read: Callable[[Callable[[str], ToolResult], str], tuple[str, ToolResult]]
) -> tuple[Counter[str], set[str]]:
    """Returns how often the prose is right, refused, another truth or expression, or a wrong number; and the wrong texts."""
    calculator, memory = Calculator(), dict[str, ToolResult]()

    def ask(text: str) -> ToolResult:
        if text not in memory:
            (memory[text],) = calculator.run([text])
        return memory[text]

    counts: Counter[str] = Counter()
    wrong = set()
    for _, result, sentence in annotations(data_dir):
        text, reply = read(ask, sentence)
        kind = "refused" if reply.error else "right" if close(reply, result) else "wrong"
        if kind == "wrong" and number(reply.data["value"]) is None:
            kind = "no number"
        counts[kind] += 1
        if kind == "wrong" and text.strip(" =$") not in LEGITIMATE:
            wrong.add(text)
    calculator.close()
    return counts, wrong


def test_every_annotation_is_exact(data_dir: Path) -> None:
    calculator = Calculator()
    pairs = [(calculation, result) for calculation, result, _ in annotations(data_dir)]
    replies = calculator.run([calculation for calculation, _ in pairs])
    assert len(pairs) == 27_998
    assert [pair for pair, reply in zip(pairs, replies, strict=True) if not close(reply, pair[1])] == []


def test_no_sentence_comes_out_as_a_wrong_number(data_dir: Path) -> None:
    counts, wrong = count(data_dir, whole_sentence)
    print(dict(counts))
    assert wrong == set()
    assert counts["right"] >= 850


def test_the_calculations_in_the_prose_are_found(data_dir: Path) -> None:
    counts, wrong = count(data_dir, longest_tail)
    print(dict(counts))
    assert counts["right"] >= 24_686
    # A tail may be less than the calculation ("2 + 3" of "2 apples * 2 + 3"), and then its own value is right.
    assert counts["wrong"] <= 30, wrong
