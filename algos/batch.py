"""Steps -> token batches in which shared context is computed once.

All K steps of a trajectory share one forward pass where each rendered state begins, id for id, with the state before it and
the action sampled there; that is checked on the ids, never assumed, and a step that does not fit starts a row of its own. The
gradient is the same either way.

A row is a forest of segments: runs of tokens, each continuing another (its parent) from some point on, or starting afresh.
One chain of steps is one segment. Packing puts several chains into a row; a tree lets many actions sampled at one state
branch off from it (`tree=True`). The attention mask follows from the segments: a token sees its own past and no neighbour.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from swirl_env.sequences import common_prefix


@dataclass(frozen=True, slots=True)
class TokenStep:
    """One action to train on, as token ids."""

    prompt_ids: tuple[int, ...]
    """The state it was sampled in, [S]."""
    token_ids: tuple[int, ...]
    """What was sampled, [T]; only these carry loss."""
    behaviour: tuple[float, ...] = ()
    """Log-probs at generation, [T]; empty where unknown."""
    episode: int = 0
    """Steps of one episode stand together and in order; only they can share a row by continuing one another."""

    @property
    def size(self) -> int:
        """Tokens of a row that holds this step alone."""
        return len(self.prompt_ids) + len(self.token_ids)


@dataclass(slots=True)
class Segment:
    """A run of tokens in a row."""

    ids: list[int]
    parent: Segment | None = None
    keep: int = 0
    """How many of the parent's tokens come before this run."""
    depth: int = 0
    """Position of the first token: how many tokens come before it in all."""
    targets: list[tuple[int, int, int]] = field(default_factory=list)
    """Tokens that carry loss: (offset in this run, number of the step, offset in its action)."""
    start: int = 0
    """Index of the first token in its row; set when the row is laid out."""


def chains(steps: Sequence[TokenStep]) -> list[list[Segment]]:
    """Returns one single-segment row a chain of steps that continue one another.

    Args:
        steps: N steps, those of an episode together and in order; a step's index here is its number in the batch.
    """
    rows: list[list[Segment]] = []
    last: TokenStep | None = None
    for number, step in enumerate(steps):
        goes_on = last is not None and last.episode == step.episode
        if not goes_on or tuple(rows[-1][0].ids) != step.prompt_ids[: len(rows[-1][0].ids)]:
            rows.append([Segment([])])
        segment = rows[-1][0]
        segment.ids += step.prompt_ids[len(segment.ids) :]
        offset = len(segment.ids)
        segment.ids += step.token_ids
        segment.targets += [(offset + k, number, k) for k in range(len(step.token_ids))]
        last = step
    return rows


def trees(steps: Sequence[TokenStep]) -> list[list[Segment]]:
    """Returns one row an episode: a tree in which every stretch of tokens shared by its steps stands once.

    Each step enters the tree along the ids that are there already and branches off where it differs, so n actions sampled at
    each state of a trajectory cost the trajectory once and their own tokens.
    """
    rows: list[list[Segment]] = []
    last: TokenStep | None = None
    for number, step in enumerate(steps):
        if last is None or last.episode != step.episode:
            rows.append([])
        _plant(rows[-1], number, step)
        last = step
    return rows


def _plant(row: list[Segment], number: int, step: TokenStep) -> None:
    """Adds a step to a tree: along what is there already, then by extending its end or by a branch."""
    ids = (*step.prompt_ids, *step.token_ids)
    path = _walk(row, ids)
    known = sum(shared for _, shared in path)
    if known < len(ids):
        rest = list(ids[known:])
        last, shared = path[-1] if path else (None, 0)
        if last is not None and shared == len(last.ids) and not any(s.parent is last and s.keep == shared for s in row):
            last.ids += rest
            path[-1] = (last, len(last.ids))
        else:
            branch = Segment(rest, last, shared, known)
            row.append(branch)
            path.append((branch, len(rest)))
    first = len(step.prompt_ids)
    for segment, shared in path:
        low, high = max(first, segment.depth), segment.depth + shared
        segment.targets += [(depth - segment.depth, number, depth - first) for depth in range(low, high)]


def _walk(row: Sequence[Segment], ids: Sequence[int]) -> list[tuple[Segment, int]]:
    """Returns the path of segments that begins as `ids` does, each with how many of its tokens are shared."""
    path: list[tuple[Segment, int]] = []
    rest = list(ids)  # segments hold lists, and slices of different types are never equal
    last, shared, known = None, 0, 0
    while known < len(ids):
        ways = (s for s in row if s.parent is last and s.keep == shared and s.ids[0] == ids[known])
        step = next(ways, None)  # at most one: two branches from one point differ in their first token
        if step is None:
            break
        shared = common_prefix(step.ids, rest[known:])
        path.append((step, shared))
        last, known = step, known + shared
    return path


def pack(rows: Iterable[list[Segment]], max_tokens: int) -> Iterator[list[Segment]]:
    """Merges rows, longest first, into rows of up to `max_tokens` tokens (first fit); longer ones stay alone."""
    bins: list[tuple[int, list[Segment]]] = []
    for row in sorted(rows, key=row_tokens, reverse=True):
        size = row_tokens(row)
        for i, (used, held) in enumerate(bins):
            if used + size <= max_tokens:
                bins[i] = (used + size, held + row)
                break
        else:
            bins.append((size, list(row)))
    yield from (held for _, held in bins)


def row_tokens(row: Sequence[Segment]) -> int:
    """Returns the tokens of a row."""
    return sum(len(segment.ids) for segment in row)


def micro_batches(rows: Sequence[list[Segment]], max_tokens: int) -> Iterator[list[list[Segment]]]:
    """Groups rows of similar length so that rows x longest stays within `max_tokens` (a longer row goes alone)."""
    held: list[list[Segment]] = []
    for row in sorted(rows, key=row_tokens, reverse=True):
        longest = row_tokens(held[0]) if held else row_tokens(row)
        if held and longest * (len(held) + 1) > max_tokens:
            yield held
            held = []
        held.append(row)
    if held:
        yield held


@dataclass(slots=True)
class TokenBatch:
    """B rows of L tokens, padded on the right, with M action tokens of the steps in them."""

    input_ids: Tensor
    """[B, L]"""
    position_ids: Tensor
    """[B, L]"""
    mask: Tensor | None
    """[B, 1, L, L] bool, True where a query (row) may look at a key (column); None where plain causal attention serves."""
    row: Tensor
    """[M] row of the position that predicts each action token."""
    position: Tensor
    """[M] index in its row of that position."""
    targets: Tensor
    """[M] the action token."""
    step: Tensor
    """[M] number of the step, in the order in which the steps were given."""
    offset: Tensor
    """[M] place of the token in its action."""
    tokens: int
    """Tokens that the forward pass computes, padding left out."""

    def to(self, device: Any) -> TokenBatch:
        """Returns the batch on a device."""
        mask = None if self.mask is None else self.mask.to(device)
        ids, positions, row = self.input_ids.to(device), self.position_ids.to(device), self.row.to(device)
        at, targets, step, offset = (t.to(device) for t in (self.position, self.targets, self.step, self.offset))
        return TokenBatch(ids, positions, mask, row, at, targets, step, offset, self.tokens)


def collate(rows: Sequence[Sequence[Segment]], pad_id: int = 0) -> TokenBatch:
    """Lays rows out as tensors.

    Args:
        rows: B rows of segments.
        pad_id: fills the ends of shorter rows; nothing looks at it.
    """
    length = max(row_tokens(row) for row in rows)
    ids = torch.full((len(rows), length), pad_id, dtype=torch.long)
    positions = torch.zeros(len(rows), length, dtype=torch.long)
    plain = all(len(row) == 1 for row in rows)
    mask = None if plain else torch.zeros(len(rows), 1, length, length, dtype=torch.bool)
    targets: list[tuple[int, int, int, int, int]] = []
    for b, row in enumerate(rows):
        start = 0
        for segment in row:
            segment.start, end = start, start + len(segment.ids)
            ids[b, start:end] = torch.tensor(segment.ids)
            positions[b, start:end] = torch.arange(segment.depth, segment.depth + len(segment.ids))
            if mask is not None:
                _look(mask[b, 0], segment)
            start = end
        if mask is not None:  # padding looks at itself: a query without keys would be NaN
            mask[b, 0, range(start, length), range(start, length)] = True
        for segment in row:
            for offset, step, k in segment.targets:
                targets.append((b, _before(segment, offset), segment.ids[offset], step, k))
    row_of, before, token, step_of, place = torch.tensor(targets, dtype=torch.long).reshape(-1, 5).unbind(1)
    return TokenBatch(ids, positions, mask, row_of, before, token, step_of, place, sum(map(row_tokens, rows)))


def _look(mask: Tensor, segment: Segment) -> None:
    """Lets a segment's tokens see their own past: causally in the segment, and all that it continues."""
    n = len(segment.ids)
    own = slice(segment.start, segment.start + n)
    mask[own, own] = torch.ones(n, n, dtype=torch.bool).tril()
    node = segment
    while node.parent is not None:
        mask[own, node.parent.start : node.parent.start + node.keep] = True
        node = node.parent


def _before(segment: Segment, offset: int) -> int:
    """Returns the index in the row of the token before the one at `offset`."""
    if offset > 0:
        return segment.start + offset - 1
    if segment.parent is None:
        raise ValueError("an action at the very start of a row has no token that predicts it; give it a prompt")
    return segment.parent.start + segment.keep - 1
