"""`StepGRPOTrainer`: TRL's GRPO with an advantage for every step of a rollout in place of one for the whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from msgspec.structs import replace
from torch import Tensor

from swirl_env.algos.steps import reward_or_nan
from swirl_env.errors import ConfigError, MissingExtra
from swirl_env.interop.trl.credit import CreditRule, StepRow, apply_rule, columns, make_rule
from swirl_env.interop.trl.environment import ToolEnvironment, judge_episodes
from swirl_env.interop.trl.turns import Message
from swirl_env.types import Trajectory

try:
    from trl import GRPOTrainer  # pyright: ignore[reportMissingImports]  # a peer, which has an environment of its own
except ModuleNotFoundError as error:
    raise MissingExtra("StepGRPOTrainer needs 'trl'. Install it with: pip install 'swirl-env[trl]'") from error

BY_TOKENS = ("dapo", "cispo")
"""Loss types that TRL divides by a number in the batch, so that it can be the number of steps."""


class StepGRPOTrainer(GRPOTrainer):  # type: ignore[misc]  # trl is untyped
    """`trl.GRPOTrainer` whose advantages are those of a credit rule over the judge's verdicts, the same for all tokens of a step.

    The loss is the one of our own trainer, - 1/N sum of A_i log pi(a_i | s_i) with N the valid steps of the global batch (and
    TRL's clipping), so ``loss_type`` is ``dapo`` (the default of TRL) or ``cispo``. Steps that are not valid and what follows the
    end of an episode leave the loss.

    Args:
        *args: as of `trl.GRPOTrainer`.
        credit: name of a rule (`swirl_env.interop.trl.RULES`), or a function of `StepColumns` that returns a `Credit`.
        **kwargs: as of `trl.GRPOTrainer`; ``environment_factory`` is what `make_environments` returned.

    Raises:
        ConfigError: for other environments, or a loss that is divided by something else.
    """

    def __init__(self, *args: Any, credit: str | CreditRule = "mt_grpo_unbiased", **kwargs: Any) -> None:
        self._rule = make_rule(credit)
        self._turns: list[list[list[int]]] = []
        self.trajectories: list[Trajectory] = []
        """The episodes of the last batch of this process, with their verdicts; ``Store.append`` takes them."""
        factory = kwargs.get("environment_factory")
        for one in factory.values() if isinstance(factory, dict) else [factory]:
            if not (isinstance(one, type) and issubclass(one, ToolEnvironment)):
                raise ConfigError(
                    f"environment_factory is what swirl_env.interop.trl.make_environments returns; got {one!r:.60}."
                )
        super().__init__(*args, **kwargs)
        if self.loss_type not in BY_TOKENS:
            raise ConfigError(
                f"Advantages per step are averaged over the steps of a batch, which loss_type={self.loss_type!r} cannot do; "
                f"choose {' or '.join(BY_TOKENS)}."
            )

    def _calculate_rewards(
        self, inputs: list[dict[str, Any]], prompts: list[Any], completions: list[list[Message]], completion_ids_list: list[Any]
    ) -> Tensor:
        """Ends the episodes, judges all their steps in one call, and goes on as TRL does."""
        environments: list[ToolEnvironment] = self.environments
        self._turns = [one._finish(messages) for one, messages in zip(environments, completions, strict=True)]
        judge_episodes(environments)
        self.trajectories = [one._record() for one in environments]
        rewards: Tensor = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        return rewards

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """Returns TRL's batch with an advantage for each token, [B, T], and the number of valid steps as its size."""
        batch: dict[str, Any] = super()._generate_and_score_completions(inputs)
        mode = "train" if self.model.training else "eval"
        advantages, valid = self._step_advantages(self.num_generations if mode == "train" else self.num_generations_eval)
        mask = batch["completion_mask"] * batch["tool_mask"]
        gains = torch.zeros(mask.shape)
        used = torch.zeros_like(mask)
        steps = 0
        for row, turns in enumerate(self._turns):
            spans = runs(mask[row])
            if spans and len(spans) != len(turns):
                raise ConfigError(f"A rollout of TRL's has {len(spans)} stretches of tokens for {len(turns)} messages.")
            for (start, end), own in zip(spans, turns, strict=False):
                if own and all(valid[row][place] for place in own):
                    gains[row, start:end] = float(sum(advantages[row][place] for place in own))
                    used[row, start:end] = 1
                    steps += len(own)
            self._keep_ids(batch, row, spans, turns)
        total = torch.tensor(float(steps), device=mask.device)
        batch["num_items_in_batch"] = self.accelerator.gather(total).sum()
        batch["advantages"] = gains.to(mask.device)
        batch["tool_mask"] = batch["tool_mask"] * used
        self._log_steps(mode)
        return batch

    def _step_advantages(self, generations: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Returns the advantages of each rollout's steps, and which are valid; baselines are those of all processes."""
        mine, world = self.trajectories, self.accelerator.num_processes
        first = self.accelerator.process_index * len(mine)
        rows = [row for i, trajectory in enumerate(mine) for row in step_rows(trajectory, first + i, (first + i) // generations)]
        table = columns([StepRow(*row) for row in gather_object(rows)] if world > 1 else rows)
        result = apply_rule(self._rule, table)
        places = [table.episode == first + i for i in range(len(mine))]
        return [result.advantages[place] for place in places], [result.valid[place] for place in places]

    def _keep_ids(self, batch: dict[str, Any], row: int, spans: Sequence[tuple[int, int]], turns: Sequence[list[int]]) -> None:
        """Gives the steps that are whole messages the token ids that were sampled for them."""
        prompt = batch["prompt_ids"][row][batch["prompt_mask"][row].bool()].tolist()
        ids = batch["completion_ids"][row].tolist()
        steps = list(self.trajectories[row].steps)
        for (start, end), own in zip(spans, turns, strict=False):
            if len(own) == 1:
                step = steps[own[0]]
                action = replace(step.action, prompt_ids=(*prompt, *ids[:start]), token_ids=tuple(ids[start:end]))
                steps[own[0]] = replace(step, action=action)
        self.trajectories[row] = replace(self.trajectories[row], steps=tuple(steps))

    def _log_steps(self, mode: str) -> None:
        rewards = [reward_or_nan(step.verdict) for trajectory in self.trajectories for step in trajectory.steps]
        known = [reward for reward in gather_object(rewards) if np.isfinite(reward)]
        if known:
            self._metrics[mode]["steps/reward"].append(float(np.mean(known)))
        self._metrics[mode]["steps/unscored"].append(float(len(gather_object(rewards)) - len(known)))


def step_rows(trajectory: Trajectory, episode: int, group: int) -> list[StepRow]:
    """Returns the steps of a rollout as credit rules read them."""
    correct = trajectory.outcome.correct
    won = float("nan") if correct is None else float(correct)
    return [StepRow(episode, group, place, reward_or_nan(step.verdict), won) for place, step in enumerate(trajectory.steps)]


def runs(mask: Tensor) -> list[tuple[int, int]]:
    """Returns the stretches of ones in a row of a mask, [T], as (start, end)."""
    padded = np.concatenate([[0], mask.cpu().numpy().astype(np.int64), [0]])
    changes = np.flatnonzero(np.diff(padded))
    return [(int(start), int(end)) for start, end in zip(changes[::2], changes[1::2], strict=True)]
