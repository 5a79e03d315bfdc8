"""Steps -> token batches in which shared context is computed once.

All K steps of a trajectory share one forward pass if each rendered state begins, id for id, with the state before it and
the action sampled there; that is checked on the ids, never assumed, and a step that does not fit starts a row of its own. The
gradient is the same either way.

A row is a forest of segments: runs of tokens, each of which continues another (its parent) from some point on, or begins a
text of its own. One chain of steps is one segment. Packing puts several chains into a row; a tree lets many actions sampled
at one state branch off from it (`tree=True`). The attention mask follows from the segments: a token attends to its own past
and to nothing else in the row.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

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
    """Log-probs at generation, [T]; empty if unknown."""
    episode: int = 0
    """Steps of one episode stand together and in order; only they can share a row by continuing one another."""
    truncated: bool = False
    """Whether the action was cut off by the limit on new tokens."""

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
    """Returns one single-segment row per chain of steps that continue one another.

    Args:
        steps: N steps, those of an episode together and in order; a step's index here is its number in the batch.
    """
    rows: list[list[Segment]] = []
    last: TokenStep | None = None
    for number, step in enumerate(steps):
        same_episode = last is not None and last.episode == step.episode
        if not same_episode or tuple(rows[-1][0].ids) != step.prompt_ids[: len(rows[-1][0].ids)]:
            rows.append([Segment([])])
        segment = rows[-1][0]
        segment.ids += step.prompt_ids[len(segment.ids) :]
        offset = len(segment.ids)
        segment.ids += step.token_ids
        segment.targets += [(offset + k, number, k) for k in range(len(step.token_ids))]
        last = step
    return rows


def trees(steps: Sequence[TokenStep], width: int = 0, limit: int = 0) -> list[list[Segment]]:
    """Returns rows that hold every stretch of tokens shared by their steps once: one per episode, or one for several.

    Each step enters the tree along the ids that are there already and branches off where it differs, so n actions sampled at
    each state of a trajectory cost the trajectory once and their own tokens. Episodes of one question begin alike; those that
    stand together share a row if that is less work: the beginning is computed once, but attention looks over a longer row.

    Args:
        steps: N steps, those of an episode together and in order.
        width: hidden size of the model, which decides what is less work; 0 for a row per episode.
        limit: most tokens of a row of several episodes.
    """
    rows: list[list[Segment]] = []
    number = 0
    for _, group in itertools.groupby(steps, key=lambda step: step.episode):
        episode = list(group)
        alone: list[Segment] = []
        for i, step in enumerate(episode, number):
            _insert(alone, i, step)
        if rows and width and _is_less_together(rows[-1], alone, episode[0], width, limit):
            for i, step in enumerate(episode, number):
                _insert(rows[-1], i, step)
        else:
            rows.append(alone)
        number += len(episode)
    return rows


def _is_less_together(row: Sequence[Segment], alone: Sequence[Segment], first: TokenStep, width: int, limit: int) -> bool:
    """Returns whether an episode is less work in a row of others than in one of its own."""
    shared = sum(known for _, known in _shared_path(row, (*first.prompt_ids, *first.token_ids)))
    together = row_tokens(row) + row_tokens(alone) - shared
    apart = _work(row_tokens(row), len(row) > 1, width) + _work(row_tokens(alone), len(alone) > 1, width)
    return shared > 0 and together <= limit and _work(together, True, width) < apart


def _work(tokens: int, masked: bool, width: int) -> float:
    """Returns the time of a row up to a factor.

    Per layer and token it is 24 width^2 operations for the layers, and 4 width for attention to each token of the row, which
    are slower ones: by the factors below on a CPU (SmolLM2-135M in bfloat16, forward and backward), causal or under a mask.
    """
    return tokens * (6 * width + (2.5 if masked else 1.7) * tokens)


def _insert(row: list[Segment], number: int, step: TokenStep) -> None:
    """Adds a step to a tree: along the tokens that are there already, then as a longer leaf or as a new branch.

    Only a segment that nothing branches off at its very end may grow in place; growing any other would put the new tokens
    into the past of its branches. A token shared by several steps stands once in the row but is a target of each of them,
    so that its log-prob counts in every step that sampled it.
    """
    ids = (*step.prompt_ids, *step.token_ids)
    path = _shared_path(row, ids)
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


def _shared_path(row: Sequence[Segment], ids: Sequence[int]) -> list[tuple[Segment, int]]:
    """Returns the segments along which `ids` already stand in the tree, each with how many of its tokens are shared.

    From the end of what is shared so far the path goes on through the branch that begins with the next id. At most one does:
    a step enters along existing tokens as far as they agree, so two branches off one point differ in their first token.
    """
    path: list[tuple[Segment, int]] = []
    rest = list(ids)  # segments hold lists, and slices of different types are never equal
    last, shared, known = None, 0, 0
    while known < len(ids):
        ways = (s for s in row if s.parent is last and s.keep == shared and s.ids[0] == ids[known])
        step = next(ways, None)
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
        for i, (used, segments) in enumerate(bins):
            if used + size <= max_tokens:
                bins[i] = (used + size, segments + row)
                break
        else:
            bins.append((size, list(row)))
    yield from (segments for _, segments in bins)


def row_tokens(row: Sequence[Segment]) -> int:
    """Returns the tokens of a row."""
    return sum(len(segment.ids) for segment in row)


def micro_batches(rows: Sequence[list[Segment]], max_tokens: int) -> Iterator[list[list[Segment]]]:
    """Groups rows of similar length so that rows x longest stays within `max_tokens` (a longer row goes alone)."""
    group: list[list[Segment]] = []
    for row in sorted(rows, key=row_tokens, reverse=True):
        longest = row_tokens(group[0]) if group else row_tokens(row)
        if group and longest * (len(group) + 1) > max_tokens:
            yield group
            group = []
        group.append(row)
    if group:
        yield group


@dataclass(slots=True)
class TokenBatch:
    """B rows of L tokens, padded on the right, with M action tokens of the steps in them."""

    input_ids: Tensor
    """[B, L]"""
    position_ids: Tensor
    """[B, L]"""
    mask: Tensor | None
    """[B, 1, L, L] bool, True if a query (row) may attend to a key (column); None if plain causal attention does."""
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

    def to(self, device: torch.device) -> TokenBatch:
        """Returns the batch on a device."""
        mask = None if self.mask is None else self.mask.to(device)
        ids, positions, row = self.input_ids.to(device), self.position_ids.to(device), self.row.to(device)
        at, targets, step, offset = (t.to(device) for t in (self.position, self.targets, self.step, self.offset))
        return TokenBatch(ids, positions, mask, row, at, targets, step, offset, self.tokens)


def collate(rows: Sequence[Sequence[Segment]], pad_id: int = 0) -> TokenBatch:
    """Lays rows out as tensors.

    Args:
        rows: B rows of segments.
        pad_id: fills the ends of shorter rows; nothing attends to it.
    """
    length = max(row_tokens(row) for row in rows)
    ids = torch.full((len(rows), length), pad_id, dtype=torch.long)
    # Positions go on over the padding: transformers takes one that does not for the start of another row packed into this one,
    # and computes attention with a mask of [B, 1, L, L] in place of the causal kernel.
    positions = torch.arange(length).repeat(len(rows), 1)
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
                _allow_past(mask[b, 0], segment)
            start = end
        if mask is not None:  # padding attends to itself: a query without keys would give NaN
            mask[b, 0, range(start, length), range(start, length)] = True
        for segment in row:
            for offset, step, k in segment.targets:
                targets.append((b, _predecessor(segment, offset), segment.ids[offset], step, k))
    row_index, before, token, step_index, place = torch.tensor(targets, dtype=torch.long).reshape(-1, 5).unbind(1)
    return TokenBatch(ids, positions, mask, row_index, before, token, step_index, place, sum(map(row_tokens, rows)))


def _allow_past(mask: Tensor, segment: Segment) -> None:
    """Lets a segment's tokens attend to their own past: causally within the segment, and to all that it continues.

    Going up from a segment, only the first `keep` tokens of each parent are its past: what the parent holds beyond the
    branch is a sibling. Positions count along the path, not along the row, so rotary embeddings see each path as if it
    stood alone.
    """
    n = len(segment.ids)
    own = slice(segment.start, segment.start + n)
    mask[own, own] = torch.ones(n, n, dtype=torch.bool).tril()
    node = segment
    while node.parent is not None:
        mask[own, node.parent.start : node.parent.start + node.keep] = True
        node = node.parent


def _predecessor(segment: Segment, offset: int) -> int:
    """Returns the index in the row of the token before the one at `offset`."""
    if offset > 0:
        return segment.start + offset - 1
    if segment.parent is None:
        raise ValueError("an action at the very start of a row has no token that predicts it; give it a prompt")
    return segment.parent.start + segment.keep - 1
