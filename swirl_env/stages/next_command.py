"""A trained policy in the setting that it was trained in, as arguments of the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from swirl_env.algos.embedded import MAX_NEW_TOKENS, WORDS, get_setting
from swirl_env.config.options import episode_defaults
from swirl_env.config.overrides import choice, command, override, overrides, tool_choices
from swirl_env.stages.run_config import code_words, to_config
from swirl_env.stages.train_options import TrainOptions

_SETTINGS = ("max_steps", "max_chars", "format", "history", "prompt", "instructions", "examples")
"""Keys of training that generation has under the same names."""


def next_command(options: TrainOptions) -> str:
    """Returns the command that evaluates the policy of a training run."""
    code = code_words({key: value for key, value in to_config(options).items() if key != "algo"})
    return command("eval", override("trained", options.out), *code)


def setting_words(options: TrainOptions) -> list[str]:
    """Returns the arguments: held-out questions, the tools, limits and prompt of training, the policy as an agent."""
    return [*choice("agent", _agent(options)), *_task_words(options), *_episode_words(options)]


def _agent(options: TrainOptions) -> dict[str, Any]:
    """Returns the trained policy as an agent of the command line, with the limits it was trained under."""
    section, small = options.model, options.task is None
    agent: dict[str, Any] = {"name": "transformers", "model": str(Path(options.out) / "policy")}
    if options.lora.rank or section.adapter:
        agent = {**agent, "model": options.policy, "adapter": agent["model"]}
    agent |= {"max_new_tokens": section.max_new_tokens or (MAX_NEW_TOKENS if small else 256)}
    agent |= {"batch_size": section.batch_size or (32 if small else 16), "template_options": section.template_options or None}
    same = ("dtype", "device", "template", "system", "shots", "max_context", "prefix_cache")
    return agent | {key: getattr(section, key) for key in same}


def _task_words(options: TrainOptions) -> list[str]:
    """Returns the arguments that choose the held-out questions and the tools of a run."""
    if options.task is not None:
        split = {} if options.eval.split is None else {"split": options.eval.split}
        return [*choice("task", {**options.task, **split}), *tool_choices(options.tool)]
    setting = get_setting(options.setting)
    task = {"name": "atlas", "split": options.eval.split or "test", "min_hops": setting.min_hops, "max_hops": setting.max_hops}
    task |= {"documents": setting.test_documents, "comparisons": 0.0, "values": False, "words": WORDS}
    return [*choice("task", task), *tool_choices({"search": {"name": "search", "top_k": setting.top_k}})]


def _episode_words(options: TrainOptions) -> list[str]:
    """Returns the arguments that set how episodes are run, as far as they differ from the defaults."""
    usual, small = episode_defaults(), options.task is None
    settings = {key: getattr(options, key) for key in _SETTINGS}
    if small:
        settings |= {"max_steps": options.max_steps or get_setting(options.setting).max_steps, "prompt": "question"}
    changed = {key: value for key, value in settings.items() if value != usual[key]}
    words = list(overrides(changed))
    for group in ("judge", "grader"):
        chosen = choice(group, getattr(options, group))
        words += [] if chosen == choice(group, usual[group]) else chosen
    return words
