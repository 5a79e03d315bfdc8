"""Hashes of source code: a plugin that is edited is another plugin, and shares no verdicts with what it was.

Only what runs counts: comments, docstrings and layout do not. The code of a plugin is that of the modules which hold its
class, its base classes or its function, and of those modules of the same package (for a script: the same folder) that they
import. Modules of swirl-env count one by one: a release that touches another module leaves the names of tables as they are.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType

_OURS = __name__.partition(".")[0]
_LIBRARY = frozenset(("builtins", "abc", "typing", "enum", "dataclasses", "functools"))


def source_hash(plugin: object) -> str:
    """Returns the hash of the code behind a class, a function or an object of a class."""
    digest = hashlib.blake2b(digest_size=16)
    for module, thing in sorted(_origins(plugin), key=lambda origin: origin[0]):
        files = _closure(module)
        if files:
            for file in sorted(files):
                stat = file.stat()
                digest.update(f"{file.name}\0{_file_hash(file, stat.st_mtime_ns, stat.st_size)}\0".encode())
        else:
            digest.update(_object_code(thing))
    return digest.hexdigest()


def _origins(plugin: object) -> Iterator[tuple[str, object]]:
    """Yields module name and class (or function) of everything that a plugin's behaviour is written in."""
    if isinstance(plugin, functools.partial):
        yield from _origins(plugin.func)
        return
    plugin = inspect.unwrap(plugin) if callable(plugin) else plugin
    if inspect.ismethod(plugin):
        plugin = type(plugin.__self__)
    if inspect.isroutine(plugin):
        yield str(plugin.__module__), plugin
        return
    cls = plugin if isinstance(plugin, type) else type(plugin)
    for base in cls.__mro__:
        top = base.__module__.partition(".")[0]
        if base is cls or not (top in _LIBRARY or top in sys.stdlib_module_names or base is object):
            yield base.__module__, base


def _closure(module: str) -> set[Path]:
    """Returns the source files of a module and of those that it imports from its own package or folder."""
    start = _file_of(module)
    if start is None:
        return set()
    if module.partition(".")[0] == _OURS:
        return {start}
    files, waiting = {start: module}, [module]
    while waiting:
        here = waiting.pop()
        file = _file_of(here)
        for name in [] if file is None else _imports(file, here):
            other = _file_of(name) if _is_near(name, module, start) else None
            if other is not None and other not in files:
                files[other] = name
                waiting.append(name)
    return set(files)


def _is_near(name: str, module: str, start: Path) -> bool:
    """Whether a module belongs to the same package as another, or lies next to it."""
    if name.partition(".")[0] == module.partition(".")[0]:
        return True
    top = name.partition(".")[0]  # a whole dotted name would be imported on the way to its last part
    file = None if top in sys.stdlib_module_names else _file_of(top)
    return "." not in module and file is not None and file.is_relative_to(start.parent) and "site-packages" not in file.parts


@functools.cache
def _find_file(module: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError, AttributeError):
        return None
    return Path(spec.origin) if spec is not None and spec.origin else None


def _file_of(module: str) -> Path | None:
    """Returns the Python file of a module; None for modules without one (built in, compiled, typed at a prompt)."""
    loaded = sys.modules.get(module)
    name = getattr(loaded, "__file__", None)
    file = Path(name) if name else _find_file(module) if loaded is None else None
    return file.resolve() if file is not None and file.suffix == ".py" and file.is_file() else None


def _imports(file: Path, module: str) -> Iterator[str]:
    """Yields the full names of the modules that a file imports, wherever in it."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, OSError):
        return
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parts, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


@functools.cache
def _file_hash(file: Path, mtime_ns: int, size: int) -> str:
    """Returns the hash of a file's code; time and size are those of the file, so that an edit is noticed."""
    return hashlib.blake2b(_normalised(file.read_bytes()), digest_size=16).hexdigest()


def _normalised(source: bytes) -> bytes:
    """Returns code without comments, docstrings and layout; source that cannot be parsed as it is."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return source
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(node):
            node.body = node.body[1:] or [ast.Pass()]
    return ast.dump(tree).encode()


def _object_code(thing: object) -> bytes:
    """Returns the code of what has no file: a class or function typed at a prompt, in a notebook or by ``exec``."""
    try:
        return _normalised(inspect.cleandoc("\n" + inspect.getsource(thing)).encode())  # type: ignore[arg-type]
    except (OSError, TypeError):
        pass
    code = getattr(thing, "__code__", None)
    codes = [] if code is None else [code]
    if isinstance(thing, type):
        codes = [member.__code__ for _, member in sorted(vars(thing).items()) if hasattr(member, "__code__")]
    return b"\0".join(part for code in codes for part in _code_parts(code))


def _code_parts(code: CodeType) -> Iterator[bytes]:
    """Yields what a code object does: its instructions, names and constants, those of inner functions too."""
    yield code.co_code
    yield repr(code.co_names).encode()
    for constant in code.co_consts[1:] if code.co_consts and isinstance(code.co_consts[0], str) else code.co_consts:
        if isinstance(constant, CodeType):
            yield from _code_parts(constant)
        else:
            yield repr(constant).encode()
