"""Qdrant, the vector database: a server, a local folder, or memory (extra `qdrant`)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from qdrant_client import QdrantClient, models

from swirl_env.corpus import open_corpus
from swirl_env.errors import ConfigError
from swirl_env.protocols import Corpus
from swirl_env.tools.search.dense import passage_text
from swirl_env.tools.search.embedders import load_embedder
from swirl_env.tools.search.engines.engine import Engine, EngineError
from swirl_env.tools.search.engines.http import read_document
from swirl_env.tools.search.results import Hit, check_numbers

_TOGETHER = 256


class QdrantSearch(Engine):
    """Finds passages by the vector of the query in a collection of Qdrant.

    A payload is a row of a corpus (see `swirl_env.corpus.Layout`): ``id``, ``title`` and ``text``, or ``contents``.

    Args:
        collection: name of the collection.
        embedder: the model that the collection was filled with (see `swirl_env.tools.search.embedders.load_embedder`).
        location: ``http://host:6333``, a local folder, or ``:memory:``.
        corpus: the passages to fill the collection with, if it does not exist yet and `fill` is true.
        fill: whether to fill it.
        top_k: how many passages to return.
        vector: name of the vector, for collections with several.
        snippet_chars: how much of each passage is shown, in characters; 0 for all of it.
        max_query_chars: the longest query that is searched for.
        timeout_s: how long to wait for an answer.
    """

    def __init__(
        self,
        *,
        collection: str,
        embedder: object,
        location: str = "http://127.0.0.1:6333",
        corpus: object = None,
        fill: bool = False,
        top_k: int = 5,
        vector: str | None = None,
        snippet_chars: int = 600,
        max_query_chars: int = 2000,
        timeout_s: int = 30,
    ) -> None:
        super().__init__(top_k, snippet_chars, max_query_chars)
        check_numbers([("timeout_s", timeout_s, "a number above 0", isinstance(timeout_s, (int, float)) and timeout_s > 0)])
        self.description = f"finds passages by meaning and shows the {top_k} best. Write what the passage should say."
        if fill and corpus is None:
            raise ConfigError("fill=true needs a corpus to fill the collection with; this task has none. Give corpus=PATH.")
        self._collection, self._vector = collection, vector
        self._embedder = load_embedder(embedder)
        self._client = _connect(location, timeout_s)
        if fill:
            self._fill(open_corpus(corpus), location)

    def find(self, queries: Sequence[str]) -> list[list[Hit]]:
        """Returns the best passages of each query."""
        requests = [
            models.QueryRequest(
                query=self._embedder.embed_query(query).tolist(), using=self._vector, limit=self.top_k, with_payload=True
            )
            for query in queries
        ]
        try:
            answers: list[Any] = self._client.query_batch_points(self._collection, requests)
        except Exception as error:
            slow = "timed out" in str(error).lower()
            raise EngineError(f"Qdrant, collection {self._collection!r}: {error}", timeout=slow, down=True) from error
        if len(answers) != len(queries):
            raise EngineError(f"expected {len(queries)} answers from Qdrant, got {len(answers)}")
        return [
            [(read_document(point.payload, rank), float(point.score)) for rank, point in enumerate(answer.points)]
            for answer in answers
        ]

    def _fill(self, corpus: Corpus, location: str) -> None:
        """Embeds the passages into the collection, from where an interrupted filling stopped; a whole one is left alone."""
        try:
            done = self._client.count(self._collection).count if self._client.collection_exists(self._collection) else None
        except Exception as error:
            raise ConfigError(f"Qdrant at {location!r} cannot be reached ({error}). Start it, or set location.") from error
        if done is None:
            size = len(self._embedder.embed_query("size"))
            parameters = models.VectorParams(size=size, distance=models.Distance.COSINE)
            self._client.create_collection(
                self._collection, vectors_config=parameters if self._vector is None else {self._vector: parameters}
            )
        stream = itertools.islice(enumerate(corpus), done or 0, None)
        while chunk := list(itertools.islice(stream, _TOGETHER)):
            vectors = self._embedder.embed_passages([passage_text(passage) for _, passage in chunk]).tolist()
            points = [
                models.PointStruct(
                    id=i,
                    vector=vector if self._vector is None else {self._vector: vector},
                    payload={"id": passage.id, "title": passage.title, "text": passage.text},
                )
                for (i, passage), vector in zip(chunk, vectors, strict=True)
            ]
            self._client.upsert(self._collection, points, wait=True)


def _connect(location: str, timeout_s: float) -> QdrantClient:
    if location == ":memory:":
        return QdrantClient(":memory:")
    if location.startswith(("http://", "https://")):
        return QdrantClient(url=location, timeout=max(1, round(timeout_s)), check_compatibility=False)
    try:
        return QdrantClient(path=location)
    except (OSError, RuntimeError) as error:
        raise ConfigError(f"Expected location to be an address, a folder or :memory:, got {location!r:.80} ({error}).") from error
