"""A retriever behind HTTP, as Search-R1, verl and RAGEN serve it: ``POST /retrieve`` with queries, topk and return_scores."""

from __future__ import annotations

import http.client
import math
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from swirl_env.corpus import Layout
from swirl_env.errors import ConfigError
from swirl_env.tools.search.engines.engine import Engine, EngineError
from swirl_env.tools.search.results import Hit, check_numbers, whole
from swirl_env.types import Passage

_MOST_BYTES = 64 << 20
_PAUSE_S = 0.5
_BUSY = (408, 425, 429, 500, 502, 503, 504)
"""Answers after which the same request may succeed."""


class HttpSearch(Engine):
    """Asks a retriever that speaks Search-R1's protocol, many queries in one request.

    The request is ``{"queries": [...], "topk": k, "return_scores": true}``; the answer is ``{"result": [[...], ...]}`` with one
    list per query, of ``{"document": {...}, "score": x}`` or of bare documents. A document is a row of a corpus (see
    `swirl_env.corpus.Layout`); with ``contents`` alone its first line is the title if it stands in quotation marks.

    Args:
        url: address of the endpoint, e.g. ``http://127.0.0.1:8000/retrieve``.
        top_k: how many passages to return.
        snippet_chars: how much of each passage is shown, in characters; 0 for all of it.
        max_query_chars: the longest query that is searched for.
        timeout_s: how long to wait for an answer.
        retries: how many times a request is sent again if the server is busy or cannot be reached.
        batch_size: how many queries to send in one request.
        api_key_env: environment variable whose value is sent as a bearer token; None sends none.
    """

    def __init__(
        self,
        *,
        url: str,
        top_k: int = 5,
        snippet_chars: int = 600,
        max_query_chars: int = 2000,
        timeout_s: float = 30.0,
        retries: int = 2,
        batch_size: int = 64,
        api_key_env: str | None = None,
    ) -> None:
        super().__init__(top_k, snippet_chars, max_query_chars)
        check_numbers(
            [
                ("timeout_s", timeout_s, "a number above 0", isinstance(timeout_s, (int, float)) and timeout_s > 0),
                ("retries", retries, "a whole number from 0", whole(retries, 0)),
                ("batch_size", batch_size, "a whole number from 1", whole(batch_size, 1)),
            ]
        )
        parts = urllib.parse.urlsplit(url) if isinstance(url, str) else None
        if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"Expected url to be an address such as http://127.0.0.1:8000/retrieve, got {url!r:.80}.")
        if api_key_env is not None and not os.environ.get(api_key_env):
            raise ConfigError(
                f"api_key_env names the environment variable {api_key_env!r}, which is not set. Set it, or leave it out."
            )
        self._url = url
        self._timeout_s, self._retries, self._batch_size, self._api_key_env = timeout_s, retries, batch_size, api_key_env

    def find(self, queries: Sequence[str]) -> list[list[Hit]]:
        """Returns the best passages of each query."""
        starts = range(0, len(queries), self._batch_size)
        return [hits for start in starts for hits in self._request(queries[start : start + self._batch_size])]

    def _request(self, queries: Sequence[str]) -> list[list[Hit]]:
        body = msgspec.json.encode({"queries": queries, "topk": self.top_k, "return_scores": True})
        attempt = 0
        while True:
            try:
                return _read(self._post(body), len(queries))
            except urllib.error.HTTPError as error:
                failure = EngineError(f"{self._url} answered HTTP {error.code}")
                if error.code not in _BUSY:
                    attempt = self._retries  # raised below, or it would hold on to the answer and its socket
            except TimeoutError:
                raise EngineError(f"{self._url} did not answer within {self._timeout_s:g} s", timeout=True) from None
            except (OSError, http.client.HTTPException) as error:
                if isinstance(getattr(error, "reason", None), TimeoutError):
                    raise EngineError(f"{self._url} did not answer within {self._timeout_s:g} s", timeout=True) from None
                failure = EngineError(f"{self._url} cannot be reached ({type(error).__name__}: {error})", down=True)
            if attempt == self._retries:
                raise failure
            time.sleep(_PAUSE_S * 2**attempt)
            attempt += 1

    def _post(self, body: bytes) -> bytes:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._api_key_env is not None:
            headers["Authorization"] = f"Bearer {os.environ.get(self._api_key_env, '')}"
        request = urllib.request.Request(self._url, body, headers, method="POST")
        with urllib.request.urlopen(request, timeout=self._timeout_s) as response:
            data: bytes = response.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise EngineError(f"{self._url} answered with more than {_MOST_BYTES >> 20} MB")
        return data


def _read(data: bytes, count: int) -> list[list[Hit]]:
    """Returns the passages of an answer.

    Raises:
        EngineError: if it is not what the protocol says.
    """
    try:
        answer = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise EngineError(f"expected JSON, got {data[:80]!r} ({error})") from error
    results = answer.get("result") if isinstance(answer, dict) else None
    if not isinstance(results, list) or len(results) != count or not all(isinstance(hits, list) for hits in results):
        raise EngineError(f"expected {{'result': [[...], ...]}} with {count} lists, got {data[:80]!r}")
    return [[_hit(item, rank) for rank, item in enumerate(hits)] for hits in results]


def _hit(item: Any, rank: int) -> Hit:
    document: Any = item.get("document", item) if isinstance(item, dict) else item
    score = item.get("score") if isinstance(item, dict) and "document" in item else None
    # Without scores the order is all that is known.
    value = -float(rank) if score is None else score
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
        raise EngineError(f"expected a finite number as a score, got {score!r:.80}")
    return read_document({"contents": document} if isinstance(document, str) else document, rank), float(value)


def read_document(document: Any, rank: int) -> Passage:
    """Returns the passage of an engine's document.

    Raises:
        EngineError: if it has no text.
    """
    if not isinstance(document, Mapping):
        raise EngineError(f"expected a document with a text, got {document!r:.80}")
    try:
        return Layout().read(document, rank, "document")
    except ConfigError as error:
        raise EngineError(str(error)) from error
