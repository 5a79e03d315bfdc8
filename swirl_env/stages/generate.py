"""``swirl generate``: episodes of an agent, judged at every step, into a run folder."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from swirl_env.cli import Interrupted
from swirl_env.config.options import EpisodeOptions, read
from swirl_env.config.plugins import defaults
from swirl_env.env import build_engine
from swirl_env.episodes.engine import Engine
from swirl_env.episodes.rollout import collect
from swirl_env.errors import ConfigError
from swirl_env.protocols import Agent
from swirl_env.registry import make_agent
from swirl_env.stages import runs
from swirl_env.stages.progress import progress
from swirl_env.store import Store
from swirl_env.types import Trajectory

_PLAIN = re.compile(r"[\w.+-]+")


def main(config: DictConfig) -> None:
    """Runs the stage."""
    options = runs.agreed(read("generate", EpisodeOptions, config), given_keys())
    engine, agent = prepared(options)
    with runs.opened(options) as store:
        tally = generate(options, store, engine, agent)
    print(f"{tally} in {store.path}")
    for gap in gaps(tally, store.path, options.judge):
        print(gap)
    print(f"next: swirl eval out={quoted(store.path)}   or   swirl filter out={quoted(store.path)}")


def given_keys() -> set[str]:
    """Returns the keys that the command line sets."""
    overrides = HydraConfig.get().overrides.task
    return {str(override).lstrip("+~").partition("=")[0] for override in overrides}


def engine_of(options: EpisodeOptions) -> Engine:
    """Returns the engine for a stage's options."""
    return build_engine(
        options.task,
        None if options.tool is None else list(options.tool.values()),
        options.judge,
        options.max_steps,
        format=options.format,
        history=options.history,
        prompt=options.prompt,
        max_chars=options.max_chars,
    )


def prepared(options: EpisodeOptions) -> tuple[Engine, Agent]:
    """Returns engine and agent; whatever is wrong with the options comes out here, before anything is written."""
    engine, agent = engine_of(options), make_agent(options.agent)
    count_of(options, engine)
    return engine, agent


def count_of(options: EpisodeOptions, engine: Engine) -> int:
    """Returns how many episodes to run: ``n``, or all.

    Raises:
        ConfigError: where there are not so many.
    """
    room = len(engine.tasks) * options.samples
    if options.n is not None and options.n > room:
        raise ConfigError(
            f"n={options.n} episodes were asked for, but {len(engine.tasks)} questions x {options.samples} samples give {room}. "
            f"Ask for fewer (n=null for all), or raise samples."
        )
    return room if options.n is None else options.n


class Tally:
    """Counts episodes as they end."""

    def __init__(self) -> None:
        self.episodes = self.graded = self.correct = self.errors = self.unjudged = 0

    def add(self, trajectory: Trajectory) -> None:
        """Counts an episode."""
        self.episodes += 1
        self.errors += trajectory.ended == "error"
        self.graded += trajectory.outcome.correct is not None
        self.correct += trajectory.outcome.correct is True

    @property
    def accuracy(self) -> str:
        """The share of right answers so far, for a progress bar."""
        return f"accuracy {self.correct / self.graded:.3f}" if self.graded else ""

    def __str__(self) -> str:
        errors = f", {self.errors} failed" if self.errors else ""
        accuracy = f", {self.accuracy}" if self.accuracy else ""
        return f"{self.episodes} episode{'' if self.episodes == 1 else 's'}{accuracy}{errors}"


def generate(options: EpisodeOptions, store: Store, engine: Engine, agent: Agent, what: str = "generate") -> Tally:
    """Runs the episodes that the store does not hold yet; returns the count over all that it holds.

    Args:
        options: what to run.
        store: the run folder, open for writing.
        engine: `engine_of` the options.
        agent: chooses the actions.
        what: label of the progress bar.

    Raises:
        Interrupted: at Ctrl-C; every episode that had ended is stored.
    """
    table = None if options.judge is None else runs.table_name(options.judge, engine.judge)
    tally = _take_stock(store, table)
    episodes = count_of(options, engine)
    name = str(options.agent["name"])
    found = collect(agent, engine, episodes, options.slots, options.seed, samples=options.samples, done=store.keys(), name=name)
    try:
        with progress(what, episodes, tally.episodes - tally.errors) as advance:
            for trajectory in found:
                _keep(store, table, trajectory)
                tally.add(trajectory)
                advance(note=tally.accuracy)
    except KeyboardInterrupt:
        raise Interrupted(
            f"{len(store.keys())} of {episodes} episodes are in {store.path}. To go on: "
            f"swirl generate out={quoted(store.path)} resume=true"
        ) from None
    if table is not None:
        verdicts = store.verdicts(table)
        for key in verdicts.keys() - verdicts.judged():
            tally.unjudged += sum(verdict.status == "failed" for verdict in verdicts[key])
    return tally


def gaps(tally: Tally, path: Path, judge: Mapping[str, Any] | None) -> list[str]:
    """Returns a line for each thing that a run lacks, with the command that fills it in."""
    found = []
    if tally.errors:
        episodes = "1 episode" if tally.errors == 1 else f"{tally.errors:,} episodes"
        found.append(f"{episodes} failed: swirl generate out={quoted(path)} resume=true   runs them again")
    if tally.unjudged and judge is not None:
        steps = "1 step" if tally.unjudged == 1 else f"{tally.unjudged:,} steps"
        found.append(f"{steps} without a verdict: swirl judge out={quoted(path)} {_chosen(judge)}")
    return found


def _chosen(judge: Mapping[str, Any]) -> str:
    """Returns the words that choose a judge on the command line: its name, and the options that are not the usual ones."""
    usual = defaults("judge", str(judge["name"]))
    words = [f"judge={judge['name']}"]
    for option, value in judge.items():
        if option != "name" and value != usual.get(option):
            if not _PLAIN.fullmatch(str(value)):  # lists and nested options have a grammar of their own
                return f"{words[0]}   with the same options"
            words.append(f"judge.{option}={value}")
    return " ".join(words)


def _take_stock(store: Store, table: str | None) -> Tally:
    """Counts what a run holds already, and copies verdicts that a kill kept from the judge's table."""
    tally = Tally()
    judged: Any = set() if table is None else set(store.verdicts(table))
    for trajectory in store:
        if trajectory.ended == "error":
            continue
        tally.add(trajectory)
        if table is not None and trajectory.key not in judged:
            store.append_verdicts(table, trajectory.key, [step.verdict for step in trajectory.steps])
    return tally


def _keep(store: Store, table: str | None, trajectory: Trajectory) -> None:
    store.append(trajectory)
    if table is not None and trajectory.ended != "error":
        store.append_verdicts(table, trajectory.key, [step.verdict for step in trajectory.steps])


def quoted(path: Path) -> str:
    """Returns a path as a shell takes it."""
    return shlex.quote(str(path))
