"""The three sizes of the page, the split of a cluster, and what is slow in each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from swirl_env.benchmarks.plan.hardware import H100, QWEN_7B, QWEN_32B, SMOLLM2, Gpu, Model, Replica, training_s
from swirl_env.benchmarks.plan.simulation import Costs, Outcome, Setup, simulate

WRITE_MS, TRAIN_MS = 5.2, 3.15
"""Of SmolLM2-135M on two cores: per token of 16 rows (docs/results/perf.md), per trained token (docs/results/smollm2.md)."""
TWO_CORES = Gpu("two CPU cores", 16, 20e9, 2 * SMOLLM2.parameters / (WRITE_MS / 1e3), 1.0, 1.0)
NETWORK = 25e9
"""Bytes per second at which new weights reach a machine: 200 Gbit/s; an assumption."""


def two_cores() -> Setup:
    """SmolLM2-135M on two cores, rollouts and updates in turn, judged by rules."""
    replica = Replica(SMOLLM2, TWO_CORES, 1, 600, most_slots=16)
    action, steps, episodes = 20, 5, 32
    return Setup(
        "two cores",
        replica,
        1,
        None,
        0,
        0,
        episodes * steps * action * TRAIN_MS / 1e3,
        1,
        episodes,
        steps=steps,
        prompt=150,
        action=action,
        result=60,
    )


def of_gpus(
    name: str, model: Model, per_replica: int, policies: int, judges: int, trainer_gpus: int, episodes: int, workers: int
) -> Setup:
    """Returns a setup of one model as policy and as judge on H100s; one update may lie between acting and training.

    Args:
        name: of the setup.
        model: policy and judge.
        per_replica: devices per replica.
        policies: replicas of the policy.
        judges: replicas of the judge.
        trainer_gpus: devices that train (FSDP).
        episodes: per update.
        workers: processes that run episodes.
    """
    replica = Replica(model, H100, per_replica, 3_000)
    setup = Setup(name, replica, policies, replica, judges, trainer_gpus, 0.0, workers, episodes, staleness=1)
    update = training_s(model, H100, trainer_gpus, episodes * setup.tokens)
    return replace(setup, update_s=update + model.weights_gb * 1e9 / NETWORK)


def one_node() -> Iterator[Setup]:
    """Yields the splits of eight GPUs for a model of 7B."""
    for policies in range(1, 7):
        for judges in range(1, 8 - policies):
            trainer = 8 - policies - judges
            if _holds(QWEN_7B, trainer):
                yield of_gpus("one node of 8 GPUs", QWEN_7B, 1, policies, judges, trainer, 256, 8)


def cluster(workers: int = 32) -> Iterator[Setup]:
    """Yields the splits of 64 GPUs for a model of 32B, two GPUs per replica; training takes whole nodes."""
    for trainer in (8, 16, 24, 32, 40, 48, 56):
        replicas = (64 - trainer) // 2
        for judges in range(1, replicas, max(1, replicas // 6)):
            if _holds(QWEN_32B, trainer):
                yield of_gpus("a cluster of 64 GPUs", QWEN_32B, 2, replicas - judges, judges, trainer, 1024, workers)


def _holds(model: Model, gpus: int) -> bool:
    """Whether full training fits on so many H100s, with a fifth of the memory left for activations."""
    return model.training_gb < 0.8 * H100.memory_gb * gpus


def best(setups: Iterator[Setup], costs: Costs) -> tuple[Setup, Outcome]:
    """Returns the split with the shortest update, and its outcome."""
    tried = [(setup, simulate(setup, costs, updates=5)) for setup in setups]
    setup, _ = min(tried, key=lambda pair: pair[1].seconds)
    return setup, simulate(setup, costs)


def gains(setup: Setup, costs: Costs) -> dict[str, float]:
    """Returns how many times faster an update comes if there is twice as much of one thing, for each."""
    now = simulate(setup, costs).seconds
    more = {
        "generation": replace(setup, policies=2 * setup.policies),
        "judging": replace(setup, judges=2 * setup.judges),
        "training": replace(setup, update_s=setup.update_s / 2),
        "workers": replace(setup, workers=2 * setup.workers),
        "staleness": replace(setup, staleness=setup.staleness + 1),
    }
    if setup.judge is None:
        del more["judging"]
    if not setup.trainer_gpus:
        del more["staleness"]  # the same cores generate and train
    results = {name: now / simulate(other, costs).seconds for name, other in more.items()}
    results["driver"] = now / simulate(setup, replace(costs, episode=costs.episode / 2)).seconds
    return results
