"""tantivy, the search library in Rust, over a corpus: its index is built once in the cache (extra `tantivy`)."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tantivy

from swirl_env.cache import cache_root
from swirl_env.corpus import open_corpus
from swirl_env.errors import ConfigError
from swirl_env.tools.search import storage
from swirl_env.tools.search.engines.engine import Engine
from swirl_env.tools.search.results import Hit, check_numbers, whole
from swirl_env.tools.search.text import TOKENIZER_VERSION, Analyzer, Splitter, Stemmer, StopWords
from swirl_env.tools.search.tool import INDEX_VERSION

_WRITER_BYTES = 256 << 20


class TantivySearch(Engine):
    """Ranks by tantivy's BM25 (k1 = 1.2, b = 0.75, lengths rounded to a byte); words are split and stemmed as by `search`.

    A query is a bag of words: nothing in it is read as tantivy's query language.

    Args:
        corpus: the passages (see `swirl_env.corpus.open_corpus`).
        top_k: how many passages to return.
        tokenizer: ``words``, or ``whitespace`` to split at blanks only.
        stemmer: ``english`` (Snowball), ``porter`` or ``none``.
        stopwords: ``english`` (Lucene's 33 words) or ``none``.
        title_weight: how many times the title is indexed along with the text; 0 leaves it out.
        snippet_chars: how much of each passage is shown, in characters; 0 for all of it.
        max_query_chars: the longest query that is searched for.
        cache_dir: folder of the indexes; by default ``SWIRL_CACHE_DIR``, else the user's cache folder.
    """

    def __init__(
        self,
        *,
        corpus: object,
        top_k: int = 5,
        tokenizer: Splitter = "words",
        stemmer: Stemmer = "english",
        stopwords: StopWords = "english",
        title_weight: int = 1,
        snippet_chars: int = 600,
        max_query_chars: int = 2000,
        cache_dir: str | None = None,
    ) -> None:
        super().__init__(top_k, snippet_chars, max_query_chars)
        check_numbers([("title_weight", title_weight, "a whole number from 0", whole(title_weight, 0))])
        if corpus is None:
            raise ConfigError("The tantivy search needs a corpus; this task has none. Give corpus=PATH, or use other tools.")
        self._options = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        opened = open_corpus(corpus)
        self._analyzer = Analyzer(tokenizer, stemmer, stopwords)
        root = cache_root(cache_dir) / f"search-v{INDEX_VERSION}"
        passages = storage.ensure_passages(root, opened)
        versions = [importlib.metadata.version(package) for package in ("tantivy", "PyStemmer")]
        key = f"{versions} {TOKENIZER_VERSION} {tokenizer} {stemmer} {stopwords} {title_weight} {opened.fingerprint}"
        folder = root / f"tantivy-{hashlib.blake2b(key.encode(), digest_size=16).hexdigest()}"
        storage.ensure(folder, lambda own: _build(own, passages, self._analyzer, title_weight))
        self._passages = passages
        self._index = tantivy.Index.open(str(folder))
        self._schema = self._index.schema
        self._searcher = self._index.searcher()

    def __reduce__(self) -> tuple[object, ...]:
        return functools.partial(TantivySearch, **self._options), ()

    def find(self, queries: Sequence[str]) -> list[list[Hit]]:
        """Returns the best passages of each query."""
        return [self._find(query) for query in queries]

    def _find(self, query: str) -> list[Hit]:
        terms = self._analyzer.terms(query)
        if not terms:
            return []
        words = [(tantivy.Occur.Should, tantivy.Query.term_query(self._schema, "terms", term, "freq")) for term in terms]
        result = self._searcher.search(tantivy.Query.boolean_query(words), self.top_k, count=False)
        best = [(-score, int(self._searcher.doc(address)["position"][0])) for score, address in result.hits]
        return [(self._passages[position], -score) for score, position in sorted(best)]


def _build(folder: Path, passages: storage.PassageStore, analyzer: Analyzer, title_weight: int) -> None:
    for left in folder.iterdir():  # what a killed build wrote: tantivy has no way to go on from there
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    schema = tantivy.SchemaBuilder()
    # Terms are split and stemmed already; a blank is the one character that none of them holds.
    schema.add_text_field("terms", stored=False, tokenizer_name="whitespace", index_option="freq")
    schema.add_integer_field("position", stored=True)
    index = tantivy.Index(schema.build(), str(folder))
    writer: Any = index.writer(_WRITER_BYTES, 1)
    for position, passage in enumerate(passages):
        terms = analyzer.passage_terms(passage.title) * title_weight if title_weight else []
        document = tantivy.Document()
        document.add_text("terms", " ".join(terms + analyzer.passage_terms(passage.text)))
        document.add_integer("position", position)
        writer.add_document(document)
    writer.commit()
    writer.wait_merging_threads()
    for lock in folder.glob(".tantivy-*.lock"):
        lock.unlink()
