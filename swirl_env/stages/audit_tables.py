"""The audit's figures as tables for terminals and pages."""

from __future__ import annotations

from collections.abc import Sequence

from swirl_env.audit.report import Audit, SignalReport
from swirl_env.evaluate import Estimate
from swirl_env.stages import tables

Row = dict[str, str]


def show(audit: Audit) -> None:
    """Prints an audit: against the oracle, against the policy's values if they were estimated, and by kind of step."""
    title = f"{audit.run}: {audit.episodes:,} episodes, {audit.steps:,} steps; labels against the oracle's progress"
    tables.show(oracle_rows(audit.signals), title, spare=("calls", "kappa 95 %", "ROC area"))
    if audit.policy is not None:
        how = f"against Q of the policy, {audit.samples} fresh episodes per state; labels where its interval decides"
        tables.show(policy_rows(audit.signals), how, spare=("kappa 95 %", "ROC area"))
    tables.show(kind_rows(audit), "share of steps labelled as the oracle does, by kind of step (how many there are)")


def oracle_rows(signals: Sequence[SignalReport]) -> list[Row]:
    """Returns one row per signal: agreement of its labels with progress, and correlation with Q* and A*."""
    return [
        {
            "signal": signal.name,
            "scored": f"{signal.scored:,}" + (f" ({signal.failed:,} failed)" if signal.failed else ""),
            **_labels(signal, "progress"),
            "fatal as GOOD %": tables.percent(signal.labels["solvable"].false_good),
            "rank Q*": with_interval(signal.ranks["q_star"].spearman),
            "rank A*": with_interval(signal.ranks["a_star"].spearman),
            "calls": _per_step(signal.calls),
            "tokens": _per_step(signal.tokens),
        }
        for signal in signals
    ]


def policy_rows(signals: Sequence[SignalReport]) -> list[Row]:
    """Returns one row per signal: agreement with the values of the policy."""
    return [
        {
            "signal": signal.name,
            "decided": f"{signal.labels['policy'].accuracy.n:,}",
            **_labels(signal, "policy"),
            "rank Q": with_interval(signal.ranks["q_policy"].spearman),
            "rank A": with_interval(signal.ranks["a_policy"].spearman),
        }
        for signal in signals
    ]


def kind_rows(audit: Audit) -> list[Row]:
    """Returns one row per signal: the share of each kind of step that it labels as the oracle does."""
    return [
        {
            "signal": signal.name,
            **{
                f"{kind.replace('_', ' ')} ({count:,})": tables.percent(signal.kinds[kind], 0) if kind in signal.kinds else "-"
                for kind, count in audit.kinds.items()
            },
        }
        for signal in audit.signals
    ]


def _labels(signal: SignalReport, truth: str) -> Row:
    figures = signal.labels[truth]
    return {
        "accuracy %": tables.percent(figures.accuracy),
        "95 % interval": tables.interval(figures.accuracy),
        "false GOOD %": tables.percent(figures.false_good),
        "false BAD %": tables.percent(figures.false_bad),
        "kappa": number(figures.kappa),
        "kappa 95 %": interval(figures.kappa),
        "ROC area": number(figures.auc),
    }


def number(figure: Estimate) -> str:
    """Returns a figure between -1 and 1, ``-`` if it is undefined."""
    return "-" if figure.value is None else f"{figure.value:z.2f}"


def interval(figure: Estimate) -> str:
    """Returns the 95 % interval of a figure between -1 and 1."""
    return "" if figure.low is None or figure.high is None else f"{figure.low:z.2f} to {figure.high:z.2f}"


def with_interval(figure: Estimate) -> str:
    """Returns a figure between -1 and 1 with its 95 % interval."""
    bounds = interval(figure)
    return f"{number(figure)} ({bounds})" if bounds else number(figure)


def _per_step(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}" if value >= 10 or value == 0 else f"{value:.1f}"
