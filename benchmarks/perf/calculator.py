"""The calculator compared with SymPy in the same process: plain arithmetic and symbolic queries, none of them asked twice."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from swirl_env.benchmarks.perf.timing import Report, Row, row, settle, timed
from swirl_env.registry import make_tool

PLAIN_BAR_US = 20.0
FASTER_BAR = 8.0
SYMBOLIC_BAR_MS = 2.0
PLAIN = ("12*7+{n}", "{n}/2", "(15+{n})*3-8/4", "{n}*0.15", "2.5*({n}+40)/6")
SYMBOLIC: dict[str, Callable[[Any, int], object]] = {
    "sqrt(8)*sqrt({n})": lambda sp, n: sp.sqrt(8) * sp.sqrt(n),
    "expand((x + {n})^3)": lambda sp, n: sp.expand((sp.Symbol("x") + n) ** 3),
    "x^2 - {n}x + 6 = 0": lambda sp, n: sp.solve(sp.Symbol("x") ** 2 - n * sp.Symbol("x") + 6),
    "diff({n}x^3 - 5x, x)": lambda sp, n: sp.diff(n * sp.Symbol("x") ** 3 - 5 * sp.Symbol("x")),
    "diff(x^{n} * exp(x), x)": lambda sp, n: sp.diff(sp.Symbol("x") ** n * sp.exp(sp.Symbol("x"))),
    "integrate(x^2 * sin({n}x), x)": lambda sp, n: sp.integrate(sp.Symbol("x") ** 2 * sp.sin(n * sp.Symbol("x"))),
}
"""Query -> the same by SymPy, without reading any text."""
APART = ("integrate(x^2 * sin({n}x), x)",)
"""What SymPy itself needs far longer for; only the ratio says something."""


def calculator(size: int = 2_000) -> Report:
    """Times `size` plain expressions of each form, and some symbolic ones in the warm worker."""
    import sympy
    from sympy.parsing.sympy_parser import parse_expr

    tool = make_tool("calculator")

    def ask(text: str) -> None:
        (result,) = tool.run([text])
        if result.error is not None:
            raise RuntimeError(f"the calculator was to work out {text!r}, but it replied: {result.text}")

    rows: list[Row] = []
    settle()
    for form in PLAIN:
        texts = [form.replace("{n}", str(n)) for n in range(3, 3 + size)]
        timed(ask, ["1+1", "2*3.5"])
        timed(parse_expr, ["1+1", "2*3.5"])
        rows += _plain(form, timed(ask, texts), timed(parse_expr, texts[: max(5, size // 10)]))
    every: list[int] = []
    for form, by_sympy in SYMBOLIC.items():
        several = range(2, 2 + max(3, min(40, size // 50)))
        timed(ask, [form.replace("{n}", "91")])
        ours = timed(ask, [form.replace("{n}", str(n)) for n in several])
        timed(functools.partial(by_sympy, sympy), [91])
        bare = timed(functools.partial(by_sympy, sympy), several)
        ratio = float(np.median(bare) / np.median(ours))
        rows.append(row(f"{form}, warm", ours, "ms", baseline="SymPy in process", ratio=ratio))
        every += [] if form in APART else ours
    p50 = float(np.median(every)) / 1e6
    rows.append(
        row("symbolic, all but the integral", every, "ms", bar=f"p50 < {SYMBOLIC_BAR_MS:g} ms", met=p50 < SYMBOLIC_BAR_MS)
    )
    close = getattr(tool, "close", None)
    if close is not None:
        close()
    return Report("calculator", f"{size:,} plain expressions of each form; the symbolic worker is warm", tuple(rows))


def _plain(form: str, fast: list[int], slow: list[int]) -> list[Row]:
    p50 = float(np.median(fast)) / 1e3
    ratio = float(np.median(slow) / np.median(fast))
    bar = f"p50 < {PLAIN_BAR_US:g} us, {FASTER_BAR:g} x faster"
    met = p50 < PLAIN_BAR_US and ratio >= FASTER_BAR
    return [row(form, fast, baseline="parse_expr", ratio=ratio, bar=bar, met=met), row(f"{form}: parse_expr", slow)]
