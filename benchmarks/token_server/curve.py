"""Learning curves with rollouts here and on a server: ``python -m swirl_env.benchmarks.token_server.curve --out runs/served``.

The embedded policy is trained on one setting three ways, from the same warm start and with the same budget: it samples itself; a
server does with fresh weights before each update; a server does with weights that are up to four updates old.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from swirl_env.benchmarks.token_server.server import TokenServer
from swirl_env.cli import main as swirl
from swirl_env.errors import SwirlError
from swirl_env.stages.policy import warm_policy

ARMS = {"policy": 0, "server, fresh weights": 1, "server, up to 4 updates old": 5}
"""Name -> updates between two refreshes; 0 for no server."""
LEARNS = ("algo=return_to_go", "algo.gamma=0", "algo.baseline=none", "algo.outcome_weight=5", "trainer.lr=0.001")
"""Each step its own reward, and the outcome at the last: success rises from the first updates on."""


def main(argv: Sequence[str] | None = None) -> int:
    """Trains what is not there yet and prints a table; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m swirl_env.benchmarks.token_server.curve", description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--setting", default="main")
    parser.add_argument("--updates", type=int, default=80)
    parser.add_argument("--every", type=int, default=20, help="updates between evaluations")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("words", nargs="*", help="further arguments of `swirl train`")
    options = parser.parse_args(argv)
    curves: dict[str, list[list[dict[str, Any]]]] = {}
    for number, (name, refresh) in enumerate(ARMS.items()):
        for seed in range(options.seeds):
            out = options.out / f"arm-{number}-seed-{seed}"
            curves.setdefault(name, []).append(_run(out, options, refresh, seed))
    for line in _table(curves):
        print(line)
    return 0


def _run(out: Path, options: argparse.Namespace, refresh: int, seed: int) -> list[dict[str, Any]]:
    words = [
        f"out={out}",
        f"setting={options.setting}",
        f"seed={seed}",
        f"updates={options.updates}",
        "budget=null",
        "resume=true",
    ]
    words += [*LEARNS, "trainer.importance_cap=2", f"eval.every={options.every}", "eval.quick=300", "eval.episodes=0"]
    words += ["keep_rollouts=none", *options.words]
    if len(rows := _rows(out)) >= options.updates:
        return rows
    if not refresh:
        _train(words)
    else:
        with TokenServer(warm_policy(options.setting, 0)) as server:
            words += ["rollouts=server", f"server.base_url={server.url}", f"server.model={server.name}", "server.refresh=vllm"]
            _train([*words, f"server.every={refresh}"])
    return _rows(out)


def _rows(out: Path) -> list[dict[str, Any]]:
    """Returns the metrics of a run; none if it has not begun."""
    file = out / "metrics.jsonl"
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.is_file() else []


def _train(words: Sequence[str]) -> None:
    if swirl(["train", *words]):
        raise SwirlError("a training run failed; the line above says why")


def _table(curves: dict[str, list[list[dict[str, Any]]]]) -> list[str]:
    """Returns a table: success at each evaluation, mean and standard deviation over the seeds."""
    rows = next(iter(curves.values()))[0]
    updates = [row["update"] for row in rows if row.get("eval_success") is not None]
    heads = [*(f"update {update}" for update in updates), "staleness", "mean weight of a token"]
    lines = [f"| rollouts | {' | '.join(heads)} |"]
    lines.append("| :--- |" + " ---: |" * len(heads))
    for name, seeds in curves.items():
        cells = []
        for update in updates:
            values = [100 * rows[update - 1]["eval_success"] for rows in seeds]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            cells.append(f"{statistics.mean(values):.1f} ± {spread:.1f}")
        stale = statistics.mean(row.get("staleness") or 0 for rows in seeds for row in rows)
        weight = statistics.mean(row.get("importance") or 1 for rows in seeds for row in rows)
        lines.append(f"| {name} | {' | '.join(cells)} | {stale:.1f} | {weight:.4f} |")
    return lines


if __name__ == "__main__":
    sys.exit(main())
