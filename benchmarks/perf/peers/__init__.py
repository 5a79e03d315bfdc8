"""This package next to its peers: environment steps, retrieval, and updates of GRPO, each side in a process of its own."""

from swirl_env.benchmarks.perf.peers.compare import peers

__all__ = ["peers"]
