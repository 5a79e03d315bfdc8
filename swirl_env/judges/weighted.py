"""A judge made of others: the weighted sum of their rewards, with each part on record."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from swirl_env.errors import ConfigError
from swirl_env.fingerprint import fingerprint, named
from swirl_env.protocols import Judge, is_pure, needs_results, spent_by
from swirl_env.registry import Spec, make_judge
from swirl_env.types import Label, SubTrajectory, Verdict

DEFAULT = {"rules": 0.7, "outcome": 0.3}


class WeightedJudge:
    """A named sum: reward = sum of weight x part over the judges that scored the step.

    - Each part's own reward is in `Verdict.parts` under its name, before weighing.
    - If one judge failed, the verdict is ``failed``: a sum that lacks a term would look like a lower reward.
    - A judge without an opinion (``unscored``) adds nothing, and the other weights stay as they are; if no judge has one, the
      verdict is ``unscored``.
    - The label is GOOD if all parts with a label say GOOD, BAD if one says BAD, and absent if no part has one.

    Args:
        judges: name of a judge -> weight; or a list of specs, each a mapping with a ``weight`` (1 if absent), the options
            of the judge, and, if a judge occurs twice, its name in the sum as ``part``.
    """

    name = "weighted"

    def __init__(self, judges: Mapping[str, float] | Sequence[Spec] | None = None) -> None:
        self.judges: dict[str, tuple[Judge, float]] = {}
        for part, spec, weight in _terms(DEFAULT if judges is None else judges):
            if part in self.judges:
                raise ConfigError(f"Two parts of the weighted judge are called {part!r}. Give one of them another 'part'.")
            if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight):
                raise ConfigError(f"The weight of {part!r} must be a finite number; got {weight!r}.")
            self.judges[part] = (make_judge(spec), float(weight))
        if not self.judges:
            raise ConfigError("The weighted judge needs at least one judge, e.g. judges={'rules': 0.7, 'outcome': 0.3}.")
        self.pure = all(is_pure(judge) for judge, _ in self.judges.values())
        self.needs_results = any(needs_results(judge) for judge, _ in self.judges.values())
        parts = {part: [fingerprint(judge), weight] for part, (judge, weight) in self.judges.items()}
        self.fingerprint = named(self.name, parts)

    @property
    def spent(self) -> Mapping[str, int] | None:
        """What the judges of the sum have spent together; None if one of them does not count."""
        total: Counter[str] = Counter()
        for judge, _ in self.judges.values():
            if (spent := spent_by(judge)) is None:
                return None
            total.update(spent)
        return total

    def judge(self, steps: Sequence[SubTrajectory]) -> list[Verdict]:
        """Returns one verdict per step, with the reward of each judge in its `parts`."""
        verdicts = {part: judge.judge(steps) for part, (judge, _) in self.judges.items()}
        return [self._sum({part: of_part[i] for part, of_part in verdicts.items()}) for i in range(len(steps))]

    def _sum(self, verdicts: Mapping[str, Verdict]) -> Verdict:
        critique = "\n".join(f"{part}: {v.critique}" for part, v in verdicts.items() if v.critique)
        parts = {part: v.reward for part, v in verdicts.items() if v.status == "scored" and v.reward is not None}
        if any(v.status == "failed" for v in verdicts.values()):
            return Verdict("failed", None, None, critique, self.name, parts)
        if not parts:
            return Verdict.unscored(critique, self.name)
        reward = math.fsum(self.judges[part][1] * value for part, value in parts.items())
        labels = {v.label for v in verdicts.values() if v.label is not None}
        label: Label | None = None if not labels else "BAD" if "BAD" in labels else "GOOD"
        return Verdict("scored", reward, label, critique, self.name, parts)


def _terms(judges: Mapping[str, float] | Sequence[Spec]) -> list[tuple[str, Spec, object]]:
    """Returns (name in the sum, spec, weight) of each part."""
    if isinstance(judges, Mapping):
        return [(str(name), str(name), weight) for name, weight in judges.items()]
    terms: list[tuple[str, Spec, object]] = []
    for spec in judges:
        if not isinstance(spec, Mapping):
            terms.append((spec if isinstance(spec, str) else str(getattr(spec, "name", type(spec).__name__)), spec, 1.0))
            continue
        options = dict(spec)
        weight, part = options.pop("weight", 1.0), options.pop("part", spec.get("name"))
        # A ready judge is weighed as {"judge": judge, "weight": 0.5, "part": "mine"}.
        terms.append((str(part), options["judge"] if set(options) == {"judge"} else options, weight))
    return terms
