"""Requests to one or several servers: bounded concurrency, timeouts, and retries that honour ``Retry-After``.

The client of the ``openai`` package does the talking; its own retries are switched off, as a retry here may go to another
server. A failure is one of three kinds: the request is wrong everywhere (`ConfigError`), the prompt is too long
(`TooLong`), or the server is away or broken for now (retried, then `Unavailable`).
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

import openai
import tenacity

from swirl_env.errors import ConfigError

log = logging.getLogger(__name__)
_TRANSIENT_STATUS = frozenset({408, 409, 425, 429})
_TOO_LONG = ("context_length_exceeded", "maximum context length", "context length", "exceed_context_size", "too long")
_LONGEST_WAIT_S = 30.0


class Refused(ConfigError):
    """The server does not accept the request as it is; another one may do."""


class TooLong(Exception):
    """The state does not fit the context of the server's model."""


class Unavailable(Exception):
    """No server gave a usable reply within the attempts allowed."""


class _Transient(Exception):
    """A failure that another attempt may not meet; `wait_s` is what the server asked for, if it did."""

    def __init__(self, kind: str, wait_s: float | None = None) -> None:
        super().__init__(kind)
        self.wait_s = wait_s


class Endpoints:
    """Servers of one model, used evenly.

    Args:
        urls: base URLs, e.g. ``http://localhost:8000/v1``.
        api_key_env: environment variable that holds the key; the key itself is kept in no attribute, log or error.
        concurrency: most requests in flight per server.
        timeout_s: how long one attempt may take.
        attempts: attempts per request, over all servers.
    """

    def __init__(self, urls: Sequence[str], api_key_env: str, concurrency: int, timeout_s: float, attempts: int) -> None:
        for url in urls:
            _check_url(url)
        self.urls, self.concurrency, self.timeout_s, self.attempts = tuple(urls), concurrency, timeout_s, attempts
        self._api_key_env = api_key_env
        self._in_flight = [0] * len(self.urls)
        self._slots = asyncio.Semaphore(concurrency * len(self.urls))
        self._clients: list[openai.AsyncOpenAI] = []
        self.stats: Counter[str] = Counter()
        """Counts since the start: requests, retries, and failures by kind."""

    async def request(self, send: Callable[[openai.AsyncOpenAI], Awaitable[Any]], check: Callable[[Any], None]) -> Any:
        """Returns a reply that `check` accepts, after as many attempts as it takes.

        Args:
            send: makes the request with a client.
            check: raises ValueError for a reply that cannot be used (empty, cut off, not what was asked for).

        Raises:
            ConfigError: the request itself is refused: a wrong key, an unknown model, an option the server does not know.
            TooLong: the prompt does not fit the model's context.
            Unavailable: every attempt failed.
        """
        retrying = tenacity.AsyncRetrying(
            stop=tenacity.stop_after_attempt(self.attempts),
            wait=_wait,
            retry=tenacity.retry_if_exception_type(_Transient),
            reraise=True,
        )
        last: int | None = None
        try:
            async for attempt in retrying:
                with attempt:
                    self.stats["retries"] += attempt.retry_state.attempt_number > 1
                    # The wait between attempts holds no slot: others go on meanwhile.
                    async with self._slots:
                        last = self._choose(avoid=last)
                        reply = await self._attempt(last, send, check)
            return reply
        except _Transient as error:
            self.stats["failures"] += 1
            raise Unavailable(f"{error} after {self.attempts} attempts") from None

    async def tell(self, number: int, calls: Sequence[tuple[str, dict[str, Any]]]) -> None:
        """Makes requests (URL, content) of one server, in order, each once.

        Raises:
            ConfigError: with what the server said of the first that failed.
        """
        for url, content in calls:
            try:
                await asyncio.wait_for(self._client(number).post(url, cast_to=str, body=content), self.timeout_s)
            except (openai.OpenAIError, TimeoutError) as error:
                said = ""
                if isinstance(error, openai.APIStatusError):
                    said = self._without_key(str(error.body or error.message))[:300]
                raise ConfigError(f"{url} failed: {_kind(error)} {said}".rstrip() + ".") from None

    async def close(self) -> None:
        """Closes all connections."""
        clients, self._clients = self._clients, []
        for client in clients:
            await client.close()

    def _choose(self, avoid: int | None) -> int:
        """Returns the server with the fewest requests in flight; one that just failed comes last."""
        order = range(len(self.urls))
        return min(order, key=lambda i: (self._in_flight[i] >= self.concurrency, i == avoid, self._in_flight[i], random.random()))

    async def _attempt(self, number: int, send: Callable[[openai.AsyncOpenAI], Awaitable[Any]], check: Any) -> Any:
        client = self._client(number)
        self.stats["requests"] += 1
        self._in_flight[number] += 1
        try:
            reply = await asyncio.wait_for(send(client), self.timeout_s)
            check(reply)
            return reply
        except ConfigError:
            raise
        except Exception as error:
            kind = _kind(error)
            self.stats[f"failed: {kind}"] += 1
            log.info("%s: %s", self.urls[number], kind)
            raise self._explained(number, error, kind) from None
        finally:
            self._in_flight[number] -= 1

    def _explained(self, number: int, error: Exception, kind: str) -> Exception:
        """Returns what a failed attempt means; texts of the server are quoted with the key taken out."""
        url = self.urls[number]
        if not isinstance(error, openai.APIStatusError):
            return _Transient(f"{url}: {kind}")
        text = self._without_key(str(error.body or error.message))[:300]
        if error.status_code in _TRANSIENT_STATUS or error.status_code >= 500:
            return _Transient(f"{url}: {kind}", _retry_after(error))
        if any(sign in text.lower() for sign in _TOO_LONG):
            return TooLong(text)
        if error.status_code in (401, 403):
            return ConfigError(
                f"{url} refused the API key (HTTP {error.status_code}). Put a valid key into the environment variable "
                f"{self._api_key_env}, or name another one with api_key_env=."
            )
        if error.status_code == 404:
            return ConfigError(f"{url} has no such model or path (HTTP 404): {text}. Check model= and base_url=.")
        return Refused(f"{url} refused the request (HTTP {error.status_code}): {text}")

    def _without_key(self, text: str) -> str:
        key = os.environ.get(self._api_key_env, "")
        return text.replace(key, "***") if key else text

    def _client(self, number: int) -> openai.AsyncOpenAI:
        if not self._clients:
            # Local servers take any key; the client library insists on one.
            key = os.environ.get(self._api_key_env) or "none"
            self._clients = [
                openai.AsyncOpenAI(api_key=key, base_url=url, max_retries=0, timeout=self.timeout_s) for url in self.urls
            ]
        return self._clients[number]


def _check_url(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"base_url is a URL like http://localhost:8000/v1; got {url!r}.")
    if parts.username or parts.password or parts.query:
        raise ConfigError("base_url holds a user name, password or query, which would be logged. Put the key into api_key_env.")


def _kind(error: Exception) -> str:
    """Returns a few words for a failure that quote neither the request nor the reply."""
    if isinstance(error, openai.APIStatusError):
        return f"HTTP {error.status_code}"
    if isinstance(error, TimeoutError | openai.APITimeoutError):
        return "timeout"
    if isinstance(error, openai.APIConnectionError):
        return "connection failed"
    if isinstance(error, json.JSONDecodeError | openai.APIResponseValidationError | ValueError | TypeError | AttributeError):
        return "unusable reply"
    return type(error).__name__


def _retry_after(error: openai.APIStatusError) -> float | None:
    """Returns how many seconds the server asks to wait; None if it does not say."""
    try:
        seconds = float(error.response.headers.get("retry-after", ""))
    except ValueError:
        return None
    return seconds if 0 <= seconds < 600 else None


def _wait(state: tenacity.RetryCallState) -> float:
    """Returns how long to wait: what the server asked for, else exponential with full jitter; in seconds."""
    error = state.outcome.exception() if state.outcome else None
    asked = error.wait_s if isinstance(error, _Transient) else None
    jitter = random.uniform(0.0, min(_LONGEST_WAIT_S, 0.25 * 2**state.attempt_number))
    return asked + 0.1 * jitter if asked is not None else jitter
