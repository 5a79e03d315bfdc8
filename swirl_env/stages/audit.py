"""``swirl audit``: how far judges and other step signals can be trusted, on the episodes of a run whose tasks have gold plans."""

from __future__ import annotations

import csv
import functools
import io
from collections.abc import Sequence
from pathlib import Path

import msgspec
from omegaconf import DictConfig

from swirl_env.audit import agreement, records, report, rows
from swirl_env.audit.branches import Branches
from swirl_env.audit.oracle import Oracle
from swirl_env.audit.records import Cost, PolicyValues
from swirl_env.audit.report import Audit
from swirl_env.audit.signals import Named, make_signal
from swirl_env.config.options import AuditOptions, EpisodeOptions, Plugin, read
from swirl_env.config.overrides import command, command_line_words, override
from swirl_env.episodes.engine import Engine
from swirl_env.errors import ConfigError, Interrupted
from swirl_env.fingerprint import named
from swirl_env.protocols import Agent
from swirl_env.registry import make_agent
from swirl_env.stages import audit_tables, folders, runs
from swirl_env.stages.engines import engine_for
from swirl_env.stages.judge import batches
from swirl_env.stages.progress import progress
from swirl_env.stages.run_config import check_code, to_options
from swirl_env.store import Store
from swirl_env.store.lines import replace_file
from swirl_env.types import SEARCH, Trajectory, Verdict


def main(config: DictConfig) -> None:
    """Runs the stage on a run, or on every run of a sweep."""
    options = read("audit", AuditOptions, config)
    for path in folders.episode_runs(Path(options.out)):
        audit, steps = audit_run(path, options)
        audit_tables.show(audit)
        written = write(path, options.name, audit, steps)
        print(f"written to {written[0]}, {written[1].name} and, step by step, {written[2].name}")
        print(f"next: {command('judge', override('out', str(path)))}   or   {command('view', str(path))}")


def audit_run(path: Path, options: AuditOptions) -> tuple[Audit, list[rows.Row]]:
    """Audits the signals on the episodes of a run; ratings and values that the folder holds already are not made again.

    Returns:
        The figures, and one row per step with its values and ratings.

    Raises:
        ConfigError: if the run has no finished episode, or tasks without gold plans.
        Interrupted: at Ctrl-C; all batches that were rated are stored.
    """
    setting = Setting(path, options)
    signals = [make_signal(spec, setting.policy, runs.table_name, options.slots) for spec in options.signals]
    _refuse_twice(signals)
    with Store(path) as store:
        # In the order of their keys: a run stores short episodes first, and some of these would be no fair sample.
        trajectories = sorted((t for t in store if t.ended != "error" and t.steps), key=lambda t: t.key)[: options.n]
        if not trajectories:
            raise ConfigError(f"{path} holds no finished episode to audit. Generate some: swirl generate out=...")
        oracle = setting.oracle()
        exact = [oracle.values(trajectory) for trajectory in trajectories]
        try:
            values, policy = _policy_values(store, trajectories, setting, options) if options.samples else (None, None)
            truth = report.truth_of(trajectories, exact, values)
            weights = agreement.bootstrap_weights(truth.questions, options.resamples, options.seed)
            costs = records.costs(path)
            rated = {signal.name: _rate(signal, store, trajectories, costs, options) for signal in signals}
            reports = [_report(signal, rated[signal.name], costs, truth, weights) for signal in signals]
            costs.close()
        except KeyboardInterrupt:
            raise Interrupted(f"What was rated is stored. To go on: {command('audit', *command_line_words())}") from None
    audit = _summary(path.name, trajectories, truth, policy, reports, options)
    return audit, list(rows.step_rows(trajectories, exact, values, rated))


def _summary(
    run: str,
    trajectories: Sequence[Trajectory],
    truth: report.Truth,
    policy: str | None,
    reports: Sequence[report.SignalReport],
    options: AuditOptions,
) -> Audit:
    return Audit(
        run=run,
        episodes=len(trajectories),
        questions=len({trajectory.task.id for trajectory in trajectories}),
        steps=len(truth.questions),
        policy=policy,
        samples=options.samples,
        kinds=report.count_kinds(truth),
        truths=report.truth_shares(truth),
        signals=tuple(reports),
        resamples=options.resamples,
    )


class Setting:
    """How the episodes of a run were made, as far as its configuration tells; nothing is built before it is needed.

    Args:
        path: the run folder.
        options: the audit's.
    """

    def __init__(self, path: Path, options: AuditOptions) -> None:
        self.path, self.options = path, options
        self.config = runs.config_of(path)

    @functools.cached_property
    def engine(self) -> Engine | None:
        """The engine of the episodes, without a judge; None for episodes of a loop of the user's own."""
        if not self.config:
            return None
        check_code(self.path, {key: self.config.get(key) for key in ("task", "tool", "format", "grader")})
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
        check_code(self.path, {"agent": self.config["agent"]})
        return make_agent(self._stored(self.config["agent"]).agent)


def _refuse_twice(signals: Sequence[Named]) -> None:
    names = [signal.name for signal in signals]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(f"The signal {twice!r} is listed twice; list each once.")


def _policy_values(
    store: Store, trajectories: Sequence[Trajectory], setting: Setting, options: AuditOptions
) -> tuple[list[PolicyValues], str]:
    """Returns the values of the policy per episode, and its name; those that the folder lacks are estimated and stored."""
    agent, engine = setting.policy()
    policy = named("policy", {"agent": agent, "samples": options.samples, "seed": options.seed})
    file = records.policy_values(store.path, policy)
    known = {record.key: record for record in file.read()}
    branches = Branches(agent, engine, options.samples, options.seed, options.slots)
    missing = [trajectory for trajectory in trajectories if trajectory.key not in known]
    store.lock()
    try:
        with progress("policy values", len(trajectories), len(trajectories) - len(missing)) as advance:
            for group in batches(missing, options.batch):
                for record in branches.values(group):
                    file.append(record)
                    known[record.key] = record
                advance(len(group))
    finally:
        file.close()
    return [known[trajectory.key] for trajectory in trajectories], policy


def _report(
    signal: Named,
    verdicts: Sequence[Verdict],
    costs: records.Records[Cost],
    truth: report.Truth,
    weights: report.Floats,
) -> report.SignalReport:
    """Returns the figures of a signal."""
    table = signal.signal.table
    calls, tokens = _cost(signal, table, costs)
    return report.report_signal(
        signal.name, table, verdicts, truth, weights, good_above=signal.good_above, calls=calls, tokens=tokens
    )


def _rate(
    signal: Named, store: Store, trajectories: Sequence[Trajectory], costs: records.Records[Cost], options: AuditOptions
) -> list[Verdict]:
    """Returns the verdicts of a signal on all steps; those that cost something are kept in its table."""
    table = signal.signal.table
    if table is None:
        return [verdict for of_one in signal.signal.rate(trajectories) for verdict in of_one]
    return _rated(signal, table, store, trajectories, costs, options)


def _rated(
    signal: Named,
    table: str,
    store: Store,
    trajectories: Sequence[Trajectory],
    costs: records.Records[Cost],
    options: AuditOptions,
) -> list[Verdict]:
    """Returns the verdicts of a signal on all steps; those that its table lacks, or that failed, are asked for and stored."""
    known = store.verdicts(table)
    judged = known.judged()
    missing = [trajectory for trajectory in trajectories if trajectory.key not in judged]
    with progress(signal.name, len(trajectories), len(trajectories) - len(missing)) as advance:
        for group in batches(missing, options.batch):
            before = signal.signal.spent() or {}
            ratings = signal.signal.rate(group)
            spent = {key: value - before.get(key, 0) for key, value in (signal.signal.spent() or {}).items()}
            for trajectory, verdicts in zip(group, ratings, strict=True):
                store.append_verdicts(table, trajectory.key, verdicts)
            steps = sum(map(len, ratings))
            costs.append(Cost(table, steps, spent.get("calls"), spent.get("tokens")))
            advance(len(group))
    table_now = store.verdicts(table)
    return [verdict for trajectory in trajectories for verdict in table_now[trajectory.key]]


def _cost(signal: Named, table: str | None, costs: records.Records[Cost]) -> tuple[float | None, float | None]:
    """Returns calls and tokens per step that was rated; None if nobody counted them, or another command filled the table."""
    if signal.signal.spent() == {}:
        return 0.0, 0.0
    mine = [cost for cost in costs.read() if cost.table == table and cost.calls is not None]
    steps = sum(cost.steps for cost in mine)
    if not steps:
        return None, None
    calls, tokens = (sum(getattr(cost, what) or 0 for cost in mine) / steps for what in ("calls", "tokens"))
    return calls, tokens or None  # an agent that takes calls without tokens does not count them


def write(path: Path, name: str, audit: Audit, steps: Sequence[rows.Row]) -> tuple[Path, Path, Path]:
    """Writes the audit as JSON, as CSV with one row per figure, and its steps as CSV; returns the files."""
    folder = path / records.FOLDER
    folder.mkdir(exist_ok=True)
    files = folder / f"{name}.json", folder / f"{name}.csv", folder / f"{name}.steps.csv"
    runs.write_json(files[0], audit)
    _write_csv(files[1], list(rows.flat_rows(audit)))
    _write_csv(files[2], steps)
    return files


def _write_csv(file: Path, lines: Sequence[rows.Row]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, lines[0])
    writer.writeheader()
    writer.writerows(lines)
    replace_file(file, text.getvalue().encode())


def load(path: Path, name: str = "table") -> Audit:
    """Returns an audit that a run folder holds."""
    return msgspec.json.decode((path / records.FOLDER / f"{name}.json").read_bytes(), type=Audit)
