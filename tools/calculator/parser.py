"""Tokens -> syntax tree of plain data: int, Fraction, str (a variable) and tuples ``(operator, operand, ...)``.

    ("+", a, b, ...)   ("*", a, ("inv", b), ...)   ("neg", a)   ("^", a, b)   ("!", a)   ("%", a)   ("pct", a, b)
    ("const", name)    ("call", name, a, ...)      ("list", a, ...)   ("unit", name)   ("dots",)   ("=", a, b)   ("<", a, b) ...

Precedence climbs from relations over sums and products to signs, powers and postfixes. Sums and products are flat, and all
that nests is counted, so neither this parser nor the walks over its trees can run out of stack.
"""

from __future__ import annotations

from fractions import Fraction

from swirl_env.tools.calculator.cursor import Cursor, Node, is_function
from swirl_env.tools.calculator.latex import read_special
from swirl_env.tools.calculator.names import ALIASES, ANY, CONSTANTS, GREEK, INFIX_WORDS, MODULES, SHORT_ONLY_CALLED
from swirl_env.tools.calculator.operands import no_function, read_method, read_name, read_number
from swirl_env.tools.calculator.text import CalcError
from swirl_env.tools.calculator.tokens import THOUSANDS, tokens

RELATIONS = {"=": "=", "==": "==", "!=": "!=", "<": "<", ">": ">", "<=": "<=", ">=": ">="}
_STARTERS = frozenset("([{√∞") | {"\\frac", "\\binom", "\\sqrt", "\\lfloor", "\\lceil", "\\sum", "\\prod", "\\int", "\\lim"}
_CLOSERS = {"(": ")", "[": "]", "{": "}"}


def parse(text: str) -> Node:
    """Reads one statement.

    Raises:
        CalcError: where it is no expression, with the reason.
    """
    parser = Parser(tokens(text))
    node = parser.relation()
    if parser.token:
        raise CalcError(parser.unexpected())
    return node


class Parser(Cursor):
    """Recursive descent over a list of tokens."""

    def relation(self) -> Node:
        """Reads sum ((= | < | ...) sum)*."""
        left = self.sum()
        if self.token not in RELATIONS:
            return left
        chain: list[Node] = []
        while self.token in RELATIONS and self.token:
            sign = RELATIONS[self.take()]
            right = self.sum()
            chain.append((sign, left, right))
            left = right
        return chain[0] if len(chain) == 1 else ("and", *chain)

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
            if type(term) is tuple and term[0] == "%" and not _percents(terms):
                self.pile()
                terms = [("pct", terms[0] if len(terms) == 1 else ("+", *terms), ("neg", term[1]) if minus else term[1])]
            else:
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
                word = self.token[:1].isalpha() and self.is_word(self.token)
                factors.append(("inv", ("unit", self.take()) if word else self.sign()))
            elif not token or token in "+-),=" or not (self.word_operator(factors) or self.beside(factors)):
                break
        return ("*", *factors) if len(factors) > 1 else factors[0]

    def word_operator(self, factors: list[Node]) -> bool:
        """Reads an operator that takes all of the product so far, if one comes next."""
        token = "mod" if self.token == "%" else "floordiv" if self.token == "//" else INFIX_WORDS.get(self.token, "")
        if token in ("", "x"):
            return False
        self.take()
        left = factors[0] if len(factors) == 1 else ("*", *factors)
        if token == "of":
            factors.append(self.sign())
            return True
        self.pile()
        if token == "off":
            if type(left) is not tuple or left[0] != "%":
                raise CalcError("'off' needs a percentage before it, as in: fifteen percent off a price.")
            factors[:] = [("+", 1, ("neg", left)), self.sign()]
        else:
            factors[:] = [("call", "binomial" if token == "choose" else token, left, self.sign())]
        return True

    def beside(self, factors: list[Node]) -> bool:
        """Reads a factor written without an operator: 2(3), 3x, (1+2)(3+4), 12 apples."""
        token, last = self.token, factors[-1]
        if token == "|" and not self.bars:
            factors.append(self.power())
            return True
        if token[0].isdigit() or token[0] == ".":
            if self.tokens[self.place - 1] not in (")", "]", "}", "!") or token == "...":
                return False
            factors.append(self.power())
            return True
        if token == self.variable or (token not in _STARTERS and not token[0].isalpha()):
            return False
        if token == "\\frac" and type(last) is int and self.tokens[self.place - 1].isdigit():
            factors[-1] = ("+", last, self.mixed())
            return True
        if token[0].isalpha() and self.is_word(token):
            if isinstance(last, str) and self.tokens[self.place - 1] == last:
                raise CalcError("Words are not part of an expression: write numbers, variables and operators.")
            if type(last) in (int, Fraction) or (type(last) is tuple and last[0] in ("unit", "+")):
                factors.append(("unit", self.take()))
                return True
            if type(last) is tuple and last[0] == "inv" and type(last[1]) in (int, Fraction):
                factors.append(("inv", ("unit", self.take())))
                return True
        if isinstance(last, tuple) and last[0] == "unit":
            raise CalcError("Words are not part of an expression: write numbers, variables and operators.")
        if isinstance(last, str) and len(last) > 1 and last not in GREEK and self.tokens[self.place - 1] == last:
            raise CalcError(no_function(self, last) if token == "(" else "Two words stand side by side with no operator between.")
        factors.append(self.power())
        return True

    def is_word(self, token: str) -> bool:
        """Whether a name is no function, no constant and no one-letter variable."""
        if token in CONSTANTS or token in GREEK or len(token) == 1 or token in MODULES or token in INFIX_WORDS:
            return False
        name = ALIASES.get(token, token)
        called = self.tokens[self.place + 1 : self.place + 2] == ["("]
        return not called and (not is_function(name) or token in SHORT_ONLY_CALLED)

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
        return node

    def postfix(self) -> Node:
        """Reads primary (! | % | ° | .method())*."""
        node = self.primary()
        while (token := self.token) and token in "!%°.":
            if token == "%" and self.starts_value(self.place + 1):
                break
            if token == ".":
                node = read_method(self, node)
                continue
            self.take()
            self.pile()
            node = ("*", node, ("inv", 180), ("const", "pi")) if token == "°" else (token, node)
        return node

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
            return read_number(self)
        if token[0].isalpha():
            return read_name(self)
        if token in _CLOSERS:
            return self.bracket()
        self.enter()
        self.take()
        node = read_special(self, token)
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
        return items[0] if len(items) == 1 else ("list", *items)

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


def _percents(terms: list[Node]) -> bool:
    return all(type(term) is tuple and (term[0] == "%" or (term[0] == "neg" and _percents([term[1]]))) for term in terms)
