"""Packing and trees change the attention pattern; whether a model computes the same under it is tried, never assumed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from swirl_env.algos.batch import Segment, TokenStep, chains, collate, pack, trees
from swirl_env.algos.masks import WINDOWS, window
from swirl_env.algos.scoring import ActionScorer
from swirl_env.errors import ConfigError

_LONGEST = 4_096
"""Windows longer than this are not filled: the mask is then tried on what fits."""
_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-8}
"""Largest mean difference that needs no explanation by rounding, in nats per token; 2e-2 for other dtypes."""


def check_layouts(scorer: ActionScorer, *, packed: bool, tree: bool) -> None:
    """Compares log-probs of random tokens in packed rows or trees with those of plain rows, one by one.

    The rows are long enough to leave every window of the model's layers. Layers that carry a state from token to token
    (Mamba, linear attention, convolutions) know no mask: they mix what stands next to one another in a row.

    Args:
        scorer: the policy.
        packed: whether rows are packed.
        tree: whether steps share trees.

    Raises:
        ConfigError: if they differ, with the difference.
    """
    name = " and ".join(option for option, on in (("trainer.pack", packed), ("trainer.tree", tree)) if on)
    advice = f"Leave {name} off for this model ({getattr(scorer.config, 'model_type', type(scorer.model).__name__)})."
    stateful = set(getattr(scorer.config, "layer_types", None) or ()) - set(WINDOWS)
    if stateful:
        kinds = ", ".join(sorted(stateful))
        raise ConfigError(f"{name} needs layers that take a mask; those of kind {kinds} carry a state along the row. {advice}")
    steps = _probe(scorer.config)
    single = chains([_alone(i, step) for i, step in enumerate(steps)])
    plain = _logprobs(scorer, [[row] for row in single], len(steps))
    # What the same rows differ by if they are only padded into one batch is rounding, several times larger in bfloat16.
    rounding = (_logprobs(scorer, [single], len(steps)) - plain).abs().mean().item()
    rows = trees(steps) if tree else chains(steps)
    layout = [list(pack(rows, 1 << 30)) if packed else rows]
    try:
        ours = _logprobs(scorer, layout, len(steps))
    except Exception as error:  # whatever a model raises at a mask that it does not take
        reason = f"{name} needs a model that takes an attention mask of its own; this one raised: {error}."
        raise ConfigError(f"{reason} {advice}") from error
    worst = (ours - plain).abs().mean().item()
    if not worst <= max(_TOLERANCE.get(next(scorer.parameters()).dtype, 2e-2), 2 * rounding):
        raise ConfigError(f"{name} changes this model's log-probs by {worst:.3g} nats per token (random tokens). {advice}")


def _probe(config: Any) -> list[TokenStep]:
    """Returns steps of two episodes that share context, the longest beyond the model's window."""
    generator = torch.Generator().manual_seed(0)
    length = min(window(config), _LONGEST, int(getattr(config, "max_position_embeddings", 0) or _LONGEST) - 20) + 8
    prompt, short = (tuple(_draw(n, config, generator)) for n in (max(8, length), 6))
    steps: list[TokenStep] = []
    for episode, start in ((0, prompt), (1, short)):
        first, second, third = (tuple(_draw(4, config, generator)) for _ in range(3))
        steps += [TokenStep(start, first, (), episode), TokenStep(start + first + second[:2], third, (), episode)]
        if episode == 0:
            steps.insert(1, TokenStep(start, second, (), episode))
    return steps


def _draw(n: int, config: Any, generator: torch.Generator) -> list[int]:
    drawn: list[int] = torch.randint(int(config.vocab_size), (n,), generator=generator).tolist()
    return drawn


def _alone(number: int, step: TokenStep) -> TokenStep:
    return TokenStep(step.prompt_ids, step.token_ids, (), number)


@torch.no_grad()
def _logprobs(scorer: ActionScorer, groups: list[list[list[Segment]]], steps: int) -> Tensor:
    """Returns the log-probs of the four tokens of each step, [steps, 4], one group of rows at a time."""
    values = torch.zeros(steps, 4)
    device, mode = next(scorer.parameters()).device, scorer.model.training
    scorer.model.eval()
    try:
        for rows in groups:
            batch = collate(rows).to(device)
            values[batch.step.cpu(), batch.offset.cpu()] = scorer(batch).float().cpu()
    finally:
        scorer.model.train(mode)
    return values
