"""``swirl filter``: which trajectories of a run are worth training on; selections by key, nothing is rewritten."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from swirl_env.config.options import FilterOptions, read
from swirl_env.config.overrides import command, override
from swirl_env.stages import folders, runs, tables
from swirl_env.store import Store
from swirl_env.store.filters import match_sizes


def main(config: DictConfig) -> None:
    """Runs the stage on a run, or on every run of a sweep."""
    options = read("filter", FilterOptions, config)
    for path in folders.episode_runs(Path(options.out)):
        _filter_folder(path, options)


def _filter_folder(path: Path, options: FilterOptions) -> None:
    with Store(path) as store:
        judge = runs.table_of(store, options.verdicts)
        names = [str(plugin["name"]) for plugin in options.filter.values()]
        selections = [store.filter(name, judge, options.limit, options.seed) for name in names]
        if options.equal:
            selections = match_sizes(selections, options.seed, options.limit)
        for selection in selections:
            store.save(selection)
    reasons = sorted({reason for selection in selections for reason in selection.excluded})
    rows = [
        {
            "filter": selection.filter,
            "trajectories": f"{selection.total:,}",
            "kept": f"{selection.size:,}",
            "%": f"{100 * selection.size / selection.total:.1f}" if selection.total else "-",
            **{f"excluded: {reason}": f"{selection.excluded.get(reason, 0):,}" for reason in reasons},
        }
        for selection in selections
    ]
    tables.show(rows, f"{path}, verdicts of {judge or 'the episodes'}")
    print(f"selections are in {path / 'selections'}")
    words = [override("out", str(path)), *([] if judge is None else [override("verdicts", judge)])]
    select = ", ".join(map(repr, [selections[-1].filter, *([] if judge is None else [judge])]))
    print(f"next: {command('eval', *words)}   or in Python: Store({str(path)!r}).select({select})")
