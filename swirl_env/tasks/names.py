"""Names of generated entities: combinations of known words, one in ten kept for the test split and one for validation.

A name is made from its number alone, so worlds of any size need no table, and which combinations are held out depends on
the words alone: never on a world's seed or size, so no training world holds a test entity.
"""

from __future__ import annotations

from typing import Literal

from swirl_env.errors import ConfigError
from swirl_env.tasks import words

Split = Literal["train", "validation", "test"]

_MASK = (1 << 64) - 1
_BLOCK = 10
_FIRST = {"test": 0, "validation": 1, "train": 2}
_PLACES = {"test": 1, "validation": 1, "train": _BLOCK - 2}
"""Which places of a block of ten combinations each split has, counted from a place that the words alone decide."""
_SPARE = 5 / 4
"""Combinations offered for one entity, so that worlds of different seeds differ in their names."""

LISTS: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "person": (words.FIRST, words.MIDDLE, words.LAST),
    "firm": (words.FIRM_LEAD, words.FIRM_MIDDLE, words.FIRM_KIND),
    "school": (words.SCHOOL_LEAD, words.SCHOOL_MIDDLE, words.SCHOOL_KIND),
    "city": (words.CITY_LEAD, words.CITY_MIDDLE, words.CITY_ROOT),
    "region": (words.REGION_LEAD, words.REGION_MIDDLE, words.REGION_ROOT),
}
"""Kind of entity -> the words of its names, in order; the middle one is used in large worlds only."""


def mix(x: int) -> int:
    """Returns a well-spread 64-bit hash of an integer (the finaliser of splitmix64, Steele et al. 2014)."""
    x &= _MASK
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & _MASK
    return x ^ (x >> 31)


class Permutation:
    """A shuffle of 0..n-1 without a table: bijective steps on the next power of two, walked until they land below n."""

    def __init__(self, n: int, key: int) -> None:
        bits = max((n - 1).bit_length(), 1)
        first, second, third = mix(key), mix(key + 1), mix(key + 2)
        self._n = n
        self._mask = (1 << bits) - 1
        self._shift = (bits + 1) // 2
        self._steps = tuple((k >> 32 | 1, k & 0xFFFFFFFF) for k in (first, second, third))

    def __call__(self, x: int) -> int:
        """Returns the image of `x`."""
        mask, shift, n = self._mask, self._shift, self._n
        (m1, a1), (m2, a2), (m3, a3) = self._steps
        while True:
            x = (x * m1 + a1) & mask
            x = ((x ^ x >> shift) * m2 + a2) & mask
            x = ((x ^ x >> shift) * m3 + a3) & mask
            x ^= x >> shift
            if x < n:
                return x


class Names:
    """The names of one kind of entity in one world, all different.

    Args:
        kind: key of `LISTS`.
        count: how many entities there are.
        split: ``train``, ``validation`` or ``test``; they share words, never a combination.
        key: decides which combinations are drawn.
        words: how many words of each list to use; None for as many as a test world of that many entities needs.

    Raises:
        ConfigError: if there are not enough combinations.
    """

    def __init__(self, kind: str, count: int, split: Split, key: int, words: int | None = None) -> None:
        self._lists = LISTS[kind]
        self._first, self._places = _FIRST[split], _PLACES[split]
        sizes = _needed(kind, count) if words is None else _fixed(kind, count, split, words)
        self._lead, self._middle, last = sizes
        self._slots = _slots(last, split)
        if self._lead * max(self._middle, 1) * self._slots < count:
            raise _too_few(kind, count, split, self._lead * max(self._middle, 1) * self._slots, words)
        self._shuffle = Permutation(self._lead * max(self._middle, 1) * self._slots, key)

    def __call__(self, index: int) -> str:
        """Returns the name of entity `index`."""
        rest, slot = divmod(self._shuffle(index), self._slots)
        middle, lead = divmod(rest, self._lead)
        block, place = divmod(slot, self._places)
        held_out = mix((lead * 1_000 + (middle + 1 if self._middle else 0)) * 1_000 + block) % _BLOCK
        within = (held_out + self._first + place) % _BLOCK
        leads, middles, lasts = self._lists
        if self._middle:
            return f"{leads[lead]} {middles[middle]} {lasts[block * _BLOCK + within]}"
        return f"{leads[lead]} {lasts[block * _BLOCK + within]}"


def _slots(last: int, split: Split) -> int:
    return last // _BLOCK * _PLACES[split]


def _needed(kind: str, count: int) -> tuple[int, int, int]:
    """Returns how many words of each list to use, 0 of the middle one for names of two words.

    All splits take what the test split needs, so a test world has no word that a training world of its size lacks. Worlds
    beyond that take all words.
    """
    leads, middles, lasts = (len(part) for part in LISTS[kind])
    for three in (False, True):
        for width in range(20, max(leads, middles, lasts) + _BLOCK, _BLOCK):
            lead, middle, last = min(leads, width), min(middles, width) if three else 0, min(lasts, width)
            if lead * max(middle, 1) * _slots(last, "test") >= count * _SPARE:
                return lead, middle, last
    return leads, middles, lasts


def _fixed(kind: str, count: int, split: Split, words: int) -> tuple[int, int, int]:
    """Returns the same if `words` is set; names have two words if that is enough."""
    if words < _BLOCK or words % _BLOCK:
        raise ConfigError(f"words must be a multiple of {_BLOCK}, as one name in {_BLOCK} is held out; got {words}.")
    lead, middle, last = (min(len(part), words) for part in LISTS[kind])
    return (lead, 0 if lead * _slots(last, split) >= count else middle, last)


def _too_few(kind: str, count: int, split: Split, room: int, words: int | None) -> ConfigError:
    more = "" if words is None else " or more words"
    train = "" if split == "train" else ", or take the train split"
    return ConfigError(
        f"There are names for {room} entities of the kind {kind!r} in the {split} split; {count} were asked for. "
        f"Ask for fewer documents{more}{train}."
    )
