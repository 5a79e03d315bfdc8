"""Which source files a piece of code depends on, for cache keys that change when the code does."""

from __future__ import annotations

import ast
import functools
import importlib.util
from collections.abc import Iterator
from pathlib import Path

from swirl_env.errors import ConfigError


def imported_sources(*modules: str) -> list[Path]:
    """Returns the source files of modules and of all that they import from their own packages, directly or not, sorted.

    Imports are read from the source, those inside functions included, so nothing is run and nothing is missed. Packages
    other than those of `modules` are left out: their versions say what they are.

    Raises:
        ConfigError: for a module that does not exist, by its name.
    """
    packages = {module.partition(".")[0] for module in modules}
    files: dict[str, Path] = {}
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name not in files:
            files[name] = _source(name)
            waiting += [found for found in _imports(name, files[name]) if found.partition(".")[0] in packages]
    return [files[name] for name in sorted(files)]


def _source(module: str) -> Path:
    path = _locate(module)
    if path is None:
        raise ConfigError(f"The module {module!r}, which a cache key depends on, has no source file. Was it renamed?")
    return path


def _locate(module: str) -> Path | None:
    """Returns the source file of a module; None if there is none (the name of a function, say). Imports nothing."""
    top, *parts = module.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None or spec.origin is None:
        return None
    if not parts:
        return Path(spec.origin)
    path = Path(spec.origin).parent.joinpath(*parts)
    return next((file for file in (path / "__init__.py", path.with_name(f"{path.name}.py")) if file.is_file()), None)


def _imports(module: str, path: Path) -> Iterator[str]:
    """Yields the modules that a source file imports, each with the packages around it."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for base, names in _statements(package, path.read_bytes()):
        yield from _with_parents(base)
        yield from (name for name in names if _locate(name) is not None)


@functools.cache  # a process asks again for every warm start that it uses, and parsing took longer than a small update
def _statements(package: str, source: bytes) -> list[tuple[str, list[str]]]:
    """Returns each module that a source imports, with what is taken from it: modules or anything else."""
    statements: list[tuple[str, list[str]]] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            statements += [(alias.name, []) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            statements.append((base, [f"{base}.{alias.name}" for alias in node.names]))
    return statements


def _with_parents(module: str) -> list[str]:
    parts = module.split(".")
    return [".".join(parts[: i + 1]) for i in range(len(parts))]
