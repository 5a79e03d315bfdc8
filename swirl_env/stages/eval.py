"""``swirl eval``: accuracy, labels and errors of a run, with intervals; of a sweep, one row a run."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from swirl_env.config.options import EvalOptions, read
from swirl_env.errors import ConfigError
from swirl_env.evaluate import Evaluation, evaluate
from swirl_env.stages import runs, tables
from swirl_env.stages.generate import generate, given_keys, prepared, quoted
from swirl_env.store import Store

_HOW = {"out", "verdicts"}
"""Keys that say what to evaluate rather than what to run."""


def main(config: DictConfig) -> None:
    """Runs the stage."""
    options = read("eval", EvalOptions, config)
    path = Path(options.out or "")
    nested = runs.below(path)
    if nested:
        if given_keys() - _HOW:
            raise ConfigError(f"{path} holds {len(nested)} runs of a sweep: `swirl eval out={path}` compares them, as they are.")
        _compare(path, nested, options.verdicts)
        return
    if not (runs.exists(path) and given_keys() <= _HOW):
        _generate(options)
    _evaluate(path, options.verdicts)


def _generate(options: EvalOptions) -> None:
    """Runs the episodes that are to be evaluated."""
    options = runs.agreed(options, given_keys() - {"verdicts"})
    engine, agent = prepared(options)
    with runs.opened(options) as store:
        generate(options, store, engine, agent)


def _evaluate(path: Path, verdicts: str | None) -> None:
    store = Store(path, "r")
    table = runs.table_of(store, verdicts)
    found = evaluate(store.with_verdicts(table))
    rows = [dict(zip(("", "value", "95 % interval", "n"), row, strict=True)) for row in found.table()]
    by = f", judged by {table}" if table else ""
    tables.show(rows, f"{path}{by}")
    file = _write(path, {"verdicts": table, **found.to_dict()})
    print(f"written to {file}")
    print(f"next: swirl filter out={quoted(path)}   or   swirl judge out={quoted(path)} judge=outcome")


def _compare(path: Path, nested: list[Path], verdicts: str | None) -> None:
    rows: list[dict[str, str]] = []
    for run in nested:
        store = Store(run, "r")
        found: Evaluation = evaluate(store.with_verdicts(runs.table_of(store, verdicts)))
        _write(run, {"verdicts": verdicts, **found.to_dict()})
        rows.append({"run": str(run.relative_to(path)), **tables.cells(found)})
    tables.show(rows, f"{len(rows)} runs in {path}")
    print(f"next: swirl eval out={quoted(nested[0])}   for one of them in full")


def _write(path: Path, found: dict[str, object]) -> Path:
    file = path / "evaluation.json"
    runs.write_json(file, found)
    return file
