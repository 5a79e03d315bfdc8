"""The stages of the command line by name: what each does, and the module that runs it.

Nothing of a stage is imported here, so that ``swirl --help`` costs nothing.
"""

from __future__ import annotations

from typing import NamedTuple


class Stage(NamedTuple):
    """A stage of the command line."""

    summary: str
    """What it does, in one line."""
    module: str
    """The module whose ``main`` runs it."""
    plain: bool = False
    """Whether it is no hydra application: ``run(argv)`` of its module then takes the arguments as they are."""


STAGES = {
    "generate": Stage("run episodes of an agent and store them, with a reward on every step", "swirl_env.stages.generate"),
    "judge": Stage("judge a run again, or fill in the verdicts that failed", "swirl_env.stages.judge"),
    "filter": Stage("select the trajectories worth training on", "swirl_env.stages.filter"),
    "train": Stage("train a policy: step-wise policy gradient, or an outcome-only baseline", "swirl_env.stages.train"),
    "eval": Stage("table of accuracy, step labels and errors of a run, with intervals", "swirl_env.stages.eval"),
    "audit": Stage(
        "how far judges and other step signals can be trusted, by exact values from gold plans", "swirl_env.stages.audit"
    ),
    "bench": Stage(
        "the main job: agents on tasks, then algorithms trained from one warm start and compared", "swirl_env.benchmarks.bench"
    ),
    "play": Stage("solve a task yourself in the terminal and see the reward of each step", "swirl_env.stages.play"),
    "check": Stage("run the contract suite on a plugin: swirl check my_pkg:MyTool", "swirl_env.stages.check", True),
    "report": Stage(
        "statistics over runs and a dashboard of training as one HTML page: swirl report DIR", "swirl_env.stages.report", True
    ),
    "view": Stage("episodes of runs as an HTML page, step by step: swirl view DIR", "swirl_env.stages.view", True),
    "export": Stage("a run as chat JSONL, Parquet, or rows for SFT, DPO and PRM trainers", "swirl_env.stages.export", True),
    "new-export": Stage(
        "a package for another trainer or evaluator: swirl new-export verifiers my_env", "swirl_env.stages.new_export", True
    ),
    "show": Stage("one episode of a run in the terminal: swirl show DIR TASK_ID", "swirl_env.stages.show", True),
}
"""Stage by name, in the order of the help."""
