"""``swirl new-export KIND NAME``: a package that offers an environment to another trainer or evaluator, from a template."""

from __future__ import annotations

import json
import keyword
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from swirl_env.config.plain_arguments import parse
from swirl_env.errors import ConfigError, unknown_name
from swirl_env.registry import load

TEMPLATES = files("swirl_env.interop") / "templates"
SUFFIX, NEXT = ".tmpl", "NEXT"
"""Ending of the files of a template, which they lose; and the file with the command to run next, which is not copied."""
NAME, CLASS, TASK = "my_env", "MyEnv", '"atlas_ledger"'
"""What a template says in place of the package's name, of its classes' names, and of the task."""
TAKEN = {"swirl_env", "verifiers", "openenv", "inspect_ai", "trl", "gymnasium", "mcp", *sys.stdlib_module_names}


def kinds() -> list[str]:
    """Returns the kinds of exports: the templates that there are."""
    return sorted(entry.name for entry in TEMPLATES.iterdir() if entry.is_dir() and not entry.name.startswith("_"))


def usage() -> str:
    """Returns the help of the command."""
    return f"""\
usage: swirl new-export KIND NAME [task=TASK]

Writes a package in the new folder NAME that offers an environment to another trainer or evaluator, with a verdict on every step.
KIND is one of {", ".join(kinds())}. The files are yours: NAME/NAME/engine.py chooses questions, tools and judge.

  task=TASK   name of a task source, or package.module:Attr; by default atlas_ledger"""


def run(argv: Sequence[str]) -> int:
    """Runs the command and returns its exit code."""
    words, options = parse(argv, {"task": str})
    if words is None:
        print(usage())
        return 0
    if len(words) != 2:
        raise ConfigError(f"Expected a kind and a name: swirl new-export KIND my_env, with KIND one of {', '.join(kinds())}.")
    kind, name = words
    if kind not in kinds():
        raise unknown_name("kind of export", kind, kinds())
    check_name(name)
    task = options.get("task", "atlas_ledger")
    load("task", task)
    count = write(kind, name, task)
    print(f"{count} files in {name}: choose questions, tools and judge in {name}/{name}/engine.py")
    print(f"next: {fill((TEMPLATES / kind / NEXT).read_text(encoding='utf-8'), name, task).strip()}")
    return 0


def check_name(name: str) -> None:
    """Refuses a name that no package of one's own can have.

    Raises:
        ConfigError: saying what a name looks like.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name) or name in TAKEN:
        why = " is the name of another package" if name in TAKEN else ""
        raise ConfigError(f"NAME is the name of a Python package, of a-z, 0-9 and _, for example my_env; got {name!r}{why}.")


def write(kind: str, name: str, task: str, parent: Path = Path()) -> int:
    """Writes the package and returns the number of its files; it appears whole or not at all.

    Raises:
        ConfigError: if there is something of that name already.
    """
    target = parent / name
    if os.path.lexists(target):
        raise ConfigError(f"{target} exists already, and nothing is overwritten. Choose another name, or move it away.")
    aside = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=parent))
    try:
        count = _copy(TEMPLATES / kind, aside, name, task)
        aside.chmod(0o755)
        os.rename(aside, target)  # refuses a folder that has come up since, unless it is empty
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return count


def _copy(source: Traversable, target: Path, name: str, task: str) -> int:
    count = 0
    for entry in sorted(source.iterdir(), key=lambda entry: entry.name):
        to = target / fill(entry.name, name, task).removesuffix(SUFFIX)
        if entry.is_dir():
            to.mkdir()
            count += _copy(entry, to, name, task)
        elif entry.name.endswith(SUFFIX):
            to.write_text(fill(entry.read_text(encoding="utf-8"), name, task), encoding="utf-8")
            count += 1
    return count


def fill(text: str, name: str, task: str) -> str:
    """Returns the text of a template with the package's names and its task."""
    classes = "".join(part.capitalize() for part in name.split("_"))
    return text.replace(TASK, json.dumps(task)).replace(NAME, name).replace(CLASS, classes)
