"""Attention masks of packed rows and trees, for models whose layers see all of their past and for those that see a window.

`batch.collate` says which tokens are in a token's past. Layers with a window see only the nearest of them, by position on
the token's own path, and models of several kinds of layers take one mask per kind.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Attention = Tensor | dict[str, Tensor] | None
"""What a model takes as its attention mask."""


def attention(mask: Tensor | None, positions: Tensor, config: Any, dtype: torch.dtype) -> Attention:
    """Returns the masks for a model, as zeros and the dtype's lowest value, which every attention implementation takes.

    Args:
        mask: [B, 1, L, L] bool, or None for plain causal attention, which a model masks by itself.
        positions: [B, L] position of each token on its path.
        config: configuration of the text model.
        dtype: of the mask.
    """
    if mask is None:
        return None
    kinds = set(getattr(config, "layer_types", None) or ())
    if kinds and kinds <= set(WINDOWS):
        return {kind: _additive(mask & WINDOWS[kind](positions, config), dtype) for kind in sorted(kinds)}
    if getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True):
        mask = mask & _sliding(positions, config)
    return _additive(mask, dtype)


def window(config: Any) -> int:
    """Returns the shortest window that a layer of the model sees, in tokens; 0 if all layers see all of their past."""
    kinds = getattr(config, "layer_types", None)
    sizes = [
        int(getattr(config, name, None) or 0)
        for name, kind in (("sliding_window", "sliding_attention"), ("attention_chunk_size", "chunked_attention"))
        if kinds is None or kind in kinds
    ]
    return min((size for size in sizes if size), default=0)


def _everything(positions: Tensor, config: Any) -> Tensor:
    return torch.ones(1, 1, 1, 1, dtype=torch.bool, device=positions.device)


def _sliding(positions: Tensor, config: Any) -> Tensor:
    """The nearest `sliding_window` tokens, the token itself among them."""
    return (positions[:, None, :, None] - positions[:, None, None, :]) < int(config.sliding_window)


def _chunked(positions: Tensor, config: Any) -> Tensor:
    """Tokens of the same chunk of `attention_chunk_size` positions."""
    chunk = torch.div(positions, config.attention_chunk_size, rounding_mode="floor")
    return chunk[:, None, :, None] == chunk[:, None, None, :]


WINDOWS: dict[str, Callable[[Tensor, Any], Tensor]] = {
    "full_attention": _everything,
    "sliding_attention": _sliding,
    "chunked_attention": _chunked,
}
"""Kind of layer, as transformers names it -> the part of its past that it sees."""


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, torch.finfo(dtype).min)
