"""``swirl audit``: how far judges and other step signals can be trusted, on the episodes of a run whose tasks have gold plans."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import msgspec
from omegaconf import DictConfig

from swirl_env.audit import agreement, records, report, rows
from swirl_env.audit.records import Cost, PolicyValues
from swirl_env.audit.report import Audit
from swirl_env.audit.signals import Named, Spec
from swirl_env.config.options import AuditOptions, read
from swirl_env.config.overrides import command, command_line_words, override
from swirl_env.errors import ConfigError, Interrupted
from swirl_env.fingerprint import named
from swirl_env.stages import audit_tables, folders, runs
from swirl_env.stages.judge import batches
from swirl_env.stages.progress import progress
from swirl_env.stages.rating import Rater, Setting, open_rater
from swirl_env.store import Store
from swirl_env.store.lines import replace_file
from swirl_env.types import Trajectory, Verdict


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
    setting = Setting(path, options, runs.config_of(path), command_line_words())
    signals = [setting.signal(spec) for spec in options.signals]
    _refuse_twice(signals)
    with open_rater(setting) as rater, Store(path) as store:
        # In the order of their keys: a run stores short episodes first, and some of these would be no fair sample.
        trajectories = sorted((t for t in store if t.ended != "error" and t.steps), key=lambda t: t.key)[: options.n]
        if not trajectories:
            raise ConfigError(f"{path} holds no finished episode to audit. Generate some: swirl generate out=...")
        oracle = setting.oracle()
        exact = [oracle.values(trajectory) for trajectory in trajectories]
        try:
            values, policy = _policy_values(store, trajectories, setting, rater) if options.samples else (None, None)
            truth = report.truth_of(trajectories, exact, values)
            weights = agreement.bootstrap_weights(truth.questions, options.resamples, options.seed)
            costs = records.costs(path)
            rated = {
                signal.name: _rate(spec, signal, store, trajectories, costs, rater, options.batch)
                for spec, signal in zip(options.signals, signals, strict=True)
            }
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


def _refuse_twice(signals: Sequence[Named]) -> None:
    names = [signal.name for signal in signals]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(f"The signal {twice!r} is listed twice; list each once.")


def _policy_values(
    store: Store, trajectories: Sequence[Trajectory], setting: Setting, rater: Rater
) -> tuple[list[PolicyValues], str]:
    """Returns the values of the policy per episode, and its name; those that the folder lacks are estimated and stored."""
    options = setting.options
    policy = named("policy", {"agent": setting.policy()[0], "samples": options.samples, "seed": options.seed})
    file = records.policy_values(store.path, policy)
    known = {record.key: record for record in file.read()}
    missing = [trajectory for trajectory in trajectories if trajectory.key not in known]
    store.lock()
    try:
        with progress("policy values", len(trajectories), len(trajectories) - len(missing)) as advance:
            for group, new in rater.values(batches(missing, options.batch)):
                for record in new:
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
    spec: Spec,
    signal: Named,
    store: Store,
    trajectories: Sequence[Trajectory],
    costs: records.Records[Cost],
    rater: Rater,
    batch: int,
) -> list[Verdict]:
    """Returns the verdicts of a signal on all steps; those that cost something are kept in its table.

    Verdicts that the table lacks, or that failed, are asked for and stored.
    """
    table = signal.signal.table
    if table is None:
        return [verdict for of_one in signal.signal.rate(trajectories) for verdict in of_one]
    known = store.verdicts(table)
    judged = known.judged()
    missing = [trajectory for trajectory in trajectories if trajectory.key not in judged]
    with progress(signal.name, len(trajectories), len(trajectories) - len(missing)) as advance:
        for group, (ratings, spent) in rater.rate(spec, signal.signal, batches(missing, batch)):
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
