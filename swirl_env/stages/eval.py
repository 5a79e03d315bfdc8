"""``swirl eval``: accuracy, labels and errors of a run, with intervals; of a sweep, one row per run."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from swirl_env.config.options import EvalOptions, read
from swirl_env.config.overrides import command, command_line_keys, override
from swirl_env.errors import ConfigError
from swirl_env.evaluate import Evaluation, evaluate
from swirl_env.stages import runs, tables
from swirl_env.stages.generate import generate, make_engine_and_agent
from swirl_env.store import Store

_HOW = {"out", "verdicts"}
"""Keys that say what to evaluate rather than what to run."""


def main(config: DictConfig) -> None:
    """Runs the stage."""
    options = read("eval", EvalOptions, config)
    path = Path(options.out or "")
    nested = runs.below(path)
    if nested:
        if command_line_keys() - _HOW:
            raise ConfigError(f"{path} holds {len(nested)} runs of a sweep: `swirl eval out={path}` compares them, as they are.")
        _compare(path, nested, options.verdicts)
        return
    if not (runs.exists(path) and command_line_keys() <= _HOW):
        _generate(options)
    _evaluate(path, options.verdicts)


def _generate(options: EvalOptions) -> None:
    """Runs the episodes that are to be evaluated."""
    options = runs.settle(options, command_line_keys() - {"verdicts"})
    engine, agent = make_engine_and_agent(options)
    with runs.open_run(options) as store:
        generate(options, store, engine, agent)


def _evaluate(path: Path, verdicts: str | None) -> None:
    store = Store(path, "r")
    table = runs.table_of(store, verdicts)
    evaluation = evaluate(store.with_verdicts(table))
    rows = [dict(zip(("", "value", "95 % interval", "n"), row, strict=True)) for row in evaluation.table()]
    by = f", judged by {table}" if table else ""
    tables.show(rows, f"{path}{by}")
    file = _write(path, {"verdicts": table, **evaluation.to_dict()})
    print(f"written to {file}")
    out = override("out", str(path))
    print(f"next: {command('filter', out)}   or   {command('judge', out, 'judge=outcome')}")


def _compare(path: Path, nested: list[Path], verdicts: str | None) -> None:
    rows: list[dict[str, str]] = []
    for run in nested:
        store = Store(run, "r")
        evaluation: Evaluation = evaluate(store.with_verdicts(runs.table_of(store, verdicts)))
        _write(run, {"verdicts": verdicts, **evaluation.to_dict()})
        rows.append({"run": str(run.relative_to(path)), **tables.cells(evaluation)})
    tables.show(rows, f"{len(rows)} runs in {path}")
    print(f"next: {command('eval', override('out', str(nested[0])))}   for one of them in full")


def _write(path: Path, content: dict[str, object]) -> Path:
    file = path / "evaluation.json"
    runs.write_json(file, content)
    return file
