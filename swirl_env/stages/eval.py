"""``swirl eval``: accuracy, labels and errors of a run, with intervals; of a sweep, one row per run or setting."""

from __future__ import annotations

from collections.abc import Set
from pathlib import Path

import msgspec
from omegaconf import DictConfig

from swirl_env.config.options import EvalOptions, keys_to_resume, read
from swirl_env.config.overrides import command, command_line_keys, override
from swirl_env.config.sweep import reads_run
from swirl_env.errors import ConfigError, StoreError
from swirl_env.evaluate import Evaluation, evaluate
from swirl_env.fingerprint import fingerprint
from swirl_env.protocols import Grader
from swirl_env.registry import make_grader
from swirl_env.stages import evaluations, folders, runs, tables
from swirl_env.stages.generate import generate
from swirl_env.stages.playing import open_player
from swirl_env.stages.run_config import code_words
from swirl_env.stages.sweeps import show_sweep
from swirl_env.store import Store

_HOW = {"out", "verdicts", "objective", "grader"}
"""Keys that say what to evaluate rather than what to run."""


def main(config: DictConfig) -> float | None:
    """Runs the stage; returns the figure that ``objective`` names."""
    options, keys = read("eval", EvalOptions, config), command_line_keys()
    evaluations.check_objective(options.objective, "greedy")
    path = Path(options.out or "")
    if not reads_run("eval", keys):
        if not any(key.partition(".")[0] in ("agent", "task") for key in keys) and folders.kind_of(path) is None:
            raise folders.no_run(path)  # resume=true alone goes on with a run and never makes one
        _generate(options)
        return evaluations.objective_value(options.objective, {"episodes": _evaluate(path, options.verdicts)})
    if "out" not in keys:
        raise ConfigError(
            "`swirl eval` needs the run to evaluate, out=...; or agent=..., task=... or trained=... to run episodes first."
        )
    return evaluations.objective_value(options.objective, _read(path, options, keys))


def _read(path: Path, options: EvalOptions, keys: Set[str]) -> dict[str, Evaluation]:
    """Evaluates what is there; writes nothing but an evaluation next to the episodes."""
    verdicts = options.verdicts
    kind = folders.kind_of(path)
    if kind is None and not (path.is_dir() and any(folders.runs_below(path))):
        raise folders.no_run(path)
    if more := sorted(key for key in keys if key.partition(".")[0] not in {*_HOW, "hydra"}):
        raise ConfigError(
            f"{path} is evaluated as it is: {', '.join(more)} would change what is run. To run episodes first, name agent=... "
            f"or task=... and a new out=..."
        )
    if kind == "episodes":
        return {"episodes": _evaluate(path, verdicts, None if options.grader is None else make_grader(options.grader))}
    if options.grader is not None:
        raise ConfigError(f"grader= grades the answers of one run again; {path} is no run of episodes.")
    if kind == "training":
        return _training(path, verdicts)
    show_sweep(path, verdicts)
    return {}


def _generate(options: EvalOptions) -> None:
    """Runs the episodes that are to be evaluated."""
    options = runs.settle(options, keys_to_resume())
    with open_player(options) as player, runs.open_run(options) as store:
        generate(options, store, player, stage="eval")


def _evaluate(path: Path, verdicts: str | None, grader: Grader | None = None) -> Evaluation:
    """Evaluates a run of episodes, as graded when they were run or by another grader."""
    store = Store(path, "r")
    table = runs.table_of(store, verdicts)
    evaluation = evaluate(store.with_verdicts(table), grader)
    if evaluation.episodes == evaluation.failed:
        raise _nothing_to_evaluate(path, evaluation)
    graded = "" if grader is None else fingerprint(grader, "grader")
    columns: tuple[str, ...] = ("", "value", "95 % interval", "n")
    rows: list[dict[str, str]] = [dict(zip(columns, row, strict=True)) for row in evaluation.table()]
    tables.show(rows, f"{path}{f', judged by {table}' if table else ''}{f', graded by {graded}' if graded else ''}")
    print(f"written to {evaluations.write(path, table, evaluation, graded)}")
    words = [override("out", str(path)), *([] if table is None else [override("verdicts", table)])]
    print(f"next: {command('filter', *words)}   or   {command('judge', words[0], 'judge=outcome')}")
    return evaluation


def _nothing_to_evaluate(path: Path, evaluation: Evaluation) -> StoreError:
    """Returns the error for a run of which no episode has ended well: figures without episodes would look like a result."""
    what = f"all {evaluation.failed:,} episodes in it failed" if evaluation.failed else "it holds no episodes yet"
    config = runs.config_of(path)
    again = command("generate", override("out", str(path)), "resume=true", *code_words(config)) if config else ""
    return StoreError(f"There is nothing to evaluate in {path}: {what}." + (f" To run them: {again}" if again else ""))


def _training(path: Path, verdicts: str | None) -> dict[str, Evaluation]:
    """Shows what a training run measured itself."""
    if verdicts is not None:
        raise ConfigError(
            f"{path} is a training run, which has no tables of verdicts: leave verdicts= out. Its rollouts may have some: "
            f"out={path / folders.ROLLOUTS}."
        )
    results = folders.training_results(path)
    at_tokens = {f"at {tokens} tokens": at for tokens, at in results.get("at", {}).items()}
    by_time: dict[str, dict[str, Evaluation]] = {}
    for when, measured in {
        "before": results.get("before"),
        **at_tokens,
        "after": results.get("after"),
        **{f"after, {name}": measured for name, measured in results.get("also", {}).items()},
    }.items():
        if measured:
            by_time[when] = {how: msgspec.convert(measured[how], Evaluation) for how in ("sampled", "greedy") if how in measured}
    if by_time:
        rows = [{"policy": when, **tables.policy_cells(of["sampled"], of.get("greedy"))} for when, of in by_time.items()]
        tables.show(rows, f"{path}, held-out questions")
    else:
        print(f"{path} has no evaluation" + ("" if "spent" in results else " yet"))
    if "spent" in results:
        print(f"the trained policy is in {path / 'policy'}")
        code = code_words({key: value for key, value in runs.config_of(path).items() if key != "algo"})
        print(f"next: {command('eval', override('trained', str(path)), *code)}")
    else:
        code = code_words(runs.config_of(path))
        print(f"next: {command('train', override('out', str(path)), 'resume=true', *code)}")
    return by_time.get("after", {})
