"""Algorithms compared: one warm start per seed, equal budgets of sampled tokens, the same held-out questions.

Every run is a ``swirl train`` of its own in a process of its own, several at a time.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from swirl_env import cli
from swirl_env.benchmarks.side_by_side import Failure, showing, side_by_side
from swirl_env.config.options import BenchOptions
from swirl_env.config.overrides import choice, overrides, tool_choices
from swirl_env.errors import ConfigError, SwirlError, unknown_name
from swirl_env.registry import names
from swirl_env.stages.progress import progress
from swirl_env.stages.tables import percent_over_seeds
from swirl_env.view.report.training import learning_curve, seconds_spent

WARM = "warm start"


@dataclass(frozen=True)
class Arm:
    """One training run: an algorithm with its options, and a seed."""

    name: str
    seed: int
    folder: Path
    overrides: tuple[str, ...]
    budget: int
    start: Path | None = None
    """A run from the same warm start, which has evaluated it for this one too."""

    @property
    def log(self) -> Path:
        """What its process said."""
        return self.folder.with_name(f"{self.folder.name}.log")

    def evaluation(self) -> dict[str, Any]:
        """Returns evaluation.json; empty where the run has not come so far."""
        file = self.folder / "evaluation.json"
        results: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
        if self.start is not None and results and results["before"] is None:
            results["before"] = json.loads((self.start / "evaluation.json").read_text())["before"]
        return results

    @property
    def done(self) -> bool:
        """Whether it has ended and been evaluated."""
        return "after" in self.evaluation()

    @property
    def seconds(self) -> float:
        """Seconds of training, evaluations left out; a resumed run starts counting again."""
        return seconds_spent(self.folder)

    def curve(self) -> list[tuple[int, float]]:
        """Returns (sampled tokens, success at temperature 1) from the warm start to the end."""
        return [(int(point.sampled_tokens), point.success) for point in learning_curve(self.folder, self.evaluation())]


def arms(options: BenchOptions) -> list[Arm]:
    """Returns the runs of a comparison.

    Raises:
        UnknownName: for an algorithm that is neither an arm nor registered.
    """
    return [_arm(options, name, seed) for seed in options.seeds for name in options.algos]


def _arm(options: BenchOptions, name: str, seed: int) -> Arm:
    if name not in options.arms and name not in names("algo") and ":" not in name:
        raise unknown_name("algorithm", name, {*options.arms, *names("algo")})
    given = dict(options.arms.get(name, {}))
    algo = dict(given.pop("algo", {}))
    same: dict[str, Any] = {"seed": seed, "budget": options.budget, "policy": options.policy, "eval.episodes": options.episodes}
    same |= {"setting": options.setting, "warm_start": seed} if options.task is None else {"eval.split": options.split}
    plugins = [] if options.task is None else choice("task", options.task)
    plugins += [*tool_choices(options.tool), *choice("judge", options.judge)]
    folder = Path(options.out) / f"train-{name.rpartition(':')[2]}-{seed}"
    arguments = [f"algo={algo.pop('name', name)}", *plugins, *overrides({**same, "algo": algo})]
    arguments += [*overrides(options.common), *overrides(given)]
    return Arm(name, seed, folder, tuple(arguments), options.budget)


def warm_starts(options: BenchOptions, runs: Sequence[Arm]) -> None:
    """Trains the warm starts that are not cached and that a run which is not done begins with: several would wait for one."""
    from swirl_env.benchmarks.warm_starts import train_warm_starts

    if options.policy == "embedded":
        seeds = dict.fromkeys(run.seed for run in runs if not run.done)
        train_warm_starts([(options.setting, seed) for seed in seeds], options.workers)


def train(runs: Sequence[Arm], workers: int) -> None:
    """Trains what is not trained yet, `workers` runs at a time; an interrupt ends them all, resumable.

    Raises:
        OSError: if no folder can be made for what the runs print.
        SwirlError: if runs failed, when all have ended.
    """
    left = [run for run in runs if not run.done]
    for run in left:
        run.log.parent.mkdir(parents=True, exist_ok=True)
    whole = sum(run.budget for run in runs)
    with progress(f"train {len(runs)} runs", whole, whole - sum(run.budget for run in left)) as advance:
        failed = side_by_side(left, _run, workers, showing(advance, _tokens, _name))
    if failed:
        raise SwirlError(f"{len(failed)} of {len(runs)} training runs failed. {'; '.join(map(_why, failed))}")


def _run(arm: Arm) -> None:
    """Trains one arm; all that it prints goes into its log."""
    with arm.log.open("ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    # Hydra is told to leave errors to us in the process that began all this; here they get words of their own.
    os.environ.pop("HYDRA_FULL_ERROR", None)
    sys.exit(cli.main(["train", *arm.overrides, f"out={arm.folder}", "resume=true"]))


def _name(run: Arm) -> str:
    return f"{run.name} {run.seed}"


def _tokens(run: Arm, ended: bool) -> int:
    return run.budget if ended else _sampled(run)


def _sampled(run: Arm) -> int:
    """Returns how much of its budget a run has used, read from the end of its metrics."""
    file = run.folder / "metrics.jsonl"
    try:
        with file.open("rb") as metrics:
            metrics.seek(max(0, file.stat().st_size - 4096))
            lines = metrics.read().split(b"\n")[:-1]
        return min(run.budget, int(json.loads(lines[-1])["sampled_tokens"])) if lines else 0
    except (OSError, ValueError):
        return 0


def _why(failure: Failure[Arm]) -> str:
    """Returns why a run failed and where all of its words are; there are none if it was killed before it opened its log."""
    arm = failure.work
    if not arm.log.is_file():
        return f"{arm.folder.name}: {failure.why()}"
    lines = arm.log.read_text(errors="replace").split("\n")
    last = next((line.removeprefix("swirl: ") for line in reversed(lines) if line.strip()), "it said nothing")
    return f"{arm.folder.name}: {failure.why(last)} (all of it: {arm.log})"


@dataclass(frozen=True)
class Figures:
    """What the seeds of one arm came to; shares are fractions of 1."""

    name: str
    success: tuple[float, ...]
    greedy: tuple[float, ...]
    label: tuple[float, ...]
    sampled: tuple[float, ...]
    trained: tuple[float, ...]
    judged: tuple[float, ...]
    seconds: tuple[float, ...]

    def cells(self) -> dict[str, str]:
        """Returns the row as it is printed: means, of shares with their 95 % intervals over seeds."""
        return {
            "algorithm": self.name,
            "success %": percent_over_seeds(self.success),
            "greedy %": percent_over_seeds(self.greedy),
            "GOOD steps": percent_over_seeds(self.label),
            "sampled tokens": _count(self.sampled),
            "trained tokens": _count(self.trained),
            "judge calls": _count(self.judged),
            "seconds": _count(self.seconds),
        }

    def to_dict(self) -> dict[str, Any]:
        """Returns the values of every seed, for JSON."""
        return asdict(self)


def figures(runs: Sequence[Arm]) -> list[Figures]:
    """Returns the warm start's row and one an algorithm, in their order."""
    before = _shares([run.evaluation()["before"] for run in {run.seed: run for run in runs}.values()])
    results = [Figures(WARM, *before, (), (), (), ())]
    for name in dict.fromkeys(run.name for run in runs):
        mine = [run for run in runs if run.name == name]
        after = _shares([run.evaluation()["after"] for run in mine])
        spent = [run.evaluation()["spent"] for run in mine]
        sampled, trained, judged = (
            tuple(float(one[key]) for one in spent) for key in ("sampled_tokens", "trained_tokens", "judge_calls")
        )
        results.append(Figures(name, *after, sampled, trained, judged, tuple(round(run.seconds, 1) for run in mine)))
    return results


def _shares(evaluations: Sequence[dict[str, Any]]) -> tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]:
    """Returns success at temperature 1, greedy success and mean process label, a value a seed."""

    def share(how: str, what: str) -> tuple[float, ...]:
        return tuple(float(results[how][what]["value"]) for results in evaluations)

    return share("sampled", "accuracy"), share("greedy", "accuracy"), share("sampled", "process")


def verdict(results: Sequence[Figures]) -> str:
    """Returns in one sentence which algorithms ended below the warm start."""
    warm, *others = results
    below = [
        f"{one.name} ({percent_over_seeds(one.success)} % sampled, {percent_over_seeds(one.greedy)} % greedy)"
        for one in others
        if statistics.fmean(one.success) <= statistics.fmean(warm.success)
        or statistics.fmean(one.greedy) <= statistics.fmean(warm.greedy)
    ]
    start = f"the warm start ({percent_over_seeds(warm.success)} % sampled, {percent_over_seeds(warm.greedy)} % greedy)"
    if not below:
        return f"Every algorithm ended above {start}, sampled and greedy."
    return f"Not above {start}, sampled or greedy or both: {', '.join(below)}."


def _count(values: Sequence[float]) -> str:
    return f"{statistics.fmean(values):,.0f}" if values else "-"


def check(options: BenchOptions) -> None:
    """Refuses a comparison without algorithms, seeds or held-out questions, or with an algorithm or a seed twice.

    Raises:
        ConfigError: with what to change.
    """
    for key, values in (("algos", options.algos), ("seeds", options.seeds)):
        if not values or len(set(values)) < len(values):
            raise ConfigError(f"{key} names each once, and one at least; got {list(values)}.")
    if options.task is not None and options.split is None:
        raise ConfigError(
            f"A comparison needs held-out questions: name a split of task={options.task['name']} with split=..., e.g. split=test."
        )
