"""Log-probabilities of the token after each of many prompts, under a local causal LM; what prompts share is read once."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from swirl_env.judges.prefix_tree import Ids, PrefixTree, build_tree, group_by_prefix
from swirl_env.kv_cache import cache_of, cache_option
from swirl_env.sequences import common_prefix

_WORTH_SHARING = 32
"""Fewer tokens than this that all prompts begin with are read with each row."""


@torch.inference_mode()
def logprobs_together(
    model: Any, prompts: Sequence[Ids], tokens: Sequence[int], row_tokens: int, batch_tokens: int
) -> list[list[float]]:
    """Returns the log-probability (nats) of each of `tokens` after each prompt, reading shared beginnings once.

    What all prompts begin with is read first and its keys and values serve every row. Prompts that share more are packed into
    one row as a tree; the rows go through the model in batches. The model must attend to all earlier tokens in every layer.

    Args:
        model: a causal LM of transformers (or one wrapped by peft).
        prompts: nonempty token ids.
        tokens: the tokens asked about.
        row_tokens: most tokens of one packed row.
        batch_tokens: most tokens of one forward pass, with padding; a row longer than that has a pass of its own.
    """
    if len(prompts) < 2:
        return logprobs_singly(model, prompts, tokens)
    groups = group_by_prefix(prompts, row_tokens)
    shared = _shared_by_all(prompts) if len(groups) > 1 else 0
    past = None
    if shared >= _WORTH_SHARING:
        start = torch.tensor([prompts[0][:shared]], device=model.device)
        past = cache_of(model(input_ids=start, use_cache=True, logits_to_keep=1))
    else:
        shared = 0
    trees = [build_tree([prompts[i][shared:] for i in group]) for group in groups]
    answers: dict[int, list[float]] = {}
    for batch in _batches([len(tree.ids) for tree in trees], batch_tokens):
        rows = _read_trees(model, [trees[i] for i in batch], tokens, past, shared)
        answers |= {
            i: row for number, found in zip(batch, rows, strict=True) for i, row in zip(groups[number], found, strict=True)
        }
    return [answers[i] for i in range(len(prompts))]


@torch.inference_mode()
def logprobs_singly(model: Any, prompts: Sequence[Ids], tokens: Sequence[int]) -> list[list[float]]:
    """Returns what `logprobs_together` returns, by a whole forward pass for each prompt."""
    answers = []
    for prompt in prompts:
        ids = torch.tensor([prompt], device=model.device)
        answers.append(_pick(model(input_ids=ids, use_cache=False, logits_to_keep=1).logits, tokens)[0, 0].tolist())
    return answers


def _read_trees(
    model: Any, trees: Sequence[PrefixTree], tokens: Sequence[int], past: Any, shared: int
) -> list[list[list[float]]]:
    """Returns the log-probabilities of `tokens` at the end of each sequence of each tree, after the `shared` tokens in `past`."""
    length = max(len(tree.ids) for tree in trees)
    ids = torch.zeros(len(trees), length, dtype=torch.long)  # [B, N]
    position = torch.zeros(len(trees), length, dtype=torch.long)  # [B, N]
    sees = torch.zeros(len(trees), length, shared + length, dtype=torch.bool)  # [B, N, S + N]
    sees[:, :, :shared] = True
    sees[:, :, shared:] |= torch.eye(length, dtype=torch.bool)  # padding sees itself: a row of nothing but -inf gives NaN
    for row, tree in enumerate(trees):
        n = len(tree.ids)
        ids[row, :n] = torch.from_numpy(tree.ids)
        position[row, :n] = torch.from_numpy(tree.position) + shared
        sees[row, :n, shared : shared + n] = torch.from_numpy(tree.sees)
    mask = torch.zeros(sees.shape, dtype=model.dtype).masked_fill_(~sees, torch.finfo(model.dtype).min)
    ends = sorted({node for tree in trees for node in tree.last})
    inputs = {"input_ids": ids, "position_ids": position, "attention_mask": mask[:, None], "logits_to_keep": torch.tensor(ends)}
    options: dict[str, Any] = {name: value.to(model.device) for name, value in inputs.items()}
    if past is not None:
        cache = copy.deepcopy(past)  # the pass appends to it
        cache.batch_repeat_interleave(len(trees))
        options[cache_option(model)] = cache
    picked = _pick(model(**options, use_cache=past is not None).logits, tokens)  # [B, E, T]
    place = {node: i for i, node in enumerate(ends)}
    return [[picked[row, place[node]].tolist() for node in tree.last] for row, tree in enumerate(trees)]


def _pick(logits: Tensor, tokens: Sequence[int]) -> Tensor:
    """Returns the log-probabilities of some tokens, [..., T], from scores of all of them, [..., V]."""
    return logits.float().log_softmax(-1)[..., list(tokens)].cpu()


def _shared_by_all(prompts: Sequence[Ids]) -> int:
    """Returns how many tokens all prompts begin with; one token of each is left to read."""
    # What the first and the last of them in order share, all share.
    return min(common_prefix(min(prompts), max(prompts)), min(map(len, prompts)) - 1)


def _batches(lengths: Sequence[int], most: int) -> Iterator[list[int]]:
    """Yields rows, by number, in batches of similar lengths: at most `most` tokens with padding, one row at least."""
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if batch and lengths[i] * (len(batch) + 1) > most:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch
