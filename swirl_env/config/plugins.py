"""Options of plugins as configuration: read from their signatures and docstrings, so that there is one source of truth."""

from __future__ import annotations

import functools
import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

from swirl_env.config.typed import convert_option
from swirl_env.errors import ConfigError
from swirl_env.registry import is_ready, load, names, refuse_value, serves
from swirl_env.store.filters import FILTERS, make_filter
from swirl_env.texts import IS_TEXT, recorded_text

GROUPS = ("algo", "task", "tool", "judge", "grader", "agent", "filter")
"""The config groups whose choices are plugins."""
LISTS = ("tool", "filter")
"""Groups of which several may be chosen; each choice has a section of its own, e.g. ``tool.search.top_k``."""
NONE = "none"
"""The choice ``judge=none``: no judge; ``grader=none``: the task's own grading. (``filter=none`` is a filter.)"""
_MAY_BE_NONE = ("judge", "grader")
MISSING = "???"
_FILLED_IN = {"tool": {"corpus"}}
"""Options that the program fills in unless the user sets them."""

Factory = Callable[..., Any]
"""What makes a plugin: a class or a function."""
Options = dict[str, Any]
"""Options of a plugin, by name."""


def choices(group: str) -> list[str]:
    """Returns the registered names of a group; imports none of them."""
    if group == "filter":
        return list(FILTERS)
    return [*names(group), *([NONE] if group in _MAY_BE_NONE else [])]


def is_choice(group: str, name: str) -> bool:
    """Whether `name` can be looked up: a registered name or ``package.module:Attr``."""
    return ":" in name or name in choices(group)


def section(group: str, name: str) -> str:
    """Returns the section that holds the options of a choice: ``agent``, or for groups of several ``tool.search``."""
    return f"{group}.{name.rpartition(':')[2]}" if group in LISTS else group


@functools.cache
def factory(group: str, name: str) -> Factory | None:
    """Imports the plugin behind a choice; None if it takes no options."""
    if group == "filter":
        make_filter(name)
        return None
    if group in _MAY_BE_NONE and name == NONE:
        return None
    target = load(group, name)
    if is_ready(group, target):
        return None
    refuse_value(group, name, target)
    return target


def parameters(group: str, name: str) -> dict[str, inspect.Parameter]:
    """Returns the options that a choice takes."""
    made = factory(group, name)
    if made is None:
        return {}
    signature = inspect.signature(made)
    return {key: p for key, p in signature.parameters.items() if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)}


def defaults(group: str, name: str) -> Options:
    """Returns the configuration of a choice: its name and options, with ``???`` for a required value.

    Options whose default no configuration can hold are left out, and so are those that only code can give (functions).
    """
    config: Options = {"name": name}
    hints = _hints(factory(group, name))
    for option, parameter in parameters(group, name).items():
        if option in _FILLED_IN.get(group, ()):
            config[option] = None
        elif parameter.default is parameter.empty:
            config[option] = MISSING
        elif _is_plain(parameter.default) and not _is_code(hints.get(option, Any)):
            config[option] = parameter.default
    return config


def is_open(group: str, name: str) -> bool:
    """Whether the plugin takes options of any name (``**options``)."""
    made = factory(group, name)
    return made is not None and any(p.kind is p.VAR_KEYWORD for p in inspect.signature(made).parameters.values())


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(k, str) and _is_plain(v) for k, v in value.items())
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, str | int | float | bool)


def spec(group: str, config: Mapping[str, Any] | None) -> Options | None:
    """Returns what `swirl_env.registry.make` takes, with values of the types that the signature asks for.

    Args:
        group: a group.
        config: its name and options in the configuration.

    Raises:
        ConfigError: if a value is missing or of another type.
    """
    if config is None or (group in _MAY_BE_NONE and config["name"] == NONE):
        return None
    name = str(config["name"])
    made = factory(group, name)
    if made is not None and serves(group, made) and config == defaults(group, name):
        return {"name": name}  # a function that is the plugin itself: its arguments are no options
    hints = _hints(made)
    options: Options = {"name": name}
    for option, value in config.items():
        key = f"{section(group, name)}.{option}"
        if value == MISSING:
            raise ConfigError(f"The {group} {name!r} needs a value for {option!r}: give {key}=...")
        if option == "name" or (value is None and option in _FILLED_IN.get(group, ())):
            continue
        options[option] = convert_option(key, value, hints.get(option, Any))
    return with_texts(group, options, recorded_text)


def with_texts(group: str, config: Mapping[str, Any], form: Callable[[str, str], str]) -> Options:
    """Returns a plugin's configuration with its texts (see `swirl_env.texts`) in another form.

    Args:
        group: the plugin's group.
        config: its name and options, possibly with plugins of their own (``agent=``).
        form: returns the new form of a text for the value and the option's key.
    """
    name = str(config["name"])
    hints = _hints(factory(group, name), include_extras=True)
    return {
        option: form(value, f"{section(group, name)}.{option}")
        if isinstance(value, str) and is_text(hints.get(option))
        else with_texts(option, value, form)
        if option in GROUPS and isinstance(value, Mapping) and isinstance(value.get("name"), str)
        else value
        for option, value in config.items()
    }


def is_text(hint: object) -> bool:
    """Whether a type hint says that an option is a text, a file or a name."""
    return IS_TEXT in getattr(hint, "__metadata__", ()) or any(map(is_text, typing.get_args(hint)))


def _hints(made: Factory | None, include_extras: bool = False) -> Options:
    target = made.__init__ if inspect.isclass(made) else made
    try:
        return typing.get_type_hints(target, include_extras=include_extras)
    except Exception:  # annotations of strangers may name anything; values then pass as they are
        return {}


def _is_code(hint: Any) -> bool:
    """Whether an option takes functions, or None, and nothing else."""
    origin, inner = typing.get_origin(hint), [arg for arg in typing.get_args(hint) if arg is not type(None)]
    return origin is Callable or (origin in (typing.Union, types.UnionType) and all(map(_is_code, inner)))


def docs(made: Factory | None) -> dict[str, str]:
    """Returns the descriptions of options from the ``Args:`` of a Google-style docstring, inherited ones included."""
    texts: dict[str, str] = {}
    for owner in reversed(inspect.getmro(made)) if inspect.isclass(made) else [made]:
        texts.update(_args(inspect.cleandoc(owner.__doc__ or "")))
    return texts


def summary(made: Factory | None) -> str:
    """Returns the first line of a docstring."""
    return (inspect.getdoc(made) or "").partition("\n")[0] if made is not None else ""


_ARG = re.compile(r"^    \*{0,2}(\w+)(?: \([^)]*\))?: (.*)$")


def _args(doc: str) -> dict[str, str]:
    texts: dict[str, str] = {}
    option = ""
    for line in doc.partition("\nArgs:\n")[2].splitlines():
        if line.strip() and not line.startswith("    "):
            break
        if match := _ARG.match(line):
            option = match[1]
            texts[option] = match[2]
        elif option and line.startswith("     "):
            texts[option] += " " + line.strip()
        else:
            option = ""
    return {option: text.replace("``", "").replace("`", "") for option, text in texts.items()}
