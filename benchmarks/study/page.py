"""Tables and pictures of the study, written into their places of a Markdown page; the words around them stay."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from swirl_env.benchmarks import curves
from swirl_env.benchmarks.compare import WARM, Arm
from swirl_env.benchmarks.places import has_place, place, replaced
from swirl_env.benchmarks.study.arms import CONDITION_SETTING, CONDITIONED, SEARCH_EPISODES, Candidate, Study
from swirl_env.benchmarks.study.conditions import CONDITIONS
from swirl_env.stages.tables import markdown
from swirl_env.stages.tables import percent_over_seeds as percent
from swirl_env.store.lines import replace_file
from swirl_env.view.report.training import mean_curve

Evaluated = Mapping[str, Any]
"""Evaluations of a policy: ``sampled`` and ``greedy``."""
BASELINES = ("reinforce", "episode_reward")
"""What the other arms are compared with: the outcome alone, and the same rewards as one number per episode."""
PICTURED = ("reinforce", "episode_reward", "step_outcome", "return_outcome", "rft", "swirl", "mt_grpo_unbiased", "gigpo", "vine")
"""Arms in the picture: more lines cannot be told apart."""


def write(page: Path, study: Study, chosen: Mapping[str, Mapping[str, Any]], parts: Sequence[str]) -> None:
    """Writes the parts of the study into a page: into the places that it has for them, else at its end."""
    blocks: dict[str, str] = {"search": _search(study, chosen)} if "search" in parts else {}
    if "main" in parts:
        for setting in study.settings:
            runs = list(study.main(setting, chosen))
            picture = page.with_name(f"{page.stem}-{setting}.png")
            page.parent.mkdir(parents=True, exist_ok=True)
            drawn = [run for run in runs if len(run.curve()) > 1 and (run.name in PICTURED or len(study.names) <= len(PICTURED))]
            curves.draw(drawn, f"{setting}: held-out success", picture)
            arms = study.candidates_in(setting)
            blocks[setting] = f"{_main(study, arms, runs)}\n![success over sampled tokens]({picture.name})\n"
            blocks |= {f"{setting}-{base}": _against(study, arms, runs, base) for base in BASELINES if base in study.names}
            blocks[f"{setting}-seeds"] = _seeds(study, arms, runs)
    if "conditions" in parts:
        runs = [*study.conditions(chosen), *study.main(CONDITION_SETTING, chosen)]
        blocks["conditions"] = _conditions(study, runs)
    text = page.read_text(encoding="utf-8") if page.is_file() else ""
    for name, block in blocks.items():
        text = replaced(text, name, block) if has_place(text, name) else f"{text}\n{place(name, block)}"
    replace_file(page, text.encode())


def _search(study: Study, chosen: Mapping[str, Mapping[str, Any]]) -> str:
    report = json.loads((study.out / "chosen.json").read_text())
    rows = []
    for one in study.candidates:
        trials = report[one.name]["trials"]
        best = max(trial["success"][0] for trial in trials)
        # A share p of n episodes has the standard error sqrt(p (1 - p) / n): what lies within one of the best is a tie.
        tied = [trial for trial in trials if trial["success"][0] >= best - math.sqrt(best * (1 - best) / SEARCH_EPISODES)]
        rows.append(
            {
                "arm": f"`{one.name}`",
                "what it is": one.about,
                "sees": one.sees,
                "chosen": _options(chosen[one.name]),
                "success of the trials %": " / ".join(f"{100 * trial['success'][0]:.1f}" for trial in trials),
                "ties": str(len(tied) - 1) if len(tied) > 1 else "-",
            }
        )
    return markdown(rows, words=4)


def _options(options: Mapping[str, Any]) -> str:
    names = {key: key.removeprefix("algo.").removeprefix("trainer.") for key in options}
    return ", ".join(f"{names[key]} {value}" for key, value in options.items())


def _main(study: Study, arms: Sequence[Candidate], runs: Sequence[Arm]) -> str:
    before = [run.evaluation()["before"] for run in {run.seed: run for run in runs}.values()]
    budgets = [f"{budget:,} tokens" for budget in study.budgets]
    names = [*budgets, "greedy", "GOOD steps", "sampled tokens", "trained tokens", "judge calls", "seconds"]
    warm = [*[percent(list(map(_value, before)))] * len(budgets), *_rest(before), "-", "-", "-", "-"]
    rows = [{"arm": WARM, "sees": "", **dict(zip(names, warm, strict=True))}]
    for one in arms:
        mine = [run for run in runs if run.name == one.name]
        after = [run.evaluation()["after"] for run in mine]
        spent = [run.evaluation()["spent"] for run in mine]
        costs = [_count([s[key] for s in spent]) for key in ("sampled_tokens", "trained_tokens", "judge_calls")]
        cells = [*_at_budgets(study, mine), *_rest(after), *costs, _count([run.seconds for run in mine])]
        label = f"`{one.name}`" + (" (demonstrations)" if one.uses != "own" else "")
        rows.append({"arm": label, "sees": one.sees, **dict(zip(names, cells, strict=True))})
    return markdown(rows, words=2)


def _at_budgets(study: Study, runs: Sequence[Arm]) -> list[str]:
    if not runs[0].budget:
        return [*["-"] * (len(study.budgets) - 1), percent([_value(run.evaluation()["after"]) for run in runs])]
    return [percent(successes(study, runs, budget)) for budget in study.budgets]


def successes(study: Study, runs: Sequence[Arm], budget: int) -> list[float]:
    """Returns each run's success at temperature 1 when it had sampled `budget` tokens; then came the first update to be seen.

    A run without a figure there made no update after it: what it ended with is what it had.
    """
    last = budget == study.budgets[-1]
    held = [run.evaluation() for run in runs]
    return [_value(one["after"] if last else one["at"].get(str(budget), one["after"])) for one in held]


def _against(study: Study, arms: Sequence[Candidate], runs: Sequence[Arm], baseline: str) -> str:
    """Returns how own-rollout arms compare with a baseline at its full budget, seed by seed."""
    half, whole = study.budgets[(len(study.budgets) - 1) // 2], study.budgets[-1]
    base = [run for run in runs if run.name == baseline]
    final, greedy = successes(study, base, whole), _greedy(base)
    rows = []
    for one in arms:
        if one.uses != "own" or one.name == baseline:
            continue
        mine = [run for run in runs if run.name == one.name]
        early, late = successes(study, mine, half), successes(study, mine, whole)
        reached = _tokens_to_reach(mine, statistics.fmean(final))
        rows.append(
            {
                "arm": f"`{one.name}`",
                f"at {half:,} minus {baseline} at {whole:,}": percent(_minus(early, final)),
                f"at {whole:,}": percent(_minus(late, final)),
                "greedy": percent(_minus(_greedy(mine), greedy)),
                f"tokens to {baseline}'s final success": "never" if reached is None else f"{reached:,.0f}",
            }
        )
    return markdown(rows)


def _minus(values: Sequence[float], others: Sequence[float]) -> list[float]:
    return [a - b for a, b in zip(values, others, strict=True)]


def _greedy(runs: Sequence[Arm]) -> list[float]:
    return [_value(run.evaluation()["after"], "greedy") for run in runs]


def _tokens_to_reach(runs: Sequence[Arm], success: float) -> float | None:
    """Returns where the mean curve of the runs first reaches a success; None where it does not."""
    grid, mean = mean_curve([run.curve() for run in runs])
    for (x0, y0), (x1, y1) in zip(zip(grid, mean, strict=True), list(zip(grid, mean, strict=True))[1:], strict=False):
        if y1 >= success:
            return float(x1 if y1 == y0 else x0 + (x1 - x0) * max(0.0, success - y0) / (y1 - y0))
    return None


def _seeds(study: Study, arms: Sequence[Candidate], runs: Sequence[Arm]) -> str:
    warm = {run.seed: run.evaluation()["before"] for run in runs}
    rows = [{"arm": WARM, **{f"seed {seed}": _pair(warm[seed]) for seed in study.seeds}}]
    for one in arms:
        mine = {run.seed: run.evaluation()["after"] for run in runs if run.name == one.name}
        rows.append({"arm": f"`{one.name}`", **{f"seed {seed}": _pair(mine[seed]) for seed in study.seeds}})
    return markdown(rows)


def _conditions(study: Study, runs: Sequence[Arm]) -> str:
    budget = study.budgets[(len(study.budgets) - 1) // 2]
    rows = []
    for one in (one for one in study.candidates if one.name in CONDITIONED):
        clean = [run for run in runs if run.name == one.name]
        cells = {"`rules`": percent(successes(study, clean, budget))}
        for condition in CONDITIONS:
            mine = [run for run in runs if run.name == f"{one.name}-{condition.name}"]
            cells[condition.about] = percent([_value(run.evaluation()["after"]) for run in mine])
        rows.append({"arm": f"`{one.name}`", "sees": one.sees, **cells})
    return markdown(rows, words=2)


def _value(match: Evaluated, how: str = "sampled", what: str = "accuracy") -> float:
    return float(match[how][what]["value"])


def _rest(match: Sequence[Evaluated]) -> list[str]:
    return [
        percent([_value(one, "greedy") for one in match]),
        percent([_value(one, what="process") for one in match]),
    ]


def _pair(evaluated: Evaluated) -> str:
    return f"{100 * _value(evaluated):.1f} ({100 * _value(evaluated, 'greedy'):.1f})"


def _count(values: Sequence[float]) -> str:
    return f"{statistics.fmean(values):,.0f}"
