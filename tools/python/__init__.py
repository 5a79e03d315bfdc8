"""The tool `python`: a sandboxed interpreter per episode."""

from swirl_env.tools.python.tool import Python

__all__ = ["Python"]
