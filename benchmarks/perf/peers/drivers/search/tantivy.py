"""Retrieval with tantivy: an index on disk, English stemming, texts fetched with the ranks."""

from __future__ import annotations

import importlib
import itertools
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


def build(options: dict[str, Any], look_up: object) -> dict[str, Callable[[int], list[int]]]:
    """Returns the measurements: building an index, single queries, and queries in a row (it has no batches)."""
    tantivy: Any = importlib.import_module("tantivy")
    queries: Iterator[str] = itertools.cycle(json.loads(Path(options["queries"]).read_text(encoding="utf-8")))
    schema = tantivy.SchemaBuilder()
    for field in ("title", "text"):
        schema.add_text_field(field, stored=True, tokenizer_name="en_stem")
    schema = schema.build()
    clock = time.perf_counter_ns
    built: list[tuple[Any, ...]] = []

    def index(n: int) -> list[int]:
        times = []
        for _ in range(n):
            built.clear()
            folder = tempfile.TemporaryDirectory()
            start = clock()
            made = tantivy.Index(schema, path=folder.name)
            writer = made.writer(heap_size=256_000_000)
            with open(options["passages"], encoding="utf-8") as file:
                for line in file:
                    passage = json.loads(line)
                    writer.add_document(tantivy.Document(title=passage["title"], text=passage["text"]))
            writer.commit()
            writer.wait_merging_threads()
            made.reload()
            times.append(clock() - start)
            built.append((made, made.searcher(), folder))
        return times

    def retrieve(query: str) -> list[Any]:
        made, searcher, _ = built[0]
        hits = searcher.search(made.parse_query(query, ["title", "text"]), options["top_k"]).hits
        return [(score, searcher.doc(address).to_dict()) for score, address in hits]

    def single(n: int) -> list[int]:
        times = []
        for query in itertools.islice(queries, n):
            start = clock()
            retrieve(query)
            times.append(clock() - start)
        return times

    def batch(n: int) -> list[int]:
        times = []
        for _ in range(n):
            several = list(itertools.islice(queries, options["slots"]))
            start = clock()
            for query in several:
                retrieve(query)
            times.append((clock() - start) // len(several))
        return times

    return {"build": index, "query": single, "batch": batch}
