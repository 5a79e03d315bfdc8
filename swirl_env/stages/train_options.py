"""The configuration of ``swirl train`` as typed values."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import msgspec

from swirl_env.algos.kept import Keep
from swirl_env.algos.train_config import TrainConfig
from swirl_env.config.options import Count, Folder, Options, Plugin, RunOptions
from swirl_env.episodes.prompts import FULL, QUESTION
from swirl_env.errors import ConfigError
from swirl_env.texts import Text

Natural = Annotated[int, msgspec.Meta(ge=0)]


class EvalSection(Options, frozen=True, kw_only=True):
    """Evaluations of the policy."""

    split: str | None
    episodes: Natural
    every: Natural
    quick: Count
    at: list[Count]
    before: bool
    also: list[str] = []


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
    system: Text | None
    shots: Text | None
    template_options: dict[str, Any]
    gradient_checkpointing: bool
    date: str | None = None
    trust_remote_code: bool = False


class LoraSection(Options, frozen=True, kw_only=True):
    """LoRA adapters."""

    rank: Natural
    alpha: float | None
    dropout: Annotated[float, msgspec.Meta(ge=0, lt=1)]
    targets: list[str] | None


class ServerSection(Options, frozen=True, kw_only=True):
    """Servers that generate for ``rollouts=server``."""

    base_url: str | list[str] | None = None
    model: Annotated[str, msgspec.Meta(min_length=1)] | None = None
    refresh: Literal["lora", "vllm", "sglang"] = "lora"
    every: Count = 1
    api_key_env: str = "OPENAI_API_KEY"
    concurrency: Count = 64
    timeout_s: Annotated[float, msgspec.Meta(gt=0)] = 600.0

    @property
    def urls(self) -> list[str]:
        """The servers' base URLs."""
        return [self.base_url] if isinstance(self.base_url, str) else list(self.base_url or ())


class TrainOptions(RunOptions, frozen=True, kw_only=True):
    """Options of ``swirl train``; the keys of conf/train.yaml."""

    FREE: ClassVar[tuple[str, ...]] = ("out", "resume", "save_every", "trackers", "objective")
    GROWING: ClassVar[tuple[str, ...]] = ("budget", "updates")

    algo: Plugin
    task: Plugin | None = None
    policy: Annotated[str, msgspec.Meta(min_length=1)]
    setting: str
    warm_start: Natural
    budget: Count | None
    updates: Count | None
    stored: list[str]
    stored_prompts: Literal["logged", "own"] = "logged"
    selection: str | None
    verdicts: str | None
    allow_other_settings: bool
    out: Folder
    save_every: Natural
    keep_rollouts: Keep = "all"
    trackers: list[str]
    precision: Literal["no", "fp16", "bf16"] | None
    rollouts: Literal["policy", "server"] = "policy"
    server: ServerSection = ServerSection()
    eval: EvalSection
    trainer: TrainConfig
    model: ModelSection
    lora: LoraSection


def checked(options: TrainOptions) -> TrainOptions:
    """Returns the options, complete, after checking what only makes sense together.

    Raises:
        ConfigError: for a combination that cannot work.
    """
    if options.budget is None and options.updates is None:
        raise ConfigError("Nothing would end the run: give budget=... (sampled tokens) or updates=...")
    if options.task is None and options.tool is not None:
        raise ConfigError(
            f"The setting {options.setting!r} brings its own tools; tool= goes with a task: task=atlas tool=[search]."
        )
    asked = [key for key in ("instructions", "examples") if getattr(options, key)]
    asked += [] if options.prompt in (FULL, QUESTION) else ["prompt"]
    if options.task is None and asked:
        raise ConfigError(
            f"The setting {options.setting!r} asks the bare question: {asked[0]}= would be lost. It goes with a task: task=atlas."
        )
    if options.task is not None and options.policy == "embedded":
        raise ConfigError(
            f"The embedded policy knows the words of its settings only, not those of task={options.task['name']}: choose "
            f"setting=main, easy or sparse, or another policy=... (a model's name or folder)."
        )
    if options.policy == "embedded" and (options.lora.rank or options.model.adapter):
        raise ConfigError("The embedded policy is trained whole: LoRA goes with another policy=... (a model's name or folder).")
    if options.task is not None and options.eval.also:
        raise ConfigError(
            f"eval.also names settings of the embedded task, and this run has task={options.task['name']}. For other questions: "
            f"swirl eval trained={options.out} task=..."
        )
    _check_stored(options)
    if options.rollouts == "server":
        _check_server(options)
    if options.trainer.schedule != "constant" and options.updates is None:
        raise ConfigError(f"trainer.schedule={options.trainer.schedule} ends at the last update: give updates=...")
    return options


def _check_stored(options: TrainOptions) -> None:
    """Refuses stored trajectories that nothing would read, and own prompts for them under a loss that needs the logged ones.

    Raises:
        ConfigError: naming the option.
    """
    if options.stored and options.algo.get("states") == "own" and not options.resume:  # runs from before this check go on
        raise ConfigError("stored=... is read by algo.states=stored; with algo.states=own these trajectories would be lost.")
    if options.stored_prompts == "logged":
        return
    if not options.stored or options.algo.get("states") == "own":
        raise ConfigError(
            "stored_prompts=own is about stored trajectories: give algo.states=stored and their run folders, stored=[runs/demo]."
        )
    if options.trainer.needs_ratios:
        raise ConfigError(
            f"stored_prompts=own leaves stored actions without log-probs, which were those behind other prompts, and trainer."
            f"{'loss=' * (options.trainer.loss == 'ppo_clip')}{options.trainer.ratios_of} compares with them: give "
            f"stored_prompts=logged, or trainer.loss=policy_gradient with trainer.importance_cap=0."
        )


def _check_server(options: TrainOptions) -> None:
    """Refuses generation on servers that training could not correct.

    Raises:
        ConfigError: naming the option.
    """
    if not options.server.urls or options.server.model is None:
        raise ConfigError(
            "rollouts=server needs server.base_url=URL (or a list of them) and server.model=, the policy's name at the servers."
        )
    if not options.trainer.importance_cap:
        raise ConfigError(
            "With rollouts=server the weights that generate are not those in training: give trainer.importance_cap=2, the "
            "largest weight of a token (truncated importance sampling)."
        )
    if options.trainer.temperature != 1:
        raise ConfigError(
            f"rollouts=server takes the servers' log-probabilities, which are those at temperature 1; got "
            f"trainer.temperature={options.trainer.temperature:g}."
        )
