"""The search tool: BM25 and embeddings over a corpus, from indexes that are built once and shared by all environments."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import os
import threading
import weakref
from collections.abc import Iterator, Sequence
from typing import Literal, get_args

import msgspec

from swirl_env.cache import cache_root
from swirl_env.corpus import open_corpus
from swirl_env.errors import ConfigError, unknown_name
from swirl_env.protocols import Corpus
from swirl_env.tools.search import storage
from swirl_env.tools.search.build import IndexOptions
from swirl_env.tools.search.dense import TEXT_VERSION, DenseIndex
from swirl_env.tools.search.embedders import Embedder, load_embedder
from swirl_env.tools.search.hybrid import fuse
from swirl_env.tools.search.index import Best, Bm25Index, Numba, RankBm25Index, Ranker, document_terms
from swirl_env.tools.search.results import check_numbers, nothing, refuse, show
from swirl_env.tools.search.scoring import METHODS, Method
from swirl_env.tools.search.text import TOKENIZER_VERSION, Analyzer, Splitter, Stemmer, StopWords
from swirl_env.types import SEARCH, ToolResult

INDEX_VERSION = 3
"""Version of the files in the cache; indexes of other versions are left alone and built again."""

Backend = Literal["bm25s", "rank_bm25", "dense", "hybrid"]

_KEYWORDS = (
    "finds passages by keywords and shows the {top_k} best. Write the words that the passage should hold, "
    "such as names and titles."
)
_MEANING = "finds passages by meaning and shows the {top_k} best. Write a question or what the passage should say."
_DESCRIPTIONS = {"bm25s": _KEYWORDS, "rank_bm25": _KEYWORDS, "dense": _MEANING, "hybrid": _KEYWORDS}


class Search:
    """Finds passages by keywords (BM25), by meaning (embeddings), or by both.

    A result's `data` holds ``ids``, ``titles`` and ``scores`` of the best passages, best first; equal scores keep the
    order of the corpus. A query without results is no error: its text says why.

    Args:
        corpus: the passages: a `Corpus`, a path, a `datasets.Dataset` (see `swirl_env.corpus.open_corpus`).
        backend: ``bm25s``, or ``rank_bm25`` as the slow reference; ``dense`` for the inner product of embeddings; ``hybrid`` for
            the fusion of both rankings by rank.
        top_k: how many passages to return.
        k1: how slowly repetitions of a term in a passage stop counting.
        b: how strongly long passages are penalised, 0 to 1.
        method: the variant of BM25: ``lucene``, ``robertson``, ``atire``, ``bm25l`` or ``bm25+`` (bm25s only).
        tokenizer: ``words``, or ``whitespace`` to split at blanks only.
        stemmer: ``english`` (Snowball), ``porter`` or ``none``.
        stopwords: ``english`` (Lucene's 33 words) or ``none``.
        title_weight: how many times the title is indexed along with the text; 0 leaves it out.
        snippet_chars: how much of each passage is shown, in characters; 0 for all of it.
        max_query_chars: the longest query that is searched for.
        numba: ``on``, ``off``, or ``auto``: on if installed, once a process searches a large corpus often (bm25s only).
        embedder: the model of ``dense`` and ``hybrid``: a folder, ``package:NAME``, a hub name, or a mapping with ``model``,
            ``dtype`` and ``device`` (see `swirl_env.tools.search.embedders.load_embedder`).
        fusion_depth: how many of the best passages of each ranking ``hybrid`` fuses, `top_k` at least.
        cache_dir: folder of the indexes; by default ``SWIRL_CACHE_DIR``, else the user's cache folder.
    """

    tag = SEARCH

    def __init__(
        self,
        *,
        corpus: object,
        backend: Backend = "bm25s",
        top_k: int = 5,
        k1: float = 0.9,
        b: float = 0.4,
        method: Method = "lucene",
        tokenizer: Splitter = "words",
        stemmer: Stemmer = "english",
        stopwords: StopWords = "english",
        title_weight: int = 1,
        snippet_chars: int = 600,
        max_query_chars: int = 2000,
        numba: Numba = "auto",
        embedder: object = None,
        fusion_depth: int = 20,
        cache_dir: str | None = None,
    ) -> None:
        _check(backend, method, tokenizer, stemmer, stopwords, numba)
        _check_embedder(backend, embedder, fusion_depth)
        _check_numbers(top_k, k1, b, title_weight, snippet_chars, max_query_chars)
        if corpus is None:
            raise ConfigError("The search tool needs a corpus; this task has none. Give corpus=PATH, or use other tools.")
        self._options = {name: value for name, value in locals().items() if name != "self"}
        self.top_k = top_k
        self.snippet_chars = snippet_chars
        self.max_query_chars = max_query_chars
        self.description = _DESCRIPTIONS[backend].format(top_k=top_k)
        options = IndexOptions(method, float(k1), float(b), title_weight, tokenizer, stemmer, stopwords)
        self._opened = _open(
            open_corpus(corpus), backend, options, numba, load_embedder(embedder) if embedder else None, cache_dir
        )
        self._depth = max(fusion_depth, top_k)

    def __reduce__(self) -> tuple[object, ...]:
        # A copy in another process maps the same files instead of carrying them along.
        return functools.partial(Search, **self._options), ()

    def run(self, queries: Sequence[str]) -> list[ToolResult]:
        """Returns the best passages of each query, as text and as data."""
        refusals = [refuse(query, self.max_query_chars) for query in queries]
        asked = [query for query, refusal in zip(queries, refusals, strict=True) if refusal is None]
        opened = self._opened
        terms = [opened.analyzer.terms(query) for query in asked]
        best = opened.best(asked, terms, self.top_k, self._depth)
        results = iter([self._result(*one) for one in zip(asked, terms, best, strict=True)])
        return [next(results) if refusal is None else refusal for refusal in refusals]

    def _result(self, query: str, terms: Sequence[str], best: Best) -> ToolResult:
        if not best:
            return nothing(_why(query, terms))
        passages = self._opened.passages
        return show([(passages[position], score) for position, score in best], self.snippet_chars)


def _why(query: str, terms: Sequence[str]) -> str:
    if terms:
        return "no passage holds any of these words"
    if any(character.isalnum() for character in query):
        return "the query holds only words that are too common to search for"
    return "the query holds no words"


class _Opened:
    """Shared by the search tools of one process: analyzer, passages and indexes of one corpus under one set of options."""

    def __init__(
        self,
        corpus: Corpus,
        backend: Backend,
        options: IndexOptions,
        numba: Numba,
        embedder: Embedder | None,
        cache_dir: str | None,
    ) -> None:
        root = cache_root(cache_dir) / f"search-v{INDEX_VERSION}"
        self.analyzer = Analyzer(options.tokenizer, options.stemmer, options.stopwords)
        self.passages = storage.ensure_passages(root, corpus)
        self.ranker: Ranker | None = None
        self.dense: DenseIndex | None = None
        if embedder is not None:
            vectors = root / f"dense-{_digest([TEXT_VERSION, embedder.fingerprint, corpus.fingerprint])}"
            parts = root / f".parts-{vectors.name}"
            storage.ensure(vectors, lambda own: DenseIndex.build(own, self.passages, embedder, parts))
            self.dense = DenseIndex(vectors, embedder)
        if backend == "dense":
            return
        if backend == "rank_bm25":
            self.ranker = RankBm25Index(self._documents(options), options)
        else:
            index = root / f"bm25-{_index_key(corpus, options)}"
            storage.ensure(index, lambda own: Bm25Index.build(own, self.passages, options))
            self.ranker = Bm25Index(index, numba)

    def best(self, queries: Sequence[str], terms: Sequence[Sequence[str]], k: int, depth: int) -> list[Best]:
        """Returns the `k` best passages of each query; `depth` of each ranking are fused if there are two."""
        wanted = k if self.ranker is None or self.dense is None else depth
        by_words = self.ranker.top(terms, wanted) if self.ranker is not None else []
        if self.dense is None:
            return by_words
        dense = self.dense
        by_meaning = [dense.top(query, wanted) if any(map(str.isalnum, query)) else [] for query in queries]
        if self.ranker is None:
            return by_meaning
        return [fuse(rankings, k) for rankings in zip(by_words, by_meaning, strict=True)]

    def _documents(self, options: IndexOptions) -> Iterator[list[str]]:
        return document_terms(self.passages, self.analyzer.passage_terms, options.title_weight)


_shared: weakref.WeakValueDictionary[str, _Opened] = weakref.WeakValueDictionary()
_sharing = threading.Lock()


def _open(
    corpus: Corpus, backend: Backend, options: IndexOptions, numba: Numba, embedder: Embedder | None, cache_dir: str | None
) -> _Opened:
    """Returns the index, the same object for every tool of this process that asks for the same one."""
    model = embedder.fingerprint if embedder is not None else ""
    key = f"{os.path.abspath(cache_root(cache_dir))}|{backend}|{numba}|{model}|{_index_key(corpus, options)}"
    with _sharing:
        opened = _shared.get(key)
        if opened is None:
            opened = _shared[key] = _Opened(corpus, backend, options, numba, embedder, cache_dir)
    return opened


def _index_key(corpus: Corpus, options: IndexOptions) -> str:
    return _digest([TOKENIZER_VERSION, importlib.metadata.version("PyStemmer"), options, corpus.fingerprint])


def _digest(value: object) -> str:
    return hashlib.blake2b(msgspec.json.encode(value), digest_size=16).hexdigest()


def _check(backend: str, method: str, tokenizer: str, stemmer: str, stopwords: str, numba: str) -> None:
    known: dict[str, tuple[str, Sequence[str]]] = {
        "search backend": (backend, get_args(Backend)),
        "BM25 method": (method, METHODS),
        "tokenizer": (tokenizer, get_args(Splitter)),
        "stemmer": (stemmer, get_args(Stemmer)),
        "stop word list": (stopwords, get_args(StopWords)),
        "numba setting": (numba, get_args(Numba)),
    }
    for what, (name, names) in known.items():
        if name not in names:
            raise unknown_name(what, str(name), names)
    if backend == "rank_bm25" and method != "lucene":
        raise ConfigError(f"method={method!r} needs backend='bm25s'; backend='rank_bm25' has its own formula (Okapi).")


def _check_embedder(backend: str, embedder: object, fusion_depth: int) -> None:
    if backend in ("dense", "hybrid") and embedder is None:
        raise ConfigError(f"backend={backend!r} needs a model: give embedder=, a folder, package:NAME or a hub name.")
    if backend not in ("dense", "hybrid") and embedder is not None:
        raise ConfigError(f"embedder= is for backend='dense' and 'hybrid'; got backend={backend!r}. Leave one of them out.")
    if not isinstance(fusion_depth, int) or fusion_depth < 1:
        raise ConfigError(f"Expected fusion_depth to be a whole number from 1, got {fusion_depth!r}.")


def _check_numbers(top_k: int, k1: float, b: float, title_weight: int, snippet_chars: int, max_query_chars: int) -> None:
    check_numbers(
        [
            ("top_k", top_k, "a whole number from 1", isinstance(top_k, int) and top_k >= 1),
            ("k1", k1, "a number from 0", k1 >= 0),
            ("b", b, "a number from 0 to 1", 0 <= b <= 1),
            ("title_weight", title_weight, "a whole number from 0", isinstance(title_weight, int) and title_weight >= 0),
            ("snippet_chars", snippet_chars, "a whole number from 0", isinstance(snippet_chars, int) and snippet_chars >= 0),
            ("max_query_chars", max_query_chars, "a number from 1", max_query_chars >= 1),
        ]
    )
