"""Arguments of the commands that are no hydra applications: words first, then ``key=value``."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from swirl_env.errors import ConfigError, unknown_name

_BOOLS = {"true": True, "false": False}


def parse(argv: Sequence[str], known: Mapping[str, type]) -> tuple[list[str] | None, dict[str, Any]]:
    """Returns the words and the options of a command; None in place of the words if help is asked for.

    Args:
        argv: the arguments after the command's name.
        known: option -> its type: str, int or bool.

    Raises:
        UnknownName: an option that the command does not have.
        ConfigError: a value of another type.
    """
    if {"-h", "--help"} & set(argv):
        return None, {}
    words: list[str] = []
    options: dict[str, Any] = {}
    for argument in argv:
        key, equals, text = argument.partition("=")
        if not equals or not key.isidentifier():
            words.append(argument)
        elif key not in known:
            raise unknown_name("option", key, known)
        else:
            options[key] = _value(key, text, known[key])
    return words, options


def _value(key: str, text: str, kind: type) -> Any:
    if kind is bool:
        if text.lower() not in _BOOLS:
            raise ConfigError(f"{key} is true or false; got {text!r}.")
        return _BOOLS[text.lower()]
    if kind is int:
        if not text.isdecimal():
            raise ConfigError(f"{key} is a whole number; got {text!r}.")
        return int(text)
    if not text:
        raise ConfigError(f"{key}= needs a value.")
    return os.path.expanduser(text) if text.startswith("~/") else text  # as a shell would, were it an argument of its own
