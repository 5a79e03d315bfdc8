"""What this project's own code takes on this machine, in processor seconds."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from swirl_env.benchmarks.perf.server import server
from swirl_env.benchmarks.plan.simulation import Costs
from swirl_env.env import build_engine
from swirl_env.episodes.rollout import collect
from swirl_env.registry import make_agent
from swirl_env.store import Store
from swirl_env.store.codec import decode_trajectory, encode_trajectory

EPISODES = 1_000


def measure(episodes: int = EPISODES) -> Costs:
    """Returns the costs, each from episodes of the scripted agent on Atlas (search, rules), the call from a local server.

    Args:
        episodes: how many are played.
    """
    engine = build_engine({"name": "atlas"})
    agent = make_agent("scripted", noise=0.2)
    list(collect(agent, engine, min(100, episodes)))  # opens the index
    begun = time.process_time()
    trajectories = list(collect(agent, engine, episodes))
    steps = sum(len(trajectory.steps) for trajectory in trajectories)
    # The scripted agent's own time is in it; the policy that is planned for is elsewhere, so this is an upper bound.
    env_step = (time.process_time() - begun) / steps
    lines = [encode_trajectory(trajectory) for trajectory in trajectories]
    with tempfile.TemporaryDirectory() as folder, Store(Path(folder) / "run") as store:
        begun = time.process_time()
        for line in lines:
            store.append(decode_trajectory(line))
        episode = (time.process_time() - begun) / episodes
    call = next(row.p50 for row in server(size=32, rounds=1).rows if row.unit == "ms") / 1e3
    return Costs(env_step, call, episode)
