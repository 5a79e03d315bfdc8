"""The trajectories that an algorithm trains on over many updates: its own rollouts of a round, or stored demonstrations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from swirl_env.algos.run import Run
from swirl_env.errors import ConfigError
from swirl_env.store.filters import FILTERS
from swirl_env.types import Trajectory


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
    """Steps that must pass the filter in a round of own rollouts; more questions are drawn until they do."""
    memory: int = 1
    """How many rounds of own rollouts are trained on, the newest and those before it; 0 for all."""
    _number: int = -1
    _trajectories: Sequence[Trajectory] = ()

    def __post_init__(self) -> None:
        if self.filter not in FILTERS:
            raise ConfigError(f"filter is one of {', '.join(FILTERS)}; got {self.filter!r}.")
        if self.states not in ("own", "stored"):
            raise ConfigError(f"states is 'own' or 'stored'; got {self.states!r}.")

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
        passes = FILTERS[self.filter]
        if self.states == "stored":
            if not run.stored:
                raise ConfigError("states='stored' trains on stored trajectories, and this run was given none.")
            return [t for t in run.stored if passes(t) and t.steps]

        def generate() -> list[Trajectory]:
            trajectories: list[Trajectory] = []
            while sum(len(t.steps) for t in trajectories) < self.min_steps and not run.done:
                trajectories += [t for t in run.rollouts(self.questions, self.samples) if passes(t) and t.steps]
            return trajectories

        return run.load_or_generate(f"round-{number}", number * self.updates, generate)
