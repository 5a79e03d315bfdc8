"""The options of an update, with the range of each, and the learning rate over a run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from swirl_env.algos.losses import KlEstimator, Reduction
from swirl_env.algos.ranges import check_choice, check_count, check_number
from swirl_env.errors import ConfigError

LOSSES = ("policy_gradient", "ppo_clip")


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """How an update is made.

    Raises:
        ConfigError: for a value out of its range.
    """

    lr: float | None = None
    """Peak learning rate (AdamW); None takes `default_lr` of the policy."""
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.0
    warmup: int = 0
    """Updates over which the learning rate rises from 0."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """How it falls afterwards, to 0 at `updates`."""
    updates: int = 0
    """Updates in all, for the schedule; 0 if it is constant."""
    max_grad_norm: float = 1.0
    loss: Literal["policy_gradient", "ppo_clip"] = "policy_gradient"
    reduction: Reduction = "sum"
    clip: float = 0.2
    kl: float = 0.0
    """beta: weight of the KL to the reference policy, the one that training began with unless another is passed."""
    kl_estimator: KlEstimator = "k2"
    micro_tokens: int = 16_384
    """Most tokens, padding included, of one forward pass."""
    pack: int = 0
    """Pack short rows into rows of up to this many tokens; 0 for none."""
    tree: bool = False
    """Compute stretches shared by several actions of one trajectory once, under a tree mask."""
    chunk: int = 0
    """Positions whose logits are in memory at a time; 0 lets `losses.CHUNK_VALUES` decide."""
    temperature: float = 1.0
    """Sampling temperature of the actions that are trained on; it divides the logits of policy and reference."""
    max_skipped: int = 8
    """Updates in a row that may be skipped because loss or gradient is not finite; one more stops the run."""

    def __post_init__(self) -> None:
        if self.lr is not None:
            check_number({"lr": self.lr}, 0, open_low=True)
        if len(self.betas) != 2:
            raise ConfigError(f"betas is a pair of numbers; got {self.betas!r}.")
        check_number({"betas[0]": self.betas[0], "betas[1]": self.betas[1]}, 0, 1, open_high=True)
        check_number({"weight_decay": self.weight_decay, "kl": self.kl}, 0)
        positive = {"max_grad_norm": self.max_grad_norm, "clip": self.clip, "temperature": self.temperature}
        check_number(positive, 0, open_low=True)
        check_count(0, warmup=self.warmup, updates=self.updates, pack=self.pack, chunk=self.chunk, max_skipped=self.max_skipped)
        check_count(1, micro_tokens=self.micro_tokens)
        choices = {"schedule": ("constant", "linear", "cosine"), "loss": LOSSES, "reduction": ("sum", "mean")}
        for name, known in {**choices, "kl_estimator": ("k1", "k2", "k3")}.items():
            check_choice(name, getattr(self, name), known)

    @property
    def needs_ratios(self) -> bool:
        """Whether the loss compares the policy with the distribution that the actions were sampled from."""
        return self.loss == "ppo_clip"


def learning_rate(config: TrainConfig, update: int) -> float:
    """Returns the factor on the peak learning rate at an update (0 for the first)."""
    rise = min(1.0, (update + 1) / config.warmup) if config.warmup else 1.0
    if config.schedule == "constant":
        return rise
    done = min(1.0, max(0.0, (update - config.warmup) / max(1, config.updates - config.warmup)))
    return rise * (1 - done if config.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done)))


def default_lr(adapters: bool, parameters: int) -> float:
    """Returns the peak learning rate for a kind of policy.

    Args:
        adapters: whether LoRA adapters are trained: 1e-4.
        parameters: trainable weights otherwise: 1e-3 for policies as small as the embedded one (below 10 million), else 1e-6,
            a common choice for reinforcement learning of whole language models.
    """
    if adapters:
        return 1e-4
    return 1e-3 if parameters < 10_000_000 else 1e-6
