"""Run folders: trajectories, verdicts and selections on disk."""

from swirl_env.store.store import Store

__all__ = ["Store"]
