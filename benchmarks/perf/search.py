"""Search over 100,000 passages: this package, bare bm25s and rank-bm25 on the same six-word queries in one process."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from swirl_env.benchmarks.perf.timing import Report, Row, row, settle, stopwatch, timed
from swirl_env.corpus import GeneratedCorpus
from swirl_env.protocols import Corpus
from swirl_env.registry import make_tasks, make_tool
from swirl_env.tools.search.text import ENGLISH_STOP_WORDS
from swirl_env.types import Passage

Search = Callable[[str], object]

TOP_K = 5
WORDS = 6
RANK_BM25_BAR = 800.0
BM25S_BAR = 1.3
_VOCABULARY = 50_000
_LENGTH = 60


def search(size: int = 100_000) -> Report:
    """Times six-word queries for the five best of `size` passages, on Zipf text and on Atlas."""
    rows = [*_on("Zipf text", zipf_corpus(size), size), *_on("Atlas", _atlas(size), size)]
    about = f"{size:,} passages, {WORDS}-word queries, top {TOP_K}; Zipf text: {_LENGTH} words per passage"
    return Report("search", about, tuple(rows))


def _on(name: str, corpus: Corpus, size: int) -> list[Row]:
    queries = sample_queries(corpus, 3_000 if size >= 10_000 else 50)
    build: list[int] = []
    with tempfile.TemporaryDirectory() as cache:
        with stopwatch(build):
            tool = make_tool("search", corpus=corpus, top_k=TOP_K, cache_dir=cache)
        opened: list[int] = []
        with stopwatch(opened):
            make_tool("search", corpus=corpus, top_k=TOP_K, cache_dir=cache)

        def ours(query: str) -> object:
            return tool.run([query])

        timed(ours, queries[: len(queries) // 2])  # past the point at which a long-running process compiles its inner loop
        settle()
        # In turns, so that a busy machine slows both alike.
        swirl_times, bare_times = _in_turns(ours, _bm25s(corpus), queries)
        rank = _rank_bm25(corpus)
        few = queries[:: max(1, len(queries) // 12)]
        rank_times = timed(rank, few)
        again = timed(ours, few * 5)
    over_bare, over_rank = (float(np.median(a) / np.median(b)) for a, b in ((bare_times, swirl_times), (rank_times, again)))
    least = 1 / BM25S_BAR
    return [
        row(f"{name}: build the index", build, "s"),
        row(f"{name}: open it again", opened, "s"),
        row(f"{name}: bare bm25s", bare_times),
        row(f"{name}: rank-bm25", rank_times, "ms"),
        row(
            f"{name}: search",
            swirl_times,
            baseline="bare bm25s",
            ratio=over_bare,
            bar=f"{least:.2f} x bare bm25s",
            met=over_bare >= least,
        ),
        row(
            f"{name}: search, the queries of rank-bm25",
            again,
            baseline="rank-bm25",
            ratio=over_rank,
            bar=f"{RANK_BM25_BAR:g} x rank-bm25",
            met=over_rank >= RANK_BM25_BAR,
        ),
    ]


def _in_turns(a: Search, b: Search, queries: Sequence[str], block: int = 100) -> tuple[list[int], list[int]]:
    times: tuple[list[int], list[int]] = ([], [])
    for at in range(0, len(queries), block):
        for search, into in zip((a, b), times, strict=True):
            into += timed(search, queries[at : at + block])
    return times


def _bm25s(corpus: Corpus) -> Search:
    """Returns bm25s as its own documentation uses it, with the stemmer and the stop words that the tool has, too."""
    import bm25s
    import Stemmer

    stemmer = Stemmer.Stemmer("english")
    texts = [f"{passage.title} {passage.text}" for passage in corpus]
    index = bm25s.BM25(k1=0.9, b=0.4)
    index.index(bm25s.tokenize(texts, stopwords="en", stemmer=stemmer, show_progress=False), show_progress=False)

    def run(query: str) -> object:
        tokens = bm25s.tokenize(query, stopwords="en", stemmer=stemmer, show_progress=False)
        return index.retrieve(tokens, corpus=texts, k=TOP_K, show_progress=False)

    return run


def _rank_bm25(corpus: Corpus) -> Search:
    """Returns rank-bm25 as its own documentation uses it."""
    from rank_bm25 import BM25Okapi

    texts = [f"{passage.title} {passage.text}" for passage in corpus]
    index = BM25Okapi([text.lower().split() for text in texts])
    return lambda query: index.get_top_n(query.lower().split(), texts, n=TOP_K)


def _atlas(size: int) -> Corpus:
    corpus = make_tasks("atlas", documents=size).corpus
    assert corpus is not None
    return corpus


def zipf_corpus(size: int) -> Corpus:
    """Returns passages whose words follow Zipf's law, as those of natural text do."""
    words = zipf_words()
    rng = np.random.default_rng(0)
    weights = 1.0 / np.arange(1, _VOCABULARY + 1)
    picks = rng.choice(_VOCABULARY, size=(size, _LENGTH + 2), p=weights / weights.sum()).astype(np.int32)

    def passage(i: int) -> Passage:
        sample: list[str] = [words[j] for j in picks[i]]
        return Passage(f"z{i}", " ".join(sample[:2]).title(), " ".join(sample[2:]) + ".")

    def stream() -> Iterator[Passage]:
        return map(passage, range(size))

    return GeneratedCorpus(stream, size, f"zipf-{size}-{_VOCABULARY}-{_LENGTH}", passage)


def zipf_words() -> list[str]:
    """Returns the stop words of English, then made-up ones, short ones first, as frequent words are short."""
    rng = random.Random(0)
    syllables = [c + v for c in "bcdfghjklmnprstvwz" for v in ("a", "e", "i", "o", "u", "ai", "or", "en")]
    words: dict[str, None] = dict.fromkeys(sorted(ENGLISH_STOP_WORDS, key=len))
    while len(words) < _VOCABULARY:
        words["".join(rng.choices(syllables, k=1 + min(4, len(words) // 100)))] = None
    return list(words)


def sample_queries(corpus: Corpus, n: int) -> list[str]:
    """Returns n queries of six different words that are no stop words, each out of one passage."""
    rng = random.Random(1)
    queries: list[str] = []
    while len(queries) < n:
        passage = corpus[rng.randrange(len(corpus))]
        text = f"{passage.title} {passage.text}".replace(".", "")
        words = [word for word in dict.fromkeys(text.split()) if word.lower() not in ENGLISH_STOP_WORDS]
        if len(words) >= WORDS:
            queries.append(" ".join(rng.sample(words, WORDS)))
    return queries
