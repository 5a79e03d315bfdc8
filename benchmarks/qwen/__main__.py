"""Base model, warm start by rejection, arms at equal sampled tokens, transfer and judges, with Qwen2.5-Coder-0.5B-Instruct.

    python -m swirl_env.benchmarks.fetch_qwen
    python -m swirl_env.benchmarks.qwen --out runs/qwen --data-dir FOLDER --page docs/results/qwen-0.5b.md

Runs the stages as ``swirl ...`` commands, each printed as it can be typed by hand. Killed at any time, it goes on with the same
command. After each stage the figures of the page are written again from the stored runs; what was not run is said to be.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from swirl_env.benchmarks.fetch_qwen import fetch
from swirl_env.benchmarks.qwen.page import write_figures
from swirl_env.benchmarks.qwen.plan import Stage, plan, rows_of, write_prompts
from swirl_env.benchmarks.stage_log import Log
from swirl_env.errors import SwirlError


def main(argv: Sequence[str] | None = None) -> int:
    """Runs what is not done yet; returns 0, or the exit code of the stage that was interrupted or broke."""
    options = parse(argv)
    try:
        options.model = options.model or str(fetch())
    except SwirlError as error:
        print(f"qwen: {error}", file=sys.stderr)
        return 2
    stages = list(plan(options))
    prefix = "" if options.data_dir is None else f"SWIRL_DATA_DIR={shlex.quote(options.data_dir)} "
    if options.dry_run:
        print("\n".join(f"{prefix}swirl {shlex.join(stage.words)}" for stage in stages))
        return 0
    write_prompts(options)
    log = Log(Path(options.out, "stages.jsonl"))
    codes = [_step(options, log, stages, number, prefix) for number in range(0 if options.figures else len(stages))]
    _page(options, log, stages)
    return max(codes, default=0)


def _step(options: argparse.Namespace, log: Log, stages: Sequence[Stage], number: int, prefix: str) -> int:
    """Runs a stage that is not done; returns its exit code. One that trains on nothing, or whose judge fails, is a result."""
    stage = stages[number]
    if log.done(stage.name, stage.words) or not _has_policy(stage):
        return 0
    print(f"\n[{number + 1}/{len(stages)}] {stage.name}\n$ {prefix}swirl {shlex.join(stage.words)}", flush=True)
    code = log.run(stage.name, stage.words, options.data_dir)
    _page(options, log, stages)
    if code not in (0, 2):
        print(f"{stage.name} ended with exit code {code}. The same command goes on from here.", file=sys.stderr)
        raise SystemExit(code)
    return code


def _has_policy(stage: Stage) -> bool:
    """Returns whether the adapter that a stage begins with is there: an arm that did not train has none."""
    adapters = [word.partition("adapter=")[2] for word in stage.words if "adapter=" in word]
    return all(Path(adapter).is_dir() for adapter in adapters)


def _page(options: argparse.Namespace, log: Log, stages: Sequence[Stage]) -> None:
    if options.page:
        names = [stage.name for stage in stages]
        write_figures(Path(options.page), Path(options.out), rows_of(options), log.spent(names), len(names))


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Returns the options; the defaults are the run on two CPU cores."""
    parser = argparse.ArgumentParser(prog="python -m swirl_env.benchmarks.qwen", description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--out", default="runs/qwen", help="folder of all runs")
    add("--data-dir", help="folder of GSM8K and HotpotQA (docs/tasks.md); SWIRL_DATA_DIR by default")
    add("--page", help="Markdown file whose figures are written; the text around them stays")
    add("--figures", action="store_true", help="write the page from the runs that are there, and run nothing")
    add("--model", help="hub name, folder or .gguf file; the fetched model by default")
    add("--dtype", default="bfloat16", help="of the model's own weights; adapters stay float32")
    add("--device", default="cpu", help="cpu, cuda, auto")
    add("--held-out", type=int, default=200, help="held-out questions of each set")
    add("--own", type=int, default=200, help="training questions of each set on which the base model's rollouts are drawn")
    add("--samples", type=int, default=2, help="rollouts per question for the warm start")
    add("--warm-updates", type=int, default=30, help="updates of the warm start on each set, of 8 episodes each")
    add("--budget", type=int, default=10_000, help="sampled tokens of each arm")
    add("--batch-size", type=int, default=32, help="states generated together; 64 take over 6 GB")
    add("--max-new-tokens", type=int, default=140)
    add("--prefix-cache", type=int, default=65_536, help="tokens whose keys and values are kept between steps")
    add("--seed", type=int, default=0)
    add("--dry-run", action="store_true", help="print the commands and do nothing")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
