"""Names of generated entities: combinations of known words, of which one in ten is kept for the test split.

A name is made from its number alone, so worlds of any size need no table, and which combinations are held out depends on
the words alone: never on a world's seed or size, so no training world holds a test entity.
"""

from __future__ import annotations

from typing import Literal

from swirl_env.errors import ConfigError
from swirl_env.tasks import words

Split = Literal["train", "test"]

_MASK = (1 << 64) - 1
_BLOCK = 10
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
        """Returns where `x` goes."""
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
        split: ``train`` or ``test``; the two share words, never a combination.
        key: decides which combinations are drawn.

    Raises:
        ConfigError: where there are not enough combinations.
    """

    def __init__(self, kind: str, count: int, split: Split, key: int) -> None:
        self.test = split == "test"
        self._lead, self._middle, self._last, self._three = _sizes(kind, count, self.test)
        self._lists = LISTS[kind]
        # Test names use one last word in each block of ten, train names the other nine.
        self._slots = self._last // _BLOCK * (1 if self.test else _BLOCK - 1)
        room = self._lead * (self._middle if self._three else 1) * self._slots
        self._shuffle = Permutation(room, key)

    def __call__(self, index: int) -> str:
        """Returns the name of entity `index`."""
        rest, slot = divmod(self._shuffle(index), self._slots)
        middle, lead = divmod(rest, self._lead)
        block, place = (slot, 0) if self.test else divmod(slot, _BLOCK - 1)
        held_out = mix((lead * 1_000 + (middle + 1 if self._three else 0)) * 1_000 + block) % _BLOCK
        within = held_out if self.test else place + (place >= held_out)
        leads, middles, lasts = self._lists
        if self._three:
            return f"{leads[lead]} {middles[middle]} {lasts[block * _BLOCK + within]}"
        return f"{leads[lead]} {lasts[block * _BLOCK + within]}"


def _sizes(kind: str, count: int, test: bool) -> tuple[int, int, int, bool]:
    """Returns how many words of each list to use, and whether names have three words.

    Both splits take what the test split needs, so a test world has no word that a training world of its size lacks.
    """
    leads, middles, lasts = (len(part) for part in LISTS[kind])
    for three in (False, True):
        for width in range(20, max(leads, middles, lasts) + _BLOCK, _BLOCK):
            lead, middle, last = min(leads, width), min(middles, width), min(lasts, width)
            if lead * (middle if three else 1) * (last // _BLOCK) >= count * _SPARE:
                return lead, middle, last, three
    room = leads * middles * (lasts // _BLOCK) * (1 if test else _BLOCK - 1)
    if room < count:
        raise ConfigError(
            f"There are names for {room} entities of the kind {kind!r} in the {'test' if test else 'train'} split; "
            f"{count} were asked for. Ask for fewer documents{', or take the train split' if test else ''}."
        )
    return leads, middles, lasts, True
