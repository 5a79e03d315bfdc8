"""``swirl STAGE --help``: the groups and their choices, the keys, and the options of each choice."""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib import resources
from typing import Any

from omegaconf import DictConfig, OmegaConf

from swirl_env.config.arguments import Arguments, compose_stage, tools_of_task
from swirl_env.config.plugins import GROUPS, LISTS, choices, docs, factory, section, summary
from swirl_env.config.stages import STAGES

_KEY = re.compile(r"(  )?(\w+):(?:.*?#\s*(.+))?")


def stage_help(stage: str, arguments: Arguments) -> str:
    """Returns the help of a stage with the choices and the config files of the arguments."""
    tools = tools_of_task(stage, arguments)
    config = compose_stage(stage, replace(arguments, overrides=(*tools, *arguments.overrides)))
    choices_made = config.hydra.runtime.choices
    config = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    groups = [group for group in GROUPS if group in config or group in choices_made]
    blocks = [f"swirl {stage}: {STAGES[stage].summary}", f"usage: swirl {stage} [group=choice ...] [key=value ...] [--multirun]"]
    if groups:
        lines = list(_group_lines(groups, config))
        blocks.append("Groups: any choice may be a package.module:Attr of your own, too\n" + "\n".join(lines))
    blocks.append("Keys\n" + "\n".join(_key_lines(stage, config, groups)))
    blocks += [text for group in groups for text in _option_blocks(group, config)]
    if stage == "train":
        blocks.append("Presets: sweeps like the paper's tables, +experiment=NAME\n" + "\n".join(_preset_lines()))
    tail = [f"`swirl {stage} GROUP=CHOICE --help` shows the options of another choice."] if groups else []
    tail.append(
        "Sweeps: --multirun (-m) with key=a,b runs every combination. Hydra's own flags: --cfg job, --config-dir, --info."
    )
    return "\n\n".join([*blocks, "\n".join(tail)])


def _group_lines(groups: Sequence[str], config: DictConfig) -> Iterator[str]:
    for group in groups:
        node = config.get(group)
        if node is None:
            now = {"tool": "what the task needs", "grader": "the task's own"}.get(group, "that of the setting")
        elif group in LISTS:
            now = f"[{','.join(str(key) for key in node)}]"
        else:
            now = str(node["name"])
        several = f"   several: {group}=[a,b]" if group in LISTS else ""
        yield from _row(group, f"= {now}", f"{', '.join(choices(group))}{several}")


def _preset_lines() -> Iterator[str]:
    folder = resources.files("swirl_env.conf").joinpath("experiment")
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        comment = file.read_text(encoding="utf-8").splitlines()[1]
        yield from _row(file.name.removesuffix(".yaml"), "", comment.lstrip("# "))


def _key_lines(stage: str, config: DictConfig, groups: Sequence[str]) -> Iterator[str]:
    texts = _comments(stage)
    values: dict[str, Any] = OmegaConf.to_container(config, resolve=False)  # type: ignore[assignment]
    for key, value in values.items():
        if isinstance(value, dict) and value and key not in groups:
            for inner, item in value.items():
                yield from _row(f"{key}.{inner}", f"= {_shown(item)}", texts.get(f"{key}.{inner}", ""))
        elif key not in groups:
            yield from _row(key, f"= {_shown(value)}", texts.get(key, ""))


def _option_blocks(group: str, config: DictConfig) -> Iterator[str]:
    node = config.get(group)
    if node is None:
        return
    plugins: list[DictConfig] = list(node.values()) if group in LISTS else [node]
    for plugin in plugins:
        name = str(plugin["name"])
        made = factory(group, name)
        texts = docs(made)
        values: dict[str, Any] = OmegaConf.to_container(plugin)  # type: ignore[assignment]
        lines = [
            line
            for option, value in values.items()
            if option != "name"
            for line in _row(f"{section(group, name)}.{option}", f"= {_shown(value)}", texts.get(option, ""))
        ]
        if lines:
            yield f"{group.capitalize()} {name}: {summary(made)}\n" + "\n".join(lines)


def _comments(stage: str) -> dict[str, str]:
    """Returns key -> comment of the shipped files; the stage's own file comes last and wins."""
    comments = {f"cluster.{key}": text for key, text in _comments_of("cluster/ray")}
    for name in ("base", "episodes", stage):
        comments.update(_comments_of(name))
    return comments


def _comments_of(name: str) -> Iterator[tuple[str, str]]:
    """Yields the keys of a shipped file with their comments."""
    section = ""
    for line in resources.files("swirl_env.conf").joinpath(f"{name}.yaml").read_text(encoding="utf-8").splitlines():
        if match := _KEY.match(line):
            inner, key, text = match.groups()
            section = section if inner else f"{key}."
            yield (f"{section}{key}" if inner else key), text or ""


def _row(key: str, value: str, text: str) -> Iterator[str]:
    """Yields a line of three columns, folded to the width of the terminal."""
    head = f"  {key:<26} {value:<16}"
    head += "  " if len(head) < 46 or not text else "\n" + " " * 47
    width = max(shutil.get_terminal_size((110, 24)).columns, 80)
    first, *rest = head.rsplit("\n", 1)[-1:] + head.rsplit("\n", 1)[:-1] if "\n" in head else [head]
    if rest:
        yield rest[0].rstrip()
    lines = textwrap.wrap(text, width - 47) or [""]
    yield (first + lines[0]).rstrip()
    yield from (" " * 47 + line for line in lines[1:])


def _shown(value: Any) -> str:
    """Returns a value as one types it on the command line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(map(_shown, value))}]"
    return "(required)" if value == "???" else str(value) or "''"
