"""The configuration of ``swirl train`` as typed values."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from omegaconf import OmegaConf

from swirl_env.algos.trainer import TrainConfig
from swirl_env.config.options import Count, Folder, Options, Plugin
from swirl_env.episodes.prompts import Prompt
from swirl_env.errors import ConfigError, StoreError
from swirl_env.stages import runs
from swirl_env.store.lines import replace_file
from swirl_env.types import History

Natural = Annotated[int, msgspec.Meta(ge=0)]
_FREE = ("out", "resume", "save_every", "trackers")
"""Keys that change nothing in what a run ends with."""
_GROWING = ("budget", "updates")
"""Limits that a run may be continued beyond."""


class EvalSection(Options, frozen=True, kw_only=True):
    """Evaluations of the policy."""

    split: str | None
    episodes: Natural
    every: Natural
    quick: Count
    at: list[Count]
    before: bool


class ModelSection(Options, frozen=True, kw_only=True):
    """How the policy is loaded and generates."""

    dtype: Literal["float32", "bfloat16", "float16"]
    device: Literal["auto", "cpu"]
    adapter: str | None
    max_new_tokens: Count | None
    batch_size: Count | None
    max_context: Count | None
    prefix_cache: Natural
    template: Literal["chat", "plain"]
    system: str | None
    template_options: dict[str, Any]
    gradient_checkpointing: bool


class LoraSection(Options, frozen=True, kw_only=True):
    """LoRA adapters."""

    rank: Natural
    alpha: float | None
    dropout: Annotated[float, msgspec.Meta(ge=0, lt=1)]
    targets: list[str] | None


class TrainOptions(Options, frozen=True, kw_only=True):
    """Options of ``swirl train``; the words of conf/train.yaml."""

    algo: Plugin
    task: Plugin | None = None
    judge: Plugin | None
    tool: dict[str, Plugin] | None = None
    """Tools by name; None takes those of the task."""
    policy: Annotated[str, msgspec.Meta(min_length=1)]
    setting: str
    warm_start: Natural
    budget: Count | None
    updates: Count | None
    seed: Natural
    stored: list[str]
    selection: str | None
    max_steps: Count | None
    max_chars: Count
    format: str
    history: History
    prompt: Prompt
    slots: Count
    out: Folder
    resume: bool
    save_every: Natural
    trackers: list[str]
    precision: Literal["no", "fp16", "bf16"] | None
    eval: EvalSection
    trainer: TrainConfig
    model: ModelSection
    lora: LoraSection


def checked(options: TrainOptions) -> TrainOptions:
    """Returns the options, complete, after a look at what only makes sense together.

    Raises:
        ConfigError: for a combination that cannot work.
    """
    if options.budget is None and options.updates is None:
        raise ConfigError("Nothing would end the run: give budget=... (sampled tokens) or updates=...")
    if options.task is None and options.tool is not None:
        raise ConfigError(
            f"The setting {options.setting!r} brings its own tools; tool= goes with a task: task=atlas tool=[search]."
        )
    if options.task is not None and options.policy == "embedded":
        raise ConfigError(
            f"The embedded policy knows the words of its settings only, not those of task={options.task['name']}: choose "
            f"setting=main, easy or sparse, or another policy=... (a model's name or folder)."
        )
    if options.policy == "embedded" and (options.lora.rank or options.model.adapter):
        raise ConfigError("The embedded policy is trained whole: LoRA goes with another policy=... (a model's name or folder).")
    if options.trainer.schedule != "constant" and options.updates is None:
        raise ConfigError(f"trainer.schedule={options.trainer.schedule} ends at the last update: give updates=...")
    return options


def agreed(options: TrainOptions, given: Collection[str]) -> TrainOptions:
    """Returns the options to run with, given what the run folder holds; writes nothing.

    Args:
        options: what was asked for.
        given: keys that the command line sets; where they say nothing of what to run, a resumed run goes on as it began.

    Raises:
        StoreError: where the folder holds other files, or a run, and ``resume`` is not set.
        ConfigError: where a run would be continued with another configuration.
    """
    path = Path(options.out)
    if not runs.exists(path):
        if path.is_dir() and any(not file.name.startswith(".") for file in path.iterdir()):
            raise StoreError(f"{path} already holds files that are no run of `swirl train`. Choose another out=.")
        return checked(options)
    if not options.resume:
        raise StoreError(f"{path} already holds a run. To go on with it add resume=true; to begin another choose another out=.")
    stored, asked = runs.config_of(path), recorded(options)
    if "algo" not in stored:
        raise StoreError(f"{path} holds a run of another stage. Choose another out=.")
    if not set(given) - {*_FREE, *_GROWING}:
        asked = {**stored, **{key: asked[key] for key in _GROWING if key in given}}
    runs.compare(path, stored, asked, _GROWING)
    return checked(msgspec.convert({**asked, **{key: getattr(options, key) for key in _FREE}}, TrainOptions))


def recorded(options: TrainOptions) -> dict[str, Any]:
    """Returns what config.yaml keeps: everything that decides what the run ends with."""
    config: dict[str, Any] = msgspec.to_builtins(options)
    return {key: value for key, value in config.items() if key not in _FREE}


def record(options: TrainOptions) -> None:
    """Writes the run's config.yaml."""
    replace_file(Path(options.out) / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(recorded(options))).encode())
