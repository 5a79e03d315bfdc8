"""The study of the embedded policy on Atlas: step rewards next to outcomes, at equal budgets, with intervals over seeds.

    python -m swirl_env.benchmarks.study --out runs/study --page docs/results/atlas.md

First every arm's hyper-parameters are chosen by equally many trials on validation worlds, with warm starts of their own. Then
each arm runs in every setting and from every seed's warm start, and some with noisy judges or differently filtered
demonstrations. A study that was interrupted goes on where it was when it is begun again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from swirl_env.benchmarks import curves
from swirl_env.benchmarks.compare import Arm, train
from swirl_env.benchmarks.study import page as study_page
from swirl_env.benchmarks.study.arms import CANDIDATES, EXTRAS, SEARCHED, Study, demonstrate
from swirl_env.stages.policy import warm_policy

PARTS = ("search", "main", "filters", "noise")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs what is missing of the study and writes its tables and pictures."""
    options = _parser().parse_args(argv)
    study = Study(
        options.out,
        tuple(options.seeds),
        tuple(options.settings),
        tuple(sorted(options.budgets)),
        options.episodes,
        tuple(options.arms),
    )
    curves.require()
    try:
        for part in PARTS:
            if part in options.parts:
                _run(part, study, options.workers)
    except KeyboardInterrupt:
        print("\nThe study goes on where it was when the same command is given again.", file=sys.stderr)
        return 130
    page = options.page or study.out / "study.md"
    study_page.write(page, study, chosen(study), [part for part in PARTS if part in options.parts])
    print(f"tables and pictures are in {page}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    names = [one.name for one in CANDIDATES]
    parser.add_argument("--out", type=Path, default=Path("runs/study"), help="folder of all runs")
    parser.add_argument("--page", type=Path, help="Markdown page that gets the tables, between its markers; else OUT/study.md")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4], help="each with a warm start of its own")
    parser.add_argument("--settings", nargs="+", default=["main", "sparse", "easy"])
    parser.add_argument("--budgets", type=int, nargs="+", default=[10_000, 20_000, 40_000], help="sampled tokens")
    parser.add_argument("--episodes", type=int, default=200, help="held-out episodes of an evaluation, sampled and greedy each")
    parser.add_argument("--arms", nargs="+", default=names, choices=names, metavar="ARM", help=", ".join(names))
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--workers", type=int, default=2, help="runs at a time, one thread each")
    return parser


def _run(part: str, study: Study, workers: int) -> None:
    if part == "search":
        _prepare(study, SEARCHED)
        train([arm for one in study.candidates for runs in study.search(one) for arm in runs], workers)
        return
    best = chosen(study)
    _prepare(study, [(setting, seed) for setting in (study.settings if part == "main" else [EXTRAS]) for seed in study.seeds])
    if part == "main":
        train([arm for setting in study.settings for arm in study.main(setting, best)], workers)
    else:
        train(list(study.noise(best) if part == "noise" else study.filters(best)), workers)


def _prepare(study: Study, starts: Iterable[tuple[str, int]]) -> None:
    """Trains warm starts and makes demonstrations, where they are not there yet."""
    wanted = any(one.uses == "demonstrations" for one in study.candidates)
    for setting, seed in starts:
        warm_policy(setting, seed)
        if wanted and not (study.demonstrations(setting, seed) / "selections").is_dir():
            for command in demonstrate(study, setting, seed):
                subprocess.run([sys.executable, "-m", "swirl_env.cli", *command], check=True, stdout=subprocess.DEVNULL)


def chosen(study: Study) -> dict[str, dict[str, Any]]:
    """Returns for every arm the trial with the highest success at temperature 1, mean over the settings of the search.

    Greedy success decides between equals. Written to ``chosen.json``, with every trial's figures.
    """
    best: dict[str, dict[str, Any]] = {}
    report: dict[str, Any] = {}
    for one in study.candidates:
        trials = one.trials()
        scores = [tuple(_mean(runs, how) for how in ("sampled", "greedy")) for runs in study.search(one)]
        best[one.name] = trials[scores.index(max(scores))]
        report[one.name] = {
            "chosen": best[one.name],
            "trials": [{**t, "success": s} for t, s in zip(trials, scores, strict=True)],
        }
    (study.out / "chosen.json").write_text(json.dumps(report, indent=1) + "\n")
    return best


def _mean(arms: Sequence[Arm], how: str) -> float:
    return sum(float(arm.evaluation()["after"][how]["accuracy"]["value"]) for arm in arms) / len(arms)


if __name__ == "__main__":
    sys.exit(main())
