"""Makes another judge err at a known rate, to measure what a training method needs of its judge."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from swirl_env.errors import ConfigError
from swirl_env.fingerprint import fingerprint, named
from swirl_env.protocols import is_pure, needs_results, spent_by
from swirl_env.registry import Spec, make_judge
from swirl_env.types import SubTrajectory, Verdict


class NoisyJudge:
    """Swaps GOOD and BAD in another judge's verdicts at random; equal steps of an episode get equal errors.

    A swapped verdict has reward 1 or 0, whatever scale the judge uses. Verdicts without a label pass unchanged.

    Args:
        judge: spec of the judge to disturb.
        flip: chance that a label is swapped, in either direction.
        lenient: chance that a BAD that was not swapped becomes GOOD: a judge that is too easily satisfied.
        silent: share of the questions on which it says nothing (status unscored), as a judge would that needs to know more
            about a question than is known of all.
        seed: seed of the errors and of those questions.
    """

    name = "noisy"

    def __init__(
        self, judge: Spec = "rules", flip: float = 0.1, lenient: float = 0.0, silent: float = 0.0, seed: int = 0
    ) -> None:
        for option, rate in (("flip", flip), ("lenient", lenient), ("silent", silent)):
            if not 0 <= rate <= 1:
                raise ConfigError(f"{option} must be a chance between 0 and 1; got {rate}.")
        self.inner = make_judge(judge)
        self.flip, self.lenient, self.silent, self.seed = flip, lenient, silent, seed
        self.pure = is_pure(self.inner)
        self.needs_results = needs_results(self.inner)
        rates = {"flip": flip, "lenient": lenient, "silent": silent, "seed": seed}
        self.fingerprint = named(self.name, {"judge": fingerprint(self.inner), **rates})

    @property
    def spent(self) -> Mapping[str, int] | None:
        """What the judge behind it has spent; None if that does not count."""
        return spent_by(self.inner)

    def judge(self, steps: Sequence[SubTrajectory]) -> list[Verdict]:
        """Returns one verdict per step."""
        return [self._disturb(step, verdict) for step, verdict in zip(steps, self.inner.judge(steps), strict=True)]

    def _disturb(self, step: SubTrajectory, verdict: Verdict) -> Verdict:
        if self.silent and random.Random(f"{self.seed} silent {step.state.task.id}").random() < self.silent:
            return Verdict.unscored()
        if verdict.label is None:
            return verdict
        rng = random.Random(f"{self.seed} {step.state.task.id} {step.state.seed} {len(step.state.steps)} {step.action.text}")
        good = verdict.label == "GOOD"
        flipped = good != (rng.random() < self.flip)
        label = flipped or rng.random() < self.lenient
        if label == good:
            return verdict
        critique = f"(an error on purpose) {verdict.critique}"
        return Verdict.good(critique, self.name) if label else Verdict.bad(critique, self.name)
