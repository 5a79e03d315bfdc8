"""The engine behind a stage's options: task, tools, judge and how episodes are written."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from swirl_env.cache import cache_root
from swirl_env.config.options import EpisodeOptions, RunOptions
from swirl_env.env import build_engine
from swirl_env.episodes.engine import Engine
from swirl_env.texts import literal


def engine_for(task: Mapping[str, Any], options: RunOptions) -> Engine:
    """Returns the engine that runs episodes on a task with the tools, the judge and the settings of the options."""
    return build_engine(
        task,
        None if options.tool is None else list(options.tool.values()),
        options.judge,
        options.max_steps,
        format=options.format,
        history=options.history,
        prompt=options.prompt,
        instructions=literal(options.instructions),
        examples=literal(options.examples),
        grader=options.grader,
        max_chars=options.max_chars,
    )


def engine_of_node(options: EpisodeOptions) -> Engine:
    """Returns the engine of a worker that shares its machine with others: the first one builds the index that all of them map."""
    with _one_at_a_time():
        return engine_for(options.task, options)


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    root = cache_root()
    root.mkdir(parents=True, exist_ok=True)
    with open(root / "workers.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # released when the file is closed, also by a kill
        yield
