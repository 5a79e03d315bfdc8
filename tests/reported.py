"""Training runs as `swirl train` leaves them, with literal figures: what the tests of the report read."""

import json
from pathlib import Path

import yaml

CONFIG = {
    "judge": {"name": "rules", "good": 1.0},
    "tool": None,
    "seed": 0,
    "warm_start": 0,
    "max_steps": None,
    "algo": {"name": "swirl", "questions": 64},
    "task": None,
    "policy": "embedded",
    "setting": "main",
    "budget": 3000,
    "eval": {"split": None, "episodes": 100, "every": 1},
    "trainer": {"lr": 0.001, "kl": 0.0},
    "model": {"dtype": "float32", "date": "2026-11-27"},
}


def estimate(value, n=100):
    return {"value": value, "low": max(0.0, value - 0.1), "high": min(1.0, value + 0.1), "n": n, "clusters": n}


def evaluation(success, good, failed=0):
    shares = dict.fromkeys(("f1", "valid_actions", "tool_errors"), estimate(0.5))
    means = {"reward": estimate(good), "steps": estimate(3.0), "tokens": estimate(20.0)}
    counts = {"episodes": 100, "failed": failed, "ungradable": 0, "unscored": 0, "failed_verdicts": 0}
    return {"accuracy": estimate(success), "process": estimate(good), **shares, **means, **counts}


def train_run(path, success, *, before=0.1, greedy=None, good=0.8, finished=True, updates=3, failed=0, **changes):
    """Writes a training run; ``changes`` are keys of its configuration, sections as mappings."""
    path = Path(path)
    path.mkdir(parents=True)
    config = {**CONFIG, **{k: {**CONFIG[k], **v} if isinstance(v, dict) and CONFIG[k] else v for k, v in changes.items()}}
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    start = {"sampled": evaluation(before, 0.4), "greedy": evaluation(before + 0.1, 0.4)}
    results = {"before": start, "at": {}}
    rows, times = [], []
    for update in range(1, updates + 1):
        share = update / updates
        spent = {"sampled_tokens": 1000 * update, "trained_tokens": 4000 * update, "judge_calls": 50 * update}
        reached = round(before + share * (success - before), 6)
        row = {"update": update, "loss": -0.1 * update, "kl": 0.0, "grad_norm": 1.0, "reward": 0.5 + 0.1 * update}
        rows.append({**row, "success": reached, "eval_success": reached, "eval_label": 0.4 + share * (good - 0.4), **spent})
        times.append({"update": update, "seconds": 2.0 * update})
    if finished:
        after = {"sampled": evaluation(success, good, failed), "greedy": evaluation(success if greedy is None else greedy, good)}
        spent = {"updates": updates, "episodes": 32 * updates, "sampled_tokens": 1000 * updates, "trained_tokens": 4000 * updates}
        results |= {"after": after, "spent": {**spent, "judge_calls": 50 * updates}}
    (path / "evaluation.json").write_text(json.dumps(results))
    for name, lines in (("metrics.jsonl", rows), ("timing.jsonl", times)):
        (path / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


SEEDS = {
    "swirl": (0.50, 0.55, 0.60, 0.02, 0.58),  # seed 3 collapsed
    "reinforce": (0.40, 0.45, 0.42, 0.41, 0.44),
}


def sweep(path="sweep", seeds=SEEDS):
    """Writes a sweep over algorithms and seeds as hydra names its cells."""
    for algo, values in seeds.items():
        for seed, success in enumerate(values):
            train_run(f"{path}/algo={algo},seed={seed}", success, algo={"name": algo}, seed=seed, warm_start=seed)
    (Path(path) / "multirun.yaml").write_text("hydra: {}\n")
    return path
