"""An MCP server for tests: a counter and notes that live as long as its process, over stdio or HTTP.

Run as ``python mcp_server.py``, or ``python mcp_server.py http PORT``.
"""

import os
import signal
import sys
import time

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError

server = MCPServer("counter")
notes: list[str] = []


@server.tool()
def add(a: int, b: int) -> int:
    """Adds two whole numbers."""
    return a + b


@server.tool()
def note(text: str) -> str:
    """Writes a note and returns all notes of this episode."""
    notes.append(text)
    return " | ".join(notes)


@server.tool()
def fail(reason: str) -> str:
    """Fails."""
    raise ToolError(reason)


@server.tool()
def wait(seconds: float) -> str:
    """Waits."""
    time.sleep(seconds)
    return "waited"


@server.tool()
def end() -> str:
    """Ends the server in the middle of the call."""
    os.kill(os.getpid(), signal.SIGKILL)
    return "never"


@server.tool()
def secret() -> str:
    """Returns a variable of the server's environment."""
    return os.environ.get("SWIRL_TEST_SECRET", "none")


@server.tool()
def process() -> int:
    """Returns the server's process id."""
    return os.getpid()


@server.tool()
def long(n: int) -> str:
    """Returns n letters."""
    return "x" * n


if __name__ == "__main__":
    if sys.argv[1:2] == ["http"]:
        server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[2]))
    else:
        server.run()
