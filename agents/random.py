"""The random agent: calls, answers and malformed actions made of the prompt's words."""

from __future__ import annotations

import random
from collections.abc import Sequence

from swirl_env.errors import ConfigError
from swirl_env.registry import make_format
from swirl_env.seeding import generator
from swirl_env.types import Action, State

_LONGEST = 5


class RandomAgent:
    """Draws what to do and what to write: the baseline that any policy has to beat.

    Args:
        seed: seed of the draws.
        answers: how often it answers, from 0 to 1.
        malformed: how often it writes something that cannot be read; the rest are calls of a tool on offer.
    """

    def __init__(self, seed: int = 0, answers: float = 0.2, malformed: float = 0.1) -> None:
        if answers < 0 or malformed < 0 or answers + malformed > 1:
            raise ConfigError(f"answers and malformed are rates with a sum of at most 1; got {answers} and {malformed}.")
        self._seed = seed
        self._answers = answers
        self._malformed = malformed

    def act(self, states: Sequence[State]) -> list[Action]:
        """Returns one action per state."""
        return [self._one(state) for state in states]

    def _one(self, state: State) -> Action:
        rng = generator(self._seed, state)
        fmt = make_format(state.settings.format, state.settings.tools)
        text = _words(rng, state)
        drawn = rng.random()
        if drawn < self._malformed:
            return Action(text)
        if drawn < self._malformed + self._answers or not state.settings.tools:
            return Action(fmt.answer(text))
        return Action(fmt.call(rng.choice(state.settings.tools), text))


def _words(rng: random.Random, state: State) -> str:
    """Returns a few words of the prompt's last line, which holds the question."""
    # A "<" could make a tag of them, so words that hold one are left out.
    words = [word for word in state.turns[0].text.rpartition("\n")[2].split() if "<" not in word]
    return " ".join(rng.choices(words or ["nothing"], k=rng.randint(1, _LONGEST)))
