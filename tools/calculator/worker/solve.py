"""Equations, systems and inequalities -> reply. Runs in the worker only."""

from __future__ import annotations

import contextlib
from fractions import Fraction
from typing import Any

import sympy as sp

from swirl_env.tools.calculator.functions import logarithm as exact_logarithm
from swirl_env.tools.calculator.linear import ANYTHING, NO_SOLUTION
from swirl_env.tools.calculator.rational import Irrational
from swirl_env.tools.calculator.text import CalcError

STARTS = (1, 0, 2, -1, 5, -5, 10, 100)
"""Where a numerical solution is looked for."""


def solve(relations: list[tuple[str, Any, Any]], wanted: list[Any]) -> dict[str, Any]:
    """Returns the reply for relations ``(sign, left, right)``; `wanted` empty: solve for all that is unknown."""
    gaps = [left - right for _, left, right in relations]
    free = sorted(set().union(*(gap.free_symbols for gap in gaps)), key=str)
    if not wanted:
        wanted = free
    if not free:
        return _plain(ANYTHING if all(gap.equals(0) for gap in gaps) else NO_SOLUTION)
    if any(sign not in ("=", "==") for sign, _, _ in relations):
        return _inequality(relations, free)
    if len(gaps) == 1 and len(wanted) == 1:
        return _one(gaps[0], wanted[0])
    return _system(gaps, wanted)


def _plain(text: str) -> dict[str, Any]:
    return {"text": text, "data": {"value": "[]" if text == NO_SOLUTION else "true"}}


def _one(gap: Any, unknown: Any) -> dict[str, Any]:
    """One equation in one unknown."""
    if unknown not in gap.free_symbols or gap.expand() == 0:
        return _plain(ANYTHING if gap.equals(0) else NO_SOLUTION)
    found = None
    for method in (polynomial_roots, exponential_root, _closed):
        found = method(gap, unknown) if found is None else found
    if found is None:
        reply = _solutions([[(unknown, _numerical(gap, unknown))]])
        return {**reply, "text": f"{reply['text']} (numerical, there may be others)"}
    if gap.free_symbols == {unknown}:
        real = [solution for solution in found if _is_real(solution)]
        found = sorted(real, key=lambda solution: solution.evalf(20)) or found
    if not found:
        return _plain(NO_SOLUTION)
    return _solutions([[(unknown, solution)] for solution in found])


def _closed(gap: Any, unknown: Any) -> list[Any] | None:
    """Solutions in closed form, None where SymPy knows none."""
    real = sp.Dummy("x", real=True)
    if gap.has(sp.Abs, sp.sign, sp.Max, sp.Min, sp.floor, sp.ceiling):  # SymPy solves these over the reals only
        unknown, gap = real, gap.subs(unknown, real)
    try:
        return [part[unknown] for part in sp.solve(gap, unknown, dict=True)]
    except (NotImplementedError, KeyError):
        return None


def polynomial_roots(gap: Any, unknown: Any) -> list[Any] | None:
    """Roots of a quadratic with rational coefficients, the most frequent case, without the general solver; else None."""
    if gap.free_symbols != {unknown} or not gap.is_polynomial(unknown):
        return None
    coefficients = sp.Poly(gap, unknown).all_coeffs()
    if len(coefficients) != 3 or not all(c.is_Rational for c in coefficients):
        return None
    a, b, c = coefficients
    root = sp.sqrt(b * b - 4 * a * c)
    return list(dict.fromkeys([(-b - root) / (2 * a), (-b + root) / (2 * a)]))


def exponential_root(gap: Any, unknown: Any) -> list[Any] | None:
    """The root of c*b**(m*x + n) = d with b and d/c positive, as in doubling times; else None.

    SymPy's general solver raises numbers to the power of whatever approximates the logarithm, and may never return.
    """
    constant, rest = gap.as_independent(unknown, as_Add=True)
    factor, power = rest.as_independent(unknown, as_Add=False)
    base, exponent = power.as_base_exp()
    if not (
        base.is_positive
        and base.is_number
        and base != 1
        and exponent.is_polynomial(unknown)
        and sp.degree(exponent, unknown) == 1
    ):
        return None
    ratio = -constant / factor
    if gap.free_symbols != {unknown} or not ratio.is_real:
        return None
    if not ratio.is_positive:
        return []
    logarithm = sp.log(ratio) / sp.log(base)
    if ratio.is_Rational and base.is_Rational:
        with contextlib.suppress(Irrational):
            logarithm = sp.Integer(exact_logarithm(*(Fraction(int(n.p), int(n.q)) for n in (ratio, base))))
    slope, offset = sp.Poly(exponent, unknown).all_coeffs()
    return [(logarithm - offset) / slope]


def _is_real(value: Any) -> bool:
    if value.is_real is not None:
        return bool(value.is_real)
    imaginary = sp.im(value.evalf(25))
    return bool(abs(imaginary) < sp.Float("1e-18") * max(1, abs(value.evalf(10))))


def _numerical(gap: Any, unknown: Any) -> Any:
    """A numerical root, where no closed form is known."""
    from swirl_env.tools.calculator.worker.functions import root_near

    if gap.free_symbols == {unknown}:
        for start in STARTS:
            try:
                return root_near(gap, unknown, sp.Integer(start))
            except (CalcError, ArithmeticError):
                continue
    raise CalcError("No solution was found in closed form.")


def _system(gaps: list[Any], wanted: list[Any]) -> dict[str, Any]:
    """Several equations or unknowns."""
    try:
        found = sp.solve(gaps, wanted, dict=True)
    except NotImplementedError as error:
        raise CalcError("No solution was found in closed form.") from error
    if not found:
        return _plain(NO_SOLUTION)
    return _solutions([sorted(solution.items(), key=lambda pair: str(pair[0])) for solution in found])


def _solutions(found: list[list[tuple[Any, Any]]]) -> dict[str, Any]:
    from swirl_env.tools.calculator.worker.evaluate import bounded_text, show

    shown = [[(str(name), *show(value)) for name, value in solution] for solution in found]
    text = " or ".join(", ".join(f"{name} = {value}" for name, value, _ in solution) for solution in shown)
    data: dict[str, Any] = {}
    if all(len(solution) == 1 for solution in shown):
        exact = [solution[0][2] for solution in shown]
        data = {"value": exact[0] if len(exact) == 1 else f"[{', '.join(exact)}]", "variable": shown[0][0][0]}
    else:
        exact = ["{" + ", ".join(f"{name}: {value}" for name, _, value in solution) + "}" for solution in shown]
        data = {"value": exact[0] if len(exact) == 1 else f"[{', '.join(exact)}]"}
    bounded_text(data["value"])
    return {"text": bounded_text(text), "data": data}


def _inequality(relations: list[tuple[str, Any, Any]], free: list[Any]) -> dict[str, Any]:
    """Inequalities in one unknown."""
    if len(free) != 1 or any(sign == "!=" for sign, _, _ in relations):
        raise CalcError("Only inequalities in one unknown can be solved.")
    makers = {"<": sp.Lt, ">": sp.Gt, "<=": sp.Le, ">=": sp.Ge, "=": sp.Eq, "==": sp.Eq}
    unknown = sp.Dummy("x", real=True)
    region: Any = sp.S.Reals
    for sign, left, right in relations:
        claim = makers[sign](left.subs(free[0], unknown), right.subs(free[0], unknown))
        if claim in (sp.true, sp.false):
            region = region if claim == sp.true else sp.S.EmptySet
            continue
        try:
            region = region.intersect(sp.solve_univariate_inequality(claim, unknown, relational=False))
        except NotImplementedError as error:
            raise CalcError("No solution was found in closed form.") from error
    if region == sp.S.EmptySet:
        return _plain(NO_SOLUTION)
    if region == sp.S.Reals:
        return _plain(ANYTHING)
    parts = region.args if isinstance(region, sp.Union) else (region,)
    text = " or ".join(_interval(part, str(free[0])) for part in parts)
    return {"text": text, "data": {"value": text, "variable": str(free[0])}}


def _interval(part: Any, name: str) -> str:
    from swirl_env.tools.calculator.worker.evaluate import show

    if isinstance(part, sp.FiniteSet):
        return " or ".join(f"{name} = {show(item)[0]}" for item in part)
    if not isinstance(part, sp.Interval):
        raise CalcError("No solution was found in closed form.")
    low = "" if part.start == -sp.oo else f"{name} {'>' if part.left_open else '>='} {show(part.start)[0]}"
    high = "" if part.end == sp.oo else f"{name} {'<' if part.right_open else '<='} {show(part.end)[0]}"
    return " and ".join(filter(None, (low, high)))
