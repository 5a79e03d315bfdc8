"""Warm starts of several seeds, side by side, before the runs that begin with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from swirl_env.algos.warm_start import WarmStart, is_cached, warm_start
from swirl_env.benchmarks.side_by_side import context, showing, side_by_side
from swirl_env.errors import SwirlError
from swirl_env.stages.policy import warm_policy
from swirl_env.stages.progress import progress


@dataclass(frozen=True)
class _Start:
    setting: str
    seed: int
    config: WarmStart
    updates_done: Any
    """Shared with the process that shows them, without a lock: who is killed while it holds one leaves the others waiting."""


def train_warm_starts(starts: Sequence[tuple[str, int]], workers: int, config: WarmStart | None = None) -> None:
    """Trains the warm starts that are not cached, `workers` at a time.

    Args:
        starts: setting and seed of each.
        workers: processes, one thread each; one warm start, or one on a device of its own, is trained in this process.
        config: see `WarmStart`.

    Raises:
        SwirlError: if some failed, when all have ended.
    """
    config = config or WarmStart()
    missing = [start for start in starts if not is_cached(*start, config)]
    if len(missing) < 2 or workers < 2 or config.device != "cpu":
        for setting, seed in missing:
            warm_policy(setting, seed, config)
        return
    work = [_Start(setting, seed, config, context().Value("L", 0, lock=False)) for setting, seed in missing]
    with progress(f"train {len(work)} warm starts", len(work) * config.updates) as advance:
        failed = side_by_side(work, _train, workers, showing(advance, _updates, _name))
    if failed:
        reasons = "; ".join(f"{one.work.setting}, seed {one.work.seed}: {one.why().rstrip('.')}" for one in failed)
        raise SwirlError(f"{len(failed)} of {len(work)} warm starts failed. {reasons}.")


def _name(start: _Start) -> str:
    return f"{start.setting} {start.seed}"


def _updates(start: _Start, ended: bool) -> int:
    return int(start.updates_done.value)


def _train(start: _Start) -> None:
    def report(done: int, total: int, note: str) -> None:
        start.updates_done.value = done

    warm_start(start.setting, start.seed, config=start.config, report=report)
