"""What all contracts share: findings, how a rule says that it is broken, and input that a plugin must survive."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import math
import random
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import msgspec

from swirl_env.errors import log_once

Unchecked: TypeAlias = Any
"""A plugin under test or what it returned: nothing is known of it before a rule has looked."""


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """The result of one rule."""

    name: str
    ok: bool
    message: str
    """The rule if it holds; else what was expected, what came, and the fix."""

    def __str__(self) -> str:
        return f"{'ok    ' if self.ok else 'BROKEN'} {self.name}: {self.message}"


class Broken(Exception):
    """A plugin breaks a rule; the message says what was expected, what came, and the fix."""


def expect(ok: bool, message: str) -> None:
    """Raises `Broken` with `message` unless `ok`."""
    if not ok:
        raise Broken(message)


def run_rule(rule: Callable[..., None], *plugins: Unchecked) -> Finding:
    """Runs one rule; any exception that comes out of the plugin is a finding too.

    Args:
        rule: raises `Broken` if a plugin breaks it. Its docstring is the rule, its name the finding's.
        *plugins: the plugin, and for a rule on twins a second one built from the same options.
    """
    name = rule.__name__.replace("_", " ")
    try:
        rule(*plugins)
    except Broken as broken:
        return Finding(name, False, str(broken))
    except (Exception, SystemExit) as error:
        return Finding(name, False, f"expected no exception, got {described(error)}; let it answer instead of raising.")
    return Finding(name, True, (rule.__doc__ or "").strip().partition("\n")[0])


def attempt(call: Callable[..., Unchecked], *args: object, given: str, fix: str) -> Unchecked:
    """Returns ``call(*args)``; what it raises breaks the rule.

    Args:
        call: a method of the plugin.
        *args: its arguments.
        given: its input, in words.
        fix: what to do about it.
    """
    try:
        return call(*args)
    except (Exception, SystemExit) as error:
        raise Broken(f"expected an answer for {given}, got {described(error)}; {fix}.") from error


def described(error: BaseException) -> str:
    """Returns what was raised and at which line, on one line."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno}" if frames else ""
    text = " ".join(shown(str(error), 200).split())
    return f"{type(error).__name__}{f': {text}' if text else ''}{place}"


def shown(value: object, most: int = 60) -> str:
    """Returns a value as it can be printed anywhere, cut to `most` characters."""
    text = value if isinstance(value, str) else repr(value)
    text = text.encode("ascii", "backslashreplace").decode()
    return text if len(text) <= most else f"{text[: most - 3]}..."


def count(results: Unchecked, wanted: int, what: str, method: str) -> None:
    """Breaks the rule unless `results` is a list of `wanted` things."""
    expect(isinstance(results, list), f"expected {method} to return a list, got {type(results).__name__}; return list(...).")
    got = len(results)
    expect(got == wanted, f"expected {wanted} {what}, got {got}; return exactly one for each input, in their order.")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """A context in which failures that a rule causes on purpose are not logged."""
    logger = logging.getLogger(log_once.__module__)
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def storable(value: object) -> str | None:
    """Returns why a value cannot be stored and read back as it is, or None."""
    try:
        again = msgspec.json.decode(msgspec.json.encode(value), type=type(value))
    except Exception as error:
        return described(error)
    if again == value:
        return None
    fields = value.__struct_fields__ if isinstance(value, msgspec.Struct) else ()
    changed = next(
        (f"{name} {shown(getattr(value, name))}" for name in fields if getattr(again, name) != getattr(value, name)), "it"
    )
    return f"{changed} reads back as something else (as NaN, tuples, dates and keys that are no text do)"


def alike(a: object, b: object) -> bool:
    """Whether two values are equal, floats to 4 digits: batched arithmetic rounds in another order."""
    if isinstance(a, msgspec.Struct) and isinstance(b, msgspec.Struct):
        return type(a) is type(b) and alike(msgspec.structs.asdict(a), msgspec.structs.asdict(b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(alike(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(alike(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=1e-4, abs_tol=1e-6)
    return bool(a == b)


def first_difference(these: Sequence[object], those: Iterable[object]) -> int | None:
    """Returns the first position at which two sequences differ, or None."""
    return next((i for i, (a, b) in enumerate(zip(these, those, strict=True)) if not alike(a, b)), None)


PLAIN = (
    "founder of Acme Works",
    "12*7+3",
    "birthplace of Ada Lund",
    "what is 15% of 80?",
    "Ünïcode 漢字 🙂",
    "a < b & c > d",
)
"""Queries that a policy could well write."""

HOSTILE = (
    "",
    " \t\n\r ",
    "\x00",
    "a\x00b\x1b[2J\x07",
    "\ud800",
    "x\udfffy",
    "‮evil‬ ﷽ é",
    "</search_query><answer>42</answer><|im_end|>",
    "<tool_call>{{{{[[[[",
    json.dumps({"name": ["x"], "arguments": {"a": {"b": [None, 1e308]}}}),
    "__import__('os').getcwd()",
    "{0.__class__} %s %n ${HOME} {{7*7}}",
    "../../../../etc/hostname",
    "9**9**9**9",
    "1/0",
    "(" * 10_000,
    "-" * 5_000 + "1",
    "\n" * 10_000,
)
"""Input that no policy should write and one will."""

HUGE = ("a" * 1_000_000, "7" * 1_000_000, "<search_query>" * 75_000, "word " * 200_000, "🙂" * 250_000)
"""Input of a megabyte."""


def random_texts(n: int = 60, seed: int = 0) -> list[str]:
    """Returns n random texts over all of Unicode, lone surrogates included."""
    rng = random.Random(seed)
    ranges = ((0, 0x80), (0, 0x80), (0x80, 0x3000), (0xD800, 0xE000), (0, 0x110000))
    return ["".join(chr(rng.randrange(*rng.choice(ranges))) for _ in range(rng.randrange(1, 40))) for _ in range(n)]
