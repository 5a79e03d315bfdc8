"""Tokens -> syntax tree of plain data: int, Fraction, str (a variable) and tuples ``(operator, operand, ...)``.

    ("+", a, b, ...)   ("*", a, ("inv", b), ...)   ("neg", a)   ("^", a, b)   ("!", a)   ("%", a)   ("pct", a, b)
    ("const", name)    ("call", name, a, ...)      ("list", a, ...)   ("dots",)   ("=", a, b)   ("<", a, b) ...
    ("unit", words)    ("unit?", words)            ("per", words)     ("letter", name)

Precedence climbs from relations over sums and products to signs, powers and postfixes. Sums and products are flat, and all
that nests is counted, so neither this parser nor the walks over its trees can run out of stack.

Words after a number are a unit, words after a slash the unit per which something is; ``unit?`` is one of which the form does
not tell whether it belongs to the number or to the whole fraction before it (``8/3 pounds``). ``letter`` is a single letter
after a number that may be a variable, a unit or a scale. What becomes of them is decided in `units`.
"""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches
from fractions import Fraction
from itertools import pairwise
from math import gcd
from string import ascii_lowercase

from swirl_env.tools.calculator.names import (
    ABBREVIATIONS,
    ALIASES,
    ANGLES,
    ANY,
    CONSTANTS,
    FUNCTIONS,
    GLUE_WORDS,
    GREEK,
    INFIX_WORDS,
    LETTERS_IN_DOUBT,
    LISTED,
    METHODS,
    MODULES,
    MULTIPLES,
    NUMBER_WORDS,
    ONE_ARGUMENT,
    PORTIONS,
    RATES,
    SCALES,
    SHORT_ONLY_CALLED,
    STOP_WORDS,
    UNITS,
    WITHOUT_BRACKETS,
)
from swirl_env.tools.calculator.rational import MAX_DIGITS, Node
from swirl_env.tools.calculator.text import CalcError
from swirl_env.tools.calculator.tokens import THOUSANDS, tokens
from swirl_env.tools.calculator.units import children, has_marks, singular, variables

RELATIONS = {"=": "=", "==": "==", "!=": "!=", "<": "<", ">": ">", "<=": "<=", ">=": ">="}
_STARTERS = frozenset("([{√∞") | {"\\frac", "\\binom", "\\sqrt", "\\lfloor", "\\lceil", "\\sum", "\\prod", "\\int", "\\lim"}
_CLOSERS = {"(": ")", "[": "]", "{": "}"}
_WORDS = "Words are not part of an expression: write numbers, variables and operators."

_LETTERS = frozenset("CNP")
"""Functions of one letter."""

MAX_DEPTH = 50
"""Levels of brackets, calls and powers inside one another."""
MAX_CHAIN = 200
"""Operators that pile up on one another without brackets: postfixes, mod, percentages added."""
_NUMERALS = NUMBER_WORDS - {"ones", "tens", "grand", "couple", "score", "gross"}
_COUNTS = NUMBER_WORDS | SCALES.keys() | {"half", "quarter", "dozen"}
"""Words that make another number of one that they are joined to by a hyphen: 2 half-dozens."""
_VOWELS = frozenset("aeiou")
_SHOWN = frozenset("+-*/^%!()[]{},=|.")


def parse(text: str, assigned: Collection[str] = ()) -> Node:
    """Reads one statement.

    Args:
        text: the statement.
        assigned: names that have a value by now, and so are no functions.

    Raises:
        CalcError: if it is no expression, with the reason.
    """
    parser = Parser(tokens(text), assigned)
    node = parser.relation()
    if parser.token:
        raise CalcError(parser.unexpected())
    return node


class Parser:
    """Recursive descent over a list of tokens; `token` is the next one, empty at the end."""

    def __init__(self, tokens: list[str], assigned: Collection[str] = ()) -> None:
        self.tokens = tokens
        self.variables: Collection[str] = assigned
        """Names that are no functions."""
        if not _LETTERS.isdisjoint(tokens):  # N(N + 1): a letter that also stands alone is no function
            self.variables = {a for a, b in pairwise([*tokens, ""]) if a in _LETTERS and b != "("}.union(assigned)
        self.place = 0
        self.token = tokens[0] if tokens else ""
        self.depth = 0
        self.chain = 0
        self.bars = 0
        self.arguments = False
        """Whether a comma separates here rather than groups digits."""
        self.variable = ""
        """``dx`` inside an integral that ends with it."""
        self.listing = False
        """Whether "and" separates here, as in "the sum of 10 and 1/2", rather than joins a mixed number."""

    def take(self) -> str:
        """Returns the next token and moves on."""
        token = self.token
        self.place += 1
        self.token = self.tokens[self.place] if self.place < len(self.tokens) else ""
        return token

    def expect(self, wanted: str) -> None:
        """Moves past one certain token."""
        if self.token != wanted:
            raise CalcError(f"Expected {wanted!r}, but {self.next_in_words()}.")
        self.take()

    def next_in_words(self) -> str:
        """Returns what comes next, in words that are safe to show."""
        if not self.token:
            return "the expression ended"
        shown = self.token if self.token.isalnum() and len(self.token) <= 20 else ""
        shown = shown or (self.token if set(self.token) <= _SHOWN else "")
        return f"found {shown!r}" if shown else "found something else"

    def unexpected(self) -> str:
        """The sentence for a token that fits nowhere."""
        if self.token in (",", THOUSANDS):
            return "A comma stands where none belongs: write decimals with a point, and group digits by threes."
        if self.token[:1].isdigit() or self.token[:1] == ".":
            return "Two numbers stand side by side: put an operator between them."
        return f"The expression cannot be read: {self.next_in_words()} where an operator or the end was expected."

    def enter(self) -> None:
        """Counts one level of nesting."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise CalcError("The expression is nested too deeply.", "limit")

    def pile(self) -> None:
        """Counts one operator whose operand is all of what came before."""
        self.chain += 1
        if self.chain > MAX_CHAIN:
            raise CalcError("The expression is nested too deeply.", "limit")

    def relation(self) -> Node:
        """Reads sum ((= | < | ...) sum)*."""
        left = self.side()
        if self.token not in RELATIONS:
            return left
        chain: list[Node] = []
        while self.token in RELATIONS and self.token:
            sign = RELATIONS[self.take()]
            right = self.side()
            chain.append((sign, left, right))
            left = right
        return chain[0] if len(chain) == 1 else ("and", *chain)

    def side(self) -> Node:
        """Reads one side of a relation.

        A bare ``number + number%`` is what a desk calculator makes of it: the number and that part of the number.
        """
        start, depth = self.place, self.depth
        node = self.sum()
        if depth or self.tokens[self.place - 1] != "%" or self.tokens[start] in _CLOSERS or self.tokens[self.place - 2] in ")]}":
            return node
        if type(node) is not tuple or len(node) != 3 or node[0] != "+" or not _is_number(node[1]):
            return node
        percent = node[2][1] if node[2][0] == "neg" else node[2]
        if percent[0] != "%" or type(percent[1]) not in (int, Fraction):
            return node
        return ("pct", node[1], ("neg", percent[1]) if node[2][0] == "neg" else percent[1])

    def sum(self) -> Node:
        """Reads product ((+ | -) product)*."""
        first = self.product()
        if self.token != "+" and self.token != "-":
            return first
        terms = [first]
        while self.token == "+" or self.token == "-":
            minus = self.take() == "-"
            if self.token == "...":
                self.take()
                terms.append(("dots",))
                continue
            term = self.product()
            terms.append(("neg", term) if minus else term)
        return ("+", *terms) if len(terms) > 1 else terms[0]

    def product(self) -> Node:
        """Reads sign ((* | / | mod | // | of | nothing) sign)*."""
        first = self.sign()
        factors = [first]
        while True:
            token = self.token
            if token == "*":
                self.take()
                factors.append(self.sign())
            elif token == "/":
                self.take()
                factors.append(self.unit_power(("per", self.words())) if self.at_word() else ("inv", self.sign()))
                if self.tokens[self.place - 1] == "%" and _is_fraction(self.tokens[self.place - 4], self.tokens[self.place - 2]):
                    raise CalcError("It is unclear whether the percent sign belongs to the fraction: use parentheses.")
            elif token == "÷":
                self.take()
                factors.append(("inv", self.sign()))
                if self.token == "/" and type(factors[-1][1]) is int:
                    raise CalcError("It is unclear whether the division is by the fraction: use parentheses.")
            elif not token or token in "+-),=" or not (self.word_operator(factors) or self.juxtaposed(factors)):
                break
        return ("*", *factors) if len(factors) > 1 else factors[0]

    def word_operator(self, factors: list[Node]) -> bool:
        """Reads an operator that takes all of the product so far, if one comes next."""
        token = "mod" if self.token == "%" else "floordiv" if self.token == "//" else INFIX_WORDS.get(self.token, "")
        if token in ("", "x"):
            return False
        self.take()
        if token == "of":
            # "25% of 40" binds tighter than a product; "3/4 of 24" is the same either way, "6/3/4 of 24" is not.
            alone = len(factors) == 2 or self.tokens[self.place - 5 : self.place - 4] == ["of"]  # "1/2 of 1/3 of 12"
            fraction = alone and _is_inverse(factors[-1]) and type(factors[-2]) is int
            if not fraction and not _is_part(factors[-1]):
                raise CalcError("'of' needs a fraction or a percentage right before it, as in: 25% of 80.")
            factors.append(self.sign())
            return True
        self.pile()
        left = factors[0] if len(factors) == 1 else ("*", *factors)
        if token == "off":
            if type(left) is not tuple or left[0] != "%":
                raise CalcError("'off' needs a percentage before it, as in: fifteen percent off a price.")
            factors[:] = [("+", 1, ("neg", left)), self.sign()]
        else:
            right = self.sign()
            if any(type(side) is tuple and side[0] == "list" for side in (left, right)):
                raise CalcError(f"{token} stands between two numbers, not before a list.")
            factors[:] = [("call", "binomial" if token == "choose" else token, left, right)]
        return True

    def juxtaposed(self, factors: list[Node]) -> bool:
        """Reads a factor written without an operator: 2(3), 3x, (1+2)(3+4), 12 apples."""
        token, last, before = self.token, factors[-1], self.tokens[self.place - 1]
        if token == "|" and not self.bars:
            factors.append(self.power())
            return True
        if token[0].isdigit() or token[0] == ".":
            if before not in (")", "]", "}", "!") or token == "...":
                return False
            return self.multiply(factors)
        if token == self.variable or (token not in _STARTERS and not token[0].isalpha()):
            return False
        if token == "\\frac" and before[-1].isdigit():
            minus = type(last) is tuple and last[0] == "neg"
            whole = last[1] if minus else last
            if type(whole) is not int:
                raise CalcError("A number stands right before a fraction: put an operator between them.")
            mixed = ("+", whole, self.mixed())
            factors[-1] = ("neg", mixed) if minus else mixed
            return True
        if token[0] in "eE" and token[1:].isdigit() and before[-1].isdigit():
            raise CalcError("A number and its exponent stand apart: write them together.")
        if token == "(" and before[-1] == "." and len(before) > 1:
            raise CalcError("A repeating decimal is not read: write it as a fraction.")
        if self.at_word():
            factors.append(self.unit(factors, before))
            return True
        if before[0].isalpha() and len(before) > 1 and before not in CONSTANTS and before not in GREEK:
            raise CalcError(self.no_function(before) if token == "(" else _WORDS)
        if (
            token in LETTERS_IN_DOUBT
            and before[0].isdigit()
            and self.tokens[self.place + 1 : self.place + 2] not in (["^"], ["("])
        ):
            factors.append(("letter", self.take()))
            return True
        # 1/2x is a half of x; 12/3x and 6/.5x may be more than that.
        part = _is_inverse(last) and type(factors[-2]) is int and self.at_variable()
        if part and (type(last[1]) is not int or gcd(factors[-2], last[1]) > 1):
            raise CalcError("It is unclear how far the division reaches: use parentheses.")
        return self.multiply(factors)

    def multiply(self, factors: list[Node]) -> bool:
        """Reads the factor; of factorials it is unclear whether they are still below the line, as in 10!/7!3!."""
        last = factors[-1]
        factors.append(self.power())
        if type(last) is tuple and last[0] == "inv" and _has_factorial(last[1]) and _has_factorial(factors[-1]):
            raise CalcError("It is unclear how far the division reaches: use parentheses.")
        return True

    def unit(self, factors: list[Node], before: str) -> Node:
        """Reads the words after a number or a bracket: a unit, or parts of one as in 2 thirds."""
        last = factors[-1]
        number = last[1] if _is_inverse(last) else last
        if not (before[0].isdigit() or before[0] == "." or before in (")", "]", "}") or before in SCALES) or type(number) is str:
            raise CalcError(_WORDS)
        if self.token.lower() in SCALES and before in (")", "]", "}"):
            return SCALES[self.take().lower()]
        part = PORTIONS.get(self.token.removesuffix("s").replace("halve", "half"))
        if part and not self.token.startswith("quarter"):  # a quarter may be a coin or a part of the year
            if _is_inverse(last) or not (self.token.endswith("s") or last == 1):
                raise CalcError(_WORDS)
            self.take()
            return ("inv", part)
        words = self.words()
        if not _is_inverse(last):
            return self.unit_power(("unit", words))
        if any(type(factor) is tuple and factor[0] in ("unit", "per") for factor in factors[:-1]):
            return ("inv", self.unit_power(("unit", words)))
        return self.unit_power(("unit?", words))

    def unit_power(self, node: Node) -> Node:
        """Reads the exponent of a unit of measure: 5 m^2, 9.8 m/s^2."""
        if self.token not in ("^", "**"):
            return node
        if singular(node[1]) not in UNITS:
            raise CalcError("It is unclear what the exponent belongs to: use parentheses.")
        self.take()
        self.enter()
        exponent = self.sign()
        self.depth -= 1
        return ("^", node, exponent)

    def words(self) -> str:
        """Reads the words of a unit: "apples", "square feet", "pieces of laundry"."""
        words: list[str] = []
        while self.at_word() or (words and self.token == "of" and self.is_word(self.place + 1)):
            if self.token.lower() in STOP_WORDS and self.token != "of":
                raise CalcError(_WORDS)
            words.append(self.take())
            if "_" in words[-1] and not _COUNTS.isdisjoint(words[-1].lower().split("_")):
                raise CalcError(_WORDS)
        if len(words) == 1 and words[0] not in self.variables and _may_be_product(words[0]):
            raise CalcError("It is unclear whether the letters are a unit or variables multiplied: write * between variables.")
        return " ".join(words)

    def at_word(self) -> bool:
        """Whether the next token is a word; "and" is none between the items of a list in words."""
        return self.token[:1].isalpha() and not (self.listing and self.token == "and") and self.is_word(self.place)

    def is_word(self, place: int) -> bool:
        """Whether the token there is no function, no constant, no operator and no one-letter variable."""
        token, following = (*self.tokens[place : place + 2], "", "")[:2]
        if len(token) < 2 or not token.replace("_", "").isalpha() or token == self.variable or following == "(":
            return False
        if token in CONSTANTS or token in GREEK or token in MODULES or token in INFIX_WORDS:
            return False
        lower = token.lower()
        if lower in MULTIPLES or (following == "of" and (lower in PORTIONS or lower in LISTED)):
            return False
        name = ALIASES.get(token, token)
        if not is_function(name) or token in SHORT_ONLY_CALLED:
            return True
        if token == "sec" and self.tokens[place - 1][-1:].isdigit():  # seconds, not the secant
            return True
        argument = self.starts_value(place + 1) and (len(following) < 2 or not following.isalpha() or following in CONSTANTS)
        return following != "of" and not argument and not is_function(ALIASES.get(following, following))

    def mixed(self) -> Node:
        r"""The fraction of 3\frac{1}{2}, which has to be a proper one of whole numbers."""
        node = self.primary()
        if not (isinstance(node, tuple) and node[0] == "*" and type(node[1]) is int and type(node[2][1]) is int):
            raise CalcError("A number stands right before a fraction: put an operator between them.")
        if not 0 <= node[1] < node[2][1]:
            raise CalcError("A number stands right before an improper fraction: put an operator between them.")
        return node

    def sign(self) -> Node:
        """(+ | -)* power."""
        minus = False
        while self.token == "-" or self.token == "+":
            minus ^= self.take() == "-"
        node = self.power()
        return ("neg", node) if minus else node

    def power(self) -> Node:
        """Reads postfix (^ sign)?, from the right."""
        base = self.postfix()
        if self.token != "^" and self.token != "**":
            return base
        self.take()
        self.enter()
        node = ("^", base, self.sign())
        self.depth -= 1
        if self.tokens[self.place - 1][0].isdigit() and self.at_variable() and not variables(base):
            raise CalcError("It is unclear how far the exponent reaches: use parentheses.")  # e^2x
        return node

    def postfix(self) -> Node:
        """Reads primary (! | % | ° | .method())*."""
        node = self.primary()
        while (token := self.token) and token in "!%°.":
            if token == "%" and self.starts_value(self.place + 1) and not self.is_word(self.place + 1):
                break
            if token == ".":
                node = self.read_method(node)
                continue
            if token == "!" and self.tokens[self.place - 1] == "!":
                raise CalcError("Two factorial signs in a row are ambiguous: use parentheses.")
            self.take()
            self.pile()
            node = self.degrees(node) if token == "°" else (token, node)
        return node

    def degrees(self, node: Node) -> Node:
        """30°, or a temperature."""
        scale = f" {self.take().lower()}" if self.token in ("C", "F", "K") else ""
        return ("*", node, ("unit", f"degree{scale}"))

    def starts_value(self, place: int) -> bool:
        """Whether the token there begins an operand (words like "of" do not)."""
        token = self.tokens[place] if place < len(self.tokens) else ""
        return bool(token) and (
            token[0].isdigit() or token in _STARTERS or (token[0].isalpha() and (token in "xX" or token not in INFIX_WORDS))
        )

    def primary(self) -> Node:
        """A number, name, call, bracket or LaTeX form."""
        token = self.token
        if not token:
            raise CalcError("The expression is incomplete: an operand is missing." if self.place else "The expression is empty.")
        if token[0].isdigit() or (token[0] == "." and len(token) > 1 and token[1] != "."):
            return self.read_number()
        if token[0].isalpha():
            return self.read_name()
        if token in _CLOSERS:
            return self.bracket()
        self.enter()
        self.take()
        node = self.read_special(token)
        self.depth -= 1
        return node

    def bracket(self) -> Node:
        """( ... ), [ ... ] or { ... }; with commas a list."""
        opener = self.take()
        self.enter()
        outer, bars = self.arguments, self.bars
        self.arguments, self.bars = opener == "[", 0
        items = self.items(_CLOSERS[opener])
        self.arguments, self.bars = outer, bars
        self.depth -= 1
        if not items:
            raise CalcError("The brackets are empty: an operand is missing.")
        listed = opener == "[" and type(items[0]) in (int, Fraction, str)  # [0] * 9 is a list, [(2 + 3) * 4] / 2 is not
        return ("list", *items) if listed or len(items) > 1 else items[0]

    def items(self, closer: str) -> list[Node]:
        """Comma-separated relations up to the closing bracket, which is taken."""
        items: list[Node] = []
        while self.token != closer:
            items.append(self.relation())
            if len(items) > ANY:
                raise CalcError("There are too many arguments.", "limit")
            if self.token not in (",", THOUSANDS):
                break
            self.arguments = True
            self.take()
        self.expect(closer)
        return items

    def read_number(self) -> Node:
        """A literal: thousands groups, blanks between groups, mixed numbers and scales belong to it."""
        after_slash = self.place > 0 and self.tokens[self.place - 1] in ("/", "÷")  # "1/2 500" may be a half of something, or not
        text = self.take()
        token = self.token
        following = self.tokens[self.place + 1 : self.place + 2] if token == THOUSANDS else []
        if following and (not self.arguments or following[0][0] == "0"):  # no argument begins with 000
            text = self.grouped(text)
            token = self.token
        if not token or not (token[0].isdigit() or token[0].isalpha()):
            return literal(text)
        joined = self.token == "and" and not self.listing
        following = self.tokens[self.place + joined : self.place + joined + 2]
        if after_slash and following and following[0].isdigit():
            raise CalcError("Two numbers stand side by side: put an operator between them.")
        if text.isdigit() and len(text) <= 3 and text[0] != "0":
            while len(self.token) == 3 and self.token.isdigit():
                text += self.take()
            following = following if joined else self.tokens[self.place : self.place + 2]
        if text.isdigit() and following[1:] == ["/"] and following[0].isdigit():
            if joined:
                self.take()
            mixed = self.mixed_number(literal(text))
            return ("*", mixed, SCALES[self.take().lower()]) if self.token.lower() in SCALES else mixed
        value = literal(text)
        if after_slash and self.token.lower() in SCALES and _is_fraction(self.tokens[self.place - 3], text):
            raise CalcError("It is unclear whether the scale belongs to the fraction: use parentheses.")
        while self.token.lower() in SCALES:
            value = value * SCALES[self.take().lower()]
        return value.numerator if value.denominator == 1 else value

    def grouped(self, text: str) -> str:
        """Joins 1,250,000."""
        if len(text) > 3 or not text.isdigit() or text[0] == "0":
            raise CalcError("A comma stands where none belongs: write decimals with a point, and group digits by threes.")
        parts = [text]
        while self.token == THOUSANDS:
            self.take()
            parts.append(self.take())
            if "." in parts[-1]:
                break
        return "".join(parts)

    def mixed_number(self, whole: Node) -> Node:
        """1 1/2, of which the whole has been read."""
        top = literal(self.take())
        self.take()
        bottom = literal(self.token) if self.token.isdigit() else 0
        if not 0 < top < bottom:
            raise CalcError("Two numbers stand side by side: put an operator between them.")
        self.take()
        return ("+", whole, ("*", top, ("inv", bottom)))

    def read_name(self) -> Node:
        """A constant, a function with its arguments, or a variable."""
        token = self.take()
        if token in MODULES and self.token == ".":
            self.take()
            if not self.token[:1].isalpha():
                raise CalcError("A function name has to follow the dot.")
            return self.read_name()
        name = ALIASES.get(token, token)
        lower = token.lower()
        if self.token == "of" and (lower in LISTED or (is_function(name) and name in ONE_ARGUMENT)):
            return self.function_of(LISTED.get(lower, name))
        if lower in MULTIPLES or (lower in PORTIONS and self.token == "of"):
            if self.token == "of":
                self.take()
            self.enter()
            operand = self.power()
            self.depth -= 1
            return ("*", MULTIPLES[lower], operand) if lower in MULTIPLES else ("*", operand, ("inv", PORTIONS[lower]))
        if (
            is_function(name)
            and token not in self.variables
            and self.token != "="
            and (self.token == "(" or token not in SHORT_ONLY_CALLED)
        ):
            self.enter()
            node = self.function(name)
            self.depth -= 1
            return node
        if token in CONSTANTS:
            return ("const", CONSTANTS[token])
        if self.token == "(" and (len(token) > 1 or token in "fghDFGH"):
            raise CalcError(self.no_function(token))
        if (lower in GLUE_WORDS or lower in _NUMERALS) and len(token) > 1:
            raise CalcError(_WORDS)
        if len(token) > 30:
            raise CalcError("A name is too long to be a variable.")
        if token in INFIX_WORDS and token not in "xX":
            raise CalcError("An operand is missing before a word that joins two.")
        return token

    def function_of(self, name: str) -> Node:
        """A function in words: "square root of 81", "the sum of 10 and 1/2".

        Its operands are single numbers, fractions or brackets, and what follows them has to end the expression, for in "the
        square root of 16 + 9" the words do not tell how far the root reaches.
        """
        self.take()
        outer, self.listing = self.listing, True
        items = [self.operand()]
        while name not in ONE_ARGUMENT and self.token in (",", THOUSANDS, "and"):
            self.take()
            if self.token == "and":
                self.take()
            items.append(self.operand())
        self.listing = outer
        percents = [type(item) is tuple and item[0] == "%" for item in items]
        if any(percents) and not all(percents):
            raise CalcError("It is unclear how far the percent sign reaches: write it after each number.")
        if self.token and self.token not in ")]}=|" and not (outer and self.token in (",", "and")):
            raise CalcError("It is unclear how far the words reach: use parentheses.")
        if name not in ONE_ARGUMENT and len(items) < 2:
            raise CalcError(f"{name} needs at least two numbers.")
        return call(name, items)

    def operand(self) -> Node:
        """A signed number, fraction, call or bracket, with its unit."""
        self.enter()
        factors = [self.sign()]
        if self.token == "/" and type(factors[0]) is int:
            self.take()
            factors.append(("inv", self.power()))
        if self.at_word() and self.token != "and":
            factors.append(self.unit(factors, self.tokens[self.place - 1]))
        self.depth -= 1
        return factors[0] if len(factors) == 1 else ("*", *factors)

    def no_function(self, token: str) -> str:
        """The sentence for a call of something unknown."""
        near = get_close_matches(token[:20], [*FUNCTIONS, *ALIASES], n=1, cutoff=0.6) if len(token) <= 20 else []
        hint = f" Did you mean {near[0]!r}?" if near else ""
        return f"There is no function of that name.{hint} Known are sqrt, round, min, max, gcd, solve, diff and others."

    def function(self, name: str) -> Node:
        """A function whose name has been read: sin(x), sqrt 16, sin^2(x), log_2(8), sqrt[3]{8}."""
        exponent: Node = None
        base: Node = None
        if self.token == "_":
            self.take()
            base = literal(self.take()) if self.token.isdigit() else self.primary()
        elif "_" in name:
            name, _, digits = name.partition("_")
            base = literal(digits) if digits.isdigit() else digits
        if self.token in ("^", "**"):
            self.take()
            exponent = self.sign_primary()
        if self.token == "(":
            arguments = self.call_arguments(name)
        else:
            if name not in WITHOUT_BRACKETS or (not self.starts_value(self.place) and self.token not in ("-", "|")):
                raise CalcError(f"{name} needs an argument in parentheses.")
            arguments = [self.loose_argument(name)]
        if base is not None:
            arguments = [*arguments, base]
        if exponent in (-1, ("neg", 1)) and f"a{name}" in FUNCTIONS:
            return call(f"a{name}", arguments)
        node = call(name, arguments)
        return node if exponent is None else ("^", node, exponent)

    def sign_primary(self) -> Node:
        """An exponent between a function and its argument."""
        minus = self.token == "-" and bool(self.take())
        node = self.primary()
        return ("neg", node) if minus else node

    def at_variable(self) -> bool:
        """Whether the next token is a name that may be multiplied with a number before it."""
        return self.token[:1].isalpha() and not self.at_word() and (self.token in ("x", "X") or self.token not in INFIX_WORDS)

    def loose_argument(self, name: str) -> Node:
        """The operand of a function without parentheses: sqrt 16, sin 2x, -3, sin 30 degrees."""
        if self.token == "-":
            self.take()
            return ("neg", self.power())
        node = self.power()
        if self.at_word() and self.tokens[self.place - 1][-1].isdigit():
            return ("*", node, ("unit", self.words()))
        if type(node) in (int, Fraction) and self.at_variable():
            node = ("*", node, self.power())
        if name in ANGLES and self.token in ("*", "/") and not variables(node) and not has_marks(node):
            raise CalcError(f"It is unclear how far {name} reaches: use parentheses.")  # cos 2*pi, cos pi/3
        return node

    def call_arguments(self, name: str) -> list[Node]:
        """( ... ) after a function's name."""
        self.take()
        outer, bars = self.arguments, self.bars
        self.arguments, self.bars = name not in ONE_ARGUMENT, 0
        items = self.items(")")
        self.arguments, self.bars = outer, bars
        return items

    def read_method(self, node: Node) -> Node:
        """.subs(x, 3) and its like."""
        self.take()
        name = self.take()
        if name not in METHODS or self.token != "(":
            raise CalcError("Attributes and methods are not part of an expression: write plain arithmetic or algebra.")
        self.pile()
        canonical = "evalf" if name == "n" else ALIASES.get(name, name)
        return call(canonical, [node, *self.call_arguments(canonical)])

    def read_special(self, token: str) -> Node:
        """Everything that starts with a sign or a LaTeX command; `token` has been read."""
        if token == "|":
            self.bars += 1
            node = self.sum()
            self.bars -= 1
            self.expect("|")
            return call("abs", [node])
        if token == "√":
            return call("sqrt", [self.postfix()])
        if token == "∞":
            return ("const", "oo")
        if token == "\\frac":
            if self.token.isdigit() and len(self.token) > 2:
                raise CalcError("A fraction lacks its braces: write them around numerator and denominator.")
            top = self.group()
            return ("*", top, ("inv", self.group()))
        if token == "\\diff":
            return self.derivative()
        if token == "\\binom":
            return call("binomial", [self.group(), self.group()])
        if token == "\\sqrt":
            if self.token.isdigit() and len(self.token) > 1:
                raise CalcError("A root lacks its braces: write them around what is under it.")
            if self.token != "[":
                return call("sqrt", [self.group()])
            degree = self.bracket()
            return call("root", [self.group(), degree[1] if type(degree) is tuple and degree[0] == "list" else degree])
        if token in ("\\lfloor", "\\lceil"):
            node = self.sum()
            self.expect("\\r" + token[2:])
            return call("floor" if token == "\\lfloor" else "ceil", [node])
        if token in ("\\sum", "\\prod"):
            return self.big_operator("summation" if token == "\\sum" else "product")
        if token == "\\int":
            return self.integral()
        if token == "\\lim":
            return self.limit()
        self.place -= 1
        self.token = token
        raise CalcError(f"The expression cannot be read: {self.next_in_words()} where an operand was expected.")

    def group(self) -> Node:
        """The argument of a LaTeX command: {...}, or one digit or name."""
        if self.token.isdigit() and len(self.token) > 1:  # \frac12
            digit, self.tokens[self.place] = self.token[0], self.token[1:]
            self.token = self.tokens[self.place]
            return int(digit)
        return self.primary()

    def big_operator(self, name: str) -> Node:
        """_{k=1}^{10} body, after a sum or product sign."""
        self.expect("_")
        self.expect("{")
        variable = self.take()
        self.expect("=")
        low = self.sum()
        self.expect("}")
        self.expect("^")
        high = self.group()
        body = self.product()
        rest = self.tokens[self.place :]
        if variable in rest[: next((i for i, token in enumerate(rest) if token in ("\\sum", "\\prod")), len(rest))]:
            raise CalcError("It is unclear how far the sum or product reaches: put its body in parentheses.")
        return call(name, [body, ("list", variable, low, high)])

    def derivative(self) -> Node:
        """The body after d/dx, of which variable and order come first; a sum needs brackets."""
        variable = self.take()
        order = int(self.take()) if self.token.isdigit() else 1
        bracket = self.token in _CLOSERS
        body = self.product()
        if self.token in ("+", "-") and not (bracket and self.tokens[self.place - 1] in _CLOSERS.values()):
            raise CalcError("It is unclear how far the derivative reaches: put its body in parentheses.")
        return call("diff", [body, *[variable] * order])

    def limit(self) -> Node:
        """Reads _{x to a} and the body, after a limit sign."""
        self.expect("_")
        self.expect("{")
        variable = self.take()
        self.expect("->")
        point = self.sum()
        self.expect("}")
        return call("limit", [self.product(), variable, point])

    def integral(self) -> Node:
        """(_a^b)? body dx, after an integral sign."""
        limits: list[Node] = []
        if self.token == "_":
            self.take()
            low = self.group()
            self.expect("^")
            limits = [low, self.group()]
        names = [t for t in self.tokens[self.place :] if len(t) == 2 and t[0] == "d" and t[1].isalpha()]
        if not names:
            raise CalcError("The integral lacks its variable: end it with dx.")
        self.variable, outer = names[0], self.variable
        body = self.sum()
        self.variable = outer
        self.expect(names[0])
        return call("integrate", [body, ("list", names[0][1], *limits)])


def is_function(name: str) -> bool:
    """Whether a canonical name is a function, log_2 and root_4 among them."""
    return name in FUNCTIONS or name.startswith(("log_", "root_"))


def literal(text: str) -> int | Fraction:
    """Returns the exact value of a number as written.

    Raises:
        CalcError: for one of too many digits.
    """
    if text.isdigit() and len(text) <= MAX_DIGITS:
        return int(text)
    mantissa, _, exponent = text.replace("_", "").lower().partition("e")
    whole, _, decimals = mantissa.partition(".")
    if len(mantissa) > MAX_DIGITS or len(exponent) > 5 or abs(int(exponent or 0)) > MAX_DIGITS:
        raise CalcError("A number has too many digits.", "limit")
    power = int(exponent or 0) - len(decimals)
    digits = int(whole + decimals or "0")
    value = Fraction(digits, 10**-power) if power < 0 else digits * 10**power
    return value.numerator if isinstance(value, Fraction) and value.denominator == 1 else value


def call(name: str, arguments: list[Node]) -> Node:
    """Returns the call, after its number of arguments was checked."""
    if name not in FUNCTIONS:
        raise CalcError("There is no function of that name.")
    least, most = FUNCTIONS[name]
    if not least <= len(arguments) <= most:
        wanted = "one argument" if most == 1 else "another number of arguments"
        raise CalcError(f"{name} takes {wanted}.")
    return ("call", name, *arguments)


def _may_be_product(word: str) -> bool:
    """Whether a word is as short as ab, xyz or AB, and names nothing that is counted."""
    lower = word.lower()
    if (
        len(word) > 3
        or word not in (lower, word.upper())
        or {lower, singular(lower)} & (UNITS.keys() | RATES.keys() | ABBREVIATIONS)
    ):
        return False
    return len(word) == 2 or lower in ascii_lowercase or not _VOWELS & set(lower)


def _is_fraction(top: str, bottom: str) -> bool:
    """Whether two tokens around a slash are a proper fraction, as in 3/4 million."""
    return top.isdigit() and bottom.isdigit() and len(top) <= len(bottom) <= 3 and int(top) < int(bottom)


def _is_number(node: Node) -> bool:
    """Whether a term is a number as written, a mixed one among them."""
    return type(node) in (int, Fraction) or (type(node) is tuple and node[0] == "+" and _is_inverse(node[2][2]))


def _is_inverse(node: Node) -> bool:
    return type(node) is tuple and node[0] == "inv" and type(node[1]) in (int, Fraction)


def _has_factorial(node: Node) -> bool:
    return type(node) is tuple and (node[0] == "!" or any(map(_has_factorial, children(node))))


def _is_part(node: Node) -> bool:
    """Whether a factor is a percentage, a decimal or a fraction in brackets."""
    if type(node) is Fraction:
        return True
    if type(node) is not tuple:
        return False
    return (
        node[0] == "%"
        or (node[0] == "*" and any(map(_is_inverse, node[1:])))
        or (node[0] in ("+", "neg") and any(map(_is_part, node[1:])))
    )
