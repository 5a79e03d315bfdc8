"""Step-level DPO: at each state the better of two actions is preferred to the worse (Step-DPO, arXiv 2406.18629)."""

from __future__ import annotations

import numpy as np

from swirl_env.algos import credit
from swirl_env.algos.batch import TokenStep
from swirl_env.algos.implicit_prm import log_sums
from swirl_env.algos.ranges import check_count, check_number
from swirl_env.algos.reinforce import success_of
from swirl_env.algos.run import Run
from swirl_env.algos.slate import siblings_of
from swirl_env.algos.steps import mean_known


class StepDpo:
    """The loss -log sigmoid(m) of pairs of actions at one state, m = beta * (log-ratio of the better - that of the worse).

    A log-ratio is log pi - log pi_ref of the action's tokens, pi_ref the policy that training began with. The gradient is that of
    advantages +-beta * sigmoid(-m), computed from the policy as it is before the update; so the loss is exact if the trainer
    makes one optimizer step per update. The pair of a state is its best and its worst action by the judge, the first of each if
    several are; a state whose actions have equal rewards has none. Actions are drawn from the policy as training goes on; the
    paper draws them once.

    Args:
        episodes_per_update: fresh episodes, each on a question of its own; their states are used.
        samples: actions per state, the one that the episode took among them; at least 2.
        beta: how far the policy may move from the first one (DPO's default is 0.1, Step-DPO's 0.4 to 0.5).
    """

    def __init__(self, episodes_per_update: int = 8, samples: int = 4, beta: float = 0.1) -> None:
        check_count(1, episodes_per_update=episodes_per_update)
        check_count(2, samples=samples)
        check_number({"beta": beta}, 0, open_low=True)
        self.episodes_per_update, self.samples, self.beta = episodes_per_update, samples, beta

    def train(self, run: Run) -> None:
        """Trains until ``run.done``."""
        run.logprobs([], reference=True)  # the copy of the first policy is made before the first update
        for _ in run.updates():
            trajectories = run.rollouts(self.episodes_per_update)
            actions = siblings_of(run, trajectories, self.samples)
            best, worst = credit.best_and_worst(actions.reward, actions.scored, actions.state)
            used = np.sort(np.concatenate([best, worst]))
            place = {int(i): n for n, i in enumerate(used)}
            steps = [actions.steps[i] for i in used]
            ratios = log_ratios(run, steps)
            better, worse = ([place[int(i)] for i in part] for part in (best, worst))
            weight = credit.dpo_weights(ratios[better], ratios[worse], self.beta)
            advantages = np.zeros(len(steps))
            advantages[better], advantages[worse] = weight, -weight
            margin = ratios[better] - ratios[worse]
            run.update(
                steps, advantages, np.ones(len(steps), dtype=np.bool_), count=float(max(len(best), 1)),
                success=success_of(trajectories), reward=mean_known(actions.reward), pairs=float(len(best)),
                preferred=float(np.mean(margin > 0)) if len(best) else 0.0,
            )  # fmt: skip


def log_ratios(run: Run, steps: list[TokenStep]) -> credit.Floats:
    """Returns [N] log pi - log pi_ref of each step, summed over its tokens."""
    return log_sums(run.logprobs(steps, branches=True)) - log_sums(run.logprobs(steps, reference=True, branches=True))
