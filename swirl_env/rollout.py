"""Rollouts under their public names; the code is in `swirl_env.episodes.rollout` and `swirl_env.episodes.engine`."""

from swirl_env.episodes.rollout import collect
from swirl_env.episodes.transition import cut_short

__all__ = ["collect", "cut_short"]
