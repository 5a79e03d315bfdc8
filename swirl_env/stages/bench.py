"""``swirl bench``: the main job (see `swirl_env.benchmarks.bench`)."""

from __future__ import annotations

from omegaconf import DictConfig

from swirl_env.benchmarks import bench
from swirl_env.config.options import BenchOptions, read


def main(config: DictConfig) -> None:
    """Runs the stage."""
    bench.run(read("bench", BenchOptions, config))
