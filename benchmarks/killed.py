"""Kills a run at random moments and resumes it, until it is done; then compares it with an unbroken one.

    python -m swirl_env.benchmarks.killed --episodes 2000 --kills 20

Exit code 0 if every key is there exactly once and the content is that of the unbroken run.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from swirl_env.store import Store


def main() -> int:
    """Runs the check and prints what came of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--episodes", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments")
    parser.add_argument("run", nargs="*", default=["task=atlas", "agent.noise=0.3"], help="what to generate, e.g. task=ledger")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        command = [sys.executable, "-m", "swirl_env.cli", "generate", *options.run, f"n={options.episodes}", "resume=true"]
        begun = time.monotonic()
        _run([*command, f"out={root / 'whole'}"])
        took = time.monotonic() - begun
        moments = _kill(command, root / "broken", options.kills, _size(root / "whole"), rng)
        _run([*command, f"out={root / 'broken'}"])
        return _report(root, options.episodes, moments, took)


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _kill(command: list[str], folder: Path, kills: int, size: int, rng: random.Random) -> list[int]:
    """Kills a run so many times, each soon after it has stored a random share of all; returns how many episodes it then held.

    Args:
        command: what to run.
        folder: its run folder.
        kills: how many times.
        size: bytes of trajectories of the unbroken run.
        rng: draws the shares, and up to 20 ms on top of each.
    """
    held: list[int] = []
    for share in sorted(rng.random() for _ in range(kills)):
        process = subprocess.Popen([*command, f"out={folder}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while _size(folder) < share * size and process.poll() is None:
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.02))
        process.send_signal(signal.SIGKILL)
        process.wait()
        held.append(len(Store(folder, "r").keys()) if folder.is_dir() else 0)
    return held


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in (folder / "trajectories").glob("*.jsonl"))


def _report(root: Path, episodes: int, held: list[int], took: float) -> int:
    broken, whole = Store(root / "broken", "r"), Store(root / "whole", "r")
    lines, other = _lines(root / "broken"), _lines(root / "whole")
    (table,) = broken.judges() or [""]
    exact = len(lines) == episodes and broken.keys() == whole.keys() and len(broken.keys()) == episodes
    same = lines == other
    judged = not table or dict(broken.verdicts(table)) == dict(whole.verdicts(table))
    print(f"unbroken run: {episodes} episodes in {took:.1f} s; killed {len(held)} times, holding {held} episodes")
    print(f"{len(lines)} lines, {len(broken.keys())} keys, each once: {exact}; same content: {same}; same verdicts: {judged}")
    return 0 if exact and same and judged else 1


def _lines(folder: Path) -> list[bytes]:
    return sorted(line for path in (folder / "trajectories").glob("*.jsonl") for line in path.read_bytes().splitlines())


if __name__ == "__main__":
    sys.exit(main())
