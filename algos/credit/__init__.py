"""Credit rules: from the rewards of single steps, or of whole episodes, to one advantage per step.

Pure NumPy functions over flat arrays: N steps of any number of episodes, without padding, so that episodes of different
length never weigh on one another by accident. Every rule takes ``valid`` [N]: steps whose verdict failed or is missing
are False there; they get advantage 0, are counted by no baseline, and the caller leaves them out of the loss (`losses`). A batch
with such steps gives exactly what the batch without them gives. Only a rule that sums over the steps of an episode cannot: a
sum with an unknown term is unknown (`return_to_go`, `complete_returns`); such rules return a `Credit`, which names the steps
that they can rate.

Index arrays (``state``, ``episode``, ``group``) hold any integers; equal numbers mean the same state, episode or question.

    basic      rewards, outcomes, returns, shaping, filters
    turns      turn rewards next to an outcome: MT-GRPO, IGPO and TRACE, GAE
    anchors    steps of several episodes that share a state: GiGPO, HGPO
    branches   several continuations of one state: siblings (SLATE, PivotRL), Monte Carlo values (VinePPO, Math-Shepherd), trees
    pairs      losses that are a policy gradient with the right weights: step-level DPO, implicit process reward models
"""

from swirl_env.algos.credit.anchors import gigpo, hgpo
from swirl_env.algos.credit.arrays import Bools, Credit, Floats, Ints, last_steps, normalised
from swirl_env.algos.credit.basic import (
    MISSING,
    complete_returns,
    episode_reward,
    filtered,
    group_normalised,
    leave_one_out,
    outcome,
    return_to_go,
    shaped,
    step_reward,
)
from swirl_env.algos.credit.branches import monte_carlo, siblings, step_values, tree_grpo, vine
from swirl_env.algos.credit.pairs import best_and_worst, dpo_weights, implicit_prm, outcome_dpo_weights, outcome_weights
from swirl_env.algos.credit.turns import accumulated, gae, mt_grpo, mt_grpo_unbiased

__all__ = [
    "MISSING",
    "Bools",
    "Credit",
    "Floats",
    "Ints",
    "accumulated",
    "best_and_worst",
    "complete_returns",
    "dpo_weights",
    "episode_reward",
    "filtered",
    "gae",
    "gigpo",
    "group_normalised",
    "hgpo",
    "implicit_prm",
    "last_steps",
    "leave_one_out",
    "monte_carlo",
    "mt_grpo",
    "mt_grpo_unbiased",
    "normalised",
    "outcome",
    "outcome_dpo_weights",
    "outcome_weights",
    "return_to_go",
    "shaped",
    "siblings",
    "step_reward",
    "step_values",
    "tree_grpo",
    "vine",
]
