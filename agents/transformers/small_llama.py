"""Generation with a small Llama on a CPU without the library's work around each call, which is most of the time there.

The operations are those of transformers' `LlamaForCausalLM` with its ``sdpa`` attention, in their order, so log-probabilities
and sampled tokens are the same bit for bit. A model of another kind, or a larger one, is left to the library.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, linear, scaled_dot_product_attention, silu
from transformers import DynamicCache, LlamaForCausalLM
from transformers.activations import ACT2FN
from transformers.models.llama import modeling_llama

from swirl_env.agents.transformers.small_cache import SmallCache

_WIDEST = 256
"""Hidden size above which the operations themselves are most of the time."""
_BARE = {"attention_bias": False, "mlp_bias": False, "attention_dropout": 0.0, "hidden_act": "silu"}
"""Options of models whose layers have no other weights, and do nothing else with them, than is done here."""
_PARTS = frozenset(
    {LlamaForCausalLM, *(getattr(modeling_llama, f"Llama{name}") for name in ("Model", "DecoderLayer", "Attention", "MLP"))}
    | {modeling_llama.LlamaRMSNorm, modeling_llama.LlamaRotaryEmbedding, type(ACT2FN["silu"])}
    | {nn.ModuleList, nn.Embedding, nn.Linear}
)
"""Classes of the modules of such a model."""


def small_llama(model: Any) -> SmallLlama | None:
    """Returns the passes of a model that is one of these; None for any other.

    The weights are those of the model itself, as it holds them now.
    """
    if type(model) is not LlamaForCausalLM or torch.is_autocast_enabled("cpu"):
        return None
    config, weight = model.config, model.get_input_embeddings().weight
    plain = all(getattr(config, key, value) == value for key, value in _BARE.items())
    heads = config.num_attention_heads == config.num_key_value_heads and config._attn_implementation == "sdpa"
    rotation = getattr(config, "rope_parameters", None) or {}
    if not (plain and heads and rotation.get("rope_type") == "default" and config.hidden_size <= _WIDEST):
        return None
    if weight.dtype != torch.float32 or weight.device.type != "cpu":
        return None
    parts = list(model.modules())
    whole = sum(type(part) is nn.Linear for part in parts) == 7 * len(model.model.layers) + 1
    return SmallLlama(model) if whole and all(map(_is_plain, parts)) else None


def _is_plain(part: nn.Module) -> bool:
    """Returns whether a module is the library's own and does what its class does: nothing was put on it, or in its place."""
    state = vars(part)
    changed = state["_forward_hooks"] or state["_forward_pre_hooks"] or "forward" in state
    return type(part) in _PARTS and not changed and state["_parameters"].get("bias") is None


@dataclass(frozen=True, slots=True)
class _Layer:
    """Weights of a layer."""

    before: Tensor
    """Of the norm before attention."""
    query: Tensor
    key: Tensor
    value: Tensor
    out: Tensor
    between: Tensor
    """Of the norm before the feed-forward part."""
    gate: Tensor
    up: Tensor
    down: Tensor


class SmallLlama:
    """A small Llama as a function of ids, mask, positions and cache; see `small_llama`.

    Args:
        model: the model.
    """

    def __init__(self, model: LlamaForCausalLM) -> None:
        decoder: Any = model.model
        first = decoder.layers[0].self_attn
        self._words, self._head = decoder.embed_tokens.weight, model.lm_head.weight
        self._norm, self._eps = decoder.norm.weight, decoder.norm.variance_epsilon
        self._heads, self._size, self._scale = model.config.num_attention_heads, first.head_dim, first.scaling
        self._layers = [_layer(layer) for layer in decoder.layers]
        self._frequencies = decoder.rotary_emb.inv_freq  # [size / 2]

    def up_to(self, length: int) -> SmallLlama:
        """Makes room for rows of so many columns, padding included; returns these passes."""
        angles = torch.arange(length)[:, None].float() * self._frequencies  # [length, size / 2]
        angles = torch.cat((angles, angles), dim=-1)
        self._cos, self._sin, self._room = angles.cos(), angles.sin(), length
        return self

    def __call__(
        self, ids: Tensor, mask: Tensor, position: Tensor, cache: DynamicCache | SmallCache | None
    ) -> tuple[Tensor, SmallCache]:
        """Returns the logits at the last of the ids, [B, V], and the cache.

        Args:
            ids: what is new in each row, [B, S].
            mask: zero at padding, over what the cache holds and `ids`, [B, P + S].
            position: places of the ids in their rows, [B, S].
            cache: keys and values of what was read; None for nothing. A small one grows in place.
        """
        held = cache if isinstance(cache, SmallCache) else self._small(cache, len(ids))
        start, held.size = held.size, held.size + ids.shape[1]
        seen = _seen(mask, ids.shape[1])
        turn = self._cos[position][:, None], self._sin[position][:, None]  # [B, 1, S, D] each
        hidden = embedding(ids, self._words)
        for number, layer in enumerate(self._layers):
            add = partial(held.add, number, start)
            hidden = hidden + self._attention(_normed(hidden, layer.before, self._eps), layer, turn, seen, add)
            mixed = _normed(hidden, layer.between, self._eps)
            hidden = hidden + linear(silu(linear(mixed, layer.gate)) * linear(mixed, layer.up), layer.down)
        return linear(_normed(hidden[:, -1:], self._norm, self._eps), self._head)[:, -1], held

    def _small(self, cache: DynamicCache | None, rows: int) -> SmallCache:
        """Returns a cache with room, of what one of the library's holds."""
        held: list[Any] = [] if cache is None else cache.layers
        size = held[0].keys.shape[2] if held else 0
        whole = self._words.new_empty(len(self._layers), 2, rows, self._heads, self._room, self._size)
        for number, layer in enumerate(held):
            whole[number, 0, :, :, :size], whole[number, 1, :, :, :size] = layer.keys, layer.values
        return SmallCache(whole, size)

    def _attention(
        self,
        hidden: Tensor,
        layer: _Layer,
        turn: tuple[Tensor, Tensor],
        seen: Tensor | None,
        add: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    ) -> Tensor:
        rows, new = hidden.shape[:2]
        split = rows, new, self._heads, self._size
        query, key, value = (linear(hidden, w).view(split).transpose(1, 2) for w in (layer.query, layer.key, layer.value))
        key, value = add(_rotated(key, *turn), value)
        whole = seen is None and new > 1  # nothing is cached and nothing padded
        mixed = scaled_dot_product_attention(
            _rotated(query, *turn), key, value, attn_mask=seen, scale=self._scale, is_causal=whole
        )  # fmt: skip
        return linear(mixed.transpose(1, 2).reshape(rows, new, -1), layer.out)


def _layer(layer: Any) -> _Layer:
    attention, forward = layer.self_attn, layer.mlp
    return _Layer(
        layer.input_layernorm.weight,
        attention.q_proj.weight,
        attention.k_proj.weight,
        attention.v_proj.weight,
        attention.o_proj.weight,
        layer.post_attention_layernorm.weight,
        forward.gate_proj.weight,
        forward.up_proj.weight,
        forward.down_proj.weight,
    )


def _seen(mask: Tensor, new: int) -> Tensor | None:
    """Returns what each new id attends to, [B, 1, S or 1, P + S]; None if attention needs no mask."""
    length = mask.shape[1]
    if new in (1, length) and bool(mask.all()):
        return None
    rows = mask[:, None, None].bool()  # [B, 1, 1, P + S]
    if new == 1:
        return rows
    return rows & torch.ones(new, length, dtype=torch.bool).tril(length - new)


def _normed(hidden: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Returns the root mean square norm (Zhang and Sennrich, arXiv 1910.07467, eq. 4)."""
    return weight * (hidden * torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + eps))


def _rotated(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Returns queries or keys, [B, H, S, D], rotated by their positions (rotary embedding, Su et al., arXiv 2104.09864)."""
    half = heads.shape[-1] // 2
    return heads * cos + torch.cat((-heads[..., half:], heads[..., :half]), dim=-1) * sin
