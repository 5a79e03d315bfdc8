"""The trajectories that an algorithm trains on over many updates: its own rollouts of a round, or stored demonstrations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from swirl_env.algos.ranges import check_choice, check_count
from swirl_env.algos.run import Run
from swirl_env.errors import ConfigError
from swirl_env.store.filters import FILTERS, why_not
from swirl_env.types import Trajectory

MOST_DRAWS = 8
"""How often a round draws its questions for want of trajectories that pass the filter; then it makes do with what it has."""


@dataclass(slots=True)
class Rounds:
    """Draws trajectories, filters them, and splits them into minibatches.

    Raises:
        ConfigError: for an unknown filter.
    """

    filter: str
    """Which are used: ``none``, ``process``, ``outcome``, ``both``."""
    states: Literal["own", "stored"]
    """``own`` rollouts of the policy at the start of each round, or the trajectories ``stored`` with the run."""
    questions: int
    """Questions per round of own rollouts."""
    samples: int
    """Episodes per question."""
    updates: int
    """Updates per round."""
    rounds: int = 0
    """How many rounds; the trajectories of the last stay in use. 0 for no end."""
    min_steps: int = 1
    """Steps that must pass the filter in a round of own rollouts; else more questions are drawn, `MOST_DRAWS` times at most."""
    memory: int = 1
    """How many rounds of own rollouts are trained on, the newest and those before it; 0 for all."""
    _number: int = -1
    _rejected: Counter[str] = field(default_factory=Counter)
    _trajectories: Sequence[Trajectory] = ()

    def __post_init__(self) -> None:
        check_choice("filter", self.filter, tuple(FILTERS))
        check_choice("states", self.states, ("own", "stored"))
        check_count(1, questions=self.questions, samples=self.samples, updates_per_round=self.updates)
        check_count(0, rounds=self.rounds, memory=self.memory)

    @property
    def block(self) -> int:
        """Updates that train on what one round sampled: a run that lives on own rollouts ends with whole rounds."""
        return 1 if self.states == "stored" else self.updates

    def check_end(self, run: Run) -> None:
        """Refuses a run that updates alone would never end: no tokens are sampled once its trajectories are there.

        Raises:
            ConfigError: if only a limit on the updates could end it, and there is none.
        """
        if not run.limits.updates and (self.states == "stored" or self.rounds):
            raise ConfigError(
                "Updates on trajectories that stay the same sample no tokens, so a budget of sampled tokens never ends them: "
                "limit the updates."
            )

    def trajectories(self, run: Run, update: int) -> Sequence[Trajectory]:
        """Returns those that pass the filter, of the round that an update belongs to."""
        number = 0 if self.states == "stored" else update // self.updates
        number = min(number, self.rounds - 1) if self.rounds else number
        if number != self._number:
            oldest = max(0, number + 1 - self.memory) if self.memory else 0
            self._number, self._trajectories = number, [t for n in range(oldest, number + 1) for t in self._round(run, n)]
        return self._trajectories

    def minibatch(self, run: Run, update: int, size: int) -> list[Trajectory]:
        """Returns `size` trajectories for an update, in a new random order after each pass over all of them."""
        trajectories = self.trajectories(run, update)
        epoch, start = divmod(update * size, len(trajectories))
        order: list[int] = []
        while len(order) < start + size:
            order += run.rng(1, epoch).permutation(len(trajectories)).tolist()
            epoch += 1
        return [trajectories[i] for i in order[start : start + size]]

    def _round(self, run: Run, number: int) -> list[Trajectory]:
        """Returns the trajectories of a round that pass the filter, drawn now if it is the present one."""
        if self.states == "stored":
            if not run.stored:
                raise ConfigError("states='stored' trains on stored trajectories, and this run was given none.")
            return self._passing(run.stored)

        def generate() -> list[Trajectory]:
            trajectories: list[Trajectory] = []
            for _ in range(MOST_DRAWS):
                rollouts = run.rollouts(self.questions, self.samples)
                trajectories += self._passing(rollouts)
                enough = sum(len(t.steps) for t in trajectories) >= self.min_steps
                if enough or run.done or self._hopeless(rollouts):
                    break
            return trajectories

        return run.load_or_generate(f"round-{number}", number * self.updates, generate)

    def _passing(self, trajectories: Sequence[Trajectory]) -> list[Trajectory]:
        """Returns those that pass the filter, and counts why the others do not."""
        passing: list[Trajectory] = []
        for trajectory in trajectories:
            if FILTERS[self.filter](trajectory) and trajectory.steps:
                passing.append(trajectory)
            else:
                self._rejected[why_not(self.filter, trajectory) if trajectory.steps else "no step"] += 1
        return passing

    def _hopeless(self, rollouts: Sequence[Trajectory]) -> bool:
        """Whether more rollouts would not help: the filter reads verdicts, and no step has one."""
        verdicts = [step.verdict.status for t in rollouts for step in t.steps]
        return self.filter in ("process", "both") and "scored" not in verdicts

    def why_none(self) -> str:
        """Returns why no trajectory is there to train on."""
        total, whose = sum(self._rejected.values()), "stored trajectories" if self.states == "stored" else "rollouts"
        reasons = ", ".join(f"{reason}: {count:,}" for reason, count in self._rejected.most_common(4))
        return f"none of {total:,} {whose} passed the filter {self.filter!r} ({reasons or 'there are none'})"
