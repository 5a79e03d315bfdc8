"""Credit rules by name for steps that somebody else's trainer holds: columns in, one advantage per step out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from swirl_env.algos import credit
from swirl_env.algos.credit import Bools, Credit, Floats, Ints
from swirl_env.errors import ConfigError, unknown_name


class StepRow(NamedTuple):
    """One step, as processes send it to one another."""

    episode: int
    """Which rollout of the batch."""
    group: int
    """Which rollouts are compared: those of one row of the dataset."""
    position: int
    """Place of the step in its episode, from 0."""
    reward: float
    """NaN if the step has no scored verdict."""
    outcome: float
    """1.0 if the episode's answer is right, 0.0 if it is not; NaN if that is not known."""


@dataclass(frozen=True, slots=True)
class StepColumns:
    """N steps of a batch of rollouts, of all processes, those of one rollout together and in order."""

    episode: Ints
    group: Ints
    position: Ints
    reward: Floats
    outcome: Floats

    @property
    def scored(self) -> Bools:
        """[N] whether the step has a scored verdict."""
        return np.isfinite(self.reward)

    @property
    def known(self) -> Bools:
        """[N] whether the outcome of the step's episode is known."""
        return np.isfinite(self.outcome)


CreditRule = Callable[[StepColumns], Credit]
"""Returns the advantages of a batch's steps, and which of them are valid."""


def columns(rows: Sequence[StepRow]) -> StepColumns:
    """Returns rows as columns."""
    table = np.array(rows, dtype=np.float64).reshape(-1, 5).T
    episode, group, position = (column.astype(np.int64) for column in table[:3])
    return StepColumns(episode, group, position, table[3], table[4])


def _step_reward(t: StepColumns) -> Credit:
    return Credit(credit.step_reward(t.reward, t.scored), t.scored)


def _return_to_go(t: StepColumns) -> Credit:
    advantages = credit.return_to_go(t.reward, t.scored, t.episode, t.position, baseline="position")
    return Credit(advantages, credit.complete_returns(t.scored, t.episode, t.position))


def _reinforce(t: StepColumns) -> Credit:
    return Credit(credit.outcome(t.outcome, t.known, t.episode, group=t.group), t.known)


def _grpo(t: StepColumns) -> Credit:
    return Credit(credit.group_normalised(t.outcome, t.known, t.episode, t.group), t.known)


def _mt_grpo(t: StepColumns) -> Credit:
    return credit.mt_grpo(t.reward, t.scored, t.outcome, t.known, t.episode, t.position, t.group)


def _mt_grpo_unbiased(t: StepColumns) -> Credit:
    return credit.mt_grpo_unbiased(t.reward, t.scored, t.outcome, t.known, t.episode, t.position, t.group)


def _episode_reward(t: StepColumns) -> Credit:
    return credit.episode_reward(t.reward, t.scored, t.outcome, t.known, t.episode)


RULES: dict[str, CreditRule] = {
    "step_reward": _step_reward,
    "return_to_go": _return_to_go,
    "reinforce": _reinforce,
    "grpo": _grpo,
    "mt_grpo": _mt_grpo,
    "mt_grpo_unbiased": _mt_grpo_unbiased,
    "episode_reward": _episode_reward,
}
"""Name -> rule (see `swirl_env.algos.credit`, whose defaults they take)."""


def make_rule(rule: str | CreditRule) -> CreditRule:
    """Returns a rule by its name, or a function as it is.

    Raises:
        UnknownName: for a name that is none of `RULES`.
    """
    if callable(rule):
        return rule
    if rule not in RULES:
        raise unknown_name("credit rule", str(rule), RULES)
    return RULES[rule]


def apply_rule(rule: CreditRule, table: StepColumns) -> Credit:
    """Returns what a rule makes of a batch.

    Raises:
        ConfigError: if it is not one advantage and one truth value per step.
    """
    result = rule(table)
    if not isinstance(result, tuple) or len(result) != 2:
        raise ConfigError(f"A credit rule returns a Credit(advantages, valid); got {result!r:.60}.")
    advantages, valid = np.asarray(result[0], np.float64), np.asarray(result[1], np.bool_)
    if advantages.shape != table.reward.shape or valid.shape != table.reward.shape:
        raise ConfigError(
            f"A credit rule returns one advantage and one truth value per step, {len(table.reward)} of each; got shapes "
            f"{advantages.shape} and {valid.shape}."
        )
    return Credit(np.where(valid, advantages, 0.0), valid)
