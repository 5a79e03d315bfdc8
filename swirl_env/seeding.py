"""Seeds of episodes and the randomness of agents: no result depends on what else is in the batch."""

from __future__ import annotations

import hashlib
import random

from swirl_env.types import State


def episode_seed(seed: int, task_id: str, sample: int) -> int:
    """Returns the seed of an episode, the same wherever and whenever it is run: 63 bits of BLAKE2b."""
    digest = hashlib.blake2b(f"{seed}\0{task_id}\0{sample}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest) >> 1


def generator(seed: int, state: State) -> random.Random:
    """Returns the generator for one decision: the same for the same agent seed, episode seed and number of steps."""
    return random.Random(f"{seed} {state.seed} {len(state.steps)}")
