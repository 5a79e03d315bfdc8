"""``swirl generate``: episodes of an agent, judged at every step, into a run folder."""

from __future__ import annotations

from omegaconf import DictConfig

from swirl_env.config.options import EpisodeOptions, read
from swirl_env.config.overrides import choice, command, command_line_keys, override
from swirl_env.episodes.engine import Engine
from swirl_env.episodes.rollout import collect
from swirl_env.errors import ConfigError, Interrupted
from swirl_env.protocols import Agent
from swirl_env.registry import make_agent
from swirl_env.stages import runs
from swirl_env.stages.engines import engine_for
from swirl_env.stages.progress import progress
from swirl_env.stages.run_config import resume_command
from swirl_env.store import Store
from swirl_env.store.codec import Key
from swirl_env.types import Trajectory


def main(config: DictConfig) -> None:
    """Runs the stage."""
    options = runs.settle(read("generate", EpisodeOptions, config), command_line_keys())
    engine, agent = make_engine_and_agent(options)
    with runs.open_run(options) as store:
        tally = generate(options, store, engine, agent)
    print(f"{tally} in {store.path}")
    for gap in gaps(tally, options):
        print(gap)
    out = override("out", str(store.path))
    print(f"next: {command('eval', out)}   or   {command('filter', out)}")


def make_engine_and_agent(options: EpisodeOptions) -> tuple[Engine, Agent]:
    """Returns engine and agent; whatever is wrong with the options is raised here, before anything is written."""
    engine, agent = engine_for(options.task, options), make_agent(options.agent)
    count_of(options, engine)
    return engine, agent


def count_of(options: EpisodeOptions, engine: Engine) -> int:
    """Returns how many episodes to run: ``n``, or all.

    Raises:
        ConfigError: if there are fewer questions.
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
        engine: `engine_for` the options.
        agent: chooses the actions.
        what: label of the progress bar.

    Raises:
        Interrupted: at Ctrl-C; every episode that had ended is stored.
    """
    table = None if options.judge is None else runs.table_name(options.judge, engine.judge)
    episodes = count_of(options, engine)
    try:
        tally = _take_stock(store, table)
        trajectories = collect(
            agent,
            engine,
            episodes,
            options.slots,
            options.seed,
            samples=options.samples,
            done=store.keys(),
            name=str(options.agent["name"]),
        )
        with progress(what, episodes, tally.episodes - tally.errors) as advance:
            for trajectory in trajectories:
                _store_episode(store, table, trajectory)
                tally.add(trajectory)
                advance(note=tally.accuracy)
    except KeyboardInterrupt:
        raise Interrupted(
            f"{len(store.keys())} of {episodes} episodes are in {store.path}. To go on: {resume_command('generate', options)}"
        ) from None
    if table is not None:
        verdicts = store.verdicts(table)
        for key in verdicts.keys() - verdicts.judged():
            tally.unjudged += sum(verdict.status == "failed" for verdict in verdicts[key])
    return tally


def gaps(tally: Tally, options: EpisodeOptions) -> list[str]:
    """Returns a line for each thing that a run lacks, with the command that fills it in."""
    lines = []
    if tally.errors:
        episodes = "1 episode" if tally.errors == 1 else f"{tally.errors:,} episodes"
        lines.append(f"{episodes} failed: {resume_command('generate', options)}   runs them again")
    if tally.unjudged and options.judge is not None:
        steps = "1 step" if tally.unjudged == 1 else f"{tally.unjudged:,} steps"
        lines.append(
            f"{steps} without a verdict: {command('judge', override('out', options.out), *choice('judge', options.judge))}"
        )
    return lines


def _take_stock(store: Store, table: str | None) -> Tally:
    """Counts what a run holds already, and copies verdicts that a kill kept from the judge's table."""
    tally = Tally()
    judged: set[Key] = set() if table is None else set(store.verdicts(table))
    for trajectory in store:
        if trajectory.ended == "error":
            continue
        tally.add(trajectory)
        if table is not None and trajectory.key not in judged:
            store.append_verdicts(table, trajectory.key, [step.verdict for step in trajectory.steps])
    return tally


def _store_episode(store: Store, table: str | None, trajectory: Trajectory) -> None:
    store.append(trajectory, trajectory.sample)
    if table is not None and trajectory.ended != "error":
        store.append_verdicts(table, trajectory.key, [step.verdict for step in trajectory.steps])
