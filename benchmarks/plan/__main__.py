"""The plan: ``python -m swirl_env.benchmarks.plan [--page PATH]``.

Measures what this project's code costs here, simulates three sizes of a run, and writes tables and the bottleneck of each.
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

from swirl_env.benchmarks.places import FIGURES, comments, has_place, replaced
from swirl_env.benchmarks.plan.hardware import H100, QWEN_7B, QWEN_32B, SMOLLM2
from swirl_env.benchmarks.plan.measure import EPISODES, measure
from swirl_env.benchmarks.plan.setups import best, cluster, gains, one_node, two_cores
from swirl_env.benchmarks.plan.simulation import Costs, Outcome, Setup, simulate
from swirl_env.store.lines import replace_file

_FEWEST = 1.02
"""A gain below this is none: other random lengths change as much."""


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, simulates and prints; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m swirl_env.benchmarks.plan", description=(__doc__ or "").partition("\n\n")[2])
    parser.add_argument("--page", type=Path, help="page whose figures are replaced (between its two comments)")
    parser.add_argument("--episodes", type=int, default=EPISODES, help="episodes that are measured")
    given = parser.parse_args(argv)
    page: Path | None = given.page
    before = "" if page is None else _page_with_figures(parser, page)  # asked first: the simulation takes a minute
    text = "\n".join(report(measure(given.episodes)))
    if page is None:
        print(text)
    else:
        replace_file(page, replaced(before, FIGURES, text).encode())
        print(f"figures: {page}")
    return 0


def _page_with_figures(parser: argparse.ArgumentParser, page: Path) -> str:
    """Returns a page; ends the program if it has no figures to replace, or is not there."""
    try:
        text = page.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        parser.error(f"Expected a Markdown page with figures to replace; {page} cannot be read ({error}).")
    if not has_place(text, FIGURES):
        parser.error(f"{page} has no figures to replace: they stand between the lines {comments(FIGURES)}.")
    return text


def report(costs: Costs) -> Iterator[str]:
    """Yields the lines of the tables."""
    yield _folded(
        f"Measured here, in processor time: {1e6 * costs.env_step:.0f} us per step of an episode (search, rules, record, "
        f"scripted agent), {1e3 * costs.call:.1f} ms per call of a server, {1e6 * costs.episode:.0f} us per episode in the "
        f"driver."
    )
    yield from ("", *_memory(), "")
    two = two_cores()
    plans = [(two, simulate(two, costs)), best(one_node(), costs), best(cluster(), costs)]
    yield from (*_times(plans), "")
    for setup, _ in plans:
        yield _folded(f"- **{setup.name}**: {_bottleneck(setup, costs)}")


def _memory() -> Iterator[str]:
    yield "| model | weights, bf16 | cache per 1,000 tokens | full training | LoRA, 1 % | episodes of 3,000 tokens at once |"
    yield "| :--- | ---: | ---: | ---: | ---: | ---: |"
    for model, gpus in ((SMOLLM2, 1), (QWEN_7B, 1), (QWEN_32B, 2)):
        fit = int((0.9 * H100.memory_gb * gpus - model.weights_gb) * 1e9 / (3_000 * model.kv_bytes))
        yield (
            f"| {model.name} | {model.weights_gb:.1f} GB | {model.kv_bytes / 1e3:.0f} MB | {model.training_gb:.0f} GB | "
            f"{model.lora_gb():.1f} GB | {fit:,} on {gpus} {H100.name} |"
        )


def _times(plans: Sequence[tuple[Setup, Outcome]]) -> Iterator[str]:
    yield "| size | split | episodes per update | in flight | update every | episodes per hour | busy |"
    yield "| :--- | :--- | ---: | ---: | ---: | ---: | :--- |"
    for setup, outcome in plans:
        hourly = 3600 * setup.episodes / outcome.seconds
        busy = ", ".join(f"{name} {100 * share:.0f} %" for name, share in outcome.busy.items())
        yield (
            f"| {setup.name} | {_split(setup)} | {setup.episodes:,} | {outcome.in_flight:,} | {outcome.seconds:.0f} s | "
            f"{hourly:,.0f} | {busy} |"
        )


def _split(setup: Setup) -> str:
    if not setup.trainer_gpus:
        return f"{setup.policy.model.name}, in turn"
    judge = 0 if setup.judge is None else setup.judge.gpus * setup.judges
    generation = setup.policy.gpus * setup.policies
    return f"{setup.policy.model.name}: {generation} generate, {judge} judge, {setup.trainer_gpus} train"


def _folded(text: str) -> str:
    return textwrap.fill(text, 126, subsequent_indent="  " if text.startswith("-") else "")


def _bottleneck(setup: Setup, costs: Costs) -> str:
    """Returns what limits a run, in words: what there would have to be more of."""
    results = sorted(gains(setup, costs).items(), key=lambda item: -item[1])
    name, gain = results[0]
    others = ", ".join(f"{other} {value:.2f}x" for other, value in results[1:])
    if gain < _FEWEST:
        return f"no single thing: twice of any gains less than {100 * (_FEWEST - 1):.0f} %."
    return f"the bottleneck is **{name}**: twice as much of it makes updates {gain:.2f}x as frequent ({others})."


if __name__ == "__main__":
    sys.exit(main())
