"""What all outside engines have in common: refusals, results, and what a failure becomes."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from swirl_env.errors import SwirlError
from swirl_env.tools.search.results import Hit, check_numbers, nothing, refuse, show, whole
from swirl_env.types import SEARCH, ToolResult

_log = logging.getLogger(__name__)


class EngineError(Exception):
    """An engine that did not answer, or not as its protocol says.

    Args:
        reason: what happened, for the log.
        timeout: whether it took too long.
        down: whether asking again, one query at a time, would be in vain.
    """

    def __init__(self, reason: str, *, timeout: bool = False, down: bool = False) -> None:
        super().__init__(reason)
        self.timeout = timeout
        self.down = down or timeout


class Engine:
    """Base of the tools that ask an outside engine; a class that extends it has `find`.

    A failed engine gives ``unavailable`` or ``timeout``, never an empty result: the first would be a step that says nothing
    about the policy, the second one that found nothing.

    Args:
        top_k: how many passages to return.
        snippet_chars: how much of each passage is shown, in characters; 0 for all of it.
        max_query_chars: the longest query that is searched for.
    """

    tag = SEARCH

    def __init__(self, top_k: int, snippet_chars: int, max_query_chars: int) -> None:
        check_numbers(
            [
                ("top_k", top_k, "a whole number from 1", whole(top_k, 1)),
                ("snippet_chars", snippet_chars, "a whole number from 0", whole(snippet_chars, 0)),
                ("max_query_chars", max_query_chars, "a whole number from 1", whole(max_query_chars, 1)),
            ]
        )
        self.top_k = top_k
        self.snippet_chars = snippet_chars
        self.max_query_chars = max_query_chars
        self.description = (
            f"finds passages and shows the {top_k} best. Write the words that the passage should hold, such as names and titles."
        )

    def find(self, queries: Sequence[str]) -> list[list[Hit]]:
        """Returns the best passages of each query.

        Raises:
            EngineError: if the engine fails.
        """
        raise NotImplementedError

    def run(self, queries: Sequence[str]) -> list[ToolResult]:
        """Returns the best passages of each query, as text and as data."""
        results: list[ToolResult | None] = [self._refuse(query) for query in queries]
        asked = [i for i, result in enumerate(results) if result is None]
        for i, answer in zip(asked, self._ask([queries[i] for i in asked]), strict=True):
            results[i] = answer
        return [result for result in results if result is not None]

    def _refuse(self, query: str) -> ToolResult | None:
        refusal = refuse(query, self.max_query_chars)
        if refusal is None and not any(map(str.isalnum, query)):
            refusal = nothing("the query holds no words")
        return refusal

    def _ask(self, queries: list[str]) -> list[ToolResult]:
        if not queries:
            return []
        # Lone surrogates go into no request and no index.
        texts = [query.encode("utf-8", "replace").decode() for query in queries]
        try:
            return [self._result(hits) for hits in self.find(texts)]
        except EngineError as error:
            if len(queries) > 1 and not error.down:
                return [result for query in queries for result in self._ask([query])]
            return [self._failure(error, error.timeout)] * len(queries)
        except SwirlError:
            raise
        except Exception as error:
            return [self._failure(error, False)] * len(queries)

    def _result(self, hits: Sequence[Hit]) -> ToolResult:
        return show(hits[: self.top_k], self.snippet_chars) if hits else nothing("no passage was found")

    def _failure(self, error: Exception, timeout: bool) -> ToolResult:
        _log.warning("%s: %s: %s", type(self).__name__, type(error).__name__, error)
        if timeout:
            return ToolResult("The search took too long.", "timeout")
        return ToolResult("The search engine is not available at the moment.", "unavailable")
