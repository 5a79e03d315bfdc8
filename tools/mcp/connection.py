"""Connections to MCP servers, usable from ordinary code: the client's event loop runs in a thread of its own."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
from collections.abc import Coroutine, Mapping
from contextlib import AsyncExitStack
from typing import Any, NamedTuple, TypeVar

import httpx2
from mcp import Client, StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client

from swirl_env.errors import SwirlError

_CLOSING_S = 10.0
"""How long a server may take to end before it is left to itself (the client kills its process meanwhile)."""

Value = TypeVar("Value")


class ServerLost(Exception):
    """The server ended, or cannot be reached; the message is fit for a policy."""


class ServerUnavailable(SwirlError, ConnectionError):
    """A server could not be started or reached when the tool was built."""


class Address(NamedTuple):
    """Where a server is: a command to run, or a URL."""

    command: tuple[str, ...]
    url: str
    cwd: str | None
    env: tuple[tuple[str, str], ...]
    """Variables of the server's process, beyond the few that every server gets."""
    headers: tuple[tuple[str, str], ...]
    """Headers of each HTTP request."""

    def __repr__(self) -> str:  # values of env and headers are secrets
        return self.url or " ".join(self.command)


class Connection:
    """One session with a server; with stdio, one server process.

    Args:
        address: the server.
        timeout: seconds that connecting may take.

    Raises:
        ServerLost: if it cannot be started or reached.
    """

    def __init__(self, address: Address, timeout: float) -> None:
        self._closing = asyncio.Event()
        self._ready: concurrent.futures.Future[Client] = concurrent.futures.Future()
        self._task = _submit(self._serve(address))
        try:
            self._client = self._ready.result(timeout)
        except TimeoutError as error:
            self.close()
            raise ServerLost(f"it did not answer within {timeout:g} seconds") from error
        except Exception as error:
            raise ServerLost(_reason(error)) from error

    def list_tools(self, timeout: float) -> list[Any]:
        """Returns all tools of the server."""

        async def listing() -> list[Any]:
            tools, cursor = [], None
            while True:
                page = await self._client.list_tools(cursor=cursor)
                tools += page.tools
                cursor = page.next_cursor
                if not cursor:
                    return tools

        return self._wait(listing(), timeout)

    def call(self, name: str, arguments: Mapping[str, Any], timeout: float) -> Any:
        """Returns the result of a tool call (``mcp.types.CallToolResult``).

        Raises:
            TimeoutError: if it takes longer than `timeout` seconds; the server is told to stop.
            ServerLost: if the server has ended.
            mcp.MCPError: if the server refuses the call.
        """
        return self._wait(self._client.call_tool(name, dict(arguments)), timeout)

    def close(self) -> None:
        """Ends the session, and the server's process if it is ours."""
        _loop().call_soon_threadsafe(self._closing.set)
        try:
            self._task.result(_CLOSING_S)
        except (Exception, concurrent.futures.CancelledError):
            self._task.cancel()

    async def _serve(self, address: Address) -> None:
        """Keeps the session open: it must be entered and left in one task."""
        try:
            async with AsyncExitStack() as stack:
                client = await stack.enter_async_context(Client(await _transport(address, stack)))
                self._ready.set_result(client)
                await self._closing.wait()
        except BaseException as error:
            if not self._ready.done():
                self._ready.set_exception(error if isinstance(error, Exception) else ConnectionError("interrupted"))
            raise

    def _wait(self, coroutine: Coroutine[Any, Any, Value], timeout: float) -> Value:
        if self._task.done():
            coroutine.close()
            raise ServerLost("its session is over")
        return _submit(asyncio.wait_for(coroutine, timeout)).result()


async def _transport(address: Address, stack: AsyncExitStack) -> Any:
    if address.url:
        if not address.headers:
            return streamable_http_client(address.url)
        # The read timeout is for streams that a server holds open; calls have a timeout of their own.
        limits = httpx2.Timeout(30.0, read=300.0)
        client = await stack.enter_async_context(httpx2.AsyncClient(headers=dict(address.headers), timeout=limits))
        return streamable_http_client(address.url, http_client=client)
    command, *arguments = address.command
    # Servers log to stderr, which is the user's terminal.
    quiet = stack.enter_context(os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8"))
    parameters = StdioServerParameters(command=command, args=arguments, env=dict(address.env), cwd=address.cwd)
    return stdio_client(parameters, errlog=quiet)


def _reason(error: BaseException) -> str:
    """Returns the first thing that went wrong, in one line."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return " ".join(str(error).split())[:160].rstrip(" .") or type(error).__name__


_loops: dict[int, asyncio.AbstractEventLoop] = {}
_starting = threading.Lock()


def _loop() -> asyncio.AbstractEventLoop:
    """Returns the event loop of this process's connections; a forked process gets one of its own, as threads do not fork."""
    with _starting:
        loop = _loops.get(os.getpid())
        if loop is None:
            loop = _loops[os.getpid()] = asyncio.new_event_loop()
            threading.Thread(target=loop.run_forever, name="swirl-env-mcp", daemon=True).start()
        return loop


def _submit(coroutine: Coroutine[Any, Any, Value]) -> concurrent.futures.Future[Value]:
    return asyncio.run_coroutine_threadsafe(coroutine, _loop())
