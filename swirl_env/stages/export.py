"""``swirl export DIR to=FORMAT``: the episodes of a run in a format that other tools read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from swirl_env.config.overrides import command
from swirl_env.config.plain_arguments import parse
from swirl_env.errors import ConfigError, StoreError, unknown_name
from swirl_env.stages import folders, runs
from swirl_env.store import Store
from swirl_env.store.export import replacing, to_chat, to_dataset, to_parquet
from swirl_env.store.trainer_rows import dpo_rows, prm_rows, sft_rows
from swirl_env.types import Trajectory

Writer = Callable[[Iterable[Trajectory], Path], int]


def _jsonl(rows_of: Callable[[Iterable[Trajectory]], Iterator[dict[str, Any]]]) -> Writer:
    """Returns a writer of one JSON object per line."""

    def write(trajectories: Iterable[Trajectory], path: Path) -> int:
        count = 0
        with replacing(path) as draft, draft.open("wb") as file:
            for row in rows_of(trajectories):
                file.write(msgspec.json.encode(row) + b"\n")
                count += 1
        return count

    return write


FORMATS: dict[str, tuple[Writer, str, str]] = {
    "chat": (to_chat, "chat.jsonl", "one conversation per line, with a reward and a label per assistant message"),
    "parquet": (to_parquet, "episodes.parquet", "the same as a table, with the whole record as a column"),
    "hf": (to_dataset, "dataset", "the same as a folder for datasets.load_from_disk"),
    "sft": (_jsonl(sft_rows), "sft.jsonl", "conversations for supervised fine-tuning"),
    "dpo": (_jsonl(dpo_rows), "dpo.jsonl", "step preferences: two actions at one state, the better and the worse rated"),
    "prm": (_jsonl(prm_rows), "prm.jsonl", "steps with true or false labels, for a process reward model"),
}
"""Format -> its writer, the default name of the file, and what it holds."""

USAGE = """\
usage: swirl export DIR to=FORMAT [out=PATH] [filter=NAME] [verdicts=JUDGE]

Writes the episodes of a run; those that ended in an error are left out. DIR itself is only read, unless PATH is in it.

{formats}

  out=PATH         where it goes; by default next to DIR, named after it
  filter=NAME      only what a filter selects (none, process, outcome, both, or package.module:function)
  verdicts=JUDGE   name or fingerprint of the judge whose verdicts count; by default those of the episodes"""


def run(argv: Sequence[str]) -> int:
    """Runs the command and returns its exit code."""
    words, options = parse(argv, {"to": str, "out": str, "filter": str, "verdicts": str})
    if words is None:
        print(USAGE.format(formats="\n".join(f"  to={name:<13} {about}" for name, (_, _, about) in FORMATS.items())))
        return 0
    if len(words) != 1 or "to" not in options:
        raise ConfigError(f"Expected one run folder and a format: swirl export DIR to={'|'.join(FORMATS)}.")
    if options["to"] not in FORMATS:
        raise unknown_name("export format", options["to"], FORMATS)
    write, name, _ = FORMATS[options["to"]]
    path = folders.one_with_episodes(Path(words[0]))
    target = Path(options["out"]) if "out" in options else path.resolve().with_name(f"{path.resolve().name}-{name}")
    if target.exists() and target.is_dir() and any(target.iterdir()):
        raise ConfigError(f"{target} is a folder that is not empty; nothing was written. Choose another out=.")
    store = Store(path, "r")
    table = runs.table_of(store, options.get("verdicts"))
    count = write(_episodes(store, options.get("filter", "none"), table), target)
    if not count:
        if target.is_file():
            target.unlink()
        raise StoreError(f"{path} holds nothing that the format {options['to']!r} can hold{_why(options)}.")
    print(f"{count:,} row{'' if count == 1 else 's'} in {target}")
    print(f"next: {command('view', words[0])}   to look at the episodes")
    return 0


def _episodes(store: Store, filter: str, table: str | None) -> Iterator[Trajectory]:
    """Yields the finished episodes that a filter selects, with a judge's verdicts."""
    selection = store.filter(filter, table)
    for trajectory in store.select(selection):
        if trajectory.ended != "error":
            yield trajectory


def _why(options: dict[str, Any]) -> str:
    if options["to"] == "dpo":
        return ": it needs two actions at one state that were rated differently (swirl generate samples=4)"
    if options["to"] == "prm":
        return ": it needs steps that a judge labelled (swirl judge)"
    return f" after the filter {options['filter']!r}" if "filter" in options else ""
