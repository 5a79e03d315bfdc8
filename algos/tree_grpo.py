"""Tree-GRPO: episodes that share beginnings, compared within their tree and over all trees of a question (arXiv 2509.21240)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from swirl_env.algos import credit
from swirl_env.algos.ranges import check_count
from swirl_env.algos.reinforce import success_of
from swirl_env.algos.run import Run
from swirl_env.algos.steps import tabulate
from swirl_env.algos.vine import outcome_of
from swirl_env.episodes.transcript import subtrajectories
from swirl_env.errors import ConfigError
from swirl_env.types import State, Trajectory


class TreeGrpo:
    """A = norm within the tree + norm over the question, of outcomes, for every step of every leaf's episode.

    A question has `trees` episodes to begin with. In each of `iterations` rounds, `nodes` states of each tree, drawn at random
    among those in which an action was taken, are played on from to the end: a new leaf each, for less than the tokens of an
    episode. A step that several leaves share is trained once per leaf; with ``trainer.tree=true`` its tokens are computed once.

    Args:
        questions_per_update: questions of a batch.
        trees: M, trees per question.
        nodes: N, states of each tree that are played on from in a round.
        iterations: L, rounds. A question has M (N L + 1) leaves, at least 2.
    """

    def __init__(self, questions_per_update: int = 4, trees: int = 2, nodes: int = 2, iterations: int = 1) -> None:
        check_count(1, questions_per_update=questions_per_update, trees=trees, nodes=nodes)
        check_count(0, iterations=iterations)
        if trees * (nodes * iterations + 1) < 2:
            raise ConfigError("A single leaf per question has nothing to be compared with: raise trees or iterations.")
        self.questions_per_update, self.trees, self.nodes, self.iterations = questions_per_update, trees, nodes, iterations

    def train(self, run: Run) -> None:
        """Trains until ``run.done``."""
        for update in run.updates():
            trees = self._grow(run, update, run.rollouts(self.questions_per_update, self.trees))
            leaves = [(n, leaf) for n, tree in enumerate(trees) for leaf in tree if leaf.ended != "error"]
            outcomes, tree = np.array([outcome_of(leaf) for _, leaf in leaves]), np.array([n for n, _ in leaves], np.int64)
            known = np.isfinite(outcomes)
            question = [leaf.task.id for _, leaf in leaves]
            advantages = credit.tree_grpo(outcomes, known, tree, question)
            table = tabulate([leaf for _, leaf in leaves], run.agent.renderer)
            # Leaves of one tree count as one episode, so that one process has them all and a tree layout can share their steps.
            steps = [replace(step, episode=int(tree[step.episode])) for step in table.steps]
            new = [t for grown in trees for t in grown[:1]]
            run.update(steps, advantages[table.episode], known[table.episode], success=success_of(new), leaves=float(len(leaves)))

    def _grow(self, run: Run, update: int, roots: list[Trajectory]) -> list[list[Trajectory]]:
        """Returns trees: for each root its episode and those that branch off it."""
        trees = [[root] for root in roots]
        states = [states_of(root, 0) for root in roots]
        for i in range(self.iterations):
            rng = run.rng(2, update, i)
            chosen = [(n, place) for n, own in enumerate(states) for place in rng.permutation(len(own))[: self.nodes].tolist()]
            branches = run.branch([states[n][place] for n, place in chosen], 1, judge=False)
            grown = [(n, len(states[n][place].steps), leaf) for (n, place), [leaf] in zip(chosen, branches, strict=True)]
            for n, shared, leaf in grown:
                trees[n].append(leaf)
                states[n] += states_of(leaf, shared + 1)
        return trees


def states_of(trajectory: Trajectory, start: int) -> list[State]:
    """Returns the states in which an episode acted, from its step `start` on; none of an episode that ended in an error."""
    return [] if trajectory.ended == "error" else [sub.state for sub in subtrajectories(trajectory)][start:]
