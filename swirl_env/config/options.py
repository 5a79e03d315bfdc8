"""The configuration of each stage as typed values: it is read here once, and plain arguments go on from here."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import resources
from typing import Annotated, Any, ClassVar, Literal, TypeVar, get_type_hints

import msgspec
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from swirl_env.cluster.settings import ClusterOptions
from swirl_env.config.errors import missing_value
from swirl_env.config.overrides import command_line_keys
from swirl_env.config.plugins import GROUPS, LISTS, choices, is_text, spec
from swirl_env.config.sweep import reads_run
from swirl_env.config.typed import describe_mismatch
from swirl_env.episodes.prompts import Prompt, recorded_prompt
from swirl_env.errors import ConfigError, unknown_name
from swirl_env.texts import Text, recorded_text
from swirl_env.types import History

Folder = Annotated[str, msgspec.Meta(min_length=1)]
Count = Annotated[int, msgspec.Meta(ge=1)]
Plugin = dict[str, Any]
O = TypeVar("O", bound="Options")  # noqa: E741 -- the letter of "options"


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of a stage's options."""


class RunOptions(Options, frozen=True, kw_only=True):
    """What runs of episodes and of training share: the engine of their episodes, a seed and a folder."""

    FREE: ClassVar[tuple[str, ...]] = ("out", "resume", "slots", "objective")
    """Keys that do not change what a run ends with; it may be continued with others."""
    GROWING: ClassVar[tuple[str, ...]] = ()
    """Limits that a run may be continued beyond."""

    judge: Plugin | None
    tool: dict[str, Plugin] | None = None
    """Tools by name; None takes those of the task."""
    seed: Annotated[int, msgspec.Meta(ge=0)]
    max_steps: Count | None
    max_chars: Count
    format: str
    history: History
    prompt: Prompt
    instructions: Text = ""
    examples: Text = ""
    grader: Plugin | None = None
    """What judges final answers in place of the task's own grading."""
    slots: Count
    resume: bool
    out: Folder | None
    objective: str | None
    """The figure that a sweeper optimises."""


class EpisodeOptions(RunOptions, frozen=True, kw_only=True):
    """How episodes are run; the keys of conf/episodes.yaml."""

    GROWING: ClassVar[tuple[str, ...]] = ("n",)
    FREE: ClassVar[tuple[str, ...]] = (*RunOptions.FREE, "trained", "cluster")

    trained: None = None
    """Written out before the configuration is composed."""
    task: Plugin
    agent: Plugin
    n: Count | None
    samples: Count
    cluster: ClusterOptions = ClusterOptions()
    """Who runs the episodes; which of them come out does not depend on it."""


class EvalOptions(EpisodeOptions, frozen=True, kw_only=True):
    """Options of ``swirl eval``."""

    FREE: ClassVar[tuple[str, ...]] = (*EpisodeOptions.FREE, "verdicts")

    verdicts: str | None


class PlayOptions(EpisodeOptions, frozen=True, kw_only=True):
    """Options of ``swirl play``."""

    FREE: ClassVar[tuple[str, ...]] = (*EpisodeOptions.FREE, "task_id")

    task_id: str | None


class JudgeOptions(Options, frozen=True, kw_only=True):
    """Options of ``swirl judge``."""

    judge: Plugin
    out: Folder
    batch: Count
    force: bool
    cluster: ClusterOptions = ClusterOptions()


class AuditOptions(Options, frozen=True, kw_only=True):
    """Options of ``swirl audit``."""

    out: Folder
    agent: Plugin | None = None
    """The policy whose values are estimated; None for the one that made the run."""
    signals: Annotated[list[str | dict[str, Any]], msgspec.Meta(min_length=1)]
    n: Count | None
    samples: Annotated[int, msgspec.Meta(ge=0)]
    seed: Annotated[int, msgspec.Meta(ge=0)]
    resamples: Annotated[int, msgspec.Meta(ge=0)]
    batch: Count
    slots: Count
    cluster: ClusterOptions = ClusterOptions()
    name: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")]


class FilterOptions(Options, frozen=True, kw_only=True):
    """Options of ``swirl filter``."""

    filter: dict[str, Plugin]
    out: Folder
    verdicts: str | None
    limit: Annotated[int, msgspec.Meta(ge=0)] | None
    equal: bool
    seed: int


class BenchOptions(Options, frozen=True, kw_only=True):
    """Options of ``swirl bench``."""

    out: Folder
    resume: bool
    n: Count
    n_model: Annotated[int, msgspec.Meta(ge=0)]
    model: str
    data_dir: str | None
    only: Annotated[list[str], msgspec.Meta(min_length=1)] | None
    seed: Annotated[int, msgspec.Meta(ge=0)]
    slots: Count
    part: Literal["all", "agents", "training"]
    algos: list[str]
    policy: Annotated[str, msgspec.Meta(min_length=1)]
    task: Plugin | None = None
    tool: dict[str, Plugin] | None = None
    judge: Plugin | None
    split: str | None
    common: dict[str, Any]
    """What all training runs have, by section."""
    setting: str
    budget: Count
    seeds: list[Annotated[int, msgspec.Meta(ge=0)]]
    episodes: Count
    workers: Count
    arms: dict[str, dict[str, Any]]
    """Arm -> what differs from the defaults of ``swirl train``, by section."""


def read(stage: str, kind: type[O], config: DictConfig) -> O:
    """Returns the composed configuration as the options of a stage.

    Raises:
        ConfigError: where a value is missing or of another type than the stage takes.
    """
    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    for key, value in plain.items():
        if value == "???":
            raise missing_value(stage, key)
    for group in {"algo", "task", "judge", "grader", "agent"} & plain.keys():
        plain[group] = spec(group, plain[group])
    for group in {"tool", "filter"} & plain.keys():
        plain[group] = {name: spec(group, chosen) for name, chosen in plain[group].items()}
    if "tool" in kind.__struct_fields__ and "tool" not in plain and _no_tools():
        plain["tool"] = {}
    if "out" in plain and in_sweep() and not reads_run(stage, command_line_keys()):
        plain["out"] = os.path.relpath(HydraConfig.get().runtime.output_dir)
        if "resume" in plain and keys_to_resume() is None:
            plain["resume"] = True
    if unknown := plain.keys() - set(kind.__struct_fields__):  # added with +key=value
        raise unknown_name(f"key of `swirl {stage}`", sorted(unknown)[0], kind.__struct_fields__)
    try:
        return with_recorded_texts(msgspec.convert(plain, kind), recorded_text)
    except msgspec.ValidationError as error:
        key = str(error).partition(" - at ")[2].strip("`").removeprefix("$.")
        absent = key.partition(".")[0] or str(error).partition("field `")[2].partition("`")[0]
        if absent in GROUPS and not plain.get(absent):
            example = f"{absent}=[NAME,...]" if absent in LISTS else f"{absent}=NAME"
            raise ConfigError(
                f"`swirl {stage}` needs a {absent}: give {example}, one of {', '.join(choices(absent))}."
            ) from error
        hint, value = _at(kind, plain, key.split("."))
        if isinstance(value, dict) and not str(error).startswith(("Expected", "Object")):
            raise ConfigError(str(error).partition(" - at ")[0]) from error  # a section's own words, on one of its keys
        raise ConfigError(f"{key or stage}: {describe_mismatch(error, hint, value)}.") from error


def with_recorded_texts(options: O, form: Callable[[str, str], str], prefix: str = "") -> O:
    """Returns options with their prompt and texts (see `swirl_env.texts`) in another form, those of plugins excepted.

    Args:
        options: options of a stage, or of a section.
        form: returns the new form of a text for the value and the option's key.
        prefix: what precedes the keys of a section, ``model.``.
    """
    changes: dict[str, Any] = {}
    for key, hint in get_type_hints(type(options), include_extras=True).items():
        value = getattr(options, key)
        if isinstance(value, Options):
            changes[key] = with_recorded_texts(value, form, f"{prefix}{key}.")
        elif isinstance(value, str) and is_text(hint):
            changes[key] = form(value, f"{prefix}{key}")
    if isinstance(options, RunOptions):
        changes["prompt"] = recorded_prompt(options.prompt)
    return msgspec.structs.replace(options, **changes) if changes else options


def _at(kind: Any, value: Any, path: list[str]) -> tuple[Any, Any]:
    """Returns type and value of a key of a section, ``trainer.lr``."""
    for key in path:
        key, _, index = key.partition("[")
        kind = get_type_hints(kind).get(key) if isinstance(kind, type) else None
        value = value.get(key) if isinstance(value, dict) else None
        if index and isinstance(value, list):
            kind, value = None, value[int(index.rstrip("]"))]
    return kind, value


def episode_defaults() -> dict[str, Any]:
    """Returns the plain keys of conf/episodes.yaml, for stages that run episodes of several kinds."""
    text = resources.files("swirl_env.conf").joinpath("episodes.yaml").read_text(encoding="utf-8")
    keys: dict[str, Any] = OmegaConf.to_container(OmegaConf.create(text))  # type: ignore[assignment]
    judge = next(entry["judge"] for entry in keys.pop("defaults") if "judge" in entry)
    return {**keys, "judge": {"name": judge}, "grader": None}


def in_sweep() -> bool:
    """Whether this is a cell of a sweep."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def keys_to_resume() -> set[str] | None:
    """Returns the keys that a run which is gone on with may take over its own; None if all must be as they were.

    The same sweep once more goes on where it was, without being asked to; its cells must then be the very same runs.
    """
    keys = command_line_keys()
    return None if in_sweep() and "resume" not in keys else keys


def _no_tools() -> bool:
    """Whether ``tool=[]`` was chosen: hydra then has no choice on record, where the default has an empty one."""
    return HydraConfig.initialized() and "tool" not in HydraConfig.get().runtime.choices
