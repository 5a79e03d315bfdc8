"""The study of the embedded policy on Atlas: the step-credit family next to outcomes, at equal budgets, over seeds.

    python -m swirl_env.benchmarks.study --out runs/study --page docs/results/atlas.md

First every arm's hyper-parameters are chosen at the full budget on validation worlds, with a warm start of its own: the learning
rate, then one thing at a time at the better rate. Then each arm runs in every setting and from every seed's warm start, and some
under other conditions. A study that was interrupted goes on where it was when it is begun again.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from swirl_env.algos.warm_start import WarmStart
from swirl_env.benchmarks import curves
from swirl_env.benchmarks.compare import Arm, train
from swirl_env.benchmarks.study import page as study_page
from swirl_env.benchmarks.study.arms import (
    CANDIDATES,
    CONDITION_SETTING,
    RATES,
    SEARCHED,
    Candidate,
    Policy,
    Study,
    demonstrate,
)
from swirl_env.benchmarks.warm_starts import train_warm_starts
from swirl_env.cli import INTERRUPTED
from swirl_env.errors import SwirlError, describe_os_error, printable
from swirl_env.stages.progress import progress

PARTS = ("search", "main", "conditions")
POLICIES = {
    "small": Policy(),
    "large": Policy(WarmStart(width=160, layers=4, lr=1e-3, device="cuda"), {"model.batch_size": 256, "slots": 256}, batch=4),
}
"""``large`` has ten times the parameters of ``small``, batches four times as large, and wants a GPU."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs what is missing of the study and writes its tables and pictures; returns the exit code."""
    parser = _parser()
    options = parser.parse_args(argv)
    if options.workers < 1:
        parser.error(f"--workers is 1 or more, got {options.workers}")
    try:
        return _study(options)
    except KeyboardInterrupt:
        print("\nThe study goes on where it was when the same command is given again.", file=sys.stderr)
        return INTERRUPTED
    except (SwirlError, OSError) as error:
        print(f"study: {printable(describe_os_error(error) if isinstance(error, OSError) else str(error))}", file=sys.stderr)
        return 2


def _study(options: argparse.Namespace) -> int:
    study = Study(
        options.out,
        tuple(options.seeds),
        tuple(options.settings),
        tuple(sorted(options.budgets)),
        options.episodes,
        tuple(options.arms),
        POLICIES[options.policy],
    )
    curves.require()
    parts = [part for part in PARTS if part in options.parts]
    _prepare(study, parts, options.workers, options.rate)
    for part in parts:
        _run(part, study, options.workers, options.rate)
    page = options.page or study.out / "study.md"
    study_page.write(page, study, chosen(study, options.rate), parts)
    print(f"tables and pictures are in {page}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    names = [one.name for one in CANDIDATES]
    parser.add_argument("--out", type=Path, default=Path("runs/study"), help="folder of all runs")
    parser.add_argument("--page", type=Path, help="Markdown page that gets the tables, between its markers; else OUT/study.md")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4], help="each with a warm start of its own")
    parser.add_argument("--settings", nargs="+", default=["main", "sparse"])
    budgets = [50_000, 100_000, 150_000, 200_000]
    parser.add_argument("--budgets", type=int, nargs="+", default=budgets, help="sampled tokens at which arms are evaluated")
    parser.add_argument("--episodes", type=int, default=200, help="held-out episodes of an evaluation, sampled and greedy each")
    parser.add_argument("--arms", nargs="+", default=names, choices=names, metavar="ARM", help=", ".join(names))
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--policy", default="small", choices=POLICIES, help="large: ten times the parameters, on a GPU")
    parser.add_argument("--rate", type=float, default=RATES[-1], help="learning rate of arms that were not searched")
    parser.add_argument("--workers", type=int, default=2, help="runs at a time, one thread each")
    return parser


def _run(part: str, study: Study, workers: int, rate: float) -> None:
    if part == "search":
        train([study.trial(one, trial) for one in study.candidates for trial in one.rates()], workers)
        train([study.trial(one, trial) for one in study.candidates for trial in trials(study, one)], workers)
        return
    train([arm for arms in _arms(part, study, rate).values() for arm in arms], workers)


def _arms(part: str, study: Study, rate: float) -> dict[tuple[str, int], list[Arm]]:
    """Returns the runs of a part after the search, by their setting and seed."""
    best = chosen(study, rate)
    settings = study.settings if part == "main" else (CONDITION_SETTING,)
    arms = {setting: list(study.main(setting, best) if part == "main" else study.conditions(best)) for setting in settings}
    return {(setting, seed): [arm for arm in arms[setting] if arm.seed == seed] for setting in settings for seed in study.seeds}


def _prepare(study: Study, parts: Sequence[str], workers: int, rate: float) -> None:
    """Trains warm starts and makes demonstrations, if they are not there yet and a run is left that begins with them."""
    starts = {start for part in parts if part != "search" for start, arms in _arms(part, study, rate).items() if not _done(arms)}
    if "search" in parts and not all(_searched(study, one) for one in study.candidates):
        starts.add(SEARCHED)
    train_warm_starts(sorted(starts), workers, study.policy.start)
    wanted = [start for start in sorted(starts) if _lacks_demonstrations(study, *start)]
    if not wanted:
        return
    with progress("make demonstrations", len(wanted)) as advance:
        for setting, seed in wanted:
            for command in demonstrate(study, setting, seed):
                code = subprocess.run([sys.executable, "-m", "swirl_env.cli", *command], stdout=subprocess.DEVNULL).returncode
                if code:
                    raise SwirlError(f"No demonstrations: swirl {shlex.join(command)} ended with exit code {code}.")
            advance()


def _done(arms: Iterable[Arm]) -> bool:
    return all(arm.done for arm in arms)


def _searched(study: Study, one: Candidate) -> bool:
    # The other trials are known once those of the learning rate have been run.
    return all(_done([study.trial(one, trial) for trial in known()]) for known in (one.rates, lambda: trials(study, one)))


def _lacks_demonstrations(study: Study, setting: str, seed: int) -> bool:
    wanted = any(one.uses == "demonstrations" for one in study.candidates_in(setting))
    return wanted and not (study.demonstrations(setting, seed) / "selections").is_dir()


def trials(study: Study, one: Candidate) -> list[dict[str, Any]]:
    """Returns all trials of an arm, its learning rates first: the others are known once those have been run."""
    rates = one.rates()
    return [*rates, *one.variations(max(rates, key=lambda trial: success(study, one, trial))["trainer.lr"])]


def success(study: Study, one: Candidate, trial: dict[str, Any]) -> tuple[float, float]:
    """Returns the success of a trial at temperature 1, and greedily: that decides between equals."""
    after = study.trial(one, trial).evaluation()["after"]
    return float(after["sampled"]["accuracy"]["value"]), float(after["greedy"]["accuracy"]["value"])


def chosen(study: Study, rate: float) -> dict[str, dict[str, Any]]:
    """Returns for every arm the trial with the highest success at temperature 1.

    Written to ``chosen.json`` with every trial's figures. An arm that was not searched gets its first options and `rate`.
    """
    best: dict[str, dict[str, Any]] = {}
    report: dict[str, Any] = {}
    for one in study.candidates:
        if not all(study.trial(one, trial).done for trial in one.rates()):
            best[one.name] = {**one.rates()[0], "trainer.lr": rate}
            continue
        figures = [(trial, success(study, one, trial)) for trial in trials(study, one) if study.trial(one, trial).done]
        best[one.name] = max(figures, key=lambda pair: pair[1])[0]
        report[one.name] = {"chosen": best[one.name], "trials": [{**trial, "success": value} for trial, value in figures]}
    if report:
        (study.out / "chosen.json").write_text(json.dumps(report, indent=1) + "\n")
    return best


if __name__ == "__main__":
    sys.exit(main())
