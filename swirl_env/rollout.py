"""Rollouts under their public name; the code is in `swirl_env.episodes.rollout`."""

from swirl_env.episodes.rollout import collect

__all__ = ["collect"]
