"""Kills a training run at random moments and resumes it, until it is done; then compares it bit by bit with an unbroken one.

    python -m swirl_env.benchmarks.killed_train --kills 5 --seeds 0 1 2 --algos swirl rft reinforce

The moments are drawn over the time that the unbroken run took, so they fall into rollouts, updates, evaluations and checkpoints
alike. Exit code 0 if every tensor and file of ``policy/``, ``metrics.jsonl`` and the figures of ``evaluation.json`` are the same.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors import deserialize

DEFAULTS = ["budget=8000", "save_every=2", "eval.every=5", "eval.quick=8", "eval.episodes=8"]
ROUNDS = {
    "swirl": ["algo.questions=48", "algo.rounds=0", "algo.updates_per_round=4", "algo.states_per_update=12"],
    "rft": ["algo.questions=64", "algo.updates_per_round=6"],
}
"""Rounds small enough for the budget to be worth several of them."""
_POLL_S = 0.002


@dataclass(frozen=True, slots=True)
class Pace:
    """How an unbroken run went, in seconds since it first wrote something."""

    updates: list[float]
    """When each update was written down."""
    end: float


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the check and prints what came of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="seeds of the moments; each gets a run of its own")
    parser.add_argument("--algos", nargs="+", default=["swirl", "rft", "reinforce"])
    parser.add_argument("--options", nargs="+", default=[], metavar="KEY=VALUE", help="of the runs, after DEFAULTS and ROUNDS")
    options = parser.parse_args(argv)
    same = True
    for algo in options.algos:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            given = [f"algo={algo}", *DEFAULTS, *ROUNDS.get(algo, []), *options.options, "resume=true"]
            command = [sys.executable, "-m", "swirl_env.cli", "train", *given]
            pace = _unbroken(command, root / "whole")
            print(f"{algo}: {len(pace.updates)} updates in {pace.end:.1f} s", flush=True)
            for seed in options.seeds:
                shutil.rmtree(root / "broken", ignore_errors=True)
                same &= _broken(command, root, pace, options.kills, seed)
    return 0 if same else 1


def _unbroken(command: list[str], folder: Path) -> Pace:
    process = _started(command, folder)
    begun, updates = None, list[float]()
    while process.poll() is None:
        now = time.monotonic()
        if begun is None and (folder / "config.yaml").exists():
            begun = now
        updates += [now - (begun or now)] * (_updates(folder) - len(updates))
        time.sleep(_POLL_S)
    if process.returncode != 0 or begun is None or not updates:
        raise SystemExit(f"The unbroken run failed (exit code {process.returncode}): {' '.join(command)}")
    return Pace(updates, time.monotonic() - begun)


def _broken(command: list[str], root: Path, pace: Pace, kills: int, seed: int) -> bool:
    """Kills a run so many times, finishes it, and says how it differs from the unbroken one; returns whether it does not."""
    folder, rng = root / "broken", random.Random(seed)
    held: list[str] = []
    last = (pace.updates[-1] + pace.end) / 2  # later, and a run that is a little faster would be done before its kill
    for moment in sorted(rng.uniform(0, last) for _ in range(kills)):
        past = [0.0, *(when for when in pace.updates if when <= moment)]
        if not _killed(command, folder, len(past) - 1, moment - past[-1]):
            break  # it was faster than the unbroken one, and is done
        torn = " in a checkpoint" if (folder / "checkpoints" / ".writing").exists() else ""
        held.append(f"{_updates(folder)}{torn}")
    process = _started(command, folder)
    if process.wait() != 0:
        print(f"  seed {seed}: killed after updates {', '.join(held)}; resumed, it failed with exit code {process.returncode}")
        return False
    results = differences(root / "whole", folder)
    print(
        f"  seed {seed}: killed {len(held)} times, after updates {', '.join(held)}; {'; '.join(results) or 'identical'}",
        flush=True,
    )
    return not results


def _killed(command: list[str], folder: Path, updates: int, delay: float) -> bool:
    """Starts or resumes a run and kills it so long after it has so many updates; returns False where it ended before."""
    files = ["metrics.jsonl"] if updates else ["config.yaml", "metrics.jsonl"]
    before = _written(folder, files)
    process = _started(command, folder)
    # What an earlier start has left says nothing: this one is at work when it has written to a file itself.
    while process.poll() is None and (_written(folder, files) == before or _updates(folder) < updates):
        time.sleep(_POLL_S)
    try:
        process.wait(delay)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


def _started(command: list[str], folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([*command, f"out={folder}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _written(folder: Path, files: Sequence[str]) -> list[tuple[int, int] | None]:
    results: list[tuple[int, int] | None] = []
    for name in files:
        try:
            stat = (folder / name).stat()
            results.append((stat.st_ino, stat.st_mtime_ns))
        except FileNotFoundError:
            results.append(None)
    return results


def _updates(folder: Path) -> int:
    try:
        return (folder / "metrics.jsonl").read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def differences(whole: Path, broken: Path) -> list[str]:
    """Returns in what two run folders differ, each in a few words; nothing where they do not.

    Args:
        whole: the run folder to compare with.
        broken: the other.
    """
    results = []
    names = {path.name for folder in (whole, broken) for path in (folder / "policy").iterdir()}
    for name in ["metrics.jsonl", *(f"policy/{name}" for name in sorted(names))]:
        one, other = (folder / name for folder in (whole, broken))
        if not (one.is_file() and other.is_file()):
            results.append(f"only one run has {name}")
        elif one.read_bytes() != other.read_bytes():
            results.append(f"{name} differs{_tensors(one, other) if one.suffix == '.safetensors' else ''}")
    if json.loads((whole / "evaluation.json").read_text()) != json.loads((broken / "evaluation.json").read_text()):
        results.append("evaluation.json differs")
    return results


def _tensors(one: Path, other: Path) -> str:
    """Returns how many tensors of two files differ."""
    first, second = (dict(deserialize(path.read_bytes())) for path in (one, other))  # type: ignore[no-untyped-call]
    unlike = [name for name in {**first, **second} if first.get(name) != second.get(name)]
    return f" in {len(unlike)} of {len(first)} tensors"


if __name__ == "__main__":
    sys.exit(main())
