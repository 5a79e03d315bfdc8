"""The day that chat templates are told, fixed when a run begins: a run that goes on tomorrow has the prompts of today."""

from __future__ import annotations

import datetime
from typing import Any, TypeVar

import msgspec

from swirl_env.config.options import RunOptions
from swirl_env.stages.run_config import Config

R = TypeVar("R", bound=RunOptions)
_AGENT = "transformers"


def pin_dates(options: R, stored: Config | None) -> R:
    """Returns the options with each ``date: null`` of a language model filled in.

    Args:
        options: those of the command line.
        stored: the configuration of the run that goes on, whose dates hold; None for a new run, which begins today.
    """
    changes: dict[str, Any] = {}
    for key in ("agent", "judge", "grader", "model"):
        value = getattr(options, key, None)
        if key == "model" and isinstance(value, msgspec.Struct):
            day = (stored or {}).get(key, {}).get("date") if stored else _today()
            if getattr(value, "date", None) is None and day is not None:
                changes[key] = msgspec.structs.replace(value, date=day)
        elif isinstance(value, dict):
            changes[key] = _pinned(value, None if stored is None else stored.get(key))
    return msgspec.structs.replace(options, **changes) if changes else options


def _pinned(value: dict[str, Any], stored: object) -> dict[str, Any]:
    """Returns the options of a plugin, and of plugins in them, with their dates."""
    before: dict[str, Any] = stored if isinstance(stored, dict) else {}
    pinned = {key: _pinned(inner, before.get(key)) if isinstance(inner, dict) else inner for key, inner in value.items()}
    if value.get("name") == _AGENT and value.get("date") is None:
        day = _today() if stored is None else before.get("date")
        if day is not None:
            pinned["date"] = day
    return pinned


def _today() -> str:
    return datetime.date.today().isoformat()
