"""Base model, warm start by rejection, arms at equal sampled tokens, transfer and judges, with Qwen2.5-Coder-0.5B-Instruct.

    python -m swirl_env.benchmarks.fetch_qwen
    python -m swirl_env.benchmarks.qwen --out runs/qwen --data-dir FOLDER --page docs/results/qwen-0.5b.md

Runs the stages as ``swirl ...`` commands, each printed as it can be typed by hand. Killed at any time, it goes on with the same
command. After each stage the figures of the page are written again, and the file of the same name that ends with .json, which
holds what was measured: on another machine, what that file has is not run again. What was not run is said to be.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from swirl_env.benchmarks.fetch_qwen import fetch
from swirl_env.benchmarks.qwen.page import read_page, write_figures
from swirl_env.benchmarks.qwen.plan import Stage, plan, rows_of, unfinished, write_prompts
from swirl_env.benchmarks.qwen.record import Measurements, gathered, load, measured, save, settings_of
from swirl_env.benchmarks.stage_log import Log
from swirl_env.errors import SwirlError


def main(argv: Sequence[str] | None = None) -> int:
    """Runs what is not done yet; returns 0, or the exit code of the stage that was interrupted or broke."""
    options = parse(argv)
    try:
        held = _held(options)
        options.model = options.model or str(fetch())
    except SwirlError as error:
        print(f"qwen: {error}", file=sys.stderr)
        return 2
    if options.dry_run:
        print("\n".join(_command(options, stage) for stage in plan(options)))
        return 0
    if not options.figures:
        write_prompts(options)
    work = _Work(options, held)
    codes = [0] if options.figures else [work.step(number) for number in range(len(work.stages))]
    work.write()
    return max(codes)


def _held(options: argparse.Namespace) -> Measurements:
    """Returns what was measured before.

    Raises:
        ConfigError: if the page has no place for figures, or measurements of other settings.
    """
    if not options.page:
        return Measurements(settings_of(options))
    read_page(Path(options.page))
    return load(Path(options.page), settings_of(options))


def _command(options: argparse.Namespace, stage: Stage) -> str:
    prefix = "" if options.data_dir is None else f"SWIRL_DATA_DIR={shlex.quote(options.data_dir)} "
    return f"{prefix}swirl {shlex.join(stage.words)}"


class _Work:
    """The stages in one folder of runs.

    Args:
        options: of the command line.
        held: what was measured before, here or elsewhere.
    """

    def __init__(self, options: argparse.Namespace, held: Measurements) -> None:
        self._options, self._held, self._out = options, held, Path(options.out)
        self.stages = list(plan(options))
        self._log = Log(self._out / "stages.jsonl")

    def step(self, number: int) -> int:
        """Runs a stage that is wanted and not done; returns its exit code.

        One that trains on nothing, or whose judge fails, is a result.
        """
        stage = self.stages[number]
        wanted = stage.name in unfinished(self.stages, measured(self._held, self._out))
        if not wanted or self._log.done(stage.name, stage.words) or not _has_policy(stage):
            return 0
        print(f"\n[{number + 1}/{len(self.stages)}] {stage.name}\n$ {_command(self._options, stage)}", flush=True)
        code = self._log.run(stage.name, stage.words, self._options.data_dir)
        self.write()
        if code not in (0, 2):
            print(f"{stage.name} ended with exit code {code}. The same command goes on from here.", file=sys.stderr)
            raise SystemExit(code)
        return code

    def write(self) -> None:
        """Writes the page and its measurements."""
        if not self._options.page:
            return
        page, rows, names = Path(self._options.page), rows_of(self._options), [stage.name for stage in self.stages]
        spent = self._log.spent([name for name in names if self._log.ended(name)])
        self._held = gathered(self._held, self._out, rows, spent)
        save(page, self._held)
        write_figures(page, self._held, rows, names)


def _has_policy(stage: Stage) -> bool:
    """Returns whether the adapter that a stage begins with is there: an arm that did not train has none."""
    adapters = [word.partition("adapter=")[2] for word in stage.words if "adapter=" in word]
    return all(Path(adapter).is_dir() for adapter in adapters)


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Returns the options; the defaults are the run on two CPU cores."""
    parser = argparse.ArgumentParser(prog="python -m swirl_env.benchmarks.qwen", description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--out", default="runs/qwen", help="folder of all runs")
    add("--data-dir", help="folder of GSM8K and HotpotQA (docs/tasks.md); SWIRL_DATA_DIR by default")
    add("--page", help="Markdown file whose figures are written; the text around them stays; what its .json has is not run again")
    add("--figures", action="store_true", help="write the page from what was measured, and run nothing")
    add("--model", help="hub name, folder or .gguf file; the fetched model by default")
    add("--dtype", default="bfloat16", help="of the model's own weights; adapters stay float32")
    add("--device", default="cpu", help="cpu, cuda, auto")
    add("--held-out", type=int, default=200, help="held-out questions of each set")
    add("--own", type=int, default=200, help="training questions of each set on which the base model's rollouts are drawn")
    add("--samples", type=int, default=2, help="rollouts per question for the warm start")
    add("--warm-updates", type=int, default=30, help="updates of the warm start on GSM8K, of 8 episodes each; fewer on HotpotQA")
    add("--budget", type=int, default=20_000, help="sampled tokens of each arm")
    add("--batch-size", type=int, default=32, help="states generated together; 64 take over 6 GB")
    add("--max-new-tokens", type=int, default=140)
    add("--prefix-cache", type=int, default=65_536, help="tokens whose keys and values are kept between steps")
    add("--seed", type=int, default=0)
    add("--dry-run", action="store_true", help="print the commands and do nothing")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
