"""Randomness of agents: drawn from the episode and the step, so that no result depends on what else is in the batch."""

from __future__ import annotations

import random

from swirl_env.types import State


def generator(seed: int, state: State) -> random.Random:
    """Returns the generator for one decision: the same for the same agent seed, episode seed and number of steps."""
    return random.Random(f"{seed} {state.seed} {len(state.steps)}")
