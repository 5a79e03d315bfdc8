"""The policy loss of a micro-batch, and what the figures of an update are made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from swirl_env.algos.batch import TokenBatch, TokenStep
from swirl_env.algos.losses import Reduction, importance_ratio, policy_gradient, ppo_clip, truncated_weights
from swirl_env.algos.train_config import TrainConfig
from swirl_env.errors import ConfigError


@dataclass(frozen=True, slots=True)
class LossInputs:
    """What a loss is computed from: T tokens of a micro-batch, flat, which belong to N steps.

    All tokens of a step are in one micro-batch; two steps of a batch need not be. A step that has no token here adds nothing.
    """

    logprobs: Tensor
    """[T] log pi now, with gradient."""
    behaviour: Tensor | None
    """[T] log-probs at generation; None if any step of the batch lacks them."""
    reference: Tensor | None
    """[T] log pi_ref; None without a KL term."""
    step: Tensor
    """[T] which of the N steps a token belongs to."""
    index: Tensor
    """[N] place of each of these steps in the batch that was passed to `Run.update`."""
    advantages: Tensor
    """[N]."""
    count: float
    """What the sum over the global batch is divided by."""
    reduction: Reduction
    """How token values become one value per step."""


Loss = Callable[[LossInputs], "Tensor | tuple[Tensor, Mapping[str, Tensor | float]]"]
"""A policy loss: returns the micro-batch's share of the loss, and optionally named figures to log.

Shares and figures are added up over micro-batches and processes, so each is a sum over its own steps divided by ``count``.
"""


class BatchSteps:
    """The steps of an optimizer step that carry loss, by their numbers in the forward passes.

    Args:
        steps: N of them.
        index: [N] place of each in the batch that was passed in.
        advantages: [N].
        training: log-probs of their tokens by the trainer before the update; empty if they are not needed.
        count: what the loss is divided by.
        device: where the losses are computed.
    """

    def __init__(
        self,
        steps: Sequence[TokenStep],
        index: Sequence[int],
        advantages: NDArray[np.float64],
        training: Sequence[tuple[float, ...]],
        count: float,
        device: torch.device,
    ) -> None:
        self.steps, self.n, self.count = list(steps), len(steps), count
        self.index = torch.tensor(index, dtype=torch.long, device=device)
        self.advantages = torch.tensor(advantages, dtype=torch.float64, device=device)
        self.complete = all(len(step.behaviour) >= len(step.token_ids) for step in steps)
        """Whether the log-probs at generation of all tokens are known."""
        self._generation = [step.behaviour for step in steps]
        self._training = training

    def behaviour(self, batch: TokenBatch) -> Tensor | None:
        """Returns the log-probs at generation of a batch's action tokens, [M]; None if they are not known."""
        return _values(self._generation, batch) if self.complete else None

    def training(self, batch: TokenBatch) -> Tensor | None:
        """Returns the log-probs by the trainer before the update of a batch's action tokens, [M]; None if not needed."""
        return _values(self._training, batch) if self._training else None


def _values(values: Sequence[tuple[float, ...]], batch: TokenBatch) -> Tensor:
    places = zip(batch.step.tolist(), batch.offset.tolist(), strict=True)
    return torch.tensor([values[step][offset] for step, offset in places], device=batch.step.device)


class PolicyLoss:
    """The configured policy loss, with the figures that tell how far the policy has moved within an update.

    Args:
        config: of the trainer.
    """

    def __init__(self, config: TrainConfig) -> None:
        self._config = config

    def __call__(self, inputs: LossInputs, training: Tensor | None) -> tuple[Tensor, dict[str, float]]:
        """Returns the loss, and sums over tokens: ``ratio``, ``clipped``, ``kl_behaviour`` and ``compared`` (their number).

        Args:
            inputs: of the micro-batch.
            training: [T] log-probs by the trainer before the update, if the configuration needs them.

        Raises:
            ConfigError: if a ratio is asked for and the log-probs at generation are not known.
        """
        config, logp, gain = self._config, inputs.logprobs, inputs.advantages.to(inputs.logprobs)
        n = len(gain)
        generation = None if inputs.behaviour is None else inputs.behaviour.to(logp)
        if config.needs_ratios and generation is None:
            raise ConfigError(f"{config.ratios_of} needs the log-probs at generation of every token; these steps have none.")
        weight, old = None, generation
        if training is not None and generation is not None:
            old = training.to(logp)
            weight = truncated_weights(old, generation, inputs.step, n, config.importance_cap, config.ratio)
        if config.loss == "policy_gradient" or old is None:
            loss = policy_gradient(logp, inputs.step, gain, inputs.count, weight=weight, reduction=inputs.reduction)
        else:
            loss = ppo_clip(
                logp, old, inputs.step, gain, inputs.count,
                clip=config.low, clip_high=config.high, level=config.ratio, weight=weight, reduction=inputs.reduction,
            )  # fmt: skip
        if old is None or not (config.needs_ratios or config.optimizer_steps > 1):
            return loss, {}
        figures = self._moved(logp.detach(), old, inputs.step, gain)
        return loss, figures if weight is None else figures | {"importance": float(weight.sum())}

    def _moved(self, logp: Tensor, old: Tensor, step: Tensor, gain: Tensor) -> dict[str, float]:
        ratio = importance_ratio(logp, old, step, len(gain), self._config.ratio)
        own = importance_ratio(logp, old, step, len(gain))
        sign = gain[step].sign()
        clipped = ((sign > 0) & (ratio > 1 + self._config.high)) | ((sign < 0) & (ratio < 1 - self._config.low))
        divergence = own - 1 - own.log()  # k3 of KL(behaviour || policy), whose tokens these are
        sums = {"ratio": ratio, "clipped": clipped, "kl_behaviour": divergence, "compared": torch.ones_like(ratio)}
        return {name: float(values.sum()) for name, values in sums.items()}


def of_global_batch(loss: Loss, mine: NDArray[np.int64]) -> Loss:
    """Returns the loss with the indices of its steps in the global batch, in place of those in this process's part.

    Args:
        loss: counts steps over the global batch.
        mine: [n], the indices there of the n steps of this process.
    """
    return lambda inputs: loss(replace(inputs, index=torch.from_numpy(mine).to(inputs.index)[inputs.index]))
