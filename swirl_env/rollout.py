"""Rollouts under their public names; the code is in `swirl_env.episodes.rollout` and `swirl_env.episodes.engine`."""

from swirl_env.episodes.engine import cut_short
from swirl_env.episodes.rollout import collect

__all__ = ["collect", "cut_short"]
