"""Equations, systems and inequalities -> what solves them. Runs in the worker only."""

from __future__ import annotations

import contextlib
from fractions import Fraction
from typing import NamedTuple

import sympy as sp

from swirl_env.tools.calculator.functions import logarithm as exact_logarithm
from swirl_env.tools.calculator.linear import ANYTHING, COMPARE, NO_SOLUTION
from swirl_env.tools.calculator.rational import Irrational
from swirl_env.tools.calculator.text import CalcError
from swirl_env.tools.calculator.worker.functions import Value, root_near

Relation = tuple[str, Value, Value]
"""Sign, left and right side."""
NO_CLOSED_FORM = "No solution was found in closed form."
MANY = "It holds for a whole range of values: solve it as an inequality, or write it more simply."
SAMPLES = tuple(sp.Rational(numerator, 15) for numerator in (-137, -41, -4, 5, 7, 22, 64, 173))
"""Points at which no equation that anyone writes holds by chance."""
NEAR, TINY = sp.Rational(1, 1000), sp.Float("1e-20")
STARTS = (1, 0, 2, -1, 5, -5, 10, 100)
"""Where a numerical solution is looked for."""


class Solutions(NamedTuple):
    """Solutions, each of them a list of (unknown, value)."""

    each: list[list[tuple[Value, Value]]]
    numerical: bool = False
    """Whether this is one numerical solution of maybe several."""


class Region(NamedTuple):
    """The values of an unknown for which inequalities hold."""

    name: str
    values: Value


Outcome = Solutions | Region | str
"""What `solve` returns; a string is `NO_SOLUTION` or `ANYTHING`."""


def solve(relations: list[Relation], unknowns: list[Value]) -> Outcome:
    """Returns what solves all of the relations; `unknowns` empty: solve for all that is unknown."""
    gaps = [left - right for _, left, right in relations]
    free = sorted(set().union(*(gap.free_symbols for gap in gaps)), key=str)
    if not unknowns and len(free) > len(gaps):
        raise CalcError("There are more unknowns than equations: say what to solve for, as in: solve a*x = b for x.")
    unknowns = unknowns or free
    if not free:
        return ANYTHING if all(map(_is_true, relations, gaps)) else NO_SOLUTION
    if any(sign not in ("=", "==") for sign, _, _ in relations):
        return _inequality(relations, free)
    if len(gaps) == 1 and len(unknowns) == 1:
        return _one(gaps[0], unknowns[0])
    return _system(gaps, unknowns)


def _is_true(relation: Relation, gap: Value) -> bool:
    """Whether a relation whose unknowns cancel holds, as x >= x does and x > x does not."""
    return COMPARE[relation[0]](0 if gap.equals(0) else 1 if gap > 0 else -1, 0) if gap.is_real else relation[0] == "!="


def _one(gap: Value, unknown: Value) -> Outcome:
    """One equation in one unknown."""
    if unknown not in gap.free_symbols or gap.expand() == 0:
        return ANYTHING if gap.equals(0) else NO_SOLUTION
    if gap.free_symbols == {unknown} and not gap.is_polynomial(unknown):
        if gap.has(sp.Mod):
            raise CalcError(NO_CLOSED_FORM)  # SymPy returns one of endlessly many
        holding = [_is_root(gap, unknown, point) for point in SAMPLES]
        if all(holding):
            return ANYTHING
        if sum(holding) > 1:
            raise CalcError(MANY)
    roots = None
    for method in (polynomial_roots, exponential_root, _closed):
        roots = method(gap, unknown) if roots is None else roots
    if roots is None:
        return Solutions([[(unknown, _numerical(gap, unknown))]], numerical=True)
    if gap.free_symbols == {unknown}:
        real = [root for root in roots if _is_real(root)]
        roots = sorted(real, key=lambda root: root.evalf(20)) or roots
    if not roots and (gap.free_symbols != {unknown} or _has_odd_root(gap, unknown)):
        raise CalcError(NO_CLOSED_FORM)  # SymPy returns no root as well if it knows no way to one, nor for x^(1/3) = -2
    return Solutions([[(unknown, root)] for root in roots]) if roots else NO_SOLUTION


def _is_root(gap: Value, unknown: Value, point: Value) -> bool:
    """Whether both sides of an equation agree at a point, to thirty digits."""
    value = abs(gap.subs(unknown, point).evalf(30, maxn=60))
    size = abs(sp.Add(*map(abs, sp.Add.make_args(gap))).subs(unknown, point).evalf(10))
    return value.is_Number and size.is_Number and bool(value.is_finite and float(value) <= 1e-25 * max(1.0, float(size)))


def _has_odd_root(gap: Value, unknown: Value) -> bool:
    """Whether an expression holds a root of odd degree of what is unknown: here that of a negative number is real."""
    return any(power.exp.is_Rational and power.exp.q % 2 and power.exp.q > 1 for power in gap.atoms(sp.Pow) if power.has(unknown))


def _closed(gap: Value, unknown: Value) -> list[Value] | None:
    """Solutions in closed form, None if SymPy knows none."""
    real = sp.Dummy("x", real=True)
    if gap.has(sp.Abs, sp.sign, sp.Max, sp.Min, sp.floor, sp.ceiling):  # SymPy solves these over the reals only
        unknown, gap = real, gap.subs(unknown, real)
    try:
        return [part[unknown] for part in sp.solve(gap, unknown, dict=True)]
    except (NotImplementedError, KeyError):
        return None


def polynomial_roots(gap: Value, unknown: Value) -> list[Value] | None:
    """Roots of a quadratic with rational coefficients, the most frequent case, without the general solver; else None."""
    if gap.free_symbols != {unknown} or not gap.is_polynomial(unknown):
        return None
    coefficients = sp.Poly(gap, unknown).all_coeffs()
    if len(coefficients) != 3 or not all(c.is_Rational for c in coefficients):
        return None
    a, b, c = coefficients
    root = sp.sqrt(b * b - 4 * a * c)
    return list(dict.fromkeys([(-b - root) / (2 * a), (-b + root) / (2 * a)]))


def exponential_root(gap: Value, unknown: Value) -> list[Value] | None:
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


def _is_real(value: Value) -> bool:
    if value.is_real is not None:
        return bool(value.is_real)
    imaginary = sp.im(value.evalf(25))
    return bool(abs(imaginary) < sp.Float("1e-18") * max(1, abs(value.evalf(10))))


def _numerical(gap: Value, unknown: Value) -> Value:
    """A numerical root, for equations without a known closed form."""
    if gap.free_symbols == {unknown}:
        for start in STARTS:
            try:
                root = root_near(gap, unknown, sp.Integer(start))
            except (CalcError, ArithmeticError):
                continue
            if any(_is_root(gap, unknown, root + step) for step in (NEAR, -NEAR)):
                raise CalcError(MANY)
            return sp.S.Zero if abs(root) < TINY and gap.subs(unknown, 0).equals(0) else root
    raise CalcError(NO_CLOSED_FORM)


def _system(gaps: list[Value], unknowns: list[Value]) -> Outcome:
    """Several equations or unknowns."""
    try:
        solutions = sp.solve(gaps, unknowns, dict=True)
    except NotImplementedError as error:
        raise CalcError(NO_CLOSED_FORM) from error
    if not solutions:
        if _is_inconsistent(gaps):
            return NO_SOLUTION
        raise CalcError(NO_CLOSED_FORM)
    return Solutions([sorted(solution.items(), key=lambda pair: str(pair[0])) for solution in solutions])


def _is_inconsistent(gaps: list[Value]) -> bool:
    """Whether polynomial equations have no common root, not even a complex one."""
    free = sorted(set().union(*(gap.free_symbols for gap in gaps)), key=str)
    if not all(gap.is_polynomial(*free) for gap in gaps):
        return False
    return bool(sp.groebner(gaps, *free).exprs == [sp.S.One])


def _inequality(relations: list[Relation], free: list[Value]) -> Outcome:
    """Inequalities in one unknown."""
    if len(free) != 1 or any(sign == "!=" for sign, _, _ in relations):
        raise CalcError("Only inequalities in one unknown can be solved.")
    makers = {"<": sp.Lt, ">": sp.Gt, "<=": sp.Le, ">=": sp.Ge, "=": sp.Eq, "==": sp.Eq}
    unknown = sp.Dummy("x", real=True)
    region: Value = sp.S.Reals
    for sign, left, right in relations:
        claim = makers[sign](left.subs(free[0], unknown), right.subs(free[0], unknown))
        if claim in (sp.true, sp.false):
            region = region if claim == sp.true else sp.S.EmptySet
            continue
        try:
            region = region.intersect(sp.solve_univariate_inequality(claim, unknown, relational=False))
        except NotImplementedError as error:
            raise CalcError(NO_CLOSED_FORM) from error
    if region == sp.S.EmptySet:
        return NO_SOLUTION
    return ANYTHING if region == sp.S.Reals else Region(str(free[0]), region)
