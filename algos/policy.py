"""The policy as a scorer: log-probs now and when training began, and features of states; without dropout and gradient.

The model here is whole in every process and is the one that generates. Nothing in this file waits for another process.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from swirl_env.agents.transformers.interfaces import CausalLM
from swirl_env.algos.batch import Segment, TokenBatch, TokenStep, chains, collate, micro_batches, pack, trees
from swirl_env.algos.layout_check import check_layouts
from swirl_env.algos.reference import FirstWeights
from swirl_env.algos.scoring import ActionScorer, freeze_other_modalities
from swirl_env.algos.train_config import TrainConfig
from swirl_env.errors import ConfigError

log = logging.getLogger(__name__)


class PolicyScores:
    """Scores steps under a policy and its reference.

    Args:
        model: a causal LM of transformers, with LoRA adapters of peft or without.
        config: how steps are laid out and scored.
        device: where the model is.
        reference: a frozen LM; None takes the policy as it is when its copy is made (see `first_weights`).
    """

    def __init__(self, model: CausalLM, config: TrainConfig, device: torch.device, reference: CausalLM | None) -> None:
        self.model, self._config, self._device = model, config, device
        self.scorer = ActionScorer(model, config.chunk, config.temperature)
        """Scores without DDP's wrapper, whose forward pass waits for the other processes."""
        if config.pack or config.tree:
            check_layouts(self.scorer, packed=config.pack > 0, tree=config.tree)
        freeze_other_modalities(model)
        self.weights = {name: weight for name, weight in self.scorer.model.named_parameters() if weight.requires_grad}
        """The trainable weights by name."""
        self.first: FirstWeights | None = None
        """The policy that training began with, if anybody has asked for it."""
        self._branches: bool | None = True if config.tree else None
        """Whether steps may share trees when they are scored; None if that has not been tried yet."""
        self._reference: ActionScorer | None = None
        if reference is not None:
            self._reference = ActionScorer(reference, config.chunk, config.temperature).to(device)
            self._reference.eval().requires_grad_(False)

    def first_weights(self, begun: bool) -> None:
        """Keeps a copy of the policy as it is now, for the reference, unless there is one or a reference was given.

        Args:
            begun: whether training has begun, so that it is too late.

        Raises:
            ConfigError: if it is.
        """
        if self.first is not None or self._reference is not None:
            return
        if begun:
            raise ConfigError(
                "The reference is the policy that training began with, and training has begun: ask for its log-probs before the "
                "first update, set trainer.kl above 0, or give the trainer a reference."
            )
        self.first = FirstWeights(list(self.weights.values()))

    def batches(self, steps: Sequence[TokenStep], *, tree: bool = False) -> Iterator[list[list[Segment]]]:
        """Yields the micro-batches of steps, as rows of segments; in trees if so configured or asked for."""
        config = self._config
        # Episodes share rows only if the user asks for trees: another order of sums is another run, number for number.
        width = int(getattr(self.scorer.config, "hidden_size", 0) or 0) if config.tree else 0
        rows = trees(steps, width, config.micro_tokens) if tree or config.tree else chains(steps)
        if self._config.pack:
            rows = list(pack(rows, self._config.pack))
        return micro_batches(rows, self._config.micro_tokens)

    @torch.no_grad()
    def reference(self, batch: TokenBatch) -> Tensor:
        """Returns log pi_ref of a batch's action tokens, [M]."""
        if self._reference is not None:
            return self._reference(batch)  # type: ignore[no-any-return]  # nn.Module's call is untyped
        assert self.first is not None
        with self._evaluating(), self.first.in_place():
            return self.scorer(batch)  # type: ignore[no-any-return]

    @torch.no_grad()
    def logprobs(self, steps: Sequence[TokenStep], *, reference: bool = False, branches: bool = False) -> list[tuple[float, ...]]:
        """Returns log pi (or log pi_ref) of each step's tokens; steps that branch off one another share trees if that works."""
        values: list[list[float]] = [[0.0] * len(step.token_ids) for step in steps]
        with self._evaluating():
            for rows in self.batches(steps, tree=branches and self._may_branch()):
                batch = collate(rows).to(self._device)
                scores = self.reference(batch) if reference else self.scorer(batch)
                columns = (batch.step.tolist(), batch.offset.tolist(), scores.tolist())
                for step, offset, value in zip(*columns, strict=True):
                    values[step][offset] = value
        return [tuple(row) for row in values]

    @torch.no_grad()
    def features(self, steps: Sequence[TokenStep]) -> list[Tensor]:
        """Returns the last hidden state at the end of each step's prompt, [H] in float32 on the CPU."""
        # A step without tokens has a state all the same; any one token marks its end.
        marked = [step if step.token_ids else replace(step, token_ids=step.prompt_ids[-1:]) for step in steps]
        values: list[Tensor] = [torch.empty(0)] * len(steps)
        with self._evaluating():
            for rows in self.batches(marked):
                batch = collate(rows).to(self._device)
                hidden = self.scorer.features(batch).cpu()  # [N, H]
                for row, step in zip(hidden, batch.step[batch.offset == 0].tolist(), strict=True):
                    values[step] = row.clone()
        return values

    def _may_branch(self) -> bool:
        """Whether trees leave this model's log-probs as they are, tried once."""
        if self._branches is None:
            try:
                check_layouts(self.scorer, packed=False, tree=True)
                self._branches = True
            except ConfigError as error:
                log.info("what steps share is read again for each of them: %s", error)
                self._branches = False
        return self._branches

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        """Switches dropout off for a while."""
        mode = self.model.training
        self.model.eval()
        try:
            yield
        finally:
            self.model.train(mode)
