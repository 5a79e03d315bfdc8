"""Tables and pictures of the study, written between the markers of a Markdown page; the words around them stay."""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from swirl_env.benchmarks import curves
from swirl_env.benchmarks.compare import WARM, Arm
from swirl_env.benchmarks.study.arms import EXTRAS, FILTERED, NOISES, NOISY, Study
from swirl_env.stages.tables import markdown
from swirl_env.stages.tables import percent_over_seeds as percent
from swirl_env.store.filters import FILTERS
from swirl_env.view.report.training import mean_curve

Evaluated = Mapping[str, Any]
"""Evaluations of a policy: ``sampled`` and ``greedy``."""
BASELINE = "reinforce"
"""The outcome-only arm that the others are compared with."""


def write(page: Path, study: Study, chosen: Mapping[str, Mapping[str, Any]], parts: Sequence[str]) -> None:
    """Writes the parts of the study into a page: between markers where it has them, else at its end."""
    blocks: dict[str, str] = {"search": _search(study, chosen)} if "search" in parts else {}
    if "main" in parts:
        for setting in study.settings:
            runs = list(study.main(setting, chosen))
            picture = page.with_name(f"{page.stem}-{setting}.png")
            page.parent.mkdir(parents=True, exist_ok=True)
            curves.draw([run for run in runs if len(run.curve()) > 1], f"{setting}: held-out success", picture)
            blocks[setting] = f"{_main(study, runs)}\n![success over sampled tokens]({picture.name})\n"
            if BASELINE in study.names:
                blocks[f"{setting}-against"] = _against(study, runs)
            blocks[f"{setting}-seeds"] = _seeds(study, runs)
    if "filters" in parts:
        blocks["filters"] = _grid(study, list(study.filters(chosen)), FILTERED, list(FILTERS), "filter")
    if "noise" in parts:
        rows = list(study.noise(chosen)) + [arm for arm in study.main(EXTRAS, chosen) if arm.name in NOISY]
        blocks["noise"] = _noise(study, rows)
    text = page.read_text(encoding="utf-8") if page.is_file() else ""
    for name, block in blocks.items():
        text = _placed(text, name, block)
    page.write_text(text, encoding="utf-8")


def _placed(text: str, name: str, block: str) -> str:
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->\n"
    match = re.search(re.escape(begin) + ".*?" + re.escape(end), text, re.DOTALL)
    whole = f"{begin}{block}{end}"
    return f"{text}\n{whole}" if match is None else text[: match.start()] + whole + text[match.end() :]


def _search(study: Study, chosen: Mapping[str, Mapping[str, Any]]) -> str:
    rows = []
    for one in study.candidates:
        scores = [percent([_value(run.evaluation()["after"]) for run in runs], spread=False) for runs in study.search(one)]
        said = ", ".join(
            f"{key.removeprefix('algo.').removeprefix('trainer.')} {value}" for key, value in chosen[one.name].items()
        )
        rows.append(
            {"arm": f"`{one.name}`", "what it is": one.about, "chosen": said, "success of the six trials %": " / ".join(scores)}
        )
    return markdown(rows, words=4)


def _main(study: Study, runs: Sequence[Arm]) -> str:
    before = [run.evaluation()["before"] for run in {run.seed: run for run in runs}.values()]
    budgets = [f"{budget:,} tokens" for budget in study.budgets]
    names = [*budgets, "greedy", "GOOD steps", "sampled tokens", "trained tokens", "judge calls", "seconds"]
    warm = [*[percent(list(map(_value, before)))] * len(budgets), *_rest(before), "-", "-", "-", "-"]
    rows = [{"arm": WARM, **dict(zip(names, warm, strict=True))}]
    for one in study.candidates:
        mine = [run for run in runs if run.name == one.name]
        after = [run.evaluation()["after"] for run in mine]
        spent = [run.evaluation()["spent"] for run in mine]
        costs = [_count([s[key] for s in spent]) for key in ("sampled_tokens", "trained_tokens", "judge_calls")]
        cells = [*_at_budgets(study, mine), *_rest(after), *costs, _count([run.seconds for run in mine])]
        label = (
            f"`{one.name}`" + (" (demonstrations)" if one.uses != "own" else "") + ("" if one.step_wise else " (outcome only)")
        )
        rows.append({"arm": label, **dict(zip(names, cells, strict=True))})
    return markdown(rows)


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


def _against(study: Study, runs: Sequence[Arm]) -> str:
    """Own-rollout arms at half and at all of the budget, minus the outcome-only baseline at all of it, seed by seed."""
    half, whole = study.budgets[-2:]
    against = successes(study, [run for run in runs if run.name == BASELINE], whole)
    rows = []
    for one in study.candidates:
        if one.uses != "own" or one.name == BASELINE:
            continue
        mine = [run for run in runs if run.name == one.name]
        early, late = successes(study, mine, half), successes(study, mine, whole)
        reached = _tokens_to_reach(mine, statistics.fmean(against))
        ratio = statistics.fmean(late) / max(statistics.fmean(against), 1e-9)
        rows.append(
            {
                "arm": f"`{one.name}`",
                f"at {half:,} minus {BASELINE} at {whole:,}": percent([a - b for a, b in zip(early, against, strict=True)]),
                f"at {whole:,} minus {BASELINE} at {whole:,}": percent([a - b for a, b in zip(late, against, strict=True)]),
                f"success / {BASELINE}'s": f"{ratio:.1f}" if ratio < 1e3 else "-",
                f"tokens to {BASELINE}'s final success": "never" if reached is None else f"{reached:,.0f}",
            }
        )
    return markdown(rows)


def _tokens_to_reach(runs: Sequence[Arm], success: float) -> float | None:
    """Returns where the mean curve of the runs first reaches a success; None where it does not."""
    grid, mean = mean_curve([run.curve() for run in runs])
    for (x0, y0), (x1, y1) in zip(zip(grid, mean, strict=True), list(zip(grid, mean, strict=True))[1:], strict=False):
        if y1 >= success:
            return float(x1 if y1 == y0 else x0 + (x1 - x0) * max(0.0, success - y0) / (y1 - y0))
    return None


def _seeds(study: Study, runs: Sequence[Arm]) -> str:
    rows = []
    for seed in study.seeds:
        mine = {run.name: run.evaluation() for run in runs if run.seed == seed}
        warm = next(iter(mine.values()))["before"]
        cells = {f"`{name}`": _pair(held["after"]) for name, held in mine.items()}
        rows.append({"seed": str(seed), WARM: _pair(warm), **cells})
    return markdown(rows)


def _grid(study: Study, runs: Sequence[Arm], names: Sequence[str], columns: Sequence[str], what: str) -> str:
    rows = []
    for name in (name for name in names if name in study.names):
        for how in ("sampled", "greedy"):
            cells = {}
            for column in columns:
                mine = [run for run in runs if run.name == f"{name}-{column}"]
                cells[f"{what} {column}"] = percent([_value(run.evaluation()["after"], how) for run in mine])
            rows.append({"arm": f"`{name}`", "": "T=1" if how == "sampled" else "greedy", **cells})
    return markdown(rows, words=2)


def _noise(study: Study, runs: Sequence[Arm]) -> str:
    budget = study.budgets[len(study.budgets) // 2]
    rows = []
    for name in (name for name in NOISY if name in study.names):
        clean = [run for run in runs if run.name == name]
        cells = {"noise 0": percent(successes(study, clean, budget))}
        for flip in NOISES:
            mine = [run for run in runs if run.name == f"{name}-{flip}"]
            cells[f"noise {flip}"] = percent([_value(run.evaluation()["after"]) for run in mine])
        rows.append({"arm": f"`{name}`", **cells})
    return markdown(rows)


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
