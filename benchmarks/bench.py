"""The main job, ``swirl bench``: agents on tasks, judged and filtered, in one table; then policies trained and compared.

A row is an episode run in a folder of its own, so that a benchmark that was killed goes on where it was.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from swirl_env.benchmarks import compare, curves, pages
from swirl_env.config.options import BenchOptions, EpisodeOptions, episode_defaults, read
from swirl_env.config.overrides import command, override, overrides
from swirl_env.errors import ConfigError, DataNotFound, Interrupted, MissingExtra, StoreError, UnknownName
from swirl_env.evaluate import Evaluation, evaluate
from swirl_env.stages import runs, tables
from swirl_env.stages.generate import generate
from swirl_env.stages.playing import open_player
from swirl_env.store import Store
from swirl_env.store.filters import FILTERS

_NOISES = (0.0, 0.2, 0.4)
_FILTERS = ("process", "outcome", "both")
_ABSENT = (DataNotFound, MissingExtra, UnknownName)
"""What keeps a row from running without anything being wrong: no data, no torch, no model."""


@dataclass(frozen=True)
class Row:
    """One line of the table: a task, an agent, and what else differs from the defaults of an episode run."""

    task: str
    agent: str
    n: int
    settings: Mapping[str, Any]

    @property
    def folder(self) -> str:
        """Name of the row's run folder, and what ``only=`` looks at."""
        return f"{self.task}-{self.agent}".lower().replace(" ", "-")


@dataclass
class Result:
    """What came of a row: an evaluation and how many trajectories each filter keeps, or why it was left out."""

    row: Row
    evaluation: Evaluation | None = None
    kept: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    skipped: str = ""

    def cells(self) -> dict[str, str]:
        """Returns the row as it is printed."""
        if self.evaluation is None:
            raise ConfigError(f"The row {self.row.folder} was left out: {self.skipped}")
        kept = {f"kept by {name}": f"{count:,}" for name, count in self.kept.items()}
        return {
            "task": self.row.task,
            "agent": self.row.agent,
            **tables.cells(self.evaluation),
            **kept,
            "seconds": f"{self.seconds:.1f}",
        }

    def to_dict(self) -> dict[str, Any]:
        """Returns the row as plain values, for JSON."""
        collected = None if self.evaluation is None else self.evaluation.to_dict()
        head = {"task": self.row.task, "agent": self.row.agent, "settings": dict(self.row.settings)}
        return {**head, "skipped": self.skipped, "evaluation": collected, "kept": self.kept, "seconds": round(self.seconds, 2)}


def rows(options: BenchOptions) -> list[Row]:
    """Returns the rows of the main job, those on real sets where there is a folder to read them from."""
    collected = [
        Row(label, f"scripted {noise:g}", options.n, {"task": {"name": task}, "agent": {"name": "scripted", "noise": noise}})
        if noise is not None
        else Row(label, "random", options.n, {"task": {"name": task}, "agent": {"name": "random"}})
        for label, task in (("Atlas", "atlas"), ("Ledger", "ledger"), ("AtlasLedger", "atlas_ledger"))
        for noise in (*_NOISES, None)
    ]
    if options.data_dir is not None:
        collected += _real_rows(options)
    if options.only is not None:
        collected = [row for row in collected if any(part.lower() in row.folder for part in options.only)]
        if not collected:
            raise ConfigError(f"No row's name holds any of {', '.join(options.only)}; rows are named like atlas-scripted-0.2.")
    return collected


def _real_rows(options: BenchOptions) -> Iterator[Row]:
    hotpotqa = {"name": "hotpotqa", "split": "dev500", "data_dir": options.data_dir}
    gsm8k = {"name": "gsm8k", "split": "test", "data_dir": options.data_dir}
    model = {"name": "transformers", "model": options.model, "dtype": "bfloat16", "temperature": 0.0, "max_new_tokens": 64}
    name = options.model.rpartition(":")[2].rpartition("/")[2]
    planned = {**gsm8k, "planned": True}  # a few solutions mark no calculation, and the scripted expert follows plans
    for label, task, expert, work in (
        ("HotpotQA", hotpotqa, "retrieval", hotpotqa),
        ("GSM8K", gsm8k, "scripted", planned),
    ):
        yield Row(label, expert, options.n, {"task": work, "agent": {"name": expert}})
        if options.n_model:
            yield Row(label, name, options.n_model, {"task": task, "agent": model, "max_steps": 3, "slots": options.n_model})


def main(config: DictConfig) -> None:
    """Runs the stage."""
    run(read("bench", BenchOptions, config))


def run(options: BenchOptions) -> None:
    """Runs the benchmark, prints its tables and writes them as JSON and Markdown, with the learning curves."""
    path = Path(options.out)
    if path.is_dir() and any(path.iterdir()) and not options.resume:
        raise StoreError(f"{path} already holds files. To go on with a benchmark add resume=true; else choose another out=.")
    wanted = rows(options) if options.part != "training" else []
    training = compare.arms(options) if options.part != "agents" else []
    if training:
        compare.check(options)
        curves.require()
    results: list[Result] = []
    try:
        for i, row in enumerate(wanted, start=1):
            results.append(run_row(row, options, f"[{i}/{len(wanted)}]"))
        if training:
            compare.warm_starts(options, training)
            compare.train(training, options.workers)
    except KeyboardInterrupt:
        raise Interrupted(f"To go on: {_again(path)}") from None
    collected = compare.figures(training) if training else []
    write(path, results, collected)
    if training:
        curves.draw(training, f"{_questions(options)}: held-out success", path / "curves.png")
    _print(path, results, collected, options)
    pages.write_and_print(path, pages.compared_keys(options))


def run_row(row: Row, options: BenchOptions, count: str) -> Result:
    """Generates, judges, filters and evaluates one row."""
    begun = time.perf_counter()
    label = f"{count} {row.task}, {row.agent}"
    asked = {**episode_defaults(), **row.settings, "n": row.n, "seed": options.seed, "resume": options.resume}
    asked = {**asked, "slots": row.settings.get("slots", options.slots), "out": str(Path(options.out) / row.folder)}
    try:
        episodes = runs.settle(msgspec.convert(asked, EpisodeOptions))
        player = open_player(episodes)
    except _ABSENT as error:
        print(f"{label}: left out. {error}", file=sys.stderr)
        return Result(row, skipped=str(error))
    with player as playing, runs.open_run(episodes) as store:
        tally = generate(episodes, store, playing, label)
        kept = {name: _select(store, name) for name in _FILTERS}
        collected = evaluate(store)
    seconds = time.perf_counter() - begun
    print(f"{label}: {tally}, {seconds:.1f} s", file=sys.stderr)
    return Result(row, collected, kept, seconds)


def _select(store: Store, name: str) -> int:
    """Saves what a filter chooses and returns how many that are."""
    selection = store.filter(FILTERS[name])
    store.save(selection)
    return selection.size


def write(path: Path, results: Sequence[Result], collected: Sequence[compare.Figures] = ()) -> None:
    """Writes the tables into the benchmark's folder, as JSON and as Markdown."""
    path.mkdir(parents=True, exist_ok=True)
    content = {"rows": [result.to_dict() for result in results], "training": [one.to_dict() for one in collected]}
    runs.write_json(path / "bench.json", content)
    lines = [f"- {result.row.task}, {result.row.agent}: left out. {result.skipped}\n" for result in results if result.skipped]
    done = [result.cells() for result in results if result.evaluation is not None]
    text = tables.markdown(done, words=2) + ("\n" + "".join(lines) if lines else "")
    if collected:
        table = tables.markdown([one.cells() for one in collected])
        text += ("\n" if text else "") + f"{table}\n{compare.verdict(collected)}\n\n![learning curves](curves.png)\n"
    (path / "bench.md").write_text(text, encoding="utf-8")


def _print(path: Path, results: Sequence[Result], collected: Sequence[compare.Figures], options: BenchOptions) -> None:
    done = [result for result in results if result.evaluation is not None]
    if done:
        ends = [i for i, (a, b) in enumerate(itertools.pairwise(done)) if a.row.task != b.row.task]
        tables.show([result.cells() for result in done], "Shares in percent; steps and tokens an episode", words=2, sections=ends)
    if results and options.data_dir is None:
        print(
            "HotpotQA and GSM8K were left out: set SWIRL_DATA_DIR (or data_dir=) to the folder that holds hotpotqa/ and gsm8k/."
        )
    for result in results:
        if result.skipped:
            print(f"{result.row.task}, {result.row.agent} was left out: {result.skipped}")
    if collected:
        over = f", mean ± 95 % interval over {len(options.seeds)} seeds" if len(options.seeds) > 1 else ""
        title = f"{_questions(options)}: {options.episodes} held-out episodes, {options.budget:,} sampled tokens{over}"
        tables.show([one.cells() for one in collected], title, sections=[0])
        print(compare.verdict(collected))
    also = ", curves.png" if collected else ""
    print(f"results are in {path}: bench.md, bench.json{also}, and a run folder per row")
    if done:
        print(f"next: {command('eval', override('out', str(path / done[0].row.folder)))}")
    if collected:
        print(f"next, for intervals over seeds: {_again(path, 'seeds', seeds=_more(options.seeds))}")


def _questions(options: BenchOptions) -> str:
    """Returns what the training part trains on, in a word."""
    return options.setting if options.task is None else str(options.task["name"])


def _again(path: Path, *but: str, **changed: Any) -> str:
    """Returns the command that goes on with this benchmark, some of its keys left out or changed."""
    left_out = {"out", "resume", *but}
    same = [word for word in HydraConfig.get().overrides.task if word.lstrip("+").partition("=")[0] not in left_out]
    return command("bench", *same, *overrides(changed), override("out", str(path)), "resume=true")


def _more(seeds: Sequence[int]) -> list[int]:
    """Returns the seeds and two more."""
    return [*seeds, max(seeds) + 1, max(seeds) + 2]
