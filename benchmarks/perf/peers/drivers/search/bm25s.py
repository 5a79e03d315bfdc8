"""Retrieval with bm25s as its documentation uses it, with the stemmer and stop words of its English examples."""

from __future__ import annotations

import importlib
import itertools
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


def build(options: dict[str, Any], look_up: object) -> dict[str, Callable[[int], list[int]]]:
    """Returns the measurements: building an index, single queries, and batches of queries (times per query)."""
    bm25s: Any = importlib.import_module("bm25s")
    stemmer: Any = importlib.import_module("Stemmer").Stemmer("english")
    queries: Iterator[str] = itertools.cycle(json.loads(Path(options["queries"]).read_text(encoding="utf-8")))
    backend = options["backend"]
    clock = time.perf_counter_ns
    built: list[tuple[Any, list[str]]] = []

    def tokens(texts: list[str]) -> Any:
        return bm25s.tokenize(texts, stopwords="en", stemmer=stemmer, show_progress=False)

    def index(n: int) -> list[int]:
        times = []
        for _ in range(n):
            built.clear()
            start = clock()
            with open(options["passages"], encoding="utf-8") as file:
                texts = ["{title} {text}".format(**json.loads(line)) for line in file]
            bm25 = bm25s.BM25(k1=0.9, b=0.4, backend=backend)
            bm25.index(tokens(texts), show_progress=False)
            times.append(clock() - start)
            built.append((bm25, texts))
        return times

    def retrieve(several: list[str]) -> None:
        bm25, texts = built[0]
        bm25.retrieve(tokens(several), corpus=texts, k=options["top_k"], show_progress=False)

    def single(n: int) -> list[int]:
        times = []
        for query in itertools.islice(queries, n):
            start = clock()
            retrieve([query])
            times.append(clock() - start)
        return times

    def batch(n: int) -> list[int]:
        times = []
        for _ in range(n):
            several = list(itertools.islice(queries, options["slots"]))
            start = clock()
            retrieve(several)
            times.append((clock() - start) // len(several))
        return times

    return {"build": index, "query": single, "batch": batch}
