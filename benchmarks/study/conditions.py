"""Conditions that decide real use: a judge that errs as an audited model does, and questions without a gold plan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Condition:
    """What the judge of a run is like."""

    name: str
    about: str
    false_good: float = 0.0
    """Chance that a BAD step is called GOOD."""
    false_bad: float = 0.0
    """Chance that a GOOD step is called BAD."""
    silent: float = 0.0
    """Share of the questions on which the judge says nothing."""

    def judge(self, seed: int) -> dict[str, Any]:
        """Returns the judge as options of ``swirl train``: `rules`, disturbed.

        The noisy judge first swaps a label (chance f), then forgives a BAD that was not swapped (chance l), so that
        false_bad = f (1 - l) and false_good = f + (1 - f) l = 1 - (1 - l) + false_bad.
        """
        flip, lenient = self.rates()
        return {"name": "noisy", "flip": flip, "lenient": lenient, "silent": self.silent, "seed": seed}

    def rates(self) -> tuple[float, float]:
        """Returns (flip, lenient) of the noisy judge with these errors.

        Raises:
            ValueError: for a judge that errs more often on GOOD than on BAD steps, which that judge cannot play.
        """
        if not 0 <= self.false_bad <= self.false_good < 1:
            raise ValueError(f"the noisy judge plays 0 <= false_bad <= false_good < 1; got {self.false_bad}, {self.false_good}")
        lenient = self.false_good - self.false_bad
        return round(self.false_bad / (1 - lenient), 6), round(lenient, 6)


CONDITIONS = (
    Condition("errs_30", "three labels in ten swapped", 0.3, 0.3),
    Condition("no_plan", "no verdict on half of the questions", silent=0.5),
)
