"""Packs token sequences that begin alike into one row, such that what they share is read once.

The sequences form a tree: each token is a node, and its parent is the token before it. A row holds the nodes of a tree in the
order of a walk through it; a token attends to its ancestors and to itself, and to nothing else. So one forward pass over the row
gives each sequence the hidden states of a pass of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from swirl_env.sequences import common_prefix

Ids = tuple[int, ...]


class PrefixTree(NamedTuple):
    """Sequences in one row of N nodes."""

    ids: npt.NDArray[np.int64]
    """Token of each node, [N]."""
    position: npt.NDArray[np.int64]
    """Depth of each node: the token's position in its own sequence, [N]."""
    sees: npt.NDArray[np.bool_]
    """Whether node i attends to node j, [N, N]."""
    last: tuple[int, ...]
    """The node at which each sequence ends, in the order of the sequences."""


def build_tree(sequences: Sequence[Ids]) -> PrefixTree:
    """Returns the tree of nonempty sequences."""
    order = sorted(range(len(sequences)), key=lambda i: sequences[i])
    ids: list[int] = []
    position: list[int] = []
    blocks: list[tuple[int, list[int]]] = []  # first new node of a sequence, and the ancestors of that node
    last = [0] * len(sequences)
    path: list[int] = []
    before: Ids = ()
    for i in order:
        # In sorted order, no earlier sequence shares more with this one than the one just before it.
        shared = common_prefix(before, sequences[i])
        path = path[:shared]
        blocks.append((len(ids), list(path)))
        new = range(len(ids), len(ids) + len(sequences[i]) - shared)
        ids += sequences[i][shared:]
        position += range(shared, len(sequences[i]))
        path += new
        last[i], before = path[-1], sequences[i]
    sees = np.zeros((len(ids), len(ids)), dtype=bool)
    ends = [start for start, _ in blocks[1:]] + [len(ids)]
    for (start, ancestors), end in zip(blocks, ends, strict=True):
        sees[start:end, ancestors] = True
        sees[start:end, start:end] = np.tri(end - start, dtype=bool)
    return PrefixTree(np.array(ids, dtype=np.int64), np.array(position, dtype=np.int64), sees, tuple(last))


def group_by_prefix(sequences: Sequence[Ids], most: int) -> list[list[int]]:
    """Returns the sequences, by number, in groups whose trees have at most `most` nodes; a longer sequence stands alone.

    A sequence joins the group before it if they share at least half of its tokens: less would not pay for the attention over
    a longer row.
    """
    groups: list[list[int]] = []
    size = 0
    before: Ids = ()
    for i in sorted(range(len(sequences)), key=lambda i: sequences[i]):
        shared = common_prefix(before, sequences[i])
        new = len(sequences[i]) - shared
        if groups and size + new <= most and shared >= new:
            groups[-1].append(i)
            size += new
        else:
            groups.append([i])
            size = len(sequences[i])
        before = sequences[i]
    return groups
