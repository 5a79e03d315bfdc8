"""What differs between versions and families of transformers models in how they keep keys and values."""

from __future__ import annotations

import inspect
from typing import Any


def cache_option(model: Any) -> str:
    """Returns the name under which a model's forward pass takes keys and values: newer transformers renamed it."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model  # what peft wrapped
    return "cache" if "cache" in inspect.signature(type(base).forward).parameters else "past_key_values"


def cache_of(output: object) -> Any:
    """Returns the cache of a forward pass, whatever name this model and version of transformers give it."""
    names = ("cache", "past_key_values", "cache_params")
    return next((getattr(output, name) for name in names if getattr(output, name, None) is not None), None)


def attends_to_all(config: Any) -> bool:
    """Returns whether every layer attends to all earlier tokens: no windows and no running states."""
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    kinds = getattr(text, "layer_types", None)
    if kinds is not None:
        return all(kind == "full_attention" for kind in kinds)
    return getattr(text, "sliding_window", None) is None
