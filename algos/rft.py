"""Rejection fine-tuning: supervised fine-tuning on the policy's own trajectories that pass a filter (Yuan et al. 2023).

The paper's SFT baseline (section "Results": it fell below the base model there), and the strongest simple one here.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from swirl_env.algos import credit
from swirl_env.algos.ranges import check_count
from swirl_env.algos.rounds import Rounds
from swirl_env.algos.run import Run
from swirl_env.algos.steps import tabulate


class Rft:
    """SFT on filtered trajectories, in rounds.

    Args:
        filter: ``none``, ``process``, ``outcome``, ``both``.
        states: ``own`` rollouts, or ``stored`` trajectories given to the run.
        questions: questions per round of own rollouts.
        samples: episodes per question.
        updates_per_round: updates before fresh rollouts are drawn.
        episodes_per_update: trajectories of an update.
        memory: how many rounds of own rollouts are trained on, the newest and those before it; 0 for all.
    """

    def __init__(
        self,
        filter: str = "process",
        states: Literal["own", "stored"] = "own",
        questions: int = 256,
        samples: int = 1,
        updates_per_round: int = 20,
        episodes_per_update: int = 16,
        memory: int = 1,
    ) -> None:
        check_count(1, episodes_per_update=episodes_per_update)
        self.episodes_per_update = episodes_per_update
        self._rounds = Rounds(filter, states, questions, samples, updates_per_round, memory=memory)

    def train(self, run: Run) -> None:
        """Trains until ``run.done``, or until no trajectory passes the filter."""
        self._rounds.check_end(run)
        for update in run.updates(block=self._rounds.block):
            trajectories = self._rounds.trajectories(run, update)
            if not trajectories:
                run.stop(self._rounds.why_none())
                return
            table = tabulate(self._rounds.minibatch(run, update, self.episodes_per_update), run.agent.renderer)
            passed = np.ones(len(table.steps), dtype=np.bool_)
            run.update(table.steps, credit.filtered(passed), passed, trajectories=float(len(trajectories)))
