"""Step signals by name: what rates the steps of stored episodes, be it a judge or a value that an algorithm would use.

Every signal gives one verdict per step, so that its ratings are kept in a table of verdicts of the run like those of any judge.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol, get_type_hints

from swirl_env.algos.credit import complete_returns, return_to_go
from swirl_env.audit.branches import Branches, step_values
from swirl_env.config.typed import convert_option
from swirl_env.episodes.engine import Engine
from swirl_env.episodes.guarded import run_judge
from swirl_env.episodes.transcript import subtrajectories
from swirl_env.errors import ConfigError, unknown_name
from swirl_env.fingerprint import fingerprint, named
from swirl_env.protocols import Agent, Judge, spent_by
from swirl_env.registry import make_judge, missing, names
from swirl_env.types import Trajectory, Verdict

Spec = str | Mapping[str, Any]
"""A name, or a mapping with ``name`` and options."""
Policy = Callable[[], tuple[Agent, Engine]]
"""Makes the policy that fresh episodes are played with, and their engine; called only if a signal needs them."""


class Signal(Protocol):
    """Rates steps."""

    @property
    def table(self) -> str | None:
        """Name of the table of verdicts that keeps the ratings; None if they cost nothing and are made again each time."""
        ...

    def rate(self, trajectories: Sequence[Trajectory]) -> list[list[Verdict]]:
        """Returns one verdict per step of each episode."""
        ...

    def spent(self) -> Mapping[str, int] | None:
        """Returns what was spent so far, ``calls`` and ``tokens``; empty if it asks no model, None if nobody counts."""
        ...


@dataclass(frozen=True)
class Named:
    """A signal with the name under which a table shows it, and from which value on a rating without a label counts as GOOD."""

    name: str
    signal: Signal
    good_above: float | None
    """GOOD if the value is larger, whatever the label; None takes labels, and values above 0 if there are none."""


class Judged:
    """The verdicts of a judge."""

    def __init__(self, judge: Judge, table: str) -> None:
        self.judge, self.table = judge, table

    def rate(self, trajectories: Sequence[Trajectory]) -> list[list[Verdict]]:
        """Returns the judge's verdicts, asked for in one batch."""
        steps = [list(subtrajectories(trajectory)) for trajectory in trajectories]
        flat = [step for of_one in steps for step in of_one]
        verdicts = iter(run_judge(self.judge, flat) if flat else [])
        return [list(islice(verdicts, len(of_one))) for of_one in steps]

    def spent(self) -> Mapping[str, int] | None:
        """Returns what the judge says that it has spent."""
        return spent_by(self.judge)


class _Free:
    """A signal that costs nothing."""

    @property
    def table(self) -> None:
        """Returns nothing: no table holds its ratings."""
        return None

    def spent(self) -> Mapping[str, int]:
        """Returns nothing."""
        return {}


class Stored(_Free):
    """The verdicts that the episodes were recorded with."""

    def rate(self, trajectories: Sequence[Trajectory]) -> list[list[Verdict]]:
        """Returns the recorded verdicts."""
        return [[step.verdict for step in trajectory.steps] for trajectory in trajectories]


class Constant(_Free):
    """Calls every step GOOD: what agreement is worth without a look at the step."""

    def rate(self, trajectories: Sequence[Trajectory]) -> list[list[Verdict]]:
        """Returns GOOD for every step."""
        return [[Verdict.good(judge="constant")] * len(trajectory.steps) for trajectory in trajectories]


class EpisodeOutcome(_Free):
    """The outcome of the episode on each of its steps: the credit of outcome-only methods (REINFORCE, GRPO)."""

    def rate(self, trajectories: Sequence[Trajectory]) -> list[list[Verdict]]:
        """Returns GOOD for all steps of a right episode, BAD for those of a wrong one; unscored if it was not graded."""
        verdict = {True: Verdict.good(), False: Verdict.bad(), None: Verdict("unscored")}
        return [[verdict[trajectory.outcome.correct]] * len(trajectory.steps) for trajectory in trajectories]


class ReturnToGo(_Free):
    """The discounted sum of the recorded step rewards from a step on (see `swirl_env.algos.credit.return_to_go`).

    Args:
        gamma: discount per step.
    """

    def __init__(self, gamma: float = 1.0) -> None:
        self.gamma = gamma

    def rate(self, trajectories: Sequence[Trajectory]) -> list[list[Verdict]]:
        """Returns the return as reward; unscored if a reward that it sums is missing."""
        return [self._one(trajectory) for trajectory in trajectories]

    def _one(self, trajectory: Trajectory) -> list[Verdict]:
        rewards = [step.verdict.reward for step in trajectory.steps]
        valid, episode, place = [r is not None for r in rewards], [0] * len(rewards), list(range(len(rewards)))
        returns = return_to_go([r or 0.0 for r in rewards], valid, episode, place, gamma=self.gamma)
        complete = complete_returns(valid, episode, place, gamma=self.gamma)
        return [
            Verdict("scored", float(value)) if known else Verdict("unscored")
            for value, known in zip(returns, complete, strict=True)
        ]


class MonteCarlo:
    """Values by fresh episodes from the states before and after a step.

    ``value=advantage`` is V(s') - V(s) (VinePPO, arXiv 2410.01679, without step rewards), ``value=q`` is V(s'), the share of
    fresh episodes after the step that end well (Math-Shepherd's soft estimate, arXiv 2312.08935). After the last step both take
    the outcome.

    Args:
        branches: plays the fresh episodes.
        value: ``advantage`` or ``q``.
    """

    def __init__(self, branches: Branches, value: str = "advantage") -> None:
        if value not in ("advantage", "q"):
            raise unknown_name("value of monte_carlo", value, ("advantage", "q"))
        self.branches, self.value = branches, value
        agent = fingerprint(branches.agent, "agent")
        options = {"agent": agent, "samples": branches.samples, "seed": branches.seed, "value": value}
        self.table = named("monte_carlo", options)

    def rate(self, trajectories: Sequence[Trajectory]) -> list[list[Verdict]]:
        """Returns the value as reward; failed if no fresh episode could be graded."""
        of_all = self.branches.values(trajectories)
        return [
            [self._verdict(*pair) for pair in step_values(trajectory, values)]
            for trajectory, values in zip(trajectories, of_all, strict=True)
        ]

    def _verdict(self, before: tuple[int, int], after: tuple[int, int]) -> Verdict:
        if not after[1] or not before[1]:
            return Verdict.failed("No fresh episode from here could be graded.", "monte_carlo")
        q = after[0] / after[1]
        reward = q if self.value == "q" else q - before[0] / before[1]
        return Verdict(
            "scored", reward, None, f"{after[0]} of {after[1]} after, {before[0]} of {before[1]} before", "monte_carlo"
        )

    def spent(self) -> Mapping[str, int]:
        """Returns what the fresh episodes cost."""
        return dict(self.branches.spent)


_FREE: dict[str, Callable[..., Signal]] = {
    "stored": Stored,
    "constant": Constant,
    "episode_outcome": EpisodeOutcome,
    "return_to_go": ReturnToGo,
}
SIGNALS = (*_FREE, "monte_carlo", "implicit_prm")
"""Signals that are no judges; every registered judge is a signal as well."""


def make_signal(spec: Spec, policy: Policy, table_name: Callable[[Spec, Judge], str], slots: int = 64) -> Named:
    """Builds a signal.

    Args:
        spec: a name, or a mapping with ``name`` and options. On top of its own options every signal takes ``as`` (its name in
            the table) and ``good_above`` (see `Named`).
        policy: makes the policy and the engine for fresh episodes.
        table_name: returns the name of a judge's table of verdicts.
        slots: fresh episodes in flight at once.

    Raises:
        UnknownName: for a name that is neither a signal nor a judge, or an unknown option.
    """
    options: dict[str, Any] = {"name": spec} if isinstance(spec, str) else dict(spec)
    name = options.get("name")
    if not isinstance(name, str):
        raise ConfigError(f"A signal is a name or a mapping with a name, e.g. {{name: noisy, flip: 0.2}}; got {spec!r:.80}.")
    shown: str = options.pop("as", "")
    good_above: float | None = options.pop("good_above", None)
    convert_option(f"good_above of {name}", good_above, float | None)
    shown = shown or _shown(name, options)
    own = {key: value for key, value in options.items() if key != "name"}
    if name in _FREE:
        _check_options(name, own, {"gamma": float} if name == "return_to_go" else {})
        return Named(shown, _FREE[name](**own), good_above)
    if name == "monte_carlo":
        return _monte_carlo(shown, own, policy, good_above, slots)
    if name == "implicit_prm":
        return Named(shown, _implicit_prm(own), good_above)
    if ":" not in name and name not in names("judge"):
        raise unknown_name("signal", name, (*SIGNALS, *names("judge")))
    judge = make_judge(options)
    return Named(shown, Judged(judge, table_name(options, judge)), good_above)


def _monte_carlo(shown: str, options: Mapping[str, Any], policy: Policy, good_above: float | None, slots: int) -> Named:
    _check_options("monte_carlo", options, {"samples": int, "value": str, "seed": int})
    value, samples = options.get("value", "advantage"), options.get("samples", 4)
    if samples < 1:
        raise ConfigError(f"samples of monte_carlo are 1 or above; got {samples}.")
    agent, engine = policy()
    # The seed differs from that of the values which an audit compares it with: the two share no episode.
    signal = MonteCarlo(Branches(agent, engine, samples, options.get("seed", 1), slots), value)
    return Named(shown, signal, 0.5 if good_above is None and value == "q" else good_above)


def _implicit_prm(options: Mapping[str, Any]) -> Signal:
    try:
        from swirl_env.audit.implicit_prm import ImplicitPrm
    except ModuleNotFoundError as error:
        raise missing("signal", "implicit_prm", error) from error
    _check_options("implicit_prm", options, get_type_hints(ImplicitPrm.__init__))
    if lacking := {"model", "train"} - options.keys():
        raise ConfigError(f"The signal 'implicit_prm' needs a value for {min(lacking)!r}: a model, and a run to train it on.")
    return ImplicitPrm(**options)


def _check_options(name: str, options: Mapping[str, object], known: Mapping[str, object]) -> None:
    for option, value in options.items():
        if option not in known:
            raise unknown_name(f"option of the signal {name!r}", option, (*known, "as", "good_above"))
        convert_option(f"{option} of {name}", value, known[option])


def _shown(name: str, options: Mapping[str, object]) -> str:
    """Returns a name with those options that fit a table."""
    plain = [f"{key}={value}" for key, value in options.items() if key != "name" and isinstance(value, str | int | float | bool)]
    return " ".join([name.rpartition(":")[2] or name, *plain])
