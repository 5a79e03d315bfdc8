"""A Gymnasium space of any Unicode text, usable in every kind of vector environment.

Gymnasium's own `Text` takes a fixed character set and cannot hold a prompt; its shared-memory dispatchers know no other
text space, so ours registers itself with them.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.spaces import Space
from gymnasium.vector.utils import create_shared_memory, read_from_shared_memory, write_to_shared_memory

# What a sampled text is made of: words, markup that a parser must survive, and characters outside ASCII.
_PIECES = (
    "the ",
    "12",
    " + ",
    "<answer>",
    "</answer>",
    "<search_query>",
    "</search_query>",
    "é",
    "漢字",
    "🙂",
    "\n",
    "<",
    "a",
)


class UnicodeText(Space[str]):
    """All strings of up to `max_length` characters.

    Args:
        max_length: most characters a string may have.
        seed: seeds `sample`.
    """

    def __init__(self, max_length: int = 100_000, seed: int | np.random.Generator | None = None) -> None:
        self.max_length = max_length
        super().__init__(shape=None, dtype=None, seed=seed)

    @property
    def is_np_flattenable(self) -> bool:
        """Text of any length has no fixed-size array form."""
        return False

    def sample(self, mask: Any = None, probability: Any = None) -> str:
        """Returns a random text of words, markup and non-ASCII characters; masks have no meaning here."""
        if mask is not None or probability is not None:
            raise ValueError("UnicodeText.sample takes neither a mask nor probabilities.")
        picks = self.np_random.integers(len(_PIECES), size=int(self.np_random.integers(1, 30)))
        return "".join(_PIECES[int(i)] for i in picks)[: self.max_length]

    def contains(self, x: Any) -> bool:
        """Whether `x` is a string that is not too long."""
        return isinstance(x, str) and len(x) <= self.max_length

    def __eq__(self, other: object) -> bool:
        return isinstance(other, UnicodeText) and other.max_length == self.max_length

    def __hash__(self) -> int:
        return hash((UnicodeText, self.max_length))

    def __repr__(self) -> str:
        return f"UnicodeText({self.max_length})"

    @property
    def nbytes(self) -> int:
        """Bytes that hold any member in UTF-8."""
        return 4 * self.max_length


class SharedTexts(Sequence[str]):
    """n texts in shared memory, read when asked for.

    Gymnasium reads its shared memory once, at construction, and copies what it got at every step; so what it gets has to be
    live, and a (deep) copy of it has to be a snapshot.

    Args:
        lengths: [n] bytes in use.
        buffer: n slots of `width` bytes each.
        width: bytes a slot.
        n: number of texts.
    """

    def __init__(self, lengths: Any, buffer: Any, width: int, n: int) -> None:
        self._lengths, self._buffer, self._width, self._n = lengths, buffer, width, n

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return tuple(self[i] for i in range(*index.indices(self._n)))
        if not -self._n <= index < self._n:
            raise IndexError(index)
        start = (index % self._n) * self._width
        return bytes(self._buffer[start : start + self._lengths[index]]).decode("utf-8", "surrogatepass")

    def __deepcopy__(self, memo: dict[int, Any]) -> tuple[str, ...]:
        return tuple(self)


@create_shared_memory.register(UnicodeText)
def _create(space: UnicodeText, n: int = 1, ctx: Any = multiprocessing) -> Any:
    """One length and one slot for each of n environments."""
    return ctx.Array("q", n, lock=False), ctx.Array("c", n * space.nbytes, lock=False)


@write_to_shared_memory.register(UnicodeText)
def _write(space: UnicodeText, index: int, value: str, shared_memory: Any) -> None:
    lengths, buffer = shared_memory
    data = value.encode("utf-8", "surrogatepass")
    start = index * space.nbytes
    buffer[start : start + len(data)] = data
    lengths[index] = len(data)


@read_from_shared_memory.register(UnicodeText)  # pyright: ignore[reportArgumentType] -- a view, which Gymnasium copies
def _read(space: UnicodeText, shared_memory: Any, n: int = 1) -> SharedTexts:
    lengths, buffer = shared_memory
    return SharedTexts(lengths, buffer, space.nbytes, n)
