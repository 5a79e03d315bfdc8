"""Configuration as one types it: ``key=value`` arguments."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from swirl_env.config.plugins import defaults


def overrides(config: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yields a configuration, sections included, as the arguments that set it."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from overrides(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}={json.dumps(value, ensure_ascii=False, separators=(',', ':'))}"


def chosen(group: str, config: Mapping[str, Any]) -> str:
    """Returns a plugin's name and options as one types them in a shell; options with their usual values are left out."""
    usual = defaults(group, str(config["name"]))
    given = {key: value for key, value in config.items() if key != "name" and value != usual.get(key)}
    return shlex.join([f"{group}={config['name']}", *overrides(given, f"{group}.")])
