"""SWiRL: the reward of every single step reaches the gradient (Goldie et al., arXiv 2504.04736, stage 2).

    J(theta) = E over states s in T and actions a ~ pi_theta(. | s) of [ R(a | s) ]

T holds the states of stored trajectories that passed a filter; states and tool results in them are frozen. ``resampled`` draws
fresh actions from the current policy at these states and judges them (the paper); ``logged`` weighs the log-probability of
the stored actions by their rewards (the article that this project began with).

The paper gives no baseline, samples per state, batch, or number of rounds; the choices here are ours. Extensions beyond the
paper, off by default: ``group="mix"``, ``rounds`` on the policy's own rollouts, ``memory`` of earlier ones, ``skip_flat``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from swirl_env.algos import credit
from swirl_env.algos.batch import TokenStep
from swirl_env.algos.rounds import Rounds
from swirl_env.algos.run import Run
from swirl_env.algos.steps import action_step, reward_or_nan, tabulate, token_step
from swirl_env.episodes.transcript import subtrajectories
from swirl_env.errors import ConfigError
from swirl_env.types import Trajectory


class Swirl:
    """Step-wise policy gradient at frozen states.

    Args:
        actions: ``resampled`` or ``logged``.
        samples_per_state: actions drawn at each state (``resampled``).
        baseline: ``leave_one_out`` of the samples at the same state, or ``none`` (A = R, the paper's objective as it stands).
        group: ``sampled``, or ``mix``: the logged action joins the samples of its state, in the baseline and in the loss,
            without an importance weight. It is off-policy and biased; it gives a gradient even if no sample is ever right.
        filter: which trajectories' states are used: ``none``, ``process``, ``outcome``, ``both``.
        states: ``own`` rollouts of the policy, or ``stored`` trajectories given to the run (demonstrations, say).
        questions: questions per round of own rollouts.
        samples: episodes per question.
        updates_per_round: updates before new states are drawn from the current policy.
        rounds: how many rounds of own rollouts; after the last its states stay in use. 1 is the paper's.
        states_per_update: states of an update, reached by adding whole trajectories.
        memory: how many rounds of own rollouts are trained on, the newest and those before it; 0 for all. Old GOOD steps keep
            alive what the policy has come to do rarely.
        skip_flat: leave out states whose samples all have one reward: with a baseline their advantages are 0.
    """

    def __init__(
        self,
        actions: Literal["resampled", "logged"] = "resampled",
        samples_per_state: int = 4,
        baseline: Literal["leave_one_out", "none"] = "leave_one_out",
        group: Literal["sampled", "mix"] = "sampled",
        filter: str = "process",
        states: Literal["own", "stored"] = "own",
        questions: int = 256,
        samples: int = 1,
        updates_per_round: int = 50,
        rounds: int = 1,
        states_per_update: int = 64,
        memory: int = 1,
        skip_flat: bool = False,
    ) -> None:
        if actions == "logged" and group == "mix":
            raise ConfigError("group='mix' adds the logged action to resampled ones; with actions='logged' there are none.")
        self.actions, self.samples_per_state, self.baseline, self.group = actions, samples_per_state, baseline, group
        self.states_per_update, self.skip_flat = states_per_update, skip_flat
        self._rounds = Rounds(filter, states, questions, samples, updates_per_round, rounds, states_per_update, memory)

    def train(self, run: Run) -> None:
        """Trains until ``run.done``, or until no trajectory passes the filter."""
        if self.actions == "logged":
            self._rounds.check_end(run)
        for update in run.updates(block=self._rounds.block if self.actions == "logged" else 1):
            trajectories = self._rounds.trajectories(run, update)
            if not trajectories:
                return
            mean_steps = sum(len(t.steps) for t in trajectories) / len(trajectories)
            size = min(len(trajectories), max(1, round(self.states_per_update / mean_steps)))
            batch = self._rounds.minibatch(run, update, size)
            if self.actions == "logged":
                self._update_logged(run, batch)
            else:
                self._update_resampled(run, batch)

    def _update_logged(self, run: Run, batch: Sequence[Trajectory]) -> None:
        table = tabulate(batch, run.agent.renderer)
        advantages = credit.step_reward(table.reward, table.scored)
        run.update(table.steps, advantages, table.scored, reward=_mean(table.reward))

    def _update_resampled(self, run: Run, batch: Sequence[Trajectory]) -> None:
        subs = [(n, sub) for n, t in enumerate(batch) for sub in subtrajectories(t)]
        logged = [step for t in batch for step in t.steps]
        groups = run.resample([sub.state for _, sub in subs], self.samples_per_state)
        rows: list[tuple[TokenStep, float, int]] = []  # step, reward, state
        for state, ((episode, sub), group) in enumerate(zip(subs, groups, strict=True)):
            mine = [(action_step(s.action, episode), reward_or_nan(s.verdict), state) for s in group if s.action.token_ids]
            if self.group == "mix":
                mine.append((token_step(sub, run.agent.renderer, episode), reward_or_nan(logged[state].verdict), state))
            if not (self.skip_flat and len({reward for _, reward, _ in mine}) == 1):
                rows += mine
        if not rows:
            rows = [(action_step(groups[0][0].action), float("nan"), 0)]  # the round goes on: other states may have signal
        steps, rewards, states = (list(column) for column in zip(*rows, strict=True))
        scored = np.isfinite(np.array(rewards))
        if self.baseline == "leave_one_out":
            advantages = credit.leave_one_out(rewards, scored, states)
        else:
            advantages = credit.step_reward(rewards, scored)
        sampled = np.array([reward_or_nan(s.verdict) for group in groups for s in group])
        run.update(steps, advantages, scored, reward=_mean(sampled), signal=float(np.mean(advantages != 0)))


def _mean(rewards: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
    """Returns the mean of the scored rewards, 0 if there are none."""
    scored = rewards[np.isfinite(rewards)]
    return float(scored.mean()) if len(scored) else 0.0
