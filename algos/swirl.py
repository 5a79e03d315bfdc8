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
from numpy.typing import NDArray

from swirl_env.algos import credit
from swirl_env.algos.batch import TokenStep
from swirl_env.algos.ranges import check_choice, check_count
from swirl_env.algos.rounds import Rounds
from swirl_env.algos.run import Run
from swirl_env.algos.steps import action_step, mean_known, reward_or_nan, tabulate, token_step
from swirl_env.episodes.transcript import subtrajectories
from swirl_env.errors import ConfigError
from swirl_env.types import SubTrajectory, Trajectory


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
        skip_flat: leave states whose samples all have one reward out of the forward passes: with a baseline their advantages
            are 0. They still count in the loss's 1/N, so that the gradient is the same but for the KL at these states.
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
        check_choice("actions", actions, ("resampled", "logged"))
        check_choice("baseline", baseline, ("leave_one_out", "none"))
        check_choice("group", group, ("sampled", "mix"))
        check_count(1, samples_per_state=samples_per_state, states_per_update=states_per_update)
        if skip_flat and baseline == "none":
            raise ConfigError(
                "skip_flat leaves out steps whose advantages a baseline makes 0; with baseline='none' they are not 0."
            )
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
                run.stop(self._rounds.why_none())
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
        run.update(table.steps, advantages, table.scored, reward=mean_known(table.reward))

    def _update_resampled(self, run: Run, batch: Sequence[Trajectory]) -> None:
        subs = [(n, sub) for n, t in enumerate(batch) for sub in subtrajectories(t)]
        logged = [step for t in batch for step in t.steps]
        groups = run.resample([sub.state for _, sub in subs], self.samples_per_state)
        renderer = run.agent.renderer
        rows: list[tuple[TokenStep, float, int]] = []  # step, reward, state
        for state, ((episode, sub), group) in enumerate(zip(subs, groups, strict=True)):
            for step in group:
                if step.action.token_ids:
                    sampled = SubTrajectory(sub.state, step.action, step.call)
                    rows.append((action_step(sampled, renderer, episode), reward_or_nan(step.verdict), state))
            if self.group == "mix":
                rows.append((token_step(sub, renderer, episode), reward_or_nan(logged[state].verdict), state))
        steps, rewards, states = [row[0] for row in rows], np.array([row[1] for row in rows]), [row[2] for row in rows]
        scored = np.isfinite(rewards)
        if self.baseline == "leave_one_out":
            advantages = credit.leave_one_out(rewards, scored, states)
        else:
            advantages = credit.step_reward(rewards, scored)
        used = np.flatnonzero(~self._flat(rewards, scored, states)) if self.skip_flat else np.arange(len(rows))
        run.update(
            [steps[i] for i in used],
            advantages[used],
            scored[used],
            count=float(scored.sum()),
            reward=mean_known(np.array([reward_or_nan(s.verdict) for group in groups for s in group])),
            signal=float(np.mean(advantages != 0)) if len(rows) else 0.0,
        )

    @staticmethod
    def _flat(rewards: NDArray[np.float64], scored: NDArray[np.bool_], states: Sequence[int]) -> NDArray[np.bool_]:
        """Returns for each row whether the scored rewards at its state are all the same."""
        flat = np.ones(len(rewards), dtype=np.bool_)
        place = np.asarray(states)
        for state in set(states):
            at = place == state
            flat[at] = len(set(rewards[at & scored].tolist())) <= 1
        return flat
