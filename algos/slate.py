"""SLATE: several actions sampled at each state of the policy's own episodes, compared with one another (arXiv 2602.23440)."""

from __future__ import annotations

from swirl_env.algos import credit
from swirl_env.algos.histories import finished
from swirl_env.algos.ranges import check_count
from swirl_env.algos.reinforce import success_of
from swirl_env.algos.run import Run
from swirl_env.algos.siblings import Siblings, sample_siblings
from swirl_env.algos.steps import mean_known
from swirl_env.episodes.transcript import subtrajectories
from swirl_env.types import Trajectory


class Slate:
    """Truncated step-level sampling: k actions from a shared prefix, one step long, normalised among siblings.

    The prefixes are the states of fresh episodes. The action that an episode took is one of the k, so that an episode of T steps
    costs T (k - 1) actions more, and no episode is played on from the others. The paper's judge rates reasoning, query and answer
    on a ternary scale; here the run's judge rates the step.

    Args:
        episodes_per_update: fresh episodes, each on a question of its own.
        samples: k, actions per state, at least 2.
        scale: whether to divide by the standard deviation among siblings.
    """

    def __init__(self, episodes_per_update: int = 8, samples: int = 4, scale: bool = True) -> None:
        check_count(1, episodes_per_update=episodes_per_update)
        check_count(2, samples=samples)
        self.episodes_per_update, self.samples, self.scale = episodes_per_update, samples, scale

    def train(self, run: Run) -> None:
        """Trains until ``run.done``."""
        for _ in run.updates():
            trajectories = run.rollouts(self.episodes_per_update)
            actions = siblings_of(run, trajectories, self.samples)
            advantages = credit.siblings(actions.reward, actions.scored, actions.state, scale=self.scale)
            run.update(
                actions.steps, advantages, actions.scored,
                success=success_of(trajectories), reward=mean_known(actions.reward), informative=actions.informative,
            )  # fmt: skip


def siblings_of(run: Run, trajectories: list[Trajectory], samples: int) -> Siblings:
    """Returns `samples` judged actions at every state of fresh episodes, those that the episodes took among them."""
    episodes = finished(trajectories)
    states = [sub.state for t in episodes for sub in subtrajectories(t)]
    numbers = [n for n, t in enumerate(episodes) for _ in t.steps]
    return sample_siblings(run, states, numbers, samples, [step for t in episodes for step in t.steps])
