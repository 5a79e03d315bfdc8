"""How the episodes of an audited run were made, and who rates their steps: this process, or workers of a cluster."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from swirl_env.audit.branches import Branches
from swirl_env.audit.oracle import Oracle
from swirl_env.audit.records import PolicyValues
from swirl_env.audit.signals import Named, Signal, Spec, make_signal
from swirl_env.cluster import Pool
from swirl_env.config.options import AuditOptions, EpisodeOptions, Plugin
from swirl_env.episodes.engine import Engine
from swirl_env.errors import ConfigError
from swirl_env.protocols import Agent
from swirl_env.registry import make_agent
from swirl_env.stages import runs
from swirl_env.stages.engines import engine_for
from swirl_env.stages.run_config import Config, check_code, to_options
from swirl_env.store.codec import decode_trajectory, decode_verdicts, encode_trajectory, encode_verdicts
from swirl_env.types import SEARCH, Trajectory, Verdict


class Setting:
    """How the episodes of a run were made, as far as its configuration tells; nothing is built before it is needed.

    Args:
        path: the run folder.
        options: the audit's.
        config: the run's configuration.
        words: the arguments of the command line, which must name the code that the configuration runs.
    """

    def __init__(self, path: Path, options: AuditOptions, config: Config, words: Sequence[str]) -> None:
        self.path, self.options, self.config, self.words = path, options, config, words

    @functools.cached_property
    def engine(self) -> Engine | None:
        """The engine of the episodes, without a judge; None for episodes of a loop of the user's own."""
        if not self.config:
            return None
        check_code(self.path, {key: self.config.get(key) for key in ("task", "tool", "format", "grader")}, self.words)
        options = self._stored({"name": "random"})  # no agent acts in it
        return engine_for(options.task, options)

    def _stored(self, agent: Plugin) -> EpisodeOptions:
        free = {"out": str(self.path), "resume": False, "slots": self.options.slots, "objective": None}
        return to_options(self.path, {**self.config, **free, "judge": None, "agent": agent}, EpisodeOptions)

    def oracle(self) -> Oracle:
        """Returns the oracle for the run's searches; without a configuration, one that goes by the plan alone."""
        tool = None if self.engine is None else self.engine.tools.get(SEARCH)
        return Oracle(None if tool is None else tool.run)

    def policy(self) -> tuple[Agent, Engine]:
        """Returns the policy that fresh episodes are played with, and their engine.

        Raises:
            ConfigError: if the run does not say how its episodes were made.
        """
        if self.engine is None:
            raise ConfigError(
                f"{self.path} has no config.yaml, so nobody can tell with which tools fresh episodes are to be played. Leave "
                f"samples= and monte_carlo out, or audit a run of `swirl generate`."
            )
        return self._agent, self.engine

    @functools.cached_property
    def _agent(self) -> Agent:
        if self.options.agent is not None:
            return make_agent(self.options.agent)
        check_code(self.path, {"agent": self.config["agent"]}, self.words)
        return make_agent(self._stored(self.config["agent"]).agent)

    def signal(self, spec: Spec) -> Named:
        """Builds a signal."""
        return make_signal(spec, self.policy, runs.table_name, self.options.slots)

    def branches(self) -> Branches:
        """Returns what plays the fresh episodes behind the values of the policy."""
        agent, engine = self.policy()
        return Branches(agent, engine, self.options.samples, self.options.seed, self.options.slots)


Group = Sequence[Trajectory]
"""Episodes that are rated in one batch."""


class Ratings(NamedTuple):
    """What a signal says of a group."""

    verdicts: list[list[Verdict]]
    spent: dict[str, int]
    """``calls`` and ``tokens``; empty if nobody counted them."""


class Rater(Protocol):
    """Rates groups of episodes."""

    def values(self, groups: Iterator[Group]) -> Iterator[tuple[Group, list[PolicyValues]]]:
        """Yields each group with the policy's values, in any order."""
        ...

    def rate(self, spec: Spec, signal: Signal, groups: Iterator[Group]) -> Iterator[tuple[Group, Ratings]]:
        """Yields each group with the ratings of a signal, in any order."""
        ...


def open_rater(setting: Setting) -> AbstractContextManager[Rater]:
    """Returns who rates the episodes of a run."""
    return ClusterRater(setting) if setting.options.cluster else nullcontext(LocalRater(setting))


def rate_group(signal: Signal, group: Group) -> Ratings:
    """Returns the ratings of a group, and what they cost."""
    before = signal.spent() or {}
    verdicts = signal.rate(group)
    return Ratings(verdicts, {key: value - before.get(key, 0) for key, value in (signal.spent() or {}).items()})


class LocalRater:
    """Rates in this process.

    Args:
        setting: how the episodes were made.
    """

    def __init__(self, setting: Setting) -> None:
        self._setting = setting

    def values(self, groups: Iterator[Group]) -> Iterator[tuple[Group, list[PolicyValues]]]:
        """Yields each group with the policy's values, in order."""
        branches = self._setting.branches()
        return ((group, branches.values(group)) for group in groups)

    def rate(self, spec: Spec, signal: Signal, groups: Iterator[Group]) -> Iterator[tuple[Group, Ratings]]:
        """Yields each group with the ratings of a signal, in order."""
        return ((group, rate_group(signal, group)) for group in groups)


class ClusterRater(AbstractContextManager["ClusterRater"]):
    """Has episodes rated by the workers of a cluster.

    Args:
        setting: how the episodes were made.
    """

    def __init__(self, setting: Setting) -> None:
        self._local = LocalRater(setting)
        # Nothing is loaded twice on the way: only the configuration travels.
        bare = Setting(setting.path, setting.options, setting.config, setting.words)
        self._pool = Pool(setting.options.cluster, functools.partial(AuditWork, bare))

    def values(self, groups: Iterator[Group]) -> Iterator[tuple[Group, list[PolicyValues]]]:
        """Yields each group with the policy's values, as the workers finish them."""
        yield from self._run(None, groups)

    def rate(self, spec: Spec, signal: Signal, groups: Iterator[Group]) -> Iterator[tuple[Group, Ratings]]:
        """Yields each group with the ratings of a signal; a signal that is trained for the audit rates in this process."""
        if (spec if isinstance(spec, str) else spec["name"]) == "implicit_prm":
            yield from self._local.rate(spec, signal, groups)
            return
        for group, (lines, spent) in self._run(spec, groups):
            yield group, Ratings([list(decode_verdicts(line)) for line in lines], spent)

    def _run(self, spec: Spec | None, groups: Iterator[Group]) -> Iterator[tuple[Group, Any]]:
        under_way: dict[int, Group] = {}

        def items() -> Iterator[tuple[int, Packed]]:
            for number, group in enumerate(groups):
                under_way[number] = group
                yield number, (spec, [encode_trajectory(trajectory) for trajectory in group])

        for number, result in self._pool.run(items(), backlog=2):
            yield under_way.pop(number), result

    def __exit__(self, *error: object) -> None:
        self._pool.close()


Packed = tuple[Spec | None, list[bytes]]
"""A group as it travels, and the signal that rates it; None for the policy's values."""


class AuditWork:
    """Rates in a worker: an item is a group, its result the policy's values, or lines of verdicts and what they cost.

    Args:
        setting: how the episodes were made.
    """

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._signals: dict[str, Signal] = {}
        self._branches: Branches | None = None

    def description(self) -> str:
        """Returns nothing that could differ: what rates is built when it is first asked for."""
        return "audit"

    def exchange(self, items: Sequence[tuple[int, Packed]]) -> list[tuple[int, object]]:
        """Rates the groups."""
        return [(number, self._answer(*packed)) for number, packed in items]

    def _answer(self, spec: Spec | None, lines: Iterable[bytes]) -> object:
        group = [decode_trajectory(line) for line in lines]
        if spec is None:
            self._branches = self._branches or self._setting.branches()
            return self._branches.values(group)
        if repr(spec) not in self._signals:
            self._signals[repr(spec)] = self._setting.signal(spec).signal
        ratings = rate_group(self._signals[repr(spec)], group)
        return [encode_verdicts(t.key, v) for t, v in zip(group, ratings.verdicts, strict=True)], ratings.spent
