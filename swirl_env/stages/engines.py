"""The engine behind a stage's options: task, tools, judge and how episodes are written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from swirl_env.config.options import RunOptions
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
