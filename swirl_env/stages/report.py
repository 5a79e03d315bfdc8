"""``swirl report DIR ...``: statistics over run folders as tables, files, pictures and one HTML page, also of a live run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from swirl_env.config.plain_arguments import parse
from swirl_env.errors import ConfigError, printable
from swirl_env.stages import folders, tables
from swirl_env.stages.folders import Kind
from swirl_env.view.report import tables as rows
from swirl_env.view.report.cells import COMPARED, compare, swept_keys
from swirl_env.view.report.files import write_report
from swirl_env.view.report.report import KINDS, Report, build
from swirl_env.view.report.results import read_result

USAGE = """\
usage: swirl report DIR [DIR ...] [by=KEY,KEY] [out=FOLDER] [verdicts=JUDGE]

Compares runs: mean, interquartile mean and 95 % bootstrap interval over seeds, pairs of cells on the same seeds or questions,
learning curves, agreement of judges, and a dashboard of each training run, also while it goes on. DIR is a run folder, or a
folder of runs: a sweep, a benchmark. The folders are only read.

  by=KEY,KEY       keys of the configuration that are compared (algo takes all of its options); by default those that a sweep
                   swept, else algo and agent. Runs that differ in other keys are refused, seeds and questions aside.
  out=FOLDER       where the report goes; by default next to the first DIR, named after it
  verdicts=JUDGE   name or fingerprint of the judge whose verdicts count; by default those of the episodes"""


def run(argv: Sequence[str]) -> int:
    """Runs the command and returns its exit code."""
    words, options = parse(argv, {"by": str, "out": str, "verdicts": str})
    if words is None:
        print(USAGE)
        return 0
    if not words:
        raise ConfigError("Expected a run folder, or several: swirl report DIR [DIR ...].")
    by = [key.strip() for key in options["by"].split(",") if key.strip()] if "by" in options else None
    report = read_report(words, by, options.get("verdicts"), typed=argv)
    page = write_report(report, Path(options["out"]) if "out" in options else _folder_next_to(Path(words[0])))
    show(report)
    print(f"the report is in {page}; figures and pictures next to it")
    print("   or   ".join([f"next: open {page} in a browser", *(printable(one.text) for one in report.commands[:2])]))
    return 0


def _folder_next_to(path: Path) -> Path:
    path = path if path.name and path.name != ".." else path.resolve()
    return path.with_name(f"{path.name}-report")


def read_report(
    asked: Sequence[str], by: Sequence[str] | None = None, verdicts: str | None = None, typed: Sequence[str] = ()
) -> Report:
    """Reads run folders and compares them.

    Args:
        asked: run folders, or folders of runs.
        by: compared keys; None for those that sweeps swept, else `COMPARED`.
        verdicts: judge whose verdicts count.
        typed: arguments of the command, for the commands that the report prints; empty for the folders alone.

    Raises:
        StoreError: if a folder holds no run.
        ConfigError: if the runs differ in more than the compared keys.
    """
    paths: dict[Path, tuple[Path, Kind]] = {}
    swept: list[str] = []
    for folder in map(Path, asked):
        mine = list(_runs(folder))
        swept += swept_keys(folder, [path for path, _ in mine])
        paths |= {path.resolve(): (path, kind) for path, kind in mine}
    results = [read_result(path, kind, verdicts) for path, kind in paths.values()]
    keys = list(by or dict.fromkeys(swept) or [key for key in COMPARED if key != "run"])
    keys += ["run"] if any("run" in result.config for result in results) else []
    again = list(typed or asked)
    sections = compare(results, keys, [word for word in again if not word.startswith("by=")])
    return build(asked, keys, sections, again)


def _runs(folder: Path) -> Iterator[tuple[Path, Kind]]:
    """Yields the runs that a folder stands for.

    Raises:
        StoreError: if it holds none.
    """
    kind = folders.kind_of(folder)
    if kind is not None:
        yield folder, kind
        return
    below = list(folders.runs_below(folder)) if folder.is_dir() else []
    if not below:
        raise folders.no_run(folder, "{}")
    yield from below


def show(report: Report) -> None:
    """Prints the tables of a report."""
    for block in report.blocks:
        label = block.section.label
        finished = [result for cell in block.section.cells for result in cell.results if result.finished]
        if finished:
            _show(rows.cell_rows(block), f"{KINDS[block.section.kind]}, {label}")
        if block.comparisons:
            _show(rows.comparison_rows(block.comparisons), f"{label}: pairs, points of percent", words=2)
    for kind, over in report.overall.items():
        if over:
            _show(rows.overall_rows(over), f"{KINDS[kind]}: over all sets of questions")
    judges, agreement = rows.judge_rows(report), rows.agreement_rows(report)
    if agreement:
        _show(judges, "Judges", words=2)
        _show(agreement, "Agreement of judges", words=2)
    for dashboard in report.dashboards:
        if not dashboard.finished:
            last = "   ".join(f"{panel.name} {panel.points[-1][1]:.4g}" for panel in dashboard.panels)
            budget = f" of {dashboard.budget:,.0f}" if dashboard.budget else ""
            tokens = f"{dashboard.updates:,} updates, {dashboard.sampled_tokens:,.0f}{budget} sampled tokens"
            print(printable(f"{dashboard.path}: {tokens}. {last}"))
    for note in report.notes:
        print(f"note: {printable(note)}")


def _show(table: list[rows.Row], title: str, words: int = 1) -> None:
    tables.show(rows.clean(table), printable(title), words=words)
