"""A big corpus: an index is built in bounded memory, killed in the middle, built to its end, opened cold, and searched."""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from swirl_env.benchmarks.perf.search import WORDS, zipf_words
from swirl_env.benchmarks.perf.timing import Report, Row, row, settle
from swirl_env.cache import cache_root
from swirl_env.corpus import GeneratedCorpus
from swirl_env.protocols import Tool
from swirl_env.registry import make_tool
from swirl_env.tools.search.text import ENGLISH_STOP_WORDS
from swirl_env.tools.search.tool import INDEX_VERSION
from swirl_env.types import Passage

TOP_K = 5
MEMORY_BAR = 4.0
"""GB of the building process."""
QUERY_BAR = 20.0
"""Milliseconds."""
OPEN_BAR = 1.0
"""Seconds."""
_LENGTH = 60
_CHUNK = 512
_PLANTED = 1_000
_BATCH = 64
_COPIED = "copied.json"


def corpus(size: int = 5_000_000) -> Report:
    """Builds, opens and searches the index of `size` passages of 60 words, each step in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="swirl-corpus-") as cache:
        begin = time.perf_counter()
        parts = _kill_half_way(size, cache)
        before = time.perf_counter() - begin
        built = _phase("build", size, cache)
        copied = json.loads((Path(cache) / _COPIED).read_bytes())
        files = [path for path in Path(cache).rglob("*") if path.is_file()]
        _forget(files)
        opened = _phase("open", size, cache)
        searched = [_phase(f"search-{numba}", size, cache) for numba in ("off", "on")]
        bytes_of = {name: sum(f.stat().st_size for f in files if name in f.parent.name) for name in ("passages-", "bm25-")}
    rows = [
        _one("killed with half of the parts written, after", before, "s"),
        _one("the same command again, to the end", built["seconds"], "s"),
        _one("of the two, making the passages", copied["making"], "s"),
        _one("of the two, copying them", copied["seconds"] - copied["making"], "s"),
        _one("processor time of the second", built["cpu"], "s"),
        _one("parts that the killed build left", parts, "parts"),
        _one("parts that the second one wrote", built["written"], "parts"),
        _bar("peak memory of the build", built["memory"], "GB", MEMORY_BAR),
        _one("size of the passages", bytes_of["passages-"] / 1e9, "GB"),
        _one("size of the index", bytes_of["bm25-"] / 1e9, "GB"),
        _bar("open it, nothing in the page cache", opened["seconds"], "s", OPEN_BAR),
        _one("the first query after that", opened["first"] * 1e3, "ms"),
    ]
    for numba, phase in zip(("without numba", "with numba"), searched, strict=True):
        single = row(f"a query, {numba}", np.array(phase["single"]) * 1e9, "ms")
        rows.append(_with_bar(single, single.p99, QUERY_BAR, "ms at p99"))
        rows.append(row(f"the same in processor time, {numba}", np.array(phase["single_cpu"]) * 1e9, "ms"))
        rows.append(row(f"a query of a batch of {_BATCH}, {numba}", np.array(phase["batch"]) * 1e9, "ms"))
        rows.append(_with_bar(_one(f"planted passages at rank 1, {numba}", 100 * phase["recall"], "%"), -phase["recall"], -1, ""))
    about = f"{size:,} passages of {_LENGTH} words (Zipf), {WORDS}-word queries, top {TOP_K}"
    return Report("corpus", about, tuple(rows))


def _one(what: str, value: float, unit: str) -> Row:
    return Row(what, unit, value, value, value, 1)


def _bar(what: str, value: float, unit: str, bar: float) -> Row:
    return _with_bar(_one(what, value, unit), value, bar, unit)


def _with_bar(measured: Row, value: float, bar: float, unit: str) -> Row:
    text = f"under {bar:g} {unit}" if bar > 0 else "100 %"
    return Row(**{**{name: getattr(measured, name) for name in Row.__struct_fields__}, "bar": text, "met": bool(value <= bar)})


def _kill_half_way(size: int, cache: str) -> int:
    """Starts a build, kills it once half of its parts are there, and returns how many those are."""
    expected = max(1, size * (_LENGTH + 3) // (16 << 20) // 2)
    process = subprocess.Popen(_command("build", size, cache), stdout=subprocess.DEVNULL)
    parts: list[Path] = []
    while process.poll() is None:
        parts = list(Path(cache).glob("search-v*/.building-*/parts/??????"))
        if len(parts) >= expected:
            process.send_signal(signal.SIGKILL)
            process.wait()
        time.sleep(0.1)
    return len(parts)


def _command(phase: str, size: int, cache: str) -> list[str]:
    return [sys.executable, "-m", "swirl_env.benchmarks.perf.corpus", phase, str(size), cache]


def _phase(phase: str, size: int, cache: str) -> dict[str, Any]:
    result = subprocess.run(_command(phase, size, cache), check=True, stdout=subprocess.PIPE)
    measured: dict[str, Any] = json.loads(result.stdout)
    return measured


def _forget(files: list[Path]) -> None:
    """Asks the system to drop files from its page cache, so that they are read from the disk again."""
    for path in files:
        with path.open("rb") as file, contextlib.suppress(AttributeError, OSError):
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def generated(size: int, making: list[float] | None = None) -> GeneratedCorpus:
    """Returns passages whose words follow Zipf's law; `_PLANTED` of them, spread evenly, hold a word that no other has.

    Args:
        size: how many.
        making: the seconds that making them takes are added up in it.
    """
    words = np.array(zipf_words(), dtype=object)
    weights = 1.0 / np.arange(1, len(words) + 1)
    edges = np.cumsum(weights / weights.sum())

    @functools.lru_cache(maxsize=2)
    def chunk(number: int) -> list[Passage]:
        begin = time.perf_counter()
        rng = np.random.default_rng([7, number])
        picks = np.minimum(np.searchsorted(edges, rng.random((_CHUNK, _LENGTH + 2))), len(words) - 1)
        passages = [
            Passage(f"z{i}", f"{sample[0]} {sample[1]}".title(), " ".join([*sample[2:], *_needle(i, size)]) + ".")
            for i, sample in enumerate(words[picks].tolist(), number * _CHUNK)
        ]
        if making is not None:
            making.append(time.perf_counter() - begin)
        return passages

    def item(i: int) -> Passage:
        return chunk(i // _CHUNK)[i % _CHUNK]

    def stream() -> Iterator[Passage]:
        return map(item, range(size))

    return GeneratedCorpus(stream, size, f"big-{size}-{_LENGTH}-{_PLANTED}", item)


def _needle(i: int, size: int) -> list[str]:
    """Returns the word that only passage i holds, if it is one of the planted ones."""
    every = max(1, size // _PLANTED)
    return [f"needle{i // every}x"] if i % every == every // 2 and i // every < _PLANTED else []


def queries(passages: GeneratedCorpus, count: int) -> list[str]:
    """Returns queries of six different words that are no stop words, each out of one passage."""
    rng = random.Random(1)
    chosen: list[str] = []
    for at in sorted(rng.randrange(len(passages)) for _ in range(count)):
        words = [word for word in dict.fromkeys(passages[at].text.rstrip(".").split()) if word not in ENGLISH_STOP_WORDS]
        chosen.append(" ".join(rng.sample(words, min(WORDS, len(words)))))
    rng.shuffle(chosen)
    return chosen


def _build(size: int, cache: str) -> dict[str, Any]:
    from swirl_env.tools.search import build, storage

    written: list[int] = []
    write = build._write_part
    build._write_part = lambda *args: written.append(1) or write(*args)  # type: ignore[func-returns-value]
    making: list[float] = []
    corpus = generated(size, making)
    begin = time.perf_counter()
    storage.ensure_passages(cache_root(cache) / f"search-v{INDEX_VERSION}", corpus)
    if making:  # the killed build has made them, the other finds them
        copied = {"seconds": time.perf_counter() - begin, "making": sum(making)}
        (Path(cache) / _COPIED).write_text(json.dumps(copied))
    make_tool("search", corpus=corpus, cache_dir=cache)
    seconds = time.perf_counter() - begin
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    return {"seconds": seconds, "cpu": time.process_time(), "memory": memory, "written": len(written)}


def _open(size: int, cache: str) -> dict[str, Any]:
    passages = generated(size)
    (query,) = queries(passages, 1)
    begin = time.perf_counter()
    tool = make_tool("search", corpus=passages, top_k=TOP_K, cache_dir=cache)
    opened = time.perf_counter()
    tool.run([query])
    return {"seconds": opened - begin, "first": time.perf_counter() - opened}


def _search(size: int, cache: str, numba: str) -> dict[str, Any]:
    passages = generated(size)
    asked = queries(passages, 1_000 if size > 100_000 else 100)
    tool = make_tool("search", corpus=passages, top_k=TOP_K, cache_dir=cache, numba=numba)
    tool.run(asked)  # so that what is measured is the search, not the disk
    settle()
    single, single_cpu, batch = [], [], []
    for query in asked:
        wall, cpu = time.perf_counter(), time.thread_time()
        tool.run([query])
        single.append(time.perf_counter() - wall)
        single_cpu.append(time.thread_time() - cpu)
    for at in range(0, len(asked) - _BATCH + 1, _BATCH):
        wall = time.perf_counter()
        tool.run(asked[at : at + _BATCH])
        batch.append((time.perf_counter() - wall) / _BATCH)
    return {"single": single, "single_cpu": single_cpu, "batch": batch, "recall": _recall(tool, passages)}


def _recall(tool: Tool, passages: GeneratedCorpus) -> float:
    """Returns how many of the planted passages are the best for their own word and five more of theirs."""
    every = max(1, len(passages) // _PLANTED)
    planted = range(every // 2, min(len(passages), every * _PLANTED), every)
    asked = []
    for at in planted:
        *words, needle = passages[at].text.rstrip(".").split()
        asked.append(" ".join([*words[:5], needle]))
    results = tool.run(asked)
    hits = [result.data["ids"][:1] == [f"z{at}"] for at, result in zip(planted, results, strict=True)]
    return float(np.mean(hits))


def main() -> None:
    """Runs one phase of the benchmark and prints what it measured as JSON."""
    parser = argparse.ArgumentParser()
    for name in ("phase", "size", "cache"):
        parser.add_argument(name)
    options = parser.parse_args()
    phase, size, cache = options.phase, int(options.size), options.cache
    if phase.startswith("search-"):
        result = _search(size, cache, phase.removeprefix("search-"))
    else:
        result = {"build": _build, "open": _open}[phase](size, cache)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
