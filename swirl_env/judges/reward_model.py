"""A judge that asks a reward model: any sequence classification checkpoint of transformers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging as hf_logging

from swirl_env.errors import ConfigError, DataNotFound, unknown_name
from swirl_env.fingerprint import named, weights_fingerprint
from swirl_env.judges.asking import readable
from swirl_env.loading import ONE_AT_A_TIME
from swirl_env.types import SubTrajectory, Turn, Verdict

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_SPEAKERS = {"user": "User", "assistant": "Assistant", "tool": "Tool"}
_PROBE = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
_VERSION = 1
"""Raised with every change of what the model is shown: part of the fingerprint."""


class RewardModelJudge:
    """Rates a step by what a sequence classifier makes of the conversation that ends with it.

    A model with one output gives ``sigmoid(output)``, or the bare output if `scale` is ``none``; one with several gives the
    probability of `label`. The model sees the conversation as the policy saw it, through the chat template of its tokenizer (the
    roles user and assistant only), or as lines of ``Speaker: text`` if it has none. It sees no gold answer, plan or evidence.

    Args:
        model: folder or hub name of a checkpoint with a trained classification head.
        label: name or number of the output whose probability is the reward, for models with several; of two, the second.
        scale: ``sigmoid`` or ``none``, for models with one output.
        threshold: from which reward on the label is GOOD; by default 0.5, or 0 if `scale` is ``none``.
        dtype: ``float32``, ``bfloat16`` or ``float16``.
        device: e.g. ``cpu``, ``cuda``, ``cuda:1``; ``auto`` takes a GPU if there is one.
        batch_size: most steps of one forward pass. Models that name no padding token get one step at a time.
    """

    name = "reward_model"
    pure = True

    def __init__(
        self,
        model: str,
        label: str | int | None = None,
        scale: Literal["sigmoid", "none"] = "sigmoid",
        threshold: float | None = None,
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
        device: str = "auto",
        batch_size: int = 16,
    ) -> None:
        if dtype not in _DTYPES:
            raise unknown_name("dtype", str(dtype), _DTYPES)
        if scale not in ("sigmoid", "none"):
            raise unknown_name("scale of a reward", str(scale), ("sigmoid", "none"))
        if batch_size < 1:
            raise ConfigError(f"batch_size is 1 or above; got {batch_size}.")
        self.model, self.tokenizer = _load(model, _DTYPES[dtype])
        self.model.to(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
        self.scale = scale
        self.label = _label_number(self.model.config, label)
        self.threshold = threshold if threshold is not None else 0.0 if scale == "none" and self.label is None else 0.5
        self.batch_size = batch_size if self.model.config.pad_token_id is not None else 1
        self.max_tokens = _context(self.model.config, self.tokenizer)
        options = {"weights": weights_fingerprint(self.model), "probe": self._probe(), "version": _VERSION}
        self.fingerprint = named(self.name, {**options, "label": self.label, "scale": scale, "threshold": self.threshold})
        self.spent: Counter[str] = Counter(calls=0, tokens=0)
        """``calls``: conversations read; ``tokens``: theirs."""

    def judge(self, steps: Sequence[SubTrajectory]) -> list[Verdict]:
        """Returns one verdict per step: scored, or failed if the conversation is too long or the output is not finite."""
        rows = [self.ids(step) for step in steps]
        verdicts = [self._too_long(row) for row in rows]
        fits = sorted((i for i, row in enumerate(rows) if len(row) <= self.max_tokens), key=lambda i: len(rows[i]))
        for start in range(0, len(fits), self.batch_size):
            batch = fits[start : start + self.batch_size]
            self.spent["calls"] += len(batch)
            self.spent["tokens"] += sum(len(rows[i]) for i in batch)
            for i, outputs in zip(batch, self._outputs([rows[i] for i in batch]), strict=True):
                verdicts[i] = self._verdict(outputs)
        return verdicts

    def ids(self, step: SubTrajectory) -> list[int]:
        """Returns the ids that the model sees of a step."""
        tags = step.state.settings.tools
        turns = [*step.state.turns, Turn("assistant", step.action.text[: step.call.end])]
        texts = [(turn.role, readable(turn.text, tags)) for turn in turns]
        if not self.tokenizer.chat_template:
            text = "\n\n".join(f"{_SPEAKERS[role]}: {text}" for role, text in texts)
            return list(self.tokenizer.encode(text, split_special_tokens=True))
        messages = [{"role": "assistant" if role == "assistant" else "user", "content": text} for role, text in texts]
        return self._templated(messages)

    def _templated(self, messages: Sequence[dict[str, str]]) -> list[int]:
        text = self.tokenizer.apply_chat_template(messages, tokenize=False)
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    @torch.inference_mode()
    def _outputs(self, rows: Sequence[Sequence[int]]) -> list[list[float]]:
        length = max(map(len, rows))
        pad = self.model.config.pad_token_id or 0
        ids = torch.tensor([[*row, *[pad] * (length - len(row))] for row in rows])  # [B, S]
        mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])
        device = self.model.device
        logits = self.model(input_ids=ids.to(device), attention_mask=mask.to(device)).logits.float()  # [B, C]
        if self.label is not None:
            logits = logits.softmax(-1)[:, self.label, None]
        elif self.scale == "sigmoid":
            logits = logits.sigmoid()
        outputs: list[list[float]] = logits.cpu().tolist()
        return outputs

    def _verdict(self, outputs: Sequence[float]) -> Verdict:
        (reward,) = outputs
        if not math.isfinite(reward):
            return Verdict.failed(f"The reward model returned {reward}.", self.name)
        return Verdict("scored", reward, "GOOD" if reward >= self.threshold else "BAD", "", self.name)

    def _too_long(self, row: Sequence[int]) -> Verdict:
        return Verdict.failed(
            f"The conversation does not fit the reward model: {len(row):,} tokens, at most {self.max_tokens:,}.", self.name
        )

    def _probe(self) -> list[int]:
        """Returns the ids of a fixed conversation: another tokenizer or template gives another fingerprint."""
        return self._templated(_PROBE) if self.tokenizer.chat_template else list(self.tokenizer.encode("User: a"))


def _load(name: str, dtype: torch.dtype) -> tuple[Any, Any]:
    """Returns model and tokenizer.

    Raises:
        DataNotFound: if there is no such checkpoint.
        ConfigError: if it has no trained classification head.
    """
    source = str(Path(name).expanduser()) if Path(name).expanduser().is_dir() else name
    bars = hf_logging.is_progress_bar_enabled()
    level = hf_logging.get_verbosity()
    hf_logging.disable_progress_bar()
    hf_logging.set_verbosity_error()
    try:
        with ONE_AT_A_TIME:
            model, report = AutoModelForSequenceClassification.from_pretrained(source, dtype=dtype, output_loading_info=True)
        tokenizer = AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split()).partition(". ")[0][:200]
        raise DataNotFound(
            f"Expected a sequence classification checkpoint as a folder or hub name; got {name!r} ({reason})."
        ) from error
    finally:
        hf_logging.set_verbosity(level)
        if bars:
            hf_logging.enable_progress_bar()
    if report["missing_keys"]:
        lacking = ", ".join(sorted(report["missing_keys"])[:3])
        raise ConfigError(
            f"The checkpoint {name!r} has no trained classification head ({lacking} are missing); use a reward model."
        )
    return model.eval().requires_grad_(False), tokenizer


def _label_number(config: Any, label: str | int | None) -> int | None:
    """Returns the number of the output that counts; None for a model with one."""
    names = {int(number): str(name) for number, name in config.id2label.items()}
    if len(names) == 1:
        if label is not None:
            raise ConfigError(f"This reward model has one output and no labels; got label={label!r}. Leave it out.")
        return None
    if label is None:
        if len(names) == 2:
            return 1
        raise ConfigError(
            f"This model has {len(names)} labels; say which one is the reward: label=one of {', '.join(names.values())}."
        )
    for number, known in names.items():
        if label in (number, known):
            return number
    raise unknown_name("label of this reward model", str(label), names.values())


def _context(config: Any, tokenizer: Any) -> int:
    """Returns how many tokens the model takes."""
    limits = [getattr(config, "max_position_embeddings", None), tokenizer.model_max_length]
    return int(min((limit for limit in limits if limit), default=1 << 30))
