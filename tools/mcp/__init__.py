"""Tools of MCP servers (Model Context Protocol), over stdio and HTTP."""

from swirl_env.tools.mcp.tool import Mcp

__all__ = ["Mcp"]
