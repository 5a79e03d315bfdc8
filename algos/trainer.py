"""One optimizer step on a global batch of steps, whatever the micro-batches, processes or packing.

On `accelerate`: one process or several (DDP), mixed precision, trackers. Every process passes its own steps; the loss is
normalised by the number of valid steps of all of them.
"""

from __future__ import annotations

import gc
import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import parse_flag_from_env
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from swirl_env.agents.transformers.interfaces import CausalLM
from swirl_env.algos import checkpoint
from swirl_env.algos.batch import Segment, TokenBatch, TokenStep, chains, collate, micro_batches, pack, trees
from swirl_env.algos.layout_check import check_layouts
from swirl_env.algos.losses import kl_penalty, policy_gradient, ppo_clip
from swirl_env.algos.optimizer import MasterAdamW
from swirl_env.algos.reference import FirstWeights
from swirl_env.algos.scoring import ActionScorer, freeze_other_modalities
from swirl_env.algos.train_config import TrainConfig, default_lr, learning_rate
from swirl_env.errors import ConfigError, TrainingError

log = logging.getLogger(__name__)


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
        _check_distribution(self.accelerator, model)
        _one_step_per_update(self.accelerator)
        self.bare = ActionScorer(model, config.chunk, config.temperature)
        """Scores without DDP's wrapper, whose forward pass waits for the other processes."""
        if config.pack or config.tree:
            check_layouts(self.bare, packed=config.pack > 0, tree=config.tree)
        freeze_other_modalities(model)
        self.weights = {name: weight for name, weight in self.bare.model.named_parameters() if weight.requires_grad}
        """The trainable weights by name."""
        many = list(self.weights.values())
        self.lr = default_lr(hasattr(model, "peft_config"), sum(w.numel() for w in many)) if config.lr is None else config.lr
        """Peak learning rate."""
        self.scorer: nn.Module = self.accelerator.prepare(self.bare)
        self.optimizer = MasterAdamW(many, self.lr, config.betas, config.weight_decay)
        self.updates = self.skipped = 0
        """Updates made so far, for the schedule; updates skipped in a row."""
        self._first = FirstWeights(many) if config.kl > 0 and reference is None else None
        self._reference = None if reference is None else self._frozen(reference)

    def update(
        self, steps: Sequence[TokenStep], advantages: ArrayLike, valid: ArrayLike, count: float | None = None
    ) -> dict[str, float]:
        """Makes one optimizer step; none if no step carries loss, or if loss or gradient is not finite.

        Args:
            steps: this process's part of the batch; those of an episode together and in order.
            advantages: [n] of these steps.
            valid: [n] bool; other steps leave the loss.
            count: what the loss is divided by; None takes the valid steps of the global batch.

        Returns:
            loss, kl, grad_norm, surprise (mean -log pi of the trained tokens, nats; an estimate of the entropy only if they
            were all sampled from this very policy), tokens (computed in forward passes, all processes), steps (valid ones),
            lr, stepped and skipped (1.0 or 0.0).

        Raises:
            TrainingError: if more than `max_skipped` updates in a row had a loss or gradient that is not finite.
        """
        usable = np.asarray(valid, dtype=np.bool_)
        gain = np.where(usable, np.asarray(advantages, dtype=np.float64), 0.0)
        used = [i for i in range(len(steps)) if usable[i] and (gain[i] != 0 or self.config.kl > 0) and steps[i].token_ids]
        total = self._sum(float(usable.sum()))
        batches = list(self._batches([steps[i] for i in used]))
        rounds = int(self._max(len(batches)))
        lr = self.lr * learning_rate(self.config, self.updates)
        self.updates += 1
        context = _Steps([steps[i] for i in used], gain[used], count or max(total, 1.0), self.accelerator)
        with self._training():
            sums = self._backward_all(batches, rounds, context)
        loss, kl, tokens, surprise = (self._sum(value) for value in sums)
        norm = self._clip() if rounds else 0.0
        sound = math.isfinite(loss) and math.isfinite(kl) and math.isfinite(norm)
        if rounds:
            self._step(lr, sound)
        sampled = self._sum(float(sum(len(steps[i].token_ids) for i in used)))
        figures = {"loss": loss, "kl": kl, "grad_norm": norm, "surprise": surprise / max(sampled, 1.0)}
        done = {"stepped": float(sound and rounds > 0), "skipped": float(not sound)}
        return {**figures, "tokens": tokens, "steps": total, "lr": lr, **done}

    @contextmanager
    def _training(self) -> Iterator[None]:
        """Switches dropout on for an update, and back to what it was."""
        mode = self.model.training
        self.scorer.train()
        try:
            yield
        finally:
            self.model.train(mode)

    def _backward_all(self, batches: list[list[list[Segment]]], rounds: int, context: _Steps) -> NDArray[np.float64]:
        sums = np.zeros(4)  # loss, kl, tokens, sum of -log pi over action tokens
        for i in range(rounds):
            last = i == rounds - 1
            with nullcontext() if last else self.accelerator.no_sync(self.scorer):
                # A process that has run out of its own batches keeps the others company: their collectives wait for it.
                sums += self._backward(batches[i], context) if i < len(batches) else self._idle(batches)
        return sums

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
        self.optimizer.zero_grad()
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.update()  # an overflow lowers the scale of fp16, step or no step
        self.skipped = 0 if sound else self.skipped + 1
        if self.skipped > self.config.max_skipped:
            raise TrainingError(
                f"Loss or gradient was not finite in {self.skipped} updates in a row; none of them was made. Check the rewards "
                f"for huge values, lower trainer.lr, or train in float32."
            )

    def _backward(self, rows: list[list[Segment]], context: _Steps) -> NDArray[np.float64]:
        """Adds the gradient of one micro-batch; returns its parts of loss, KL, tokens and surprise."""
        batch = collate(rows).to(self.accelerator.device)
        reference = self._reference_logprobs(batch) if self.config.kl > 0 else None
        logp: Tensor = self.scorer(batch)  # [M]
        loss = self._loss(logp, batch, context)
        kl = logp.new_zeros(())
        if reference is not None:
            everyone = torch.ones(context.n, device=logp.device)
            kl = kl_penalty(
                logp, reference, batch.step, everyone, context.count,
                estimator=self.config.kl_estimator, reduction=self.config.reduction,
            )  # fmt: skip
        # DDP averages gradients over processes; the loss is a sum over the global batch.
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

    def _idle(self, batches: list[list[list[Segment]]]) -> NDArray[np.float64]:
        rows = batches[0] if batches else chains([TokenStep((0,), (0,))])
        self.accelerator.backward(self.scorer(collate(rows).to(self.accelerator.device)).sum() * 0.0)
        return np.zeros(4)

    @torch.no_grad()
    def _reference_logprobs(self, batch: TokenBatch) -> Tensor:
        """Returns log pi_ref of a batch's action tokens, [M], without dropout; touches no other process."""
        if self._reference is not None:
            return self._reference(batch)  # type: ignore[no-any-return]  # nn.Module's call is untyped
        assert self._first is not None
        mode = self.model.training
        self.model.eval()
        try:
            with self._first.in_place():
                return self.bare(batch)  # type: ignore[no-any-return]
        finally:
            self.model.train(mode)

    def _frozen(self, reference: CausalLM) -> ActionScorer:
        scorer = ActionScorer(reference, self.config.chunk, self.config.temperature).to(self.accelerator.device)
        return scorer.eval().requires_grad_(False)

    def _batches(self, steps: Sequence[TokenStep]) -> Iterator[list[list[Segment]]]:
        rows = trees(steps) if self.config.tree else chains(steps)
        if self.config.pack:
            rows = list(pack(rows, self.config.pack))
        return micro_batches(rows, self.config.micro_tokens)

    @torch.no_grad()
    def logprobs(self, steps: Sequence[TokenStep]) -> list[tuple[float, ...]]:
        """Returns log pi now of each step's tokens, e.g. as behaviour log-probs if none were stored."""
        values: list[list[float]] = [[0.0] * len(step.token_ids) for step in steps]
        for rows in self._batches(steps):
            batch = collate(rows).to(self.accelerator.device)
            columns = (batch.step.tolist(), batch.offset.tolist(), self.bare(batch).tolist())
            for step, offset, value in zip(*columns, strict=True):
                values[step][offset] = value
        return [tuple(row) for row in values]

    def save(self, folder: Path) -> None:
        """Writes a checkpoint from which `load` goes on exactly; every process calls it."""
        if self.accelerator.is_main_process:
            counters = {"format": 1, "updates": self.updates, "skipped": self.skipped}
            scaler = self.accelerator.scaler
            checkpoint.save_state(
                folder, self.weights, self.optimizer, counters | ({} if scaler is None else {"scaler": scaler.state_dict()})
            )
        checkpoint.save_random(folder, self.accelerator.process_index)

    def load(self, folder: Path) -> None:
        """Goes on from what `save` wrote."""
        counters = checkpoint.load_state(folder, self.weights, self.optimizer)
        self.updates, self.skipped = int(counters["updates"]), int(counters["skipped"])
        if self.accelerator.scaler is not None and "scaler" in counters:
            self.accelerator.scaler.load_state_dict(counters["scaler"])
        checkpoint.load_random(folder, self.accelerator.process_index)

    def close(self) -> None:
        """Ends trackers and the process group, when every process is there; a closed trainer makes no more updates.

        Several processes call it before they exit (see `shut_down`).
        """
        self.accelerator.wait_for_everyone()
        self.scorer = self.bare
        shut_down(self.accelerator)

    def _sum(self, value: float) -> float:
        return self._reduce(value).sum().item()

    def _max(self, value: float) -> float:
        return self._reduce(value).max().item()

    def _reduce(self, value: float) -> Tensor:
        """Returns the value of every process, [processes]."""
        one = torch.tensor([value], dtype=torch.float64, device=self.accelerator.device)
        return self.accelerator.gather(one)  # type: ignore[no-any-return]  # accelerate's gather is untyped


class _Steps:
    """The steps of an update that carry loss, by their numbers in the batch."""

    def __init__(
        self, steps: Sequence[TokenStep], advantages: NDArray[np.float64], count: float, accelerator: Accelerator
    ) -> None:
        self.n, self.count = len(steps), count
        self.advantages = torch.tensor(advantages, dtype=torch.float64, device=accelerator.device)
        self._behaviour = [step.behaviour for step in steps]

    def behaviour(self, batch: TokenBatch) -> Tensor:
        """Returns the log-probs at generation of a batch's action tokens, [M]."""
        places = zip(batch.step.tolist(), batch.offset.tolist(), strict=True)
        try:
            return torch.tensor([self._behaviour[step][offset] for step, offset in places])
        except IndexError as error:
            raise ConfigError("ppo_clip needs the log-probs at generation of every token; these steps have none.") from error


def check_launcher() -> None:
    """Refuses a launcher's configuration that splits the weights, before accelerate acts on it.

    Rollouts, checkpoints and the one optimizer step per update need the whole model in every process. On CPUs accelerate
    leaves such a configuration out without a word, and without the package it names it fails.

    Raises:
        ConfigError: names what was asked for.
    """
    asked = [name for name in ("FSDP", "DEEPSPEED", "MEGATRON_LM") if parse_flag_from_env(f"ACCELERATE_USE_{name}")]
    if asked:
        raise _split(asked[0])


def _check_distribution(accelerator: Accelerator, model: CausalLM) -> None:
    kind = accelerator.distributed_type.value
    if kind != "NO" and not kind.startswith("MULTI_"):
        raise _split(kind)
    for weight in model.parameters():
        if isinstance(weight.data, DTensor) or hasattr(weight, "ds_id"):
            raise _split("FSDP (fully_shard)" if isinstance(weight.data, DTensor) else "DEEPSPEED (ZeRO)")


def _split(kind: str) -> ConfigError:
    return ConfigError(
        f"{kind} is asked for, which splits the weights over processes; rollouts, checkpoints and the one optimizer step per "
        f"update need them whole. Train with DDP (accelerate launch --multi_gpu), with LoRA (lora.rank=8) if memory is short."
    )


def _one_step_per_update(accelerator: Accelerator) -> None:
    """Takes gradient accumulation out of accelerate's hands: it would divide the gradient, whose micro-batches are ours."""
    if accelerator.gradient_accumulation_steps != 1:
        log.warning(
            "gradient_accumulation_steps=%d of accelerate's configuration is not used: trainer.micro_tokens splits an update",
            accelerator.gradient_accumulation_steps,
        )
        accelerator.gradient_accumulation_steps = 1


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
