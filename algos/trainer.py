"""One optimizer step on a global batch of steps, whatever the micro-batches, processes or packing.

On `accelerate`: DDP, FSDP and DeepSpeed by its own configuration, mixed precision, trackers and checkpoints. Every process
passes the steps it holds; the loss is normalised by the number of valid steps of all of them.
"""

from __future__ import annotations

import gc
import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import ArrayLike
from torch import Tensor

from swirl_env.algos.batch import Segment, TokenBatch, TokenStep, chains, collate, micro_batches, pack, trees
from swirl_env.algos.losses import KlEstimator, Reduction, kl_penalty, policy_gradient, ppo_clip
from swirl_env.algos.scoring import ActionScorer
from swirl_env.errors import ConfigError


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """How an update is made."""

    lr: float = 1e-3
    """Peak learning rate (AdamW)."""
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.0
    warmup: int = 0
    """Updates over which the learning rate rises from 0."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """How it falls afterwards, to 0 at `updates`."""
    updates: int = 0
    """Updates in all, for the schedule; 0 where it is constant."""
    max_grad_norm: float = 1.0
    loss: Literal["policy_gradient", "ppo_clip"] = "policy_gradient"
    reduction: Reduction = "sum"
    clip: float = 0.2
    kl: float = 0.0
    """beta: weight of the KL to the reference policy."""
    kl_estimator: KlEstimator = "k2"
    micro_tokens: int = 16_384
    """Most tokens, padding included, of one forward pass."""
    pack: int = 0
    """Pack short rows into rows of up to this many tokens; 0 for none."""
    tree: bool = False
    """Compute stretches shared by several actions of one trajectory once, under a tree mask."""
    chunk: int = 0
    """Positions whose logits are held at a time; 0 lets `losses.CHUNK_VALUES` decide."""
    temperature: float = 1.0
    """Sampling temperature of the actions that are trained on."""


class Trainer:
    """Holds the policy, its optimizer and its schedule.

    Args:
        model: a causal LM of transformers, with LoRA adapters of peft or without.
        config: see `TrainConfig`.
        accelerator: one of accelerate; made with defaults where None.
        reference: a frozen LM for the KL; None takes the model with its adapters off, and needs adapters where ``kl > 0``.
    """

    def __init__(self, model: Any, config: TrainConfig, accelerator: Accelerator | None = None, reference: Any = None) -> None:
        if config.kl > 0 and reference is None and not hasattr(model, "disable_adapter"):
            raise ConfigError("kl > 0 needs a reference policy: pass one, or train LoRA adapters (reference = adapters off).")
        if config.schedule != "constant" and config.updates < 1:
            raise ConfigError(f"The {config.schedule} schedule falls to 0 at `updates`; give their number.")
        self.config = config
        self.accelerator = accelerator or Accelerator()
        self.model = model
        weights = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(weights, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda update: learning_rate(config, update))
        scorer = ActionScorer(model, config.chunk, config.temperature)
        self.scorer, self.optimizer = self.accelerator.prepare(scorer, optimizer)
        # Not prepared: accelerate would step it once a process, and an update is one update whatever their number.
        self.scheduler = scheduler
        self.accelerator.register_for_checkpointing(scheduler)
        self.reference = None if reference is None else ActionScorer(reference.to(self.accelerator.device).eval(), config.chunk)

    def update(
        self, steps: Sequence[TokenStep], advantages: ArrayLike, valid: ArrayLike, count: float | None = None
    ) -> dict[str, float]:
        """Makes one optimizer step.

        Args:
            steps: this process's part of the batch; those of an episode together and in order.
            advantages: [n] of these steps.
            valid: [n] bool; other steps leave the loss.
            count: what the loss is divided by; None takes the valid steps of the global batch.

        Returns:
            loss, kl, grad_norm, entropy (estimate, nats a token), tokens (computed in forward passes, all processes), steps.
        """
        usable = np.asarray(valid, dtype=np.bool_)
        gain = np.where(usable, np.asarray(advantages, dtype=np.float64), 0.0)
        used = [i for i in range(len(steps)) if usable[i] and (gain[i] != 0 or self.config.kl > 0) and steps[i].token_ids]
        total = self._sum(float(usable.sum()))
        batches = list(self._batches([steps[i] for i in used]))
        sums = np.zeros(4)  # loss, kl, tokens, sum of -log pi over action tokens
        self.scorer.train()
        rounds = int(self._max(len(batches)))
        context = _Steps([steps[i] for i in used], gain[used], count or max(total, 1.0), self.accelerator)
        for i in range(rounds):
            last = i == rounds - 1
            with nullcontext() if last else self.accelerator.no_sync(self.scorer):
                # A process that has run out of its own batches keeps the others company: their collectives wait for it.
                sums += self._backward(batches[i], context) if i < len(batches) else self._idle(batches)
        norm = self._step() if rounds else 0.0
        loss, kl, tokens, surprise = (self._sum(value) for value in sums)
        sampled = self._sum(float(sum(len(steps[i].token_ids) for i in used)))
        found = {"loss": loss, "kl": kl, "grad_norm": norm, "entropy": surprise / max(sampled, 1.0)}
        return {**found, "tokens": tokens, "steps": total, "lr": float(self.scheduler.get_last_lr()[0])}

    def _step(self) -> float:
        norm: Any = self.accelerator.clip_grad_norm_(self.scorer.parameters(), self.config.max_grad_norm)
        self.optimizer.step()
        self.scheduler.step()
        self.optimizer.zero_grad()
        return float(norm) if norm is not None else math.nan

    def _backward(self, rows: list[list[Segment]], context: _Steps) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Adds the gradient of one micro-batch; returns its parts of loss, KL, tokens and surprise."""
        batch = collate(rows).to(self.accelerator.device)
        logp = self.scorer(batch)  # [M]
        loss = self._loss(logp, batch, context)
        kl = logp.new_zeros(())
        if self.config.kl > 0:
            everyone = torch.ones(context.n, device=logp.device)
            reference = self._reference(batch)
            kl = kl_penalty(
                logp, reference, batch.step, everyone, context.count,
                estimator=self.config.kl_estimator, reduction=self.config.reduction,
            )  # fmt: skip
        # DDP and FSDP average gradients over processes; the loss is a sum over the global batch.
        self.accelerator.backward((loss + self.config.kl * kl) * self.accelerator.num_processes)
        return np.array([loss.item(), kl.item(), batch.tokens, -logp.detach().sum().item()])

    def _loss(self, logp: Tensor, batch: TokenBatch, context: _Steps) -> Tensor:
        gain = context.advantages.to(logp)
        if self.config.loss == "policy_gradient":
            return policy_gradient(logp, batch.step, gain, context.count, reduction=self.config.reduction)
        old = context.behaviour(batch).to(logp)
        return ppo_clip(
            logp, old, batch.step, gain, context.count, clip=self.config.clip, reduction=self.config.reduction
        )  # fmt: skip

    def _idle(self, batches: list[list[list[Segment]]]) -> np.ndarray[Any, np.dtype[np.float64]]:
        rows = batches[0] if batches else chains([TokenStep((0,), (0,))])
        self.accelerator.backward(self.scorer(collate(rows).to(self.accelerator.device)).sum() * 0.0)
        return np.zeros(4)

    @torch.no_grad()
    def _reference(self, batch: TokenBatch) -> Tensor:
        if self.reference is not None:
            return self.reference(batch)  # type: ignore[no-any-return]
        with self.model.disable_adapter():
            return self.scorer(batch)  # type: ignore[no-any-return]

    def _batches(self, steps: Sequence[TokenStep]) -> Iterator[list[list[Segment]]]:
        rows = trees(steps) if self.config.tree else chains(steps)
        if self.config.pack:
            rows = list(pack(rows, self.config.pack))
        return micro_batches(rows, self.config.micro_tokens)

    @torch.no_grad()
    def logprobs(self, steps: Sequence[TokenStep]) -> list[tuple[float, ...]]:
        """Returns log pi now of each step's tokens, e.g. as behaviour log-probs where none were stored."""
        found: list[list[float]] = [[0.0] * len(step.token_ids) for step in steps]
        for rows in self._batches(steps):
            batch = collate(rows).to(self.accelerator.device)
            columns = (batch.step.tolist(), batch.offset.tolist(), self.scorer(batch).tolist())
            for step, offset, value in zip(*columns, strict=True):
                found[step][offset] = value
        return [tuple(values) for values in found]

    def save(self, folder: Path) -> None:
        """Writes weights, optimizer, schedule and random states, from which `load` goes on exactly."""
        with _hide_tied_weight_warning():
            self.accelerator.save_state(str(folder))

    def load(self, folder: Path) -> None:
        """Goes on from what `save` wrote."""
        self.accelerator.load_state(str(folder))

    def close(self) -> None:
        """Ends trackers and the process group, when every process is there; a closed trainer makes no more updates.

        Several processes call it before they exit (see `shut_down`).
        """
        self.accelerator.wait_for_everyone()
        self.scorer = self.accelerator.unwrap_model(self.scorer)
        shut_down(self.accelerator)

    def _sum(self, value: float) -> float:
        return self._reduce(value).sum().item()

    def _max(self, value: float) -> float:
        return self._reduce(value).max().item()

    def _reduce(self, value: float) -> Tensor:
        """Returns the value of every process, [processes]."""
        one = torch.tensor([value], dtype=torch.float64, device=self.accelerator.device)
        return self.accelerator.gather(one)  # type: ignore[no-any-return]


@contextmanager
def _hide_tied_weight_warning() -> Iterator[None]:
    """Keeps a warning of accelerate off the log: tied weights are written once, and the model ties them again on loading."""

    def other(record: logging.LogRecord) -> bool:
        return "Removed shared tensor" not in record.getMessage()

    logger = logging.getLogger("accelerate.utils.other")
    logger.addFilter(other)
    try:
        yield
    finally:
        logger.removeFilter(other)


class _Steps:
    """The steps of an update that carry loss, by their numbers in the batch."""

    def __init__(self, steps: Sequence[TokenStep], advantages: Any, count: float, accelerator: Accelerator) -> None:
        self.n, self.count = len(steps), count
        self.advantages = torch.tensor(advantages, dtype=torch.float64, device=accelerator.device)
        self._behaviour = [step.behaviour for step in steps]

    def behaviour(self, batch: TokenBatch) -> Tensor:
        """Returns the log-probs at generation of a batch's action tokens, [M]."""
        where = zip(batch.step.tolist(), batch.offset.tolist(), strict=True)
        try:
            return torch.tensor([self._behaviour[step][offset] for step, offset in where])
        except IndexError as error:
            raise ConfigError("ppo_clip needs the log-probs at generation of every token; these steps have none.") from error


def shut_down(accelerator: Accelerator) -> None:
    """Ends trackers and the process group, with the threads that the group keeps for its collectives.

    Destroying the group is not enough: its threads live as long as anyone holds it, and the wrapper of the model (DDP) does.
    Such a thread may still be about to let go of the last collective's tensors when Python shuts down, and aborts the process
    over it ("terminate called without an active exception"). So whoever holds the group goes first, and the group next, while
    Python runs. Wrapped models that the caller still holds are the caller's to drop before.

    Args:
        accelerator: whose group it is; models and optimizers that it prepared are forgotten.
    """
    accelerator.free_memory()
    gc.collect()  # the wrapper is part of reference cycles
    accelerator.end_training()


def learning_rate(config: TrainConfig, update: int) -> float:
    """Returns the factor on the peak learning rate at an update (0 for the first)."""
    rise = min(1.0, (update + 1) / config.warmup) if config.warmup else 1.0
    if config.schedule == "constant":
        return rise
    done = min(1.0, max(0.0, (update - config.warmup) / max(1, config.updates - config.warmup)))
    return rise * (1 - done if config.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done)))
