"""Feeds generated text to every action format, and generated actions to environments with all sorts of tools.

    python -m swirl_env.benchmarks.fuzz --actions 1000000 --steps 200000

Prints exceptions (none are expected), the time of reading twice the text relative to once, and the memory before and after.
Exit code 0 if nothing was raised.
"""

from __future__ import annotations

import argparse
import random
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from swirl_env.corpus import MemoryCorpus
from swirl_env.function_tool import tool
from swirl_env.protocols import ActionFormat
from swirl_env.registry import make_format, names
from swirl_env.types import SEARCH, Answer, Malformed, Passage, Task, ToolCall
from swirl_env.vector import ToolVectorEnv

TAGS = (SEARCH, "math_exp", "notes", "power", "fails")
_TAGGED = (*TAGS, "answer", "tool_call", "think")
PIECES = (
    *(f"<{tag}>" for tag in _TAGGED),
    *(f"</{tag}>" for tag in _TAGGED),
    *('{"name": "search_query", "arguments": {"query": "Oslo"}}', '{"name": "power", "arguments": {"base": 2}}', '{"name": "'),
    *(
        '"arguments": ',
        '{"base": "x"}',
        '{"base": 3, "exponent": 2}',
        "{",
        "}",
        "[",
        '"',
        "\\",
        "\\u003c",
        "null",
        "NaN",
        "1e999",
    ),
    *(
        "<",
        ">",
        "</",
        "<answer",
        "<think",
        "\n",
        " ",
        "\t",
        "\x00",
        "\x1b[2J",
        "\u202e",
        "\ud800",
        "\udfff",
        "é",
        "漢字",
        "🙂",
        "&lt;",
    ),
    *("Oslo", "12*7+3", "1/0", "harbour", "the quick brown fox ", "0", "-1", "<|im_end|>", "[INST]"),
)
"""What generated text is made of: markup, halves of markup, JSON and halves of it, text that no file can hold, and words."""
UNITS = (
    *("<think>", "</think>", "<answer>", "</answer>", "<search_query><answer", "<tool_call>{", '{"name":', "[", "<", "a<b> "),
    *("</think><answer>x", "<answer>x</answer></think>"),
)
"""Text that is hard to read when it is repeated."""
SLOTS = 64


@dataclass
class Findings:
    """What a run of the fuzzer brought to light."""

    checked: Counter[str] = field(default_factory=Counter)
    """Texts and steps that went well, by what they were."""
    errors: Counter[str] = field(default_factory=Counter)
    """Exceptions and broken rules, by what they say."""
    lines: list[str] = field(default_factory=list)
    """Figures, one per line."""


def actions(rng: random.Random) -> Iterator[str]:
    """Yields generated actions without end: short ones mostly, some long, many with a complete call or answer."""
    formats = [make_format(name, TAGS) for name in names("format")]
    queries = ("Oslo", "12*7+3", "", "harbour town", '{"base": 2}', "\x1b[2J\ud800", "7/2", "2+2", "9" * 50)
    while True:
        kind = rng.random()
        if kind < 0.4:
            fmt = rng.choice(formats)
            text = fmt.call(rng.choice(TAGS), rng.choice(queries)) if kind < 0.35 else fmt.answer(rng.choice(queries))
            yield rng.choice(("", "So ", "<think>hm</think>", "no</think>", "<think>")) + text
        else:
            size = rng.randrange(1, 12) if kind < 0.99 else rng.randrange(100, 1_000)
            yield "".join(rng.choices(PIECES, k=size))


def fuzz_format(name: str, n: int, seed: int, findings: Findings) -> None:
    """Reads n generated actions; what is read must be one of three kinds, with a span inside the text."""
    fmt = make_format(name, TAGS)
    for text, _ in zip(actions(random.Random(f"{seed} {name}")), range(n), strict=False):
        try:
            read = fmt.parse(text)
            if not isinstance(read, ToolCall | Answer | Malformed) or not 0 <= read.start <= read.end <= len(text):
                findings.errors[f"{name}: {read!r:.60}"] += 1
            if isinstance(read, Malformed) and not fmt.correction(read):
                findings.errors[f"{name}: no correction"] += 1
        except Exception as error:
            findings.errors[f"{name}: {type(error).__name__}: {error!s:.60}"] += 1
        findings.checked[f"actions read by {name}"] += 1


def linearity(name: str, size: int = 1_000_000) -> float:
    """Returns the most that reading twice the text takes, relative to once: 2 is linear, 4 quadratic."""
    fmt = make_format(name, TAGS)
    return max(_time(fmt, unit * (2 * size // len(unit))) / _time(fmt, unit * (size // len(unit))) for unit in UNITS)


def _time(fmt: ActionFormat, text: str) -> float:
    times = []
    for _ in range(7):
        begun = time.process_time()
        fmt.parse(text)
        times.append(time.process_time() - begun)
    return max(min(times), 1e-4)  # below a tenth of a millisecond the clock is all there is to see


@tool
def power(base: float, exponent: int = 2) -> str:
    """Raises a number to a power.

    Args:
        base: any number.
        exponent: a whole number.
    """
    return f"{base**exponent:g}"


@tool(tag="fails", description="fails on some of what it gets.")
def fails(query: str) -> str:
    """Fails in three ways."""
    if len(query) % 3 == 0:
        raise RuntimeError(f"cannot read {query}")
    if len(query) % 3 == 1:
        raise ValueError("not that")
    return query


class Questions:
    """A few questions over a few passages."""

    split, tools, max_steps = "test", (), 6
    corpus = MemoryCorpus(Passage(f"p{i}", f"Town {i}", f"Town {i} has a harbour and {i} bridges near Oslo.") for i in range(50))

    def __len__(self) -> int:
        return 100

    def __getitem__(self, index: int, /) -> Task:
        if not 0 <= index < 100:
            raise IndexError(index)
        return Task(f"t{index}", f"How many bridges has Town {index % 50}?", str(index % 50), grading="number")


def fuzz_steps(n: int, seed: int, findings: Findings, cache: Path) -> None:
    """Takes n steps of environments with mixed tools, in batches of 64, and notes what the memory does."""
    search = {"name": "search", "cache_dir": str(cache)}
    tools: list[object] = [search, "calculator", "notes", power, fails]
    venv = ToolVectorEnv(Questions(), SLOTS, tools=tools, judge="rules")
    venv.reset(seed=seed)
    stream = actions(random.Random(seed))
    memory = []
    rounds = max(1, n // SLOTS)
    for k in range(rounds):
        try:
            *_, infos = venv.step([next(stream) for _ in range(SLOTS)])
            findings.checked["trajectories"] += sum(t is not None for t in infos.get("trajectory", ()))
        except Exception as error:
            findings.errors[f"step: {type(error).__name__}: {error!s:.60}"] += 1
            venv.reset(seed=k)
        findings.checked["environment steps"] += SLOTS
        if k in (rounds // 10, rounds - 1):
            memory.append(resident_mb())
    venv.close()
    findings.lines.append(f"memory: {memory[0]:.0f} MB after a tenth of the steps, {memory[-1]:.0f} MB after all of them")


def resident_mb() -> float:
    """Returns the memory that this process holds, in MB (its peak if the system tells no more)."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize() / 2**20
    except (OSError, IndexError, ValueError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def fuzz(actions_per_format: int, steps: int, seed: int = 0, show: Callable[[str], object] = print) -> Findings:
    """Runs everything and shows the figures as they come."""
    findings = Findings()
    for name in names("format"):
        begun = time.monotonic()
        fuzz_format(name, actions_per_format, seed, findings)
        took = time.monotonic() - begun
        show(f"{name}: {actions_per_format:,} actions in {took:.1f} s; twice the text takes {linearity(name):.2f} x the time")
    with tempfile.TemporaryDirectory() as cache:
        begun = time.monotonic()
        fuzz_steps(steps, seed, findings, Path(cache))
        show(f"{findings.checked['environment steps']:,} steps in {time.monotonic() - begun:.1f} s")
    for line in findings.lines:
        show(line)
    for what, count in findings.errors.most_common(20):
        show(f"{count} x {what}")
    show(f"{sum(findings.errors.values())} exceptions")
    return findings


def main() -> int:
    """Runs the fuzzer and prints its figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--actions", type=int, default=1_000_000, help="generated actions per format")
    parser.add_argument("--steps", type=int, default=200_000, help="environment steps")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    return 1 if fuzz(options.actions, options.steps, options.seed).errors else 0


if __name__ == "__main__":
    sys.exit(main())
