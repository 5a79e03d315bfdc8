"""Reading takes time linear in the length of the input: operations are counted for inputs of one and of two lengths."""

import functools
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from re import _constants as ops  # type: ignore[attr-defined]
from re import _parser  # type: ignore[attr-defined]
from types import FrameType, ModuleType
from typing import Any

import pytest

from swirl_env.tools.calculator import goal, text, tokens
from swirl_env.tools.calculator.goal import plan
from swirl_env.tools.calculator.rational import Irrational
from swirl_env.tools.calculator.text import CalcError
from swirl_env.tools.calculator.tool import Calculator, in_process

UNITS = [" ", "\t", "\u00a0", "$", "sum of ", "`", " =", "= ", "apples ", "3 apples ", "and ", "the ", "floor ", "x ", "1/", "("]
UNITS += ["%", "1% ", "!", "\\frac", "\\text{", "{", "{,}", "^", "1 cents ", "d/dx ", "_", "a_", "a-", "a b-", " a-bc", "<think>"]
UNITS += ["</think>", "&lt;", "<", "<a", "<<", "²", "½", "1=", ";", "a:", "a b:", "solve for ", " for a", "derivative of ", "1,"]
UNITS += [",000", ".", "e5", "0x", "r ", "1 m/s ", "per ", "half of ", "9", "9 ", "a", "|", "[", "1+", "$1", "million "]
UNITS += [
    "#",
    "x_{a",
    " # a",
    "\\, ",
    "x3",
    "sec ",
    "squared ",
    "1/2 of ",
    "÷",
    "/h",
    "1 in ",
    "_000",
    " percent",
    "1 cents/ ",
    "3 m2 ",
]
UNITS += ["sum of 1 and ", "\\times 10^", "₂", " x -", "1 half-", "dollars per ", "million million "]


def pumped(unit: str, times: int) -> list[str]:
    """Inputs that repeat a unit, alone and between what an expression has."""
    middle = unit * times
    return [middle, f"3 apples{middle}+ 2", f"1{middle}x"]


@pytest.fixture(autouse=True)
def deep() -> Iterator[None]:
    """Room for the matcher below, which nests with every repetition."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)
    yield
    sys.setrecursionlimit(limit)


SINGLE = (ops.LITERAL, ops.NOT_LITERAL, ops.IN, ops.ANY)
"""Items of a pattern that stand for one character."""


@functools.cache
def wordlike(char: str) -> bool:
    return re.match(r"\w", char) is not None


@functools.cache
def parsed(pattern: re.Pattern[str]) -> tuple[list[Any], dict[tuple[int, str], bool]]:
    """Returns what a pattern consists of, and room for which of its items characters are met by."""
    return list(_parser.parse(pattern.pattern, pattern.flags & ~re.UNICODE)), {}


class Steps:
    """A backtracking matcher of its own over Python's parsed patterns, which counts what it compares."""

    def __init__(self, pattern: re.Pattern[str], subject: str) -> None:
        self.flags = pattern.flags
        self.items, self.met = parsed(pattern)
        self.subject = subject
        self.count = 0
        self.end = -1

    def search(self, anchored: bool) -> int:
        """Looks for matches from every place, or at the start only, and returns the number of steps."""
        place = 0
        while place <= len(self.subject):
            self.end = place
            self.run(self.items, place, self.accept)
            if anchored:
                break
            place = max(place + 1, self.end)
        return self.count

    def accept(self, end: int) -> bool:
        """Ends a match."""
        self.end = end
        return True

    def run(self, items: list[Any], place: int, then: Callable[[int], bool]) -> bool:
        at = 0
        while at < len(items) and items[at][0] in SINGLE:  # no recursion for a row of characters
            self.count += 1
            if place >= len(self.subject) or not self.one(items[at], self.subject[place]):
                return False
            at, place = at + 1, place + 1
        if at == len(items):
            return then(place)
        self.count += 1
        (op, argument), rest = items[at], items[at + 1 :]
        if op in (ops.MAX_REPEAT, ops.MIN_REPEAT):
            return self.repeat(op is ops.MAX_REPEAT, argument, place, lambda end: self.run(rest, end, then))
        if op is ops.SUBPATTERN:
            return self.run(list(argument[-1]), place, lambda end: self.run(rest, end, then))
        if op is ops.BRANCH:
            return any(self.run(list(branch), place, lambda end: self.run(rest, end, then)) for branch in argument[1])
        if op in (ops.ASSERT, ops.ASSERT_NOT):
            start = place if argument[0] > 0 else place - argument[1].getwidth()[0]
            met = start >= 0 and self.run(list(argument[1]), start, lambda end: True)
            return met == (op is ops.ASSERT) and self.run(rest, place, then)
        assert op is ops.AT, op
        return self.at(argument, place) and self.run(rest, place, then)

    def repeat(self, greedy: bool, argument: Any, place: int, then: Callable[[int], bool]) -> bool:
        least, most, items = argument[0], argument[1], list(argument[2])
        if len(items) == 1 and items[0][0] in SINGLE:  # no recursion for "[a-z]+"
            end = place
            while end < len(self.subject) and end - place < most and self.one(items[0], self.subject[end]):
                end += 1
                self.count += 1
            ends = range(place + least, end + 1)
            return any(self.tried(then, stop) for stop in (reversed(ends) if greedy else ends))

        def again(start: int, times: int) -> bool:
            more = times < most and self.run(items, start, lambda end: end > start and again(end, times + 1))
            return more or (times >= least and then(start))

        return again(place, 0)

    def tried(self, then: Callable[[int], bool], place: int) -> bool:
        self.count += 1
        return then(place)

    def at(self, where: Any, place: int) -> bool:
        before, after = self.subject[place - 1 : place] if place else "", self.subject[place : place + 1]
        lines = bool(self.flags & re.M)
        if where in (ops.AT_BEGINNING, ops.AT_BEGINNING_STRING):
            return not before or (where is ops.AT_BEGINNING and lines and before == "\n")
        if where in (ops.AT_END, ops.AT_END_STRING):
            return not after or (where is ops.AT_END and lines and after == "\n")
        return (wordlike(before) != wordlike(after)) == (where is ops.AT_BOUNDARY)

    def one(self, item: Any, char: str) -> bool:
        key = id(item), char  # the items of a pattern live as long as it does
        if (met := self.met.get(key)) is None:
            met = self.met[key] = self.compared(item, char)
        return met

    def compared(self, item: Any, char: str) -> bool:
        op, argument = item
        if op is ops.ANY:
            return char != "\n" or bool(self.flags & re.S)
        if op is ops.IN:
            negated = argument[0][0] is ops.NEGATE
            return any(self.one(item, char) for item in argument[negated:]) != negated
        if op is ops.CATEGORY:
            kind = {ops.CATEGORY_DIGIT: r"\d", ops.CATEGORY_WORD: r"\w", ops.CATEGORY_SPACE: r"\s"}.get(argument, r"\S")
            return re.match(kind, char) is not None
        cases = {char, char.lower(), char.upper()} if self.flags & re.I else {char}
        if op is ops.RANGE:
            return any(argument[0] <= ord(case[0]) <= argument[1] for case in cases)
        return any(ord(case[0]) == argument for case in cases) == (op is ops.LITERAL)


def patterns(module: ModuleType) -> list[tuple[str, re.Pattern[str], bool]]:
    """Returns (name, pattern, whether it is only ever matched at the start of a text) for a module."""
    source = inspect.getsource(module)
    found = [(name, value) for name, value in vars(module).items() if isinstance(value, re.Pattern)]
    named = [(n, p, not re.search(rf"\b{n}\.(?:sub|search|split|findall|finditer)\(", source)) for n, p in found]
    return named + [(p.pattern, p, False) for _, p, _ in getattr(module, "_PHRASES", [])]


PATTERNS = [pattern for module in (text, tokens, goal) for pattern in patterns(module)]


def test_the_counting_matcher_finds_what_re_finds_and_sees_a_quadratic_pattern() -> None:
    for pattern, subject in ((r"(?<![\d.])\d+ ?([CP]) ?\d+(?!\w)", "5 C 3 x 12P4y 9C2"), (r"a\b|[^b\d]+?c", "xxc a1 a c")):
        steps = Steps(re.compile(pattern), subject)
        match = re.match(pattern, subject)
        assert steps.run(steps.items, 0, steps.accept) == bool(match)
        assert steps.end == (match.end() if match else -1)
    quadratic = re.compile(r"(?: *(?:=|is))* *[?_]* *\Z")
    one, two = (Steps(quadratic, " =" * n + "x").search(False) for n in (12, 24))
    assert two > 3 * one  # 4 times the steps, less what does not grow


@pytest.mark.slow
@pytest.mark.parametrize(("name", "pattern", "anchored"), PATTERNS, ids=[name for name, _, _ in PATTERNS])
def test_patterns_take_twice_the_steps_for_twice_the_text(name: str, pattern: re.Pattern[str], anchored: bool) -> None:
    for unit in UNITS:
        if unit.isspace() and pattern is not text._BLANKS:
            continue  # runs of blanks are one blank before any other pattern sees them
        for one, two in zip(pumped(unit, 12), pumped(unit, 24), strict=True):
            steps = Steps(pattern, two).search(anchored)
            assert steps < 50 or steps < 2.4 * (half := Steps(pattern, one).search(anchored)) + 50, (unit, half, steps)


def lines(query: str) -> int:
    """Returns how many lines of Python reading a query takes."""
    count = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal count
        count += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        in_process(plan(query))
    except (CalcError, Irrational, RecursionError):
        pass
    finally:
        sys.settrace(before)
    return count


def test_reading_takes_twice_the_lines_for_twice_the_text() -> None:
    for unit in UNITS:
        for one, two in zip(pumped(unit, 150), pumped(unit, 300), strict=True):
            counts = [lines(query) for query in (one, two)]
            assert counts[1] < 2.6 * counts[0] + 500, (unit, counts)


def test_inputs_of_a_hundred_thousand_characters_get_a_reply() -> None:
    calculator = Calculator(max_chars=1_000_000, memory_mb=501)
    for query in ("3 apples" + " " * 100_000 + "+ 2 apples", "5 + 3" + " =" * 50_000):
        assert calculator.run([query])[0].text in ("5", "8")
    for unit in ("$", "`", "sum of ", "\t", "1,", "("):
        assert calculator.run([unit * (100_000 // len(unit)) + "1"])[0].text
