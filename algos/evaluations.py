"""When a policy in training is evaluated: every so many updates, at the end, and at given numbers of sampled tokens."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from swirl_env.agents.transformers import TransformersAgent
from swirl_env.algos.measure import generating

Evaluate = Callable[[TransformersAgent], dict[str, float]]
"""Measures the policy; its figures go into the metrics."""


class Evaluations:
    """The evaluations of a run; they cost nothing of its budget.

    Args:
        agent: the policy.
        evaluate: measures it after updates; None for no such measurement.
        every: updates between two of them; 0 for the end alone.
        measure_at: called with a number of sampled tokens that has been reached; None for no such call.
        tokens: these numbers.
        sampled: tokens that were sampled before the run was resumed; what they reached has been measured.
    """

    def __init__(
        self,
        agent: TransformersAgent,
        evaluate: Evaluate | None,
        every: int,
        measure_at: Callable[[int], None] | None,
        tokens: Sequence[int],
        sampled: int,
    ) -> None:
        self._agent, self._evaluate, self._every = agent, evaluate, every
        self._measure_at, self._tokens, self._measured = measure_at, sorted(tokens), sampled
        self.seconds = 0.0
        """Time they have taken so far."""

    def after_update(self, number: int, *, last: bool) -> dict[str, float]:
        """Returns the figures after update `number` of the run, none if no evaluation is due; one is due after the last."""
        if self._evaluate is None or not (last or (self._every > 0 and number % self._every == 0)):
            return {}
        start = time.monotonic()
        with generating(self._agent):
            figures = self._evaluate(self._agent)
        self.seconds += time.monotonic() - start
        return figures

    def at_tokens(self, sampled: int) -> None:
        """Measures at each number of tokens that has been reached since the last call, now that `sampled` are."""
        start = time.monotonic()
        for tokens in self._tokens:
            if self._measure_at is not None and self._measured < tokens <= sampled:
                self._measure_at(tokens)
        self._measured = sampled
        self.seconds += time.monotonic() - start
