"""``swirl generate``: episodes of an agent, judged at every step, into a run folder."""

from __future__ import annotations

from collections import Counter

from omegaconf import DictConfig

from swirl_env.config.options import EpisodeOptions, in_sweep, keys_to_resume, read
from swirl_env.config.overrides import choice, command, command_line_keys, override
from swirl_env.errors import Interrupted, PluginError
from swirl_env.evaluate import evaluate
from swirl_env.stages import evaluations, folders, runs
from swirl_env.stages.live import Live
from swirl_env.stages.playing import Player, count_episodes, open_player
from swirl_env.stages.progress import progress
from swirl_env.stages.run_config import resume_command
from swirl_env.store import Store
from swirl_env.store.codec import Key
from swirl_env.types import ToolCall, Trajectory


def main(config: DictConfig) -> float | None:
    """Runs the stage; in a sweep, or with an ``objective``, returns the figure that it names."""
    options = read("generate", EpisodeOptions, config)
    evaluations.check_objective(options.objective)
    folders.check_resumable(options, command_line_keys())
    options = runs.settle(options, keys_to_resume())
    with open_player(options) as player, runs.open_run(options) as store:
        tally = generate(options, store, player)
        measured = evaluate(store) if options.objective or in_sweep() else None
    print(f"{tally} in {store.path}")
    for gap in gaps(tally, options):
        print(gap)
    out = override("out", str(store.path))
    print(f"next: {command('eval', out)}   or   {command('filter', out)}")
    return None if measured is None else evaluations.objective_value(options.objective, {"episodes": measured})


class Tally:
    """Counts episodes as they end."""

    def __init__(self) -> None:
        self.episodes = self.graded = self.correct = self.errors = self.unjudged = self.answered = self.ungraded = 0
        self.calls: Counter[str] = Counter()
        """Calls per tool."""
        self.unavailable: Counter[str] = Counter()
        """Those of them on which the tool itself failed."""

    def add(self, trajectory: Trajectory) -> None:
        """Counts an episode."""
        self.episodes += 1
        self.errors += trajectory.ended == "error"
        self.graded += trajectory.outcome.correct is not None
        self.correct += trajectory.outcome.correct is True
        answered = trajectory.outcome.answer is not None and trajectory.task.answer is not None
        self.answered += answered
        self.ungraded += answered and trajectory.outcome.correct is None
        for step in trajectory.steps:
            if isinstance(step.call, ToolCall):
                self.calls[step.call.tool] += 1
                self.unavailable[step.call.tool] += step.result is not None and step.result.error == "unavailable"

    @property
    def accuracy(self) -> str:
        """The share of right answers, in words."""
        return f"accuracy {self.correct / self.graded:.3f}" if self.graded else ""

    def __str__(self) -> str:
        errors = f", {self.errors} failed" if self.errors else ""
        accuracy = f", {self.accuracy}" if self.accuracy else ""
        return f"{self.episodes} episode{'' if self.episodes == 1 else 's'}{accuracy}{errors}"


def generate(options: EpisodeOptions, store: Store, player: Player, what: str = "generate", stage: str = "generate") -> Tally:
    """Runs the episodes that the store does not hold yet; returns the count over all that it holds.

    Args:
        options: what to run.
        store: the run folder, open for writing.
        player: `open_player` for the options.
        what: label of the progress bar.
        stage: the stage that goes on with the run.

    Raises:
        Interrupted: at Ctrl-C; every episode that had ended is stored.
        PluginError: if every episode failed, or a tool, the judge or the grader failed everywhere; what there is is stored.
    """
    table, episodes = player.table, count_episodes(options, player.tasks)
    try:
        tally = _take_stock(store, table)
        trajectories = player.play(store.keys())
        live = Live()
        with progress(what, episodes, tally.episodes - tally.errors) as advance:
            for trajectory in trajectories:
                _store_episode(store, table, trajectory)
                tally.add(trajectory)
                live.add(trajectory)
                advance(note=str(live))
    except KeyboardInterrupt:
        raise Interrupted(
            f"{len(store.keys())} of {episodes} episodes are in {store.path}. To go on: {resume_command(stage, options)}"
        ) from None
    if table is not None:
        verdicts = store.verdicts(table)
        for key in verdicts.keys() - verdicts.judged():
            tally.unjudged += sum(verdict.status == "failed" for verdict in verdicts[key])
    _refuse_failure_everywhere(tally, store, table, options, stage)
    return tally


def _refuse_failure_everywhere(tally: Tally, store: Store, table: str | None, options: EpisodeOptions, stage: str) -> None:
    """Raises an error for a run in which nothing went well: it must not look like a result."""
    if tally.episodes and tally.errors == tally.episodes:
        raise PluginError(
            f"All {tally.episodes:,} episodes failed: the agent could not act (the log above says why). Once that is fixed, "
            f"{resume_command(stage, options)}   runs them again."
        )
    for tool, calls in tally.calls.items():
        if tally.unavailable[tool] == calls:
            raise PluginError(
                f"The tool {tool!r} was unavailable on all {calls:,} calls of {store.path}, so its episodes say nothing (the log "
                f"above says why). Once that is fixed, begin again in another out=."
            )
    if options.grader is not None and tally.answered and tally.ungraded == tally.answered:
        raise PluginError(
            f"The grader graded none of the {tally.answered:,} answers in {store.path}. The episodes are stored: once that is "
            f"fixed, `swirl eval` with the same grader= grades them."
        )
    refuse_failed_judge(store, table)


def refuse_failed_judge(store: Store, table: str | None) -> None:
    """Raises the judge's own words if it failed on every step of a run.

    Raises:
        PluginError: with the critique of the first verdict, and how to judge again.
    """
    if table is None or not (verdicts := store.verdicts(table)):
        return
    if all(verdict.status == "failed" for of_one in verdicts.values() for verdict in of_one):
        critique = next((verdict.critique for of_one in verdicts.values() for verdict in of_one), "")
        raise PluginError(
            f"The judge failed on every step of {store.path}: {critique} The episodes are stored: once that is fixed, "
            f"`swirl judge` with the same judge asks for these verdicts again."
        )


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
    """Counts what a run holds already, and copies verdicts that a kill kept from the judge's table.

    Episodes that a table of another version of this judge holds stay there: these verdicts are not the present judge's.
    """
    tally = Tally()
    judged: set[Key] = set()
    for other in store.judges() if table is not None else []:
        if table is not None and other.rpartition("-")[0] == table.rpartition("-")[0]:
            judged |= store.verdicts(other).keys()
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
