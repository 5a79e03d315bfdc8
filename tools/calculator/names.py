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
    **{"arccosh": "acosh", "arctanh": "atanh", "log10": "log_10", "lg": "log_10", "log2": "log_2"},
    **{"choose": "binomial", "comb": "binomial", "nCr": "binomial", "ncr": "binomial", "binom": "binomial", "C": "binomial"},
    **{"nPr": "perm", "npr": "perm", "P": "perm", "Pow": "pow", "power": "pow", "Mod": "mod", "hcf": "gcd", "gcf": "gcd"},
    **{"average": "mean", "avg": "mean", "add": "sum", "total_of": "sum", "fmod": "mod", "Eq": "eq", "Sum": "summation"},
    **{"Product": "product", "derivative": "diff", "Derivative": "diff", "differentiate": "diff", "integral": "integrate"},
    **{"Integral": "integrate", "antiderivative": "integrate", "lim": "limit", "Limit": "limit", "solveset": "solve"},
    **{"linsolve": "solve", "roots": "solve", "factorise": "factor", "factorize": "factor", "ratsimp": "cancel"},
    **{"N": "evalf", "is_prime": "isprime", "phi_euler": "totient", "rad": "radians", "deg": "degrees"},
    **{"squareroot": "sqrt", "cuberoot": "cbrt", "factors": "factorint", "fact": "factorial", "fib": "fibonacci"},
    **{"absolute": "abs", "real_root": "root", "nthroot": "root", "taylor": "series", "simplified": "simplify"},
}
"""What else a function is called."""

SHORT_ONLY_CALLED = frozenset("C P N rad deg sum total_of prime number factors product min max floor".split())
"""Names that mean a function only if a parenthesis follows: otherwise they are variables, units or plain words."""

WITHOUT_BRACKETS = frozenset(
    "sqrt cbrt exp ln log abs factorial sin cos tan sec csc cot asin acos atan sinh cosh tanh asinh acosh atanh".split()
)
"""Functions whose argument may follow without parentheses."""

ANGLES = frozenset("sin cos tan sec csc cot".split())
"""Functions of an angle."""

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

INFIX_WORDS = {"mod": "mod", "modulo": "mod", "of": "of", "off": "off", "choose": "choose", "x": "x", "X": "x"}
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
        "div": "÷",
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
    **{
        "|": "|",
        "sum": "\\sum",
        "prod": "\\prod",
        "int": "\\int",
        "lim": "\\lim",
        "diff": "\\diff",
        "to": "->",
        "rightarrow": "->",
        "pi": "pi",
    },
    **{name: name for name in ("sin cos tan sec csc cot sinh cosh tanh arcsin arccos arctan exp ln log min max gcd lg").split()},
    **{name: name for name in GREEK},
}
"""LaTeX command -> the token that it stands for (empty: none)."""

SCALES = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "lakh": 10**5}
SCALES |= {"crore": 10**7, "mn": 10**6, "mln": 10**6, "mil": 10**6, "bn": 10**9, "bln": 10**9, "tn": 10**12}
SCALES |= {f"{name}s": value for name, value in SCALES.items()}
"""Words after a number that belong to it."""
PORTIONS = {"half": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7, "eighth": 8, "ninth": 9}
PORTIONS |= {"tenth": 10, "twelfth": 12, "twentieth": 20, "hundredth": 100, "thousandth": 1000}
"""Parts of one: "half of", and after a number in the plural, as in "2 thirds of"."""
MULTIPLES = {"twice": 2, "double": 2, "thrice": 3, "triple": 3}
LISTED = {"sum": "sum", "product": "prod", "average": "mean", "mean": "mean", "median": "median", "gcd": "gcd", "lcm": "lcm"}
"""Functions in words, as in "the sum of 3 and 4"."""

DIMENSIONS = {
    "length": "mm cm dm meter km inch foot yard mile",
    "time": "second minute hour day night week fortnight month quarter year decade century",
    "mass": "mg gram kg ounce pound stone ton",
    "volume": "ml cl dl liter teaspoon tablespoon ounce cup pint quart gallon barrel",
    "money": "cent nickel dime quarter dollar euro pence pound yen rupee peso franc yuan usd eur gbp jpy inr cny",
    "angle": "degree radian celsius fahrenheit kelvin",
    "data": "bit byte kb mb gb tb kilobyte megabyte gigabyte terabyte",
    "number": "dozen pair couple score",
}
UNITS: dict[str, set[str]] = {}
"""Unit (singular) -> its dimensions: two units that share one would have to be converted."""
for _dimension, _units in DIMENSIONS.items():
    for _unit in _units.split():
        UNITS.setdefault(_unit, set()).add(_dimension)
SYNONYMS = {"feet": "foot", "ft": "foot", "yd": "yard", "mi": "mile", "metre": "meter", "kilometre": "km", "kilometer": "km"}
SYNONYMS |= {"centimeter": "cm", "millimeter": "mm", "sec": "second", "min": "minute", "hr": "hour", "yr": "year"}
SYNONYMS |= {
    "kilogram": "kg",
    "kilo": "kg",
    "milligram": "mg",
    "oz": "ounce",
    "lb": "pound",
    "litre": "liter",
    "milliliter": "ml",
}
SYNONYMS |= {"millilitre": "ml", "tsp": "teaspoon", "tbsp": "tablespoon", "gal": "gallon", "deg": "degree", "rad": "radian"}
SYNONYMS |= {"penny": "cent", "buck": "dollar", "pennie": "cent", "people": "person", "children": "child", "men": "man"}
SYNONYMS |= {"women": "woman", "mice": "mouse", "teeth": "tooth", "geese": "goose", "inche": "inch", "tonne": "ton"}
"""Other names of units and irregular plurals."""
RATES = {"mph": ("mile", "hour"), "kph": ("km", "hour"), "kmh": ("km", "hour")}
ABBREVIATIONS = frozenset(
    "ad ax bbl bpm btu cc cd ct cu dj dvd fps fly gp gpm gym hp kcal kw kwh lp mcg mo mw ox pc pcs pj pk pkg ppl psi pt px qt rpm"
    " rd sky sq spy tbs tv ufo vw wh wk wpm xl".split()
)
"""Short words that count something, though they look like variables multiplied."""
LETTER_UNITS = {"m": "meter", "g": "gram", "l": "liter", "L": "liter", "h": "hour", "s": "second"}
"""Letters that are units if a blank stands between them and a number."""
LETTERS_IN_DOUBT = frozenset("mgLlhskKMBCFj")
"""Letters that may be a unit, a scale or a variable right after a number."""

GLUE_WORDS = frozenset(
    "to out in into onto from than then more less fewer as by at on off for with without within and or nor not but if else so"
    " because since when while that this these those is are was were be been has have had do does did will would can could"
    " per the a an of he she they it we you".split()
)
"""Words between other words: never a name."""
NUMBER_WORDS = frozenset(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen"
    " nineteen twenty thirty forty fifty sixty seventy eighty ninety ones tens grand couple score gross".split()
)
"""Numbers in words, which are not read."""
STOP_WORDS = (
    GLUE_WORDS
    | NUMBER_WORDS
    | frozenset(
        "any no none over under above below before after until during through between among about around approximately"
        " roughly nearly almost exactly rounded up down plus minus equals equal negative positive ratio versus vs times doubled"
        " tripled halved quadrupled squared cubed rooted remainder rem modulo i factorial"
        " xor bps ppm ppb percentage percentages permille percentile st nd rd th am pm ish lambda def elif true false".split()
    )
)
"""Words that change the meaning of a number before them, so that they are never taken for its unit."""
LABEL_TRAPS = frozenset(
    "square squared cube cubed root half twice double triple negative opposite inverse reciprocal percent percentage absolute"
    " power rounded round floor ceiling".split()
)
"""Words in front of a colon or an equals sign that ask for more than the value of what follows."""

CHARACTERS = str.maketrans(
    {
        **dict.fromkeys("×✕✖⨯·⋅∙•∗⨉⋆", " \\times "),
        **dict.fromkeys("∕⁄", "/"),
        **{"➗": "÷"},
        **dict.fromkeys("−–—‒―‐‑➖", "-"),
        **dict.fromkeys("➕", "+"),
        **{"≤": "<=", "≥": ">=", "≠": "!=", "⩽": "<=", "⩾": ">=", "：": ":", "˚": "°", "º": "°"},
        **{"√": "√", "∛": " cbrt ", "∜": " root_4 ", "∑": "\\sum ", "∏": "\\prod ", "∫": "\\int ", "→": "->"},
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
            **dict(zip("εζηικνξρχψω", "epsilon zeta eta iota kappa nu xi rho chi psi omega".split(), strict=True)),
        },
        **{"⌊": "\\lfloor ", "⌋": "\\rfloor ", "⌈": "\\lceil ", "⌉": "\\rceil "},
    }
)
"""Characters -> what they mean in plain text."""
