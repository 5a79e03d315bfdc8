"""The policy and the environments of a training run."""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path
from typing import Any, Literal, cast

import torch
from accelerate import Accelerator

from swirl_env.agents.transformers import TransformersAgent
from swirl_env.agents.transformers.load import NEEDS_PEFT, add_adapter
from swirl_env.algos.embedded import MAX_NEW_TOKENS, embedded_agent, get_setting
from swirl_env.algos.sampler import Servers
from swirl_env.algos.warm_start import WarmStart, warm_start
from swirl_env.episodes.engine import Engine
from swirl_env.errors import ConfigError, MissingExtra
from swirl_env.registry import missing
from swirl_env.stages.engines import engine_for
from swirl_env.stages.progress import progress
from swirl_env.stages.train_options import LoraSection, ModelSection, TrainOptions

_TEST_WORLDS = 2
"""Worlds of a setting that an evaluation goes through, each with its share of the episodes."""


def training_engine(options: TrainOptions) -> Engine:
    """Returns the questions, tools and judge of the rollouts."""
    if options.task is None:
        return _of_setting(options, "train", options.seed)
    return engine_for(options.task, options)


def evaluation_engines(options: TrainOptions) -> list[Engine]:
    """Returns engines over held-out questions; none if no split is named."""
    split = options.eval.split
    if options.task is None:
        if split not in (None, "test", "validation", "train"):
            raise ConfigError(f"eval.split: a setting has test, validation and train worlds; got {split!r}.")
        return [_of_setting(options, split or "test", world) for world in range(_TEST_WORLDS)]
    return [] if split is None else [engine_for({**options.task, "split": split}, options)]


def further_engines(options: TrainOptions) -> dict[str, list[Engine]]:
    """Returns engines over the test worlds of the settings that ``eval.also`` names, by setting."""
    return {name: [_of_setting(options, "test", world, name) for world in range(_TEST_WORLDS)] for name in options.eval.also}


def _of_setting(options: TrainOptions, split: Any, seed: int, name: str = "") -> Engine:
    setting = get_setting(name or options.setting)
    given: dict[str, Any] = {} if options.max_steps is None else {"max_steps": options.max_steps}
    given |= {"format": options.format, "history": options.history, "max_chars": options.max_chars}
    return setting.engine(split, seed, judge=options.judge, grader=options.grader, **given)


def make_policy(options: TrainOptions, accelerator: Accelerator) -> TransformersAgent:
    """Returns the policy as an agent whose model is ready to be trained."""
    torch.manual_seed(options.seed)  # adapters begin with random weights
    if options.policy == "embedded":
        return _embedded(options, accelerator)
    section = options.model
    small = options.task is None
    agent = TransformersAgent(
        options.policy,
        dtype=section.dtype,
        device=str(accelerator.device),
        max_new_tokens=section.max_new_tokens or (MAX_NEW_TOKENS if small else 256),
        batch_size=section.batch_size or (32 if small else 16),
        template=section.template,
        system=section.system,
        shots=section.shots,
        template_options=section.template_options,
        max_context=section.max_context,
        prefix_cache=section.prefix_cache,
        date=section.date,
        trust_remote_code=section.trust_remote_code,
        precision=_precision(accelerator),
        temperature=options.trainer.temperature,
    )
    agent.model = with_adapters(agent.model, options.lora, section)
    return agent


def _embedded(options: TrainOptions, accelerator: Accelerator) -> TransformersAgent:
    # One process trains it, the others wait for it and find it in the cache.
    with accelerator.main_process_first():
        folder = warm_policy(options.setting, options.warm_start)
    given: dict[str, Any] = {"max_new_tokens": options.model.max_new_tokens, "batch_size": options.model.batch_size}
    given |= {"max_context": options.model.max_context, "prefix_cache": options.model.prefix_cache}
    given |= {"precision": _precision(accelerator), "temperature": options.trainer.temperature}
    agent = embedded_agent(folder, **{key: value for key, value in given.items() if value is not None})
    agent.name = f"embedded-{options.setting}-{options.warm_start}"
    return agent


def servers_of(options: TrainOptions, agent: TransformersAgent) -> Servers | None:
    """Returns the servers that generate for a run; None if the policy does so itself.

    Raises:
        MissingExtra: if they need the client library and it is not installed.
    """
    if options.rollouts != "server":
        return None
    try:
        from swirl_env.agents.transformers.served import ServedPolicy
    except ModuleNotFoundError as error:
        raise missing("agent", "openai", error) from error
    section = options.server
    return ServedPolicy(
        agent,
        section.urls,
        section.model or "",
        section.refresh,
        Path(options.out) / "served",
        api_key_env=section.api_key_env,
        concurrency=section.concurrency,
        timeout_s=section.timeout_s,
    )


def _precision(accelerator: Accelerator) -> Literal["bf16", "fp16"] | None:
    """Returns the mixed precision that training runs in, which rollouts must share: both score one policy."""
    return accelerator.mixed_precision if accelerator.mixed_precision in ("bf16", "fp16") else None


def warm_policy(setting: str, seed: int, config: WarmStart | None = None) -> str:
    """Returns the folder of a warm start; trains it, with a progress bar, if it is not cached."""
    config = config or WarmStart()
    with progress(f"warm start {setting}, seed {seed}", config.updates) as advance:
        return str(warm_start(setting, seed, config=config, report=lambda done, total, note: advance(note=note)))


def with_adapters(model: Any, lora: LoraSection, section: ModelSection) -> Any:
    """Returns the model with the adapters that the options ask for.

    Raises:
        MissingExtra: where they need peft and it is not installed.
        DataNotFound: where there is no such adapter.
    """
    if section.gradient_checkpointing:
        model.gradient_checkpointing_enable()
        model.enable_input_require_grads()  # or nothing before the first adapter asks for a gradient
    if section.adapter is not None:
        return add_adapter(model, section.adapter, trainable=True)
    if not lora.rank:
        return model
    if importlib.util.find_spec("peft") is None:
        raise MissingExtra(NEEDS_PEFT)
    import peft

    config = peft.LoraConfig(
        r=lora.rank,
        lora_alpha=cast(int, 2 * lora.rank if lora.alpha is None else lora.alpha),  # any number scales the adapter
        lora_dropout=lora.dropout,
        target_modules="all-linear" if lora.targets is None else lora.targets,
        task_type="CAUSAL_LM",
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers for a name that it renamed
            return peft.get_peft_model(model, config)
    except ValueError as error:  # no module has one of these names
        raise ConfigError(f"lora.targets: {str(error).partition('. ')[0]}.") from error
