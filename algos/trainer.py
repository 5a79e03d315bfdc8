"""Optimizer steps on a global batch of steps, whatever the micro-batches, processes or packing.

On `accelerate`: one process or several (DDP), mixed precision, trackers. Every process passes its own steps; the loss is
normalised by the number of valid steps of all of them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from swirl_env.agents.transformers.interfaces import CausalLM
from swirl_env.algos import checkpoint
from swirl_env.algos.batch import Segment, TokenStep, chains, collate
from swirl_env.algos.distribution import check_distribution, check_launcher, one_step_per_update, shut_down
from swirl_env.algos.losses import entropy_bonus, kl_penalty
from swirl_env.algos.objective import BatchSteps, Loss, LossInputs, PolicyLoss
from swirl_env.algos.optimizer import MasterAdamW
from swirl_env.algos.policy import PolicyScores
from swirl_env.algos.processes import Processes
from swirl_env.algos.reference import FirstWeights
from swirl_env.algos.sharding import ShardedPolicy
from swirl_env.algos.train_config import TrainConfig, default_lr, learning_rate
from swirl_env.errors import ConfigError, TrainingError

_COUNTS = ("tokens", "stepped", "skipped")
_TAKEN = frozenset("loss kl grad_norm surprise entropy ratio clipped clip_fraction kl_behaviour importance compared".split())
_TAKEN |= {*_COUNTS, "steps", "lr"}
"""Names of figures that the trainer makes itself."""


@dataclass(slots=True)
class Tally:
    """What the optimizer steps of an update add up to."""

    sums: Counter[str] = field(default_factory=Counter)
    """Over all processes."""
    named: Counter[str] = field(default_factory=Counter)
    """Figures of the loss, of this process alone."""

    def add(self, **values: float) -> None:
        """Adds to the sums."""
        for name, value in values.items():
            self.sums[name] += value  # type: ignore[assignment]  # a Counter of floats


class Trainer:
    """The policy with its optimizer and its schedule.

    Args:
        model: a causal LM of transformers, with LoRA adapters of peft or without.
        config: see `TrainConfig`.
        accelerator: one of accelerate; by default one of its defaults.
        reference: a frozen LM for the KL; None takes the policy as it is now, that is as training begins with it.

    Raises:
        ConfigError: for options or a kind of distribution that cannot work.
    """

    def __init__(
        self, model: CausalLM, config: TrainConfig, accelerator: Accelerator | None = None, reference: CausalLM | None = None
    ) -> None:
        if config.schedule != "constant" and config.updates < 1:
            raise ConfigError(f"The {config.schedule} schedule falls to 0 at `updates`; give their number.")
        self.config, self.model = config, model
        check_launcher()
        self.accelerator = accelerator or Accelerator()
        self._processes = Processes(self.accelerator)
        check_distribution(self.accelerator, model)
        one_step_per_update(self.accelerator)
        self.scores = PolicyScores(model, config, self.accelerator.device, reference)
        """Scores steps, waiting for no other process."""
        self.bare = self.scores.scorer
        self.weights = self.scores.weights
        """The trainable weights by name."""
        size = sum(weight.numel() for weight in self.weights.values())
        self.lr = default_lr(hasattr(model, "peft_config"), size) if config.lr is None else config.lr
        """Peak learning rate."""
        self._sharded = ShardedPolicy(self.bare, self.accelerator) if config.shard and self._processes.world > 1 else None
        self.scorer: nn.Module = self._sharded or self.accelerator.prepare(self.bare)
        many = list((self._sharded or self.scores).weights.values())
        self.optimizer = MasterAdamW(many, self.lr, config.betas, config.weight_decay)
        self.seed = 0
        """Seed of the order in which minibatches take episodes."""
        self.updates = self.skipped = 0
        """Updates made so far, for the schedule; optimizer steps skipped in a row."""
        self._policy_loss = PolicyLoss(config)
        if config.kl > 0:
            self.scores.first_weights(begun=False)

    def usable(self, steps: Sequence[TokenStep], valid: ArrayLike) -> NDArray[np.bool_]:
        """Returns which of the valid steps may carry loss, [n]: with ``overlong=mask`` none that was cut off."""
        usable = np.array(valid, dtype=np.bool_)
        if self.config.overlong == "mask":
            usable &= ~np.array([step.truncated for step in steps], dtype=np.bool_)
        return usable

    def update(
        self,
        steps: Sequence[TokenStep],
        advantages: ArrayLike,
        valid: ArrayLike,
        count: float | None = None,
        *,
        loss: Loss | None = None,
    ) -> dict[str, float]:
        """Makes ``epochs`` x ``minibatches`` optimizer steps; none if no step carries loss, or loss or gradient is not finite.

        A minibatch holds whole episodes, other ones in every pass. Its loss is divided by ``count / minibatches``, so that each
        step weighs the same in every one of them, and all minibatches of a pass add up to the whole batch.

        Args:
            steps: this process's part of the batch; those of an episode together and in order.
            advantages: [n] of these steps.
            valid: [n] bool; other steps leave the loss.
            count: what the loss is divided by; None takes the valid steps of the global batch.
            loss: takes the place of the configured policy loss.

        Returns:
            loss, kl, grad_norm (means over the optimizer steps), surprise (mean -log pi of the trained tokens, nats; an estimate
            of the entropy only if they were all sampled from this very policy), tokens (computed in forward passes, all
            processes), steps (valid ones), lr, stepped and skipped (numbers of optimizer steps). With ratios or several optimizer
            steps per update also ratio, kl_behaviour and, for a clipped loss, clip_fraction, as means over tokens. With an
            entropy bonus entropy, mean over tokens.

        Raises:
            TrainingError: if more than `max_skipped` updates in a row had a loss or gradient that is not finite.
        """
        usable = self.usable(steps, valid)
        gain = np.where(usable, np.asarray(advantages, dtype=np.float64), 0.0)
        everyone = self.config.kl > 0 or self.config.entropy > 0 or loss is not None
        used = [i for i in range(len(steps)) if usable[i] and (gain[i] != 0 or everyone) and steps[i].token_ids]
        total = self._sum(float(usable.sum()))
        lr = self.lr * learning_rate(self.config, self.updates)
        training = dict(zip(used, self.logprobs([steps[i] for i in used]), strict=True)) if self.config.importance_cap else {}
        tally, groups = Tally(), self._minibatches([steps[i].episode for i in used])
        for group, parts in groups:
            mine = [used[k] for k in group]
            batch = BatchSteps(
                [steps[i] for i in mine], mine, gain[mine], [training[i] for i in mine] if training else [],
                (count or max(total, 1.0)) / parts, self.accelerator.device,
            )  # fmt: skip
            self._optimize(batch, lr, loss, tally)
        self.updates += 1
        return {**self._figures(tally, loss), "steps": total, "lr": lr}

    def _minibatches(self, episodes: Sequence[int]) -> Iterator[tuple[list[int], int]]:
        """Yields for each optimizer step the places of this process's steps, and how many minibatches there are per pass.

        Which episodes go together depends on all episodes of the batch, not on how processes share them.
        """
        everything = list(range(len(episodes)))
        if self.config.optimizer_steps == 1:
            yield everything, 1
            return
        known = sorted(set(self._processes.concatenate(sorted(set(episodes)))))
        parts = max(1, min(self.config.minibatches, len(known)))
        for epoch in range(self.config.epochs):
            order = np.random.default_rng([self.seed, self.updates, epoch]).permutation(len(known))
            part = {known[i]: place * parts // len(known) for place, i in enumerate(order)}
            for number in range(parts):
                yield (everything if parts == 1 else [k for k in everything if part[episodes[k]] == number]), parts

    def _optimize(self, steps: BatchSteps, lr: float, loss: Loss | None, tally: Tally) -> None:
        """Makes one optimizer step, or none if no step carries loss or something is not finite; adds to the tally."""
        batches = list(self.scores.batches(steps.steps))
        rounds = int(self._max(len(batches)))
        with self._training():
            sums, named = self._backward_all(batches, rounds, steps, loss)
        total, kl, tokens, surprise = (self._sum(value) for value in sums)
        norm = self._clip() if rounds else 0.0
        sound = math.isfinite(total) and math.isfinite(kl) and math.isfinite(norm)
        if rounds:
            self._step(lr, sound)
        sampled = self._sum(float(sum(len(step.token_ids) for step in steps.steps)))
        tally.add(loss=total, kl=kl, grad_norm=norm, tokens=tokens, surprise=surprise, sampled=sampled)
        tally.named.update(named)
        tally.add(rounds=float(rounds > 0), stepped=float(sound and rounds > 0), skipped=float(not sound))

    def _figures(self, tally: Tally, loss: Loss | None) -> dict[str, float]:
        """Returns the figures of an update from what its optimizer steps added up."""
        sums, made = tally.sums, max(tally.sums["rounds"], 1.0)
        figures = {name: sums[name] / made for name in ("loss", "kl", "grad_norm")}
        figures["surprise"] = sums["surprise"] / max(sums["sampled"], 1.0)
        own = ("ratio", "clipped", "kl_behaviour", "importance", "compared", "entropy")
        names = set(own) if self.config.needs_ratios or self.config.optimizer_steps > 1 or self.config.entropy else set()
        if loss is not None:
            names |= set(self._processes.concatenate(sorted(tally.named)))
        named = {name: self._sum(tally.named[name]) for name in sorted(names)}
        compared = named.pop("compared", 0.0)
        for name, key in (("ratio", "ratio"), ("clipped", "clip_fraction"), ("kl_behaviour",) * 2, ("importance",) * 2):
            value = named.pop(name, 0.0)
            if compared and (name != "clipped" or self.config.loss == "ppo_clip") and (name != "importance" or value):
                figures[key] = value / compared
        entropy = named.pop("entropy", 0.0)
        if self.config.entropy:
            figures["entropy"] = entropy / max(sums["sampled"], 1.0)
        return {**figures, **{name: value / made for name, value in named.items()}, **{k: sums[k] for k in _COUNTS}}

    @contextmanager
    def _training(self) -> Iterator[None]:
        """Switches dropout on for an update, and back to what it was."""
        mode = self.model.training
        self.model.train()
        self.scorer.train()
        try:
            yield
        finally:
            self.model.train(mode)

    def _backward_all(
        self, batches: list[list[list[Segment]]], rounds: int, steps: BatchSteps, loss: Loss | None
    ) -> tuple[NDArray[np.float64], Counter[str]]:
        sums = np.zeros(4)  # loss, kl, tokens, sum of -log pi over action tokens
        named: Counter[str] = Counter()
        for i in range(rounds):
            last = i == rounds - 1
            with nullcontext() if last or self._sharded is not None else self.accelerator.no_sync(self.scorer):
                # A process that has run out of its own batches keeps the others company: their collectives wait for it.
                sums += self._backward(batches[i], steps, loss, named) if i < len(batches) else self._idle(batches)
        return sums, named

    def _clip(self) -> float:
        """Makes the gradients ready for a step; returns their norm."""
        self.optimizer.read_gradients()
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.unscale_(self.optimizer.adamw)
        return float(self.optimizer.clip(self.config.max_grad_norm))

    def _step(self, lr: float, sound: bool) -> None:
        """Makes the step, or skips it if the update is not sound; stops after too many of those."""
        if sound:
            self.optimizer.step(lr)
            if self._sharded is not None:
                self._sharded.write_to(self.weights)
        self.optimizer.zero_grad()
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.update()  # an overflow lowers the scale of fp16, step or no step
        self.skipped = 0 if sound else self.skipped + 1
        if self.skipped > self.config.max_skipped:
            raise TrainingError(
                f"Loss or gradient was not finite in {self.skipped} updates in a row; none of them was made. Check the rewards "
                f"for huge values, lower trainer.lr, or train in float32."
            )

    def _backward(
        self, rows: list[list[Segment]], steps: BatchSteps, loss: Loss | None, named: Counter[str]
    ) -> NDArray[np.float64]:
        """Adds the gradient of one micro-batch, and its named figures; returns its parts of loss, KL, tokens and surprise."""
        config = self.config
        batch = collate(rows).to(self.accelerator.device)
        reference = self.scores.reference(batch) if config.kl > 0 else None
        scores: Tensor = self.scorer(batch, config.entropy > 0)  # [M], or [2, M] with entropies
        logp = scores[0] if config.entropy > 0 else scores
        compares = loss is not None or config.needs_ratios or config.optimizer_steps > 1
        inputs = LossInputs(
            logp, steps.behaviour(batch) if compares else None, reference, batch.step, steps.index, steps.advantages,
            steps.count, config.reduction,
        )  # fmt: skip
        value, figures = self._policy_loss(inputs, steps.training(batch)) if loss is None else _own(loss, inputs)
        kl = logp.new_zeros(())
        if reference is not None:
            everyone = torch.ones(steps.n, device=logp.device)
            kl = kl_penalty(
                logp, reference, batch.step, everyone, steps.count, estimator=config.kl_estimator, reduction=config.reduction
            )
        objective = value + config.kl * kl
        if config.entropy > 0:
            bonus = entropy_bonus(scores[1], batch.step, steps.n, steps.count, reduction=config.reduction)
            objective = objective - config.entropy * bonus
            figures = {**figures, "entropy": scores[1].detach().sum().item()}
        # DDP averages gradients over processes; the loss is a sum over the global batch.
        self.accelerator.backward(objective * self.accelerator.num_processes)
        for name, figure in figures.items():
            named[name] += float(figure)  # type: ignore[assignment]  # a Counter of floats
        return np.array([value.item(), kl.item(), batch.tokens, -logp.detach().sum().item()])

    def _idle(self, batches: list[list[list[Segment]]]) -> NDArray[np.float64]:
        rows = batches[0] if batches else chains([TokenStep((0,), (0,))])
        scores = self.scorer(collate(rows).to(self.accelerator.device), self.config.entropy > 0)
        self.accelerator.backward(scores.sum() * 0.0)
        return np.zeros(4)

    def logprobs(self, steps: Sequence[TokenStep], *, reference: bool = False, branches: bool = False) -> list[tuple[float, ...]]:
        """Returns log pi now of each step's tokens, without dropout, e.g. as behaviour log-probs if none were stored.

        Args:
            steps: those of an episode together.
            reference: score under the policy that training began with, or the reference that was given. If ``kl`` is 0 and none
                was, the first call has to come before the first update.
            branches: whether the steps of an episode branch off one another, like several actions at one state: what they share
                is then computed once, as with ``tree``, if the model computes the same that way (tried once).
        """
        if reference:
            self.scores.first_weights(begun=self.updates > 0)
        return self.scores.logprobs(steps, reference=reference, branches=branches)

    def features(self, steps: Sequence[TokenStep]) -> list[Tensor]:
        """Returns the last hidden state at the end of each step's prompt, [H] in float32 on the CPU, without dropout."""
        return self.scores.features(steps)

    def state_dict(self) -> dict[str, Any]:
        """Returns weights, optimizer and counters, for a trainer of another model than the policy (`Run.register`)."""
        weights = {name: weight.detach() for name, weight in self.weights.items()}
        first = {} if self.scores.first is None else {"first": self.scores.first.tensors}
        return {"weights": weights, "optimizer": self.optimizer.tensors(), **first, **self._counters()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state_dict` returned."""
        self._restore({**state, "reference": False})
        if "first" in state:
            self.scores.first = FirstWeights(list(self.weights.values()), state["first"])
        checkpoint.restore_weights(self.weights, state["weights"])
        self._load_optimizer(state["optimizer"])

    def _counters(self) -> dict[str, Any]:
        scaler = self.accelerator.scaler
        counters = {"updates": self.updates, "skipped": self.skipped, "reference": self.scores.first is not None}
        return counters | ({} if scaler is None else {"scaler": scaler.state_dict()})

    def _restore(self, counters: Mapping[str, Any]) -> None:
        """Goes on from counters; the weights are still those that training began with."""
        if counters.get("reference"):
            self.scores.first_weights(begun=self.updates > 0)
        self.updates, self.skipped = int(counters["updates"]), int(counters["skipped"])
        if self.accelerator.scaler is not None and "scaler" in counters:
            self.accelerator.scaler.load_state_dict(dict(counters["scaler"]))

    def _load_optimizer(self, tensors: Mapping[str, Tensor]) -> None:
        """Goes on from the optimizer's tensors; the weights are those of the checkpoint already."""
        if self._sharded is not None:
            self._sharded.read_from(self.weights)
        self.optimizer.load(tensors)

    def save(self, folder: Path) -> None:
        """Writes a checkpoint from which `load` goes on exactly; every process calls it."""
        tensors = self.optimizer.tensors()
        if self.accelerator.is_main_process:
            checkpoint.save_state(folder, self.weights, tensors, {"format": 1, **self._counters()})
        checkpoint.save_random(folder, self.accelerator.process_index)

    def load(self, folder: Path) -> None:
        """Goes on from what `save` wrote; the weights are still those that training began with."""
        self._restore(checkpoint.read_counters(folder))
        self._load_optimizer(checkpoint.load_state(folder, self.weights))
        checkpoint.load_random(folder, self.accelerator.process_index)

    def close(self) -> None:
        """Ends trackers and the process group, when every process is there; a closed trainer makes no more updates.

        Several processes call it before they exit (see `shut_down`).
        """
        self.accelerator.wait_for_everyone()
        self.scorer, self._sharded = self.bare, None
        shut_down(self.accelerator)

    def _sum(self, value: float) -> float:
        return self._reduce(value).sum().item()

    def _max(self, value: float) -> float:
        return self._reduce(value).max().item()

    def _reduce(self, value: float) -> Tensor:
        """Returns the value of every process, [processes]."""
        one = torch.tensor([value], dtype=torch.float64, device=self.accelerator.device)
        return self.accelerator.gather(one)  # type: ignore[no-any-return]  # accelerate's gather is untyped


def _own(loss: Loss, inputs: LossInputs) -> tuple[Tensor, Mapping[str, Tensor | float]]:
    """Returns the value and the figures of an algorithm's own loss."""
    result = loss(inputs)
    value, figures = result if isinstance(result, tuple) else (result, {})
    if not isinstance(value, Tensor) or value.shape != ():
        raise ConfigError(f"A loss returns one number as a tensor (and a mapping of figures, if it likes); got {value!r:.60}.")
    if taken := sorted(_TAKEN & set(figures)):
        raise ConfigError(f"The figure {taken[0]!r} of a loss has the name of one that the trainer logs; choose another.")
    return value, figures
