"""The process behind one session of the tool `python`: reads code, runs it within limits, writes what it printed.

It is started by path and imports nothing of this package. One line of JSON comes in per call, ``{"code": ...}``, and one goes
out, ``{"text": ..., "error": ...}``. What keeps code in bounds, from the inside out:

1. The syntax tree is checked against a list of what is allowed: no names that begin with two underscores, no attributes that
   begin with one or lead to frames and code objects, imports of parts of a few pure modules only.
2. The built-ins are a list of harmless ones; modules are bare namespaces of their public names.
3. The process has limits on memory and processor time, cannot open another file or socket, and ends with its parent.

Python was not made to run hostile code, and 1 and 2 rest on a list. They stop what models write by accident or imitation; 3
bounds what is left. It is no container: run untrusted policies on a machine or in a container of their own.
"""

import ast
import bisect
import builtins
import collections
import contextlib
import copy
import datetime
import decimal
import fractions
import functools
import heapq
import itertools
import json
import math
import operator
import os
import random
import re
import resource
import statistics
import string
import sys
import types
from collections.abc import Callable, Sequence
from typing import Any

MODULES = {
    "bisect": (bisect, "bisect bisect_left bisect_right insort insort_left insort_right"),
    "collections": (collections, "Counter OrderedDict ChainMap defaultdict deque namedtuple"),
    "copy": (copy, "copy deepcopy"),
    "datetime": (datetime, "date datetime time timedelta timezone"),
    "decimal": (decimal, "Decimal getcontext localcontext ROUND_HALF_UP ROUND_HALF_EVEN ROUND_DOWN ROUND_UP"),
    "fractions": (fractions, "Fraction"),
    "functools": (functools, "cache cmp_to_key lru_cache partial reduce"),
    "heapq": (heapq, "heapify heappop heappush heappushpop heapreplace merge nlargest nsmallest"),
    "itertools": (itertools, " ".join(name for name in dir(itertools) if not name.startswith("_"))),
    "json": (json, "dumps loads"),
    "math": (math, " ".join(name for name in dir(math) if not name.startswith("_"))),
    "operator": (operator, "add sub mul truediv floordiv mod neg pow eq ne lt le gt ge and_ or_ xor itemgetter contains"),
    "re": (
        re,
        "compile escape findall finditer fullmatch match search split sub subn A I M S X IGNORECASE MULTILINE DOTALL",
    ),
    "statistics": (
        statistics,
        "correlation covariance fmean geometric_mean harmonic_mean linear_regression mean median median_high median_low mode "
        "multimode pstdev pvariance quantiles stdev variance",
    ),
    "string": (string, "ascii_letters ascii_lowercase ascii_uppercase digits hexdigits punctuation whitespace capwords"),
}
"""Module -> the public names of it that code may use; ``random`` is added with the session's seed."""
RANDOM = (
    "betavariate choice choices expovariate gauss getrandbits normalvariate randint random randrange sample seed shuffle uniform"
)

BUILTINS = (
    "abs all any ascii bin bool bytearray bytes callable chr classmethod complex dict divmod enumerate filter float format "
    "frozenset hex int isinstance issubclass iter len list map max min next object oct ord pow property range repr reversed "
    "round set slice sorted staticmethod str sum super tuple zip None True False NotImplemented Ellipsis"
).split() + [name for name, value in vars(builtins).items() if isinstance(value, type) and issubclass(value, Exception)]

NODES = {
    *(ast.Module, ast.Expr, ast.Assign, ast.AugAssign, ast.AnnAssign, ast.NamedExpr, ast.Delete, ast.Pass, ast.Return),
    *(ast.If, ast.For, ast.While, ast.Break, ast.Continue, ast.FunctionDef, ast.Lambda, ast.ClassDef, ast.arguments, ast.arg),
    *(ast.keyword, ast.Global, ast.Nonlocal, ast.Import, ast.ImportFrom, ast.alias, ast.Try, ast.ExceptHandler, ast.Raise),
    *(ast.Assert, ast.With, ast.withitem, ast.BoolOp, ast.BinOp, ast.UnaryOp, ast.IfExp, ast.Dict, ast.Set, ast.List, ast.Tuple),
    *(ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.comprehension, ast.Yield, ast.YieldFrom, ast.Compare),
    *(ast.Call, ast.FormattedValue, ast.JoinedStr, ast.Constant, ast.Attribute, ast.Subscript, ast.Starred, ast.Name, ast.Slice),
}
METHODS = {f"__{name}__" for name in (
    "init repr str len iter next getitem setitem delitem contains call eq ne lt le gt ge hash bool add radd iadd sub rsub isub "
    "mul rmul imul truediv rtruediv floordiv mod pow neg pos abs enter exit int float index matmul and or xor invert"
).split()}  # fmt: skip
"""Methods with a meaning to the language that a class may define."""
HIDDEN = {"format", "format_map", "mro", "now", "today", "utcnow", "fromtimestamp", "with_traceback"}
"""Attributes that lead out of the sandbox, or to the clock, which no two runs would agree on."""
_HIDDEN_START = ("_", "gi_", "cr_", "ag_", "f_", "tb_", "co_", "func_")
_KINDS = (ast.operator, ast.unaryop, ast.boolop, ast.cmpop, ast.expr_context)
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


class Refused(Exception):
    """Code that uses what is not available here."""


def check_attribute(name: object) -> str:
    """Returns the name of an attribute, if code may use it."""
    if type(name) is not str or name in HIDDEN or (name.startswith(_HIDDEN_START) and name not in ("__init__", "__name__")):
        raise Refused(f"the attribute {name!r:.40} is not available here")
    return name


def check_name(name: str | None) -> None:
    """Refuses the name of a variable that code may not use."""
    if name is not None and name.startswith("__") and name != "__name__":
        raise Refused(f"the name {name!r:.40} is not available here")


class Sandbox(ast.NodeTransformer):
    """Refuses what is not on the lists; turns imports and ``.format`` into calls of guarded functions."""

    def visit(self, node: ast.AST) -> Any:
        """Returns a node that may run, or the nodes that stand for it."""
        if type(node) not in NODES and not isinstance(node, _KINDS):
            raise Refused(f"{type(node).__name__} is not available here")
        if isinstance(node, ast.Import | ast.ImportFrom):
            return [_imported(node, alias) for alias in node.names]
        if isinstance(node, ast.Attribute):
            if node.attr == "format" and isinstance(node.ctx, ast.Load):
                return ast.copy_location(_call("__formatter__", self.visit(node.value)), node)
            check_attribute(node.attr)
        elif isinstance(node, ast.Name):
            check_name(node.id)
        elif isinstance(node, ast.arg | ast.keyword):
            check_name(node.arg)
        elif isinstance(node, ast.ClassDef | ast.ExceptHandler) or (
            isinstance(node, ast.FunctionDef) and node.name not in METHODS
        ):
            check_name(node.name)
        elif isinstance(node, ast.Global | ast.Nonlocal):
            for name in node.names:
                check_name(name)
        return self.generic_visit(node)


def _imported(node: ast.Import | ast.ImportFrom, alias: ast.alias) -> ast.AST:
    """Returns the assignment that stands for one name of an import."""
    name = alias.asname or alias.name
    check_name(name)
    if isinstance(node, ast.Import):
        value = _call("__module__", ast.Constant(alias.name))
    else:
        module = _call("__module__", ast.Constant(node.module or ""), ast.Constant(node.level))
        value = _call("__member__", module, ast.Constant(alias.name))
    return ast.copy_location(ast.Assign([ast.Name(name, ast.Store())], value), node)


def _call(name: str, *arguments: ast.expr) -> ast.Call:
    return ast.Call(ast.Name(name, ast.Load()), list(arguments), [])


def guarded_module(modules: dict[str, types.SimpleNamespace]) -> Callable[..., types.SimpleNamespace]:
    """Returns the function behind ``import``."""

    def load(name: str, level: int = 0) -> types.SimpleNamespace:
        if level or name not in modules:
            raise ImportError(f"the module {name!r:.40} is not available here; there are {', '.join(sorted(modules))}")
        return modules[name]

    return load


def guarded_member(module: types.SimpleNamespace, name: str) -> object:
    """Returns a public name of a module, for ``from module import name``."""
    if name not in vars(module):
        raise ImportError(f"{name!r:.40} is not available here")
    return getattr(module, name)


def formatter(value: Any) -> Any:
    """Returns ``value.format``, without the fields that reach into attributes."""
    if value is str:
        return safe_format
    return functools.partial(safe_format, value) if isinstance(value, str) else value.format


def safe_format(text: str, *values: object, **named: object) -> str:
    """Formats a text whose fields name values and items only."""
    for _, field, spec, _ in string.Formatter().parse(text):
        if field is not None and ("." in field or "_" in field.partition("[")[2]):
            raise Refused(f"the field {field!r:.40} reaches into an attribute")
        if spec and "{" in spec:
            safe_format(spec, *values, **named)
    return str.format(text, *values, **named)


class Output:
    """What code prints, up to a limit."""

    def __init__(self, limit: int) -> None:
        self.limit, self.size, self.cut = limit, 0, False
        self.parts: list[str] = []

    def print(self, *values: object, sep: str | None = " ", end: str | None = "\n", **_: object) -> None:
        """Stands for the built-in print."""
        self.add((" " if sep is None else sep).join(map(str, values)) + ("\n" if end is None else end))

    def add(self, text: str) -> None:
        """Adds text, or as much of it as there is room for."""
        room = self.limit - self.size
        self.cut = self.cut or len(text) > room
        self.parts.append(text[:room])
        self.size += len(self.parts[-1])

    def text(self) -> str:
        """Returns all of it."""
        return "".join(self.parts) + (f"\n... (cut after {self.limit} characters)" if self.cut else "")


class Interpreter:
    """One session: names stay from one run to the next."""

    def __init__(self, seed: int, max_output: int) -> None:
        self.max_output = max_output
        self.output = Output(max_output)
        own = random.Random(seed)
        modules = {name: _namespace(module, names.split()) for name, (module, names) in MODULES.items()}
        modules["random"] = _namespace(own, RANDOM.split())
        safe: dict[str, Any] = {name: getattr(builtins, name) for name in BUILTINS}
        safe |= {
            "__build_class__": builtins.__build_class__,
            "__formatter__": formatter,
            "__module__": guarded_module(modules),
            "__member__": guarded_member,
            "type": lambda value: type(value),
            "getattr": lambda value, name, *default: getattr(value, check_attribute(name), *default),
            "hasattr": lambda value, name: hasattr(value, check_attribute(name)),
            "setattr": lambda value, name, to: setattr(value, check_attribute(name), to),
            "print": lambda *values, **options: self.output.print(*values, **options),
        }
        self.names: dict[str, Any] = {"__builtins__": safe, "__name__": "__main__"}

    def run(self, code: str) -> tuple[str, str | None]:
        """Returns (text, error): what the code printed and the value of its last expression, or what it raised."""
        self.output = Output(self.max_output)
        try:
            tree = ast.parse(code, "<code>")
            last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
            value = None if last is None else ast.fix_missing_locations(ast.Expression(Sandbox().visit(last).value))
            tree = ast.fix_missing_locations(Sandbox().visit(tree))
            exec(compile(tree, "<code>", "exec"), self.names)
            shown = None if value is None else eval(compile(value, "<code>", "eval"), self.names)
            if shown is not None:
                self.output.add(repr(shown))
        except MemoryError:
            return self._text("MemoryError: the code needs more memory than it may have"), "limit"
        except BaseException as error:  # SystemExit and the like too
            return self._text(_described(error)), "invalid"
        return self._text("") or "(no output)", None

    def _text(self, error: str) -> str:
        parts = [self.output.text().rstrip("\n"), error]
        return _ADDRESS.sub("", "\n".join(part for part in parts if part))


def _namespace(module: object, names: Sequence[str]) -> types.SimpleNamespace:
    return types.SimpleNamespace(**{name: getattr(module, name) for name in names if hasattr(module, name)})


def _described(error: BaseException) -> str:
    lines: list[int] = []
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<code>":
            lines.append(trace.tb_lineno)
        trace = trace.tb_next
    line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
    name = "NotAvailable" if isinstance(error, Refused) else type(error).__name__
    message = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{name}: {message}"[:1_000] + (f" (line {line})" if line else "")


def limit_process(memory_mb: int, cpu_s: int) -> None:
    """Sets the limits of this process; none of them can be raised again by code without rights of its own."""
    with contextlib.suppress(OSError, ValueError, ImportError, AttributeError):  # Linux: end with the parent
        import ctypes

        ctypes.CDLL(None).prctl(1, 9)
    for limit, value in (
        (resource.RLIMIT_AS, memory_mb * 1024 * 1024),
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 3),  # the three that are open: no file, no socket, no pipe after this
        (getattr(resource, "RLIMIT_NPROC", None), 0),
    ):
        if limit is not None:
            with contextlib.suppress(OSError, ValueError):
                resource.setrlimit(limit, (value, value))


def main() -> None:
    """Answers lines of JSON until the input ends."""
    options = json.loads(sys.argv[1])
    datetime.datetime.strptime("2000", "%Y")  # imports what it needs while files can still be opened
    interpreter = Interpreter(options["seed"], options["max_output"])
    lines, out = sys.stdin.buffer, sys.stdout.buffer
    limit_process(options["memory_mb"], options["cpu_s"])
    sys.setrecursionlimit(1_000)
    out.write(b"ready\n")
    out.flush()
    for line in lines:
        text, error = interpreter.run(json.loads(line)["code"])
        try:
            reply = json.dumps({"text": text, "error": error})
        except MemoryError:
            reply = json.dumps({"text": "MemoryError", "error": "limit"})
        out.write(reply.encode() + b"\n")
        out.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
