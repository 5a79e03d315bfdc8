"""How probable a policy finds the gold answer in every state of its episodes: what IGPO and TRACE make rewards of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from swirl_env.algos import credit
from swirl_env.algos.batch import TokenStep
from swirl_env.algos.histories import finished
from swirl_env.algos.run import Run
from swirl_env.algos.steps import StepTable
from swirl_env.judges.gold_answer import answer_ids
from swirl_env.types import Trajectory


def answer_logprobs(run: Run, table: StepTable, trajectories: Sequence[Trajectory], *, reference: bool = False) -> credit.Floats:
    """Returns [N] the mean log-probability of the gold answer's tokens, asked for in the state of each step.

    Only the answer's own tokens count, after the tag that opens an answer. NaN if a task has no gold answer, or if state and
    answer do not fit the model's context.

    Args:
        run: its policy is read.
        table: the steps of the episodes.
        trajectories: the same episodes.
        reference: read the policy that training began with.
    """
    tasks = [t.task for t in finished(trajectories)]
    form, renderer = run.engine.format, run.agent.renderer
    written = {task.id: answer_ids(renderer, form, task.answer) for task in tasks if task.answer is not None}
    probes: list[TokenStep] = []
    asked: list[int] = []
    for i, (step, episode) in enumerate(zip(table.steps, table.episode.tolist(), strict=True)):
        head, gold = written.get(tasks[episode].id, ((), ()))
        probe = TokenStep((*step.prompt_ids, *head), gold, (), step.episode)
        if gold and probe.size <= run.agent.max_context:
            probes.append(probe)
            asked.append(i)
    values = np.full(len(table.steps), np.nan)
    values[asked] = [sum(logs) / len(logs) for logs in run.logprobs(probes, reference=reference, branches=True)]
    return values


def answer_f1(table: StepTable, trajectories: Sequence[Trajectory]) -> credit.Floats:
    """Returns [N] 1 if the answer of a step's episode is right, else its token F1; NaN if that is not known."""
    outcomes = [t.outcome for t in finished(trajectories)]
    grades = [np.nan if o.correct is None or o.f1 is None else float(o.correct or o.f1) for o in outcomes]
    return np.array(grades, dtype=np.float64)[table.episode]
