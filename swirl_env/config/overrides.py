"""Configuration as one types it: ``key=value`` arguments and whole commands that can be pasted into a shell."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence

import msgspec
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException

from swirl_env.cluster.settings import ClusterOptions
from swirl_env.config.plugins import LISTS, NONE, defaults, section

_PLAIN_KEY = re.compile(r"[+~]{0,2}[\w./@-]+")
_BARE = re.compile(r"[A-Za-z_./][\w./:@+-]*", re.ASCII)
"""Text that hydra reads as it stands."""
_WORDS = re.compile(r"(?i)null|true|false|nan|inf")
"""Text that hydra would read as something other than text."""


def command(*words: object) -> str:
    """Returns ``swirl WORDS`` quoted for a shell, in characters that a terminal prints."""
    return " ".join(map(_quoted, ["swirl", *map(str, words)]))


def _quoted(word: str) -> str:
    """Returns a word as a shell reads it; control characters, in a folder's name for one, come as octal escapes."""
    if word.isprintable():
        return shlex.quote(word)
    escaped = "".join(_escaped(char) for char in word)
    return f"$'{escaped}'"


def _escaped(char: str) -> str:
    if char in "\\'":
        return f"\\{char}"
    return char if char.isprintable() else "".join(f"\\{byte:03o}" for byte in char.encode("utf-8", "surrogateescape"))


def overrides(config: Mapping[str, object], prefix: str = "") -> Iterator[str]:
    """Yields a configuration, sections included, as the arguments that set it."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from overrides(value, f"{prefix}{key}.")
        else:
            yield override(f"{prefix}{key}", value)


def override(key: str, value: object) -> str:
    """Returns the argument ``key=value`` that sets a key to a value, mappings and lists included."""
    word = f"{key}={value}"
    return word if isinstance(value, str) and _is_read_as(word, value) else f"{key}={write_value(value)}"


def _is_read_as(word: str, text: str) -> bool:
    """Whether the command line reads an argument as it stands as this text: a path may hold ``=``, for one."""
    try:
        (parsed,) = OverridesParser.create().parse_overrides([readable(word)])
    except HydraException:
        return False
    return not parsed.is_sweep_override() and parsed.value() == text and "${" not in text


def readable(word: str) -> str:
    """Returns an override as hydra can read it.

    It has no words for ``judge=null``, and takes ``=`` or spaces in a value only in quotes, which a shell takes away
    (``out=runs/agent.noise=0.2`` is the folder of a sweep's run). A shell replaces ``~`` at the beginning of an argument
    only, and a folder's name may look like a number.
    """
    word = {"judge=null": "judge=none", "grader=null": "grader=none", "tool=none": "tool=[]"}.get(word, word)
    key, equals, value = word.partition("=")
    if not equals or not value or (value[0] in "[{('\"" and key != "out") or not _PLAIN_KEY.fullmatch(key):
        return word
    if value.startswith("~/") and value.isprintable():
        value = os.path.expanduser(value)
        word = f"{key}={value}"
    try:
        (parsed,) = OverridesParser.create().parse_overrides([word])
        if key == "out" and not parsed.is_sweep_override() and isinstance(parsed.value(), bool | int | float):
            return f"{key}='{value}'"
    except HydraException:
        escaped = value.replace("\\", "\\\\").replace("'", "\\'")
        return f"{key}='{escaped}'"
    return word


def write_value(value: object) -> str:
    """Returns a value in hydra's grammar: ``{rules:0.7,outcome:0.5}``, ``[a,b]``, ``null``, quoted text."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_write_key(str(key))}:{write_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ",".join(map(write_value, value)) + "]"
    text = str(value)
    if not isinstance(value, str) or (_BARE.fullmatch(text) and not _WORDS.fullmatch(text)):
        return text
    return QuotedString(text, Quote.single).with_quotes().replace("${", "\\${")


def _write_key(key: str) -> str:
    return re.sub(r"[\\()\[\]{}:=, \t]", r"\\\g<0>", key)  # keys of mappings take no quotes


def choice(group: str, config: Mapping[str, object] | None) -> list[str]:
    """Returns the arguments that choose a plugin with its options; options with their usual values are left out."""
    if config is None:
        return [f"{group}={NONE}"]
    name = str(config["name"])
    return [] if group in LISTS else [override(group, name), *_options(group, name, config)]


def tool_choices(tools: Mapping[str, Mapping[str, object]] | None) -> list[str]:
    """Returns the arguments that choose tools with their options; none for the tools of the task."""
    if tools is None:
        return []
    names = [str(config["name"]) for config in tools.values()]
    options = [word for config in tools.values() for word in _options("tool", str(config["name"]), config)]
    return [override("tool", names), *options]


def cluster_words(options: ClusterOptions) -> list[str]:
    """Returns the arguments that choose a cluster; options with their usual values are left out, and so is no cluster at all."""
    if not options:
        return []
    usual, own = msgspec.to_builtins(ClusterOptions()), msgspec.to_builtins(options)
    return [
        override("cluster", own.pop("name")),
        *(override(f"cluster.{key}", own[key]) for key in own if own[key] != usual[key]),
    ]


def command_line_keys() -> set[str]:
    """Returns the keys that the command line sets."""
    return {str(word).lstrip("+~").partition("=")[0] for word in HydraConfig.get().overrides.task}


def command_line_words() -> list[str]:
    """Returns the arguments of the command line that set something, as they were typed; none outside a stage."""
    words = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    return [str(word).replace("\\:", ":") for word in words]  # hydra escapes the words of a sweep


def _options(group: str, name: str, config: Mapping[str, object]) -> list[str]:
    usual = defaults(group, name)
    changed = {key: value for key, value in config.items() if key != "name" and value != usual.get(key)}
    return [override(f"{section(group, name)}.{key}", value) for key, value in changed.items()]
