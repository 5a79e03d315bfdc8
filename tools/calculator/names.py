"""Every word that the calculator knows: functions with their arities, constants, aliases, methods, LaTeX commands, phrases.

A name outside these tables is a variable, a unit or an error; nothing that a model writes is looked up anywhere else.
"""

from __future__ import annotations

ANY = 64
"""Arguments that a function of any number of them takes at most, lists counted by their items."""

FUNCTIONS: dict[str, tuple[int, int]] = {
    **dict.fromkeys(("sqrt", "cbrt", "exp", "ln", "abs", "sign", "floor", "ceil", "trunc", "factorial"), (1, 1)),
    **dict.fromkeys(("sin", "cos", "tan", "sec", "csc", "cot", "asin", "acos", "atan", "sinh", "cosh", "tanh"), (1, 1)),
    **dict.fromkeys(("asinh", "acosh", "atanh", "radians", "degrees", "number", "gamma", "re", "im", "conjugate"), (1, 1)),
    **dict.fromkeys(("isprime", "nextprime", "prevprime", "totient", "fibonacci", "prime", "factorint", "divisors"), (1, 1)),
    **dict.fromkeys(("log", "round"), (1, 2)),
    **dict.fromkeys(("root", "mod", "floordiv", "binomial", "perm", "pow", "atan2", "fraction"), (2, 2)),
    **dict.fromkeys(("min", "max", "gcd", "lcm", "sum", "prod", "mean", "median", "hypot"), (1, ANY)),
    **dict.fromkeys(("simplify", "expand", "factor", "cancel", "together", "doit", "trigsimp"), (1, 1)),
    **dict.fromkeys(("apart", "integer"), (1, 2)),
    **dict.fromkeys(("diff", "integrate"), (1, 4)),
    **dict.fromkeys(("summation", "product"), (2, 4)),
    "limit": (3, 4),
    "series": (1, 4),
    "solve": (1, ANY),
    "nsolve": (2, 3),
    "eq": (2, 2),
    "subs": (3, 3),
    "evalf": (1, 2),
}
"""Canonical function -> least and most arguments."""

ALIASES: dict[str, str] = {
    **{"ceiling": "ceil", "int": "trunc", "float": "number", "print": "number", "Rational": "fraction", "Fraction": "fraction"},
    **{"Integer": "trunc", "Float": "number", "Decimal": "number", "Abs": "abs", "fabs": "abs", "Max": "max", "Min": "min"},
    **{"arcsin": "asin", "arccos": "acos", "arctan": "atan", "tg": "tan", "ctg": "cot", "arcsinh": "asinh", "sgn": "sign"},
    **{"arccosh": "acosh", "arctanh": "atanh", "log10": "log_10", "lg": "log_10", "log2": "log_2", "lb": "log_2"},
    **{"choose": "binomial", "comb": "binomial", "nCr": "binomial", "ncr": "binomial", "binom": "binomial", "C": "binomial"},
    **{"nPr": "perm", "npr": "perm", "P": "perm", "Pow": "pow", "power": "pow", "Mod": "mod", "hcf": "gcd", "gcf": "gcd"},
    **{"average": "mean", "avg": "mean", "add": "sum", "total_of": "sum", "fmod": "mod", "Eq": "eq", "Sum": "summation"},
    **{"Product": "product", "derivative": "diff", "Derivative": "diff", "differentiate": "diff", "integral": "integrate"},
    **{"Integral": "integrate", "antiderivative": "integrate", "lim": "limit", "Limit": "limit", "solveset": "solve"},
    **{"linsolve": "solve", "roots": "solve", "factorise": "factor", "factorize": "factor", "ratsimp": "cancel"},
    **{"N": "evalf", "n": "evalf", "is_prime": "isprime", "phi_euler": "totient", "rad": "radians", "deg": "degrees"},
    **{"squareroot": "sqrt", "cuberoot": "cbrt", "factors": "factorint", "fact": "factorial", "fib": "fibonacci"},
    **{"absolute": "abs", "real_root": "root", "nthroot": "root", "taylor": "series", "simplified": "simplify"},
}
"""What else a function is called."""

SHORT_ONLY_CALLED = frozenset({"C", "P", "N", "n", "rad", "deg", "sum", "total_of", "prime", "number", "factors", "product"})
"""Names that mean a function only where a parenthesis follows: otherwise they are variables, units or plain words."""

ONE_ARGUMENT = frozenset(name for name, (_, most) in FUNCTIONS.items() if most == 1)
"""Functions in whose parentheses ``1,250`` can only be one number."""

MODULES = frozenset({"math", "sympy", "sp", "np", "numpy", "cmath", "statistics"})
"""Prefixes of a function (``math.sqrt``) that say nothing."""

METHODS = frozenset(
    "subs evalf n simplify expand factor cancel together apart doit diff integrate limit series trigsimp conjugate".split()
)
"""What may stand after a dot with parentheses; the object becomes the first argument."""

CONSTANTS = {
    "pi": "pi",
    "Pi": "pi",
    "PI": "pi",
    "π": "pi",
    "e": "E",
    "E": "E",
    "I": "I",
    "tau": "tau",
    "τ": "tau",
} | dict.fromkeys(("oo", "inf", "infinity", "Infinity", "∞"), "oo")
"""Names of numbers."""

INFIX_WORDS = {"mod": "mod", "modulo": "mod", "rem": "mod", "of": "of", "off": "off", "choose": "choose", "x": "x", "X": "x"}
"""Words that stand between two operands."""

GREEK = frozenset("alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi rho sigma phi chi psi omega".split())
"""Letters that LaTeX spells out; they are variables."""

LATEX = {
    **dict.fromkeys(("times", "cdot", "ast", "bullet", "star"), "*"),
    **dict.fromkeys(
        ("left", "right", "big", "Big", "bigl", "bigr", "Bigl", "Bigr", "displaystyle", "quad", "qquad", "boxed"), ""
    ),
    **dict.fromkeys((",", ";", ":", "!", " ", "$", "(", ")", "[", "]", "limits", "textstyle", "mathrm", "operatorname"), ""),
    **dict.fromkeys(("le", "leq", "leqslant"), "<="),
    **dict.fromkeys(("ge", "geq", "geqslant"), ">="),
    **dict.fromkeys(("ne", "neq"), "!="),
    **dict.fromkeys(("frac", "dfrac", "tfrac", "cfrac"), "\\frac"),
    **dict.fromkeys(("binom", "dbinom", "tbinom"), "\\binom"),
    **dict.fromkeys(("ldots", "cdots", "dots"), "..."),
    **dict.fromkeys(("mod", "bmod", "pmod"), "mod"),
    **{
        "div": "/",
        "sqrt": "\\sqrt",
        "%": "%",
        "{": "(",
        "}": ")",
        "lt": "<",
        "gt": ">",
        "infty": "∞",
        "circ": "°",
        "degree": "°",
    },
    **{
        "lfloor": "\\lfloor",
        "rfloor": "\\rfloor",
        "lceil": "\\lceil",
        "rceil": "\\rceil",
        "vert": "|",
        "lvert": "|",
        "rvert": "|",
    },
    **{"|": "|", "sum": "\\sum", "prod": "\\prod", "int": "\\int", "lim": "\\lim", "to": "->", "rightarrow": "->", "pi": "pi"},
    **{name: name for name in ("sin cos tan sec csc cot sinh cosh tanh arcsin arccos arctan exp ln log min max gcd lg").split()},
    **{name: name for name in GREEK},
}
"""LaTeX command -> the token that it stands for (empty: none)."""

MEASURES = frozenset(
    "second minute hour day week month year cent penny nickel dime quarter mile yard foot feet inch inche meter metre kilometer"
    " km cm mm m g kg mg gram kilogram pound lb ounce oz ton liter litre l ml gallon"
    " quart pint cup h hr min sec s mph kph kmh".split()
)
"""Units (singular) that cannot be added to a bare number: five dollars and twenty cents are not twenty-five."""
UNIT_LETTERS = frozenset("mglhsL")
"""Letters that are units beside other units."""
SCALES = {"dozen": 12, "hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
"""Words after a number that multiply it."""

CHARACTERS = str.maketrans(
    {
        **dict.fromkeys("×✕✖⨯·⋅∙•∗⨉⋆", "*"),
        **dict.fromkeys("÷∕⁄➗", "/"),
        **dict.fromkeys("−–—‒―‐‑➖", "-"),
        **dict.fromkeys("➕", "+"),
        **dict.fromkeys("$€£¥₹₩₽₦₫₪฿", " "),
        **{"≤": "<=", "≥": ">=", "≠": "!=", "⩽": "<=", "⩾": ">=", "≈": "=", "≅": "=", "≡": "=", "：": ":", "˚": "°", "º": "°"},
        **{"√": "√", "∛": " cbrt ", "∜": " root_4 ", "∑": "\\sum ", "∏": "\\prod ", "∫": "\\int ", "‰": "/1000", "→": "->"},
        **{
            "θ": "theta",
            "α": "alpha",
            "β": "beta",
            "γ": "gamma",
            "δ": "delta",
            "λ": "lambda",
            "μ": "mu",
            "φ": "phi",
            "σ": "sigma",
        },
        **{"⌊": "\\lfloor ", "⌋": "\\rfloor ", "⌈": "\\lceil ", "⌉": "\\rceil ", "²": "²"},
    }
)
"""Characters -> what they mean in plain text."""
