"""The options of an update, with the range of each, and the learning rate over a run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from swirl_env.algos.losses import KlEstimator, RatioLevel, Reduction
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
    epochs: int = 1
    """Passes over the batch of an update. With several optimizer steps per update the policy leaves the distribution that the
    actions were sampled from: ``ppo_clip`` weighs and clips by the ratio to it, ``policy_gradient`` does not."""
    minibatches: int = 1
    """Optimizer steps per pass, each on other episodes of the batch."""
    clip: float = 0.2
    """Half-width of the range around 1 in which ``ppo_clip`` trusts a ratio."""
    clip_low: float | None = None
    """How far below 1, if not `clip`."""
    clip_high: float | None = None
    """How far above 1, if not `clip`."""
    ratio: RatioLevel = "token"
    """Ratios of single tokens, or one per action (``sequence``, GSPO): see `losses.importance_ratio`."""
    importance_cap: float = 0.0
    """Largest weight pi_training / pi_generation of a token (`losses.truncated_weights`); ratios are then to pi_training, the
    policy as the trainer scores it before the update. 0 for no weights: ratios are to the log-probs at generation."""
    entropy: float = 0.0
    """Weight of the entropy of the next-token distributions along the actions, which is added to the objective."""
    overlong: Literal["train", "mask"] = "train"
    """Whether actions that the limit on new tokens cut off are trained on, or leave the loss."""
    kl: float = 0.0
    """beta: weight of the KL to the reference policy, the one that training began with unless another is passed."""
    kl_estimator: KlEstimator = "k2"
    micro_tokens: int = 16_384
    """Most tokens, padding included, of one forward pass."""
    pack: int = 0
    """Pack short rows into rows of up to this many tokens; 0 for none."""
    tree: bool = False
    """Compute stretches shared by several actions of one trajectory once, under a tree mask; also what trajectories of one
    question begin with, if that is less work."""
    chunk: int = 0
    """Positions whose logits are in memory at a time; 0 lets `output_layer.CHUNK_VALUES` decide."""
    temperature: float = 1.0
    """Sampling temperature of the actions that are trained on; it divides the logits of policy and reference."""
    shard: bool = False
    """Split weights, gradients and optimizer state of the model in training over the processes (`sharding`)."""
    max_skipped: int = 8
    """Updates in a row that may be skipped because loss or gradient is not finite; one more stops the run."""

    def __post_init__(self) -> None:
        if self.lr is not None:
            check_number({"lr": self.lr}, 0, open_low=True)
        if len(self.betas) != 2:
            raise ConfigError(f"betas is a pair of numbers; got {self.betas!r}.")
        check_number({"betas[0]": self.betas[0], "betas[1]": self.betas[1]}, 0, 1, open_high=True)
        from_zero = {"weight_decay": self.weight_decay, "kl": self.kl, "entropy": self.entropy}
        check_number(from_zero | {"importance_cap": self.importance_cap}, 0)
        sides = {"clip_low": self.clip_low, "clip_high": self.clip_high}
        check_number({name: value for name, value in sides.items() if value is not None}, 0, open_low=True)
        positive = {"max_grad_norm": self.max_grad_norm, "clip": self.clip, "temperature": self.temperature}
        check_number(positive, 0, open_low=True)
        check_count(0, warmup=self.warmup, updates=self.updates, pack=self.pack, chunk=self.chunk, max_skipped=self.max_skipped)
        check_count(1, micro_tokens=self.micro_tokens, epochs=self.epochs, minibatches=self.minibatches)
        choices: dict[str, tuple[str, ...]]
        choices = {"schedule": ("constant", "linear", "cosine"), "loss": LOSSES, "reduction": ("sum", "mean")}
        choices |= {"kl_estimator": ("k1", "k2", "k3"), "ratio": ("token", "sequence"), "overlong": ("train", "mask")}
        for name, known in choices.items():
            check_choice(name, getattr(self, name), known)
        unused = [name for name, value in sides.items() if value is not None and self.loss != "ppo_clip"]
        unused += ["ratio"] if self.ratio != "token" and not self.needs_ratios else []
        if unused:
            raise ConfigError(f"{unused[0]} is about ratios, which loss={self.loss} has none of; choose loss=ppo_clip.")

    @property
    def needs_ratios(self) -> bool:
        """Whether the loss compares the policy with the distribution that the actions were sampled from."""
        return self.loss == "ppo_clip" or self.importance_cap > 0

    @property
    def ratios_of(self) -> str:
        """The option that asks for ratios, for messages."""
        return self.loss if self.loss == "ppo_clip" else "importance_cap"

    @property
    def low(self) -> float:
        """How far below 1 a ratio is trusted."""
        return self.clip if self.clip_low is None else self.clip_low

    @property
    def high(self) -> float:
        """How far above 1 a ratio is trusted."""
        return self.clip if self.clip_high is None else self.clip_high

    @property
    def optimizer_steps(self) -> int:
        """Optimizer steps per update."""
        return self.epochs * self.minibatches


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
