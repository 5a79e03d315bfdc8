"""The runs of a sweep in one table: a row per cell, or per setting with means over its seeds."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from swirl_env.config.failures import failure_of
from swirl_env.config.overrides import command, override
from swirl_env.errors import StoreError, printable
from swirl_env.evaluate import Estimate, Evaluation, evaluate
from swirl_env.stages import evaluations, folders, runs, tables
from swirl_env.store import Store

_ON = "on "
SEED = re.compile(r"(.*\.)?seed|warm_start")
"""Keys that say which of several like runs a cell is."""


class Cell(msgspec.Struct, frozen=True):
    """One run of a sweep that has ended."""

    path: Path
    name: str
    """Its folder below the sweep's: the overrides in which it differs from others."""
    evaluations: dict[str, Evaluation]
    """``episodes`` of a run of episodes; ``sampled`` and ``greedy`` of a trained policy, ``on NAME`` in further settings."""

    @property
    def setting(self) -> str:
        """Its name without the seeds."""
        return ",".join(part for part in parts(self.name) if not SEED.fullmatch(part.partition("=")[0]))


def show_sweep(path: Path, verdicts: str | None = None) -> list[Cell]:
    """Prints the table of a sweep and what to run next; returns its cells.

    Raises:
        StoreError: if no run of it has ended.
    """
    cells, unfinished = read_cells(path, verdicts)
    if not cells:
        return _without_table(path, unfinished)
    for kind in ("episodes", "sampled"):
        if mine := [cell for cell in cells if kind in cell.evaluations]:
            what = f"{len(mine)} run{'' if len(mine) == 1 else 's'} in {path}"
            tables.show(_rows(mine), what + (f", verdicts of {verdicts}" if verdicts else ""))
    _list_unfinished(path, unfinished)
    print(f"next: {command('eval', override('out', str(cells[0].path)))}   for one of them in full")
    return cells


def failed_cells(path: Path) -> tuple[dict[Path, str], int]:
    """Returns the cells of a sweep whose last attempt failed, each with its reason, and how many cells there are."""
    cells = [*folders.unbegun_cells(path), *(run for run, _ in folders.runs_below(path))]
    return {run: reason for run in cells if (reason := failure_of(run))}, len(cells)


def _list_unfinished(path: Path, unfinished: Sequence[Path]) -> None:
    """Prints the cells without results, each that failed with its reason."""
    failed, _ = failed_cells(path)
    for run, reason in failed.items():
        print(printable(f"failed: {run.relative_to(path)}: {reason}"))
    if others := [str(run.relative_to(path)) for run in unfinished if run not in failed]:
        print(printable(f"without results: {', '.join(others)}"))


def _without_table(path: Path, runs_without: Sequence[Path]) -> list[Cell]:
    """Says what a sweep without any evaluation holds."""
    ended = [run for run in runs_without if "spent" in folders.training_results(run)]
    if ended:
        print(
            f"{len(ended)} of {len(runs_without)} runs in {path} have ended, none with an evaluation (eval.episodes, eval.split)"
        )
        return []
    if begun := [str(run) for run in runs_without if folders.kind_of(run)]:
        raise StoreError(f"No run in {path} has ended: {'; '.join(begun[:3])}. Go on with the sweep: resume=true.")
    raise folders.no_run(path)


def read_cells(path: Path, verdicts: str | None = None) -> tuple[list[Cell], list[Path]]:
    """Returns the cells of a sweep that have results, and the folders of those that have none."""
    cells: list[Cell] = []
    unfinished = folders.unbegun_cells(path)
    for run, kind in folders.runs_below(path):
        results = _evaluations(run, kind, verdicts)
        if results:
            cells.append(Cell(run, str(run.relative_to(path)), results))
        else:
            unfinished.append(run)
    return cells, unfinished


def _evaluations(run: Path, kind: folders.Kind, verdicts: str | None) -> dict[str, Evaluation]:
    if kind == "training":
        results = folders.training_results(run)
        after = results.get("after")
        if not after:
            return {}
        measured = {how: after[how] for how in ("sampled", "greedy")}
        measured |= {f"{_ON}{name}": of_one["sampled"] for name, of_one in results.get("also", {}).items() if of_one}
        return {how: msgspec.convert(evaluation, Evaluation) for how, evaluation in measured.items()}
    store = Store(run, "r")
    table = runs.table_of(store, verdicts)
    evaluation = evaluate(store.with_verdicts(table))
    if evaluation.episodes == evaluation.failed:
        return {}
    evaluations.write(run, table, evaluation)
    return {"episodes": evaluation}


def _rows(cells: Sequence[Cell]) -> list[dict[str, str]]:
    settings = list(dict.fromkeys(cell.setting for cell in cells))
    if len(settings) == len(cells):
        return [{"run": cell.name, **_cells_of_one(cell.evaluations)} for cell in cells]
    groups = [[cell.evaluations for cell in cells if cell.setting == setting] for setting in settings]
    return [{"run": name or "(all)", **_mean_cells(group)} for name, group in zip(settings, groups, strict=True)]


def _cells_of_one(of_one: Mapping[str, Evaluation]) -> dict[str, str]:
    if "episodes" in of_one:
        return tables.cells(of_one["episodes"])
    further = {f"{how} %": tables.percent(evaluation.accuracy) for how, evaluation in of_one.items() if how.startswith(_ON)}
    return {**tables.policy_cells(of_one["sampled"], of_one["greedy"]), **further}


def _mean_cells(group: Sequence[Mapping[str, Evaluation]]) -> dict[str, str]:
    """Returns the columns of one setting: means over its seeds, of shares with their 95 % intervals (Student's t)."""
    first = "episodes" if "episodes" in group[0] else "sampled"
    columns = {"seeds": str(len(group)), "episodes": f"{sum(one[first].episodes for one in group):,}"}
    columns["success %"] = _mean(group, first, "accuracy")
    if first == "sampled":
        columns["greedy %"] = _mean(group, "greedy", "accuracy")
        further = [how for how in group[0] if how.startswith(_ON) and all(how in one for one in group)]
        columns |= {f"{how} %": _mean(group, how, "accuracy") for how in further}
    columns |= {"GOOD steps": _mean(group, first, "process"), "valid actions": _mean(group, first, "valid_actions")}
    steps = [value for one in group if (value := one[first].steps.value) is not None]
    return {**columns, "steps": f"{sum(steps) / len(steps):.2f}" if steps else "-"}


def _mean(group: Sequence[Mapping[str, Evaluation]], how: str, figure: str) -> str:
    estimates: list[Estimate] = [getattr(one[how], figure) for one in group]
    return tables.percent_over_seeds([estimate.value for estimate in estimates if estimate.value is not None])


def parts(name: str) -> list[str]:
    """Returns the overrides in a cell's name; a comma within a list does not begin a new one."""
    parts: list[str] = []
    for text in name.split(","):
        if "=" in text or not parts:
            parts.append(text)
        else:
            parts[-1] += f",{text}"
    return parts
