"""The calculator tool: what models write as arithmetic and algebra -> exact values, without ever evaluating it as code.

text -> statements (text) -> tokens (tokens) -> tree of plain data (parser) -> goal (goal, units)
     -> exact rationals in process (exact, linear), or SymPy in a killable worker (worker/client, worker/answer)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache, partial

from swirl_env.errors import ConfigError
from swirl_env.tools.calculator.exact import evaluate
from swirl_env.tools.calculator.format import number_text
from swirl_env.tools.calculator.goal import Goal, plan
from swirl_env.tools.calculator.linear import NO_SOLUTION, compare, solve_linear
from swirl_env.tools.calculator.rational import Irrational, Number
from swirl_env.tools.calculator.text import CalcError
from swirl_env.tools.calculator.worker.client import Service, service
from swirl_env.types import CALCULATOR, ToolResult

MAX_CACHED = 200
"""Longest expression whose reply is kept."""


class Calculator:
    """Evaluates arithmetic, algebra and a little calculus.

    ``data["value"]`` is the exact value as text (``10/3`` where the reply shows ``3.33333333333``); for an equation it is
    the bare solution (``4`` for ``x = 4``).

    Args:
        timeout_s: processor time that one symbolic calculation may take; plain arithmetic is bounded by size instead.
        memory_mb: address space of the symbolic worker.
        max_chars: longest expression that is read.
        cache: how many replies of the worker to short expressions are kept (policies repeat one another).
    """

    tag = CALCULATOR
    description = (
        "evaluates an arithmetic expression, solves an equation or does algebra, "
        "for example 15% of 80, 2(3+4)/7, 3x + 5 = 20 or sqrt(2)*10; log is the natural logarithm, angles are in radians."
    )

    def __init__(self, timeout_s: float = 0.7, memory_mb: int = 512, max_chars: int = 10_000, cache: int = 1024) -> None:
        if not (0 < timeout_s < math.inf and memory_mb > 0 and max_chars > 0 and cache >= 0):  # a comparison with nan is false
            raise ConfigError(
                "The calculator needs a positive, finite timeout_s, positive memory_mb and max_chars, and cache of at least 0; "
                f"got timeout_s={timeout_s}, memory_mb={memory_mb}, max_chars={max_chars}, cache={cache}."
            )
        self.timeout_s = timeout_s
        self.memory_mb = memory_mb
        self.max_chars = max_chars
        self.cache = cache
        self._service: Service = service(memory_mb)
        self._worked = lru_cache(maxsize=cache)(partial(_ask, self._service, timeout_s))

    def __reduce__(self) -> tuple[type[Calculator], tuple[float, int, int, int]]:
        return type(self), (self.timeout_s, self.memory_mb, self.max_chars, self.cache)

    def run(self, queries: Sequence[str]) -> list[ToolResult]:
        """Returns one result per query, in their order; none of them can cost another its answer."""
        return [self._one(query) for query in queries]

    def close(self) -> None:
        """Stops the worker; a later symbolic query starts another."""
        self._service.stop()

    def _one(self, query: str) -> ToolResult:
        try:
            if len(query) > self.max_chars:
                raise CalcError(f"The expression is too long: at most {self.max_chars} characters are read.", "limit")
            goal = plan(query)
            try:
                return in_process(goal)
            except Irrational:
                if len(query) <= MAX_CACHED:
                    return self._worked(goal)
                return _ask(self._service, self.timeout_s, goal)
        except CalcError as error:
            return ToolResult(str(error), error.kind)
        except RecursionError:
            return ToolResult("The expression is nested too deeply.", "limit")
        except (ArithmeticError, ValueError, TypeError, LookupError):
            # No known input comes here (tests look for one); a policy must not be able to end a run with the first that does.
            return ToolResult("The expression cannot be evaluated.", "invalid")


def _ask(worker: Service, timeout_s: float, goal: Goal) -> ToolResult:
    """Returns the worker's reply; raises what another try may improve on, so that it is never cached."""
    reply = worker.ask(goal, timeout_s)
    error = reply.get("error")
    if error is not None and (error == "unavailable" or reply.get("startup_counts_towards_timeout")):
        raise CalcError(reply["text"], error)
    return ToolResult(reply["text"], error, reply.get("data", {}))


def in_process(goal: Goal) -> ToolResult:
    """Returns the result of a goal over the rationals.

    Raises:
        Irrational: if the worker has to take over.
        CalcError: if there is no result.
    """
    lets: dict[str, Number] = {}
    for name, node in goal.lets:
        lets[name] = evaluate(node, lets)
    if goal.kind == "value":
        text, exact = number_text(evaluate(goal.nodes[0], lets))
        return ToolResult(text, None, {"value": exact})
    if goal.kind == "truth":
        text = "true" if compare(goal.nodes[0], lets) else "false"
        return ToolResult(text, None, {"value": text})
    name, solution = solve_linear(goal, lets)
    if isinstance(solution, str):
        return ToolResult(solution, None, {"value": "[]" if solution == NO_SOLUTION else "true", "variable": name})
    text, exact = number_text(solution)
    return ToolResult(f"{name} = {text}", None, {"value": exact, "variable": name})
