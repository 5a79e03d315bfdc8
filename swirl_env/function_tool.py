"""A plain function as a tool.

    @swirl_env.tool
    def reverse(text: str) -> str:
        "writes a word backwards."
        return text[::-1]

    gym.make("swirl_env/Ledger-v0", tools=["calculator", reverse])

By name it is ``"my_package.my_module:reverse"``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, overload

from swirl_env.errors import ConfigError, log_once
from swirl_env.types import UNAVAILABLE, ToolResult

Answering = Callable[[str], "str | ToolResult"]
"""What can become a tool: gives the result for a query, or raises ``ValueError`` with a sentence that says what is wrong."""


class FunctionTool:
    """A tool that calls a function for each query; it can still be called as the function.

    A ``ValueError`` becomes a result with the error ``invalid`` and its message; anything else that is raised is the tool's
    own failure, ``unavailable`` for that query alone.

    Args:
        function: takes the query and returns text, or a `ToolResult`.
        tag: what a policy writes; None takes the function's name.
        description: what the prompt says of it; None takes the first line of its docstring.
    """

    def __init__(self, function: Answering, tag: str | None = None, description: str | None = None) -> None:
        self.function = function
        self.tag: str = tag or str(getattr(function, "__name__", ""))
        self.description = description or (inspect.getdoc(function) or "").partition("\n")[0].strip()
        if not self.tag.isidentifier() or not self.description:
            raise ConfigError(
                f"A function becomes a tool by a tag and a description: got {self.tag!r} and {self.description!r}. Give it a "
                f"name and a docstring, or write @tool(tag=..., description=...)."
            )

    def run(self, queries: Sequence[str]) -> list[ToolResult]:
        """Returns one result a query."""
        return [self._one(query) for query in queries]

    def __call__(self, *texts: str) -> str | ToolResult:
        """Calls the function itself."""
        return self.function(*texts)

    def _one(self, query: str) -> ToolResult:
        try:
            result = self.function(query)
        except ValueError as error:
            return ToolResult(str(error) or "The tool cannot use this input.", "invalid")
        except Exception as error:
            log_once(self, f"tool {self.tag}", error, query)
            return UNAVAILABLE
        return result if isinstance(result, ToolResult) else ToolResult(str(result))


@overload
def tool(function: Answering, /) -> FunctionTool: ...
@overload
def tool(*, tag: str | None = None, description: str | None = None) -> Callable[[Answering], FunctionTool]: ...
def tool(function: Answering | None = None, /, *, tag: str | None = None, description: str | None = None) -> Any:
    """Makes a tool of a function ``str -> str``: ``@tool``, or ``@tool(tag="reverse", description="...")``."""
    if function is None:
        return lambda function: FunctionTool(function, tag, description)
    return FunctionTool(function, tag, description)
