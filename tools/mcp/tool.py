"""The `mcp` tool: tools of an MCP server, one session per episode."""

from __future__ import annotations

import functools
import json
import os
import re
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

from mcp import MCPError
from mcp.types import CONNECTION_CLOSED, INVALID_PARAMS

from swirl_env.arguments import check_arguments
from swirl_env.errors import ConfigError, unknown_name
from swirl_env.fingerprint import named
from swirl_env.tools.mcp.connection import Address, Connection, ServerLost, ServerUnavailable
from swirl_env.types import Task, ToolResult

Schema = Mapping[str, Any]
"""A JSON Schema object."""


class Mcp:
    """Tools of an MCP server, by configuration alone.

    Each episode has a session of its own, and with stdio a server process of its own: opened with the first call, closed when
    the episode ends. A server that ends in the middle of an episode gives ``unavailable`` from then on; the episode goes on, and
    the next one has a new session.

    One tool of the server takes that tool's own arguments. Several share a session, so they are one tool here, whose arguments
    are ``tool`` (a name) and ``arguments`` (an object).

    Secrets are named, never written: `env` and `headers` name variables of this process's environment.

    Args:
        command: program and arguments of a server that talks over stdin and stdout, e.g. ``["python", "server.py"]``.
        url: address of a server that talks over HTTP (streamable), e.g. ``http://localhost:8000/mcp``. Such a server keeps the
            episodes apart by their sessions, if it keeps anything at all.
        tools: names of the tools to offer; None for all of the server's.
        tag: name of the tool in calls; by default the tool's own name, or ``mcp`` for several.
        env: variables that the server's process gets from this one's environment.
        headers: HTTP header -> variable of the environment that holds its value.
        cwd: folder that the server runs in.
        timeout: seconds that a call may take.
        startup_timeout: seconds that connecting may take.
        max_chars: longest result, in characters; a longer one is an error (``limit``).
        shared: whether all episodes share one session. For servers that keep nothing from one call to the next: it saves starting
            one per episode, and episodes can branch. A session that is lost is opened again for the next episode.
    """

    def __init__(
        self,
        command: str | Sequence[str] | None = None,
        url: str | None = None,
        tools: Sequence[str] | None = None,
        tag: str | None = None,
        env: Sequence[str] = (),
        headers: Mapping[str, str] | None = None,
        cwd: str | None = None,
        timeout: float = 30.0,
        startup_timeout: float = 30.0,
        max_chars: int = 20_000,
        shared: bool = False,
    ) -> None:
        if timeout <= 0 or startup_timeout <= 0 or max_chars < 1:
            raise ConfigError("timeout, startup_timeout and max_chars are above 0.")
        self._address = _address(command, url, env, headers or {}, cwd)
        self._timeout, self._startup_timeout, self._max_chars = timeout, startup_timeout, max_chars
        offered = _listed(self._address, startup_timeout)
        names = list(offered) if tools is None else list(tools)
        for name in names:
            if name not in offered:
                raise unknown_name(f"tool of the MCP server {self._address!r}", name, offered)
        if not names:
            raise ConfigError(f"The MCP server {self._address!r} offers no tools.")
        self.schemas: dict[str, Schema] = {name: offered[name][1] for name in names}
        """Name of each offered tool -> the JSON Schema of its arguments."""
        self.tag = tag or (_as_tag(names[0]) if len(names) == 1 else "mcp")
        self.description = _describe({name: offered[name] for name in names})
        self.parameters: Schema = self.schemas[names[0]] if len(names) == 1 else _choice(names)
        public = (self._address.command, self._address.url, self._address.cwd, self.schemas)
        self._shared = SharedConnection(self) if shared else None
        self.fingerprint = named("mcp", {"server": public, "tag": self.tag, "limits": (timeout, max_chars)})

    def open(self, task: Task, seed: int) -> McpSession:
        """Returns the session of one episode; it connects with its first call."""
        return McpSession(self) if self._shared is None else SharedSession(self, self._shared)

    def run(self, queries: Sequence[Any]) -> list[ToolResult]:
        """Returns one result per dict of arguments, each from a session of its own."""
        results = []
        for query in queries:
            session = McpSession(self) if self._shared is None else SharedSession(self, self._shared)
            results += session.run([query])
            session.close()
        return results

    def connect(self) -> Connection:
        """Returns a new connection to the server.

        Raises:
            ServerLost: if it cannot be started or reached.
        """
        return Connection(self._address, self._startup_timeout)

    def call(self, connection: Connection, query: Any) -> ToolResult:
        """Returns the result of one call; raises `ServerLost` if there is no server any more."""
        chosen = self._chosen(query)
        if isinstance(chosen, str):
            return ToolResult(chosen, "invalid")
        name, arguments = chosen
        try:
            return self._result(connection.call(name, arguments, self._timeout))
        except TimeoutError:
            return ToolResult(f"The tool took longer than {self._timeout:g} seconds.", "timeout")
        except MCPError as error:
            if error.code == INVALID_PARAMS:
                return ToolResult(" ".join(str(error).split())[:500], "invalid")
            if error.code == CONNECTION_CLOSED:
                raise ServerLost("it has ended") from error
            return ToolResult(f"The tool's server refused the call: {' '.join(str(error).split())[:500]}", "unavailable")

    def _chosen(self, query: Any) -> tuple[str, Schema] | str:
        """Returns the name of the tool and its arguments, or the sentence that says what is wrong with the call."""
        if not isinstance(query, Mapping):
            return f"The arguments of a call are an object; got {type(query).__name__}."
        if len(self.schemas) == 1:
            (name,) = self.schemas
            arguments: Any = query
        else:
            name, arguments = str(query.get("tool")), query.get("arguments") or {}
            if name not in self.schemas:
                return f'The field "tool" is one of {", ".join(self.schemas)}.'
            if not isinstance(arguments, Mapping):
                return 'The field "arguments" is an object.'
        checked = check_arguments(self.schemas[name], arguments)
        return checked if isinstance(checked, str) else (name, checked)

    def _result(self, result: Any) -> ToolResult:
        """Returns a server's result as text for the policy and as data for judges."""
        parts = [part.text if part.type == "text" else f"[{part.type}: not shown]" for part in result.content]
        structured = result.structured_content
        text = "\n".join(parts) or ("" if structured is None else json.dumps(structured, ensure_ascii=False))
        if len(text) > self._max_chars:
            return ToolResult(
                f"The result is too long: {len(text):,} characters, at most {self._max_chars:,} are allowed.", "limit"
            )
        if result.is_error:
            return ToolResult(text or "The tool reported an error.", "invalid")
        return ToolResult(text, None, {} if structured is None else {"structured": structured})


class McpSession:
    """One episode's session with a server."""

    def __init__(self, tool: Mcp) -> None:
        self._tool = tool
        self._connection: Connection | None = None
        self._lost: str | None = None

    def run(self, queries: Sequence[Any]) -> list[ToolResult]:
        """Returns one result per call, in their order; ``unavailable`` once the server has ended."""
        return [self._call(query) for query in queries]

    def close(self) -> None:
        """Ends the session, and the server's process if it has one of its own."""
        if self._connection is not None:
            self._connection.close()
        self._connection, self._lost = None, self._lost or "its session is over"

    def _connect(self) -> Connection:
        return self._tool.connect()

    def _call(self, query: Any) -> ToolResult:
        if self._lost is None:
            try:
                if self._connection is None:
                    self._connection = self._connect()
                return self._tool.call(self._connection, query)
            except Exception as error:  # whatever client, transport and server raise once one of them is gone
                # What the server knew of this episode is lost with it: a new one would answer from another state.
                self._lost = str(error) if isinstance(error, ServerLost) else type(error).__name__
                self.close()
        return ToolResult(f"The tool's server is not available: {self._lost}.", "unavailable")


class SharedConnection:
    """The connection that all sessions of a tool share; it is opened by the first call and closed with the tool.

    Args:
        tool: the tool.
    """

    def __init__(self, tool: Mcp) -> None:
        self._connect = weakref.WeakMethod(tool.connect)
        self._open: list[Connection] = []
        weakref.finalize(tool, _close_all, self._open)

    def get(self) -> Connection:
        """Returns the connection; a lost one is opened again.

        Raises:
            ServerLost: if the server cannot be started or reached.
        """
        if not self._open:
            connect = self._connect()
            if connect is None:
                raise ServerLost("its tool is gone")
            self._open.append(connect())
        return self._open[0]

    def drop(self, connection: Connection) -> None:
        """Closes a connection on which a call has failed."""
        if connection in self._open:
            self._open.remove(connection)
            connection.close()


class SharedSession(McpSession):
    """One episode's part in the session that all share; there is nothing in it to fork or to close."""

    def __init__(self, tool: Mcp, shared: SharedConnection) -> None:
        super().__init__(tool)
        self._shared = shared

    def fork(self) -> SharedSession:
        """Returns another part in the same session."""
        return SharedSession(self._tool, self._shared)

    def close(self) -> None:
        """Ends this episode's part; a connection that was lost is given up for all."""
        if self._connection is not None and self._lost is not None:
            self._shared.drop(self._connection)
        self._connection, self._lost = None, self._lost or "its session is over"

    def _connect(self) -> Connection:
        return self._shared.get()


def _close_all(connections: list[Connection]) -> None:
    while connections:
        connections.pop().close()


def _address(
    command: str | Sequence[str] | None, url: str | None, env: Sequence[str], headers: Mapping[str, str], cwd: str | None
) -> Address:
    if (command is None) == (url is None):
        raise ConfigError("An MCP server is given by command=[PROGRAM, ARGUMENT, ...] or by url=, one of them.")
    if headers and url is None:
        raise ConfigError("headers= is for servers with a url=.")
    words = (command,) if isinstance(command, str) else tuple(map(str, command or ()))
    if command is not None and not (words and words[0]):
        raise ConfigError("The command of an MCP server names a program: command=[PROGRAM, ARGUMENT, ...].")
    if url is not None and not re.match(r"https?://", url):
        raise ConfigError(f"The url of an MCP server begins with http:// or https://; got {url!r}.")
    variables = tuple((name, _variable(name)) for name in env)
    values = tuple((header, _variable(name)) for header, name in sorted(headers.items()))
    return Address(words, url or "", cwd, variables, values)


def _variable(name: str) -> str:
    if name not in os.environ:
        raise ConfigError(f"The environment variable {name!r}, which the MCP server needs, is not set.")
    return os.environ[name]


@functools.lru_cache(maxsize=64)
def _listed(address: Address, timeout: float) -> dict[str, tuple[str, Schema]]:
    """Returns name -> (description, JSON Schema of the arguments) of a server's tools; asked once per process."""
    try:
        connection = Connection(address, timeout)
        try:
            tools = connection.list_tools(timeout)
        finally:
            connection.close()
    except Exception as error:
        reason = str(error) if isinstance(error, ServerLost | MCPError) else f"{type(error).__name__}: {error}"
        raise ServerUnavailable(f"The MCP server {address!r} cannot be used: {reason}. Check the command or the url.") from error
    return {tool.name: (tool.description or tool.title or tool.name, tool.input_schema) for tool in tools}


def _describe(tools: Mapping[str, tuple[str, Schema]]) -> str:
    """Returns the tools' descriptions for the prompt: of one tool its own, of several one line each with their arguments."""
    if len(tools) == 1:
        ((description, _),) = tools.values()
        return " ".join(description.split())
    lines = [f"- {name}: {' '.join(text.split())} Arguments: {json.dumps(schema)}" for name, (text, schema) in tools.items()]
    return "\n".join(["calls one of these tools:", *lines])


def _choice(names: Sequence[str]) -> dict[str, Any]:
    properties = {"tool": {"type": "string", "enum": list(names)}, "arguments": {"type": "object", "additionalProperties": True}}
    return {"type": "object", "properties": properties, "required": ["tool", "arguments"]}


def _as_tag(name: str) -> str:
    """Returns a tool's name as a tag: letters, digits and underscores."""
    tag = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_") or "mcp"
    return f"_{tag}" if tag[0].isdigit() else tag
