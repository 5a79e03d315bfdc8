"""What a run was made with, ``environment.json`` of its folder: versions, git revisions, device.

A list: the first entry says what the run began with, each further one what it went on with, if that was something else.
"""

from __future__ import annotations

import functools
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import swirl_env
from swirl_env.registry import KINDS
from swirl_env.store.lines import open_file, replace_file

FILE = "environment.json"
_SECONDS = 10
"""Longest that git may take."""
_MOST_BYTES = 1_000_000

_FOR_WORK_ON_IT = re.compile(r"extra == ['\"](test|docs|dev|all)['\"]")
"""Extras whose packages no run uses."""

Environment = dict[str, Any]
"""JSON values."""


def note_environment(folder: Path) -> None:
    """Writes what this process runs with into a run folder, unless the last entry there says the same."""
    now = environment()
    noted = read_environments(folder)
    if noted and {key: value for key, value in noted[-1].items() if key != "time"} == now:
        return
    entry = {"time": datetime.now(UTC).isoformat(timespec="seconds"), **now}
    replace_file(folder / FILE, (json.dumps([*noted, entry], indent=1) + "\n").encode())


def read_environments(folder: Path) -> list[Environment]:
    """Returns what a run began and went on with; empty if nothing readable says so (older versions wrote none)."""
    try:
        with open_file(folder / FILE) as file:
            noted = json.loads(file.read(_MOST_BYTES))
    except (OSError, ValueError, RecursionError):
        return []
    return [entry for entry in noted if isinstance(entry, dict)] if isinstance(noted, list) else []


def environment() -> Environment:
    """Returns what this process runs with."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "device": _device(),
        "packages": _packages(),
        "git": {"swirl_env": _revision(Path(swirl_env.__file__).resolve().parent), "folder": _revision(Path.cwd())},
    }


def _device() -> str:
    """Returns the accelerator that PyTorch sees, or ``cpu``; PyTorch is not loaded for it."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return "cpu"
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return ", ".join(names)


@functools.cache
def _packages() -> dict[str, str]:
    """Returns the versions of this package, of what it can use, and of the packages whose plugins are registered."""
    try:
        needs = metadata.requires("swirl-env") or []
    except metadata.PackageNotFoundError:  # a source tree that nobody installed
        needs = []
    names = {"swirl-env", *(re.split(r"[^\w.-]", need, maxsplit=1)[0] for need in needs if not _FOR_WORK_ON_IT.search(need))}
    points = metadata.entry_points()  # asked for group by group, all packages would be looked through for each
    for kinds in KINDS.values():
        names |= {point.dist.name for point in points.select(group=f"swirl_env.{kinds}") if point.dist is not None}
    return dict(_versions(names))


def _versions(names: set[str]) -> Iterator[tuple[str, str]]:
    for name in sorted(names, key=str.lower):
        try:
            yield name, metadata.version(name)
        except metadata.PackageNotFoundError:
            continue


@functools.cache
def _revision(folder: Path) -> str | None:
    """Returns the git revision of the checkout around a folder, with ``+`` if files differ from it; None if there is none."""
    revision = _git(folder, "rev-parse", "HEAD")
    if not revision:
        return None
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return f"{revision}{'+' if changed else ''}"


def _git(folder: Path, *words: str) -> str:
    # The repository's own configuration could name a program to run at each look at the files.
    command = ["git", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", *words]
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=_SECONDS, env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
