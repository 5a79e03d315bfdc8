"""Names -> plugins. The built-in ones come through the same entry points as a stranger's package.

Wherever a name is accepted, ``"package.module:Attr"`` and a ready object are too.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import json
import weakref
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Any, cast

from swirl_env.adapters import adapted
from swirl_env.errors import ConfigError, MissingExtra, PluginError, SwirlError, UnknownName, plugin_failure, unknown_name
from swirl_env.protocols import ActionFormat, Agent, Grader, Judge, TaskSource, Tool
from swirl_env.types import Settings, Task

KINDS = {
    **{"tool": "tools", "judge": "judges", "agent": "agents", "task": "tasks", "format": "formats", "algo": "algos"},
    **{"grader": "graders", "prompt": "prompts"},
}
"""Kind of plugin -> last part of its entry point group, ``swirl_env.<group>``."""

_EXTRA_OF = {
    **dict.fromkeys(("torch", "transformers", "tokenizers", "huggingface_hub"), "train"),
    **dict.fromkeys(("accelerate", "peft", "datasets", "gguf", "pyarrow"), "train"),
    **dict.fromkeys(("openai", "tenacity"), "openai"),
    "mcp": "mcp",
    "ray": "ray",
    "tantivy": "tantivy",
    "qdrant_client": "qdrant",
    "pyserini": "lucene",
    **dict.fromkeys(("sentence_transformers", "safetensors"), "dense"),
    **dict.fromkeys(("scipy", "matplotlib", "jinja2"), "report"),
    "reasoning_gym": "reasoning-gym",
    "verifiers": "verifiers",
}
"""Top-level module that a plugin may miss -> the extra that brings it."""

Spec = str | Mapping[str, Any] | object
"""A name, a mapping with ``name`` and options, or the ready object."""


@functools.cache
def entries(kind: str) -> dict[str, EntryPoint]:
    """Returns the registered names of a kind (a key of `KINDS`).

    Raises:
        PluginError: if two distributions claim one name.
    """
    registered: dict[str, EntryPoint] = {}
    for entry in entry_points(group=f"swirl_env.{KINDS[kind]}"):
        other = registered.setdefault(entry.name, entry)
        if other.value != entry.value:
            raise PluginError(
                f"Two packages register the {kind} {entry.name!r}: {other.value} and {entry.value}. "
                f"Uninstall one, or name the one you mean as 'package.module:Attr'."
            )
    return registered


def names(kind: str) -> list[str]:
    """Returns the registered names of a kind, sorted."""
    return sorted(entries(kind))


def load(kind: str, name: str) -> Callable[..., Any]:
    """Imports the factory behind a name or ``"package.module:Attr"``.

    Raises:
        UnknownName: for a name that nobody registered, or a path that does not exist.
        MissingExtra: if its packages are not installed.
    """
    if ":" not in name:
        if name not in entries(kind):
            raise unknown_name(kind, name, names(kind))
        path = entries(kind)[name].value
    else:
        path = name
    module, _, attr = path.partition(":")
    if not all(part.isidentifier() for part in (*module.split("."), *attr.split("."))):
        raise UnknownName(f"A {kind} outside the registry is named 'package.module:Attr'; got {name!r}.")
    try:
        target: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise missing(kind, name, error) from error
    except SwirlError:
        raise
    except BaseException as error:
        failure = plugin_failure(error)
        raise PluginError(f"The {kind} {name!r} could not be imported: {type(failure).__name__}: {failure}") from failure
    try:
        for part in attr.split("."):
            target = getattr(target, part)
    except AttributeError as error:
        raise UnknownName(f"Module {module!r} has no {attr!r} (asked for as the {kind} {name!r}).") from error
    return cast("Callable[..., Any]", target)


def missing(kind: str, name: str, error: ModuleNotFoundError) -> MissingExtra | UnknownName:
    """Returns the error for an import that failed: the extra to install if one is known, else the absent module."""
    root = (error.name or "").partition(".")[0]
    if root in _EXTRA_OF:
        extra = _EXTRA_OF[root]
        return MissingExtra(f"The {kind} {name!r} needs {root!r}. Install it with: pip install 'swirl-env[{extra}]'")
    return UnknownName(f"The {kind} {name!r} could not be imported: no module named {error.name!r}.")


def options(factory: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Returns the options that a factory takes, by name."""
    return dict(inspect.signature(factory).parameters)


def required(factory: Callable[..., Any]) -> set[str]:
    """Returns the options of a factory that have no default."""
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {name for name, p in options(factory).items() if p.default is p.empty and p.kind in named}


def conforming(kind: str, plugin: Any) -> Any:
    """Returns a plugin that has what its kind is used by.

    Raises:
        PluginError: if something is missing, or a class came in place of an instance.
    """
    plugin = adapted(kind, plugin)
    lacking = [member for member in _members(kind, plugin) if not _has(plugin, member)]
    if isinstance(plugin, type):
        raise PluginError(
            f"Expected {_an(kind)}, got the class {plugin.__name__}; give an instance of it, {plugin.__name__}(...)."
        )
    if lacking:
        raise PluginError(
            f"Expected {_an(kind)}, got {plugin!r:.80}, which has no {', '.join(map(repr, lacking))}. A {kind} has "
            f"{', '.join(map(repr, _MEMBERS[kind]))} (see swirl_env.protocols)."
        )
    if kind == "task":
        _refuse_uncounted(plugin)
    return plugin


def _refuse_uncounted(tasks: Any) -> None:
    """Refuses a task source that cannot tell how many questions it has."""
    try:
        len(tasks)
    except SwirlError:
        raise
    except BaseException as error:
        failure = plugin_failure(error)
        raise PluginError(
            f"{type(tasks).__name__} cannot tell how many questions it has: {type(failure).__name__}: {failure}"
        ) from failure


_MEMBERS = {
    "tool": ("tag", "description", "run"),
    "judge": ("judge",),
    "grader": ("grade",),
    "agent": ("act",),
    "task": ("corpus", "tools", "max_steps", "__len__", "__getitem__"),
    "format": ("stop", "parse", "call", "answer", "instructions", "correction"),
}
"""Kind -> what a plugin of it must have to be used at all; the rest of its contract is for `swirl_env.contract`."""


def _an(kind: str) -> str:
    return f"{'an' if kind[0] in 'ae' else 'a'} {kind}"


def _members(kind: str, plugin: object) -> tuple[str, ...]:
    """Returns what a plugin must have; a tool with state has `open` in place of `run`."""
    return ("tag", "description", "open") if kind == "tool" and _has(plugin, "open") else _MEMBERS[kind]


def _has(plugin: object, member: str) -> bool:
    """Whether an object has a member; a property is not asked for its value, which may be costly."""
    return inspect.getattr_static(plugin, member, _MEMBERS) is not _MEMBERS or hasattr(plugin, member)


_ARGUMENTS = {"judge": 1, "agent": 1, "grader": 2}
"""Kind -> how many arguments a function takes that serves as a plugin of it; a tool takes any number."""


def refuse_value(kind: str, name: str, target: object) -> None:
    """Refuses what a path leads to if it is neither a plugin nor anything that can be called to make one.

    Raises:
        PluginError: with what it is.
    """
    reason = "cannot be called to make one"
    if callable(target):
        try:
            inspect.signature(target)
            return
        except ValueError:  # some that are written in C
            reason = "does not say which options it takes"
    raise PluginError(f"{name!r} is no {kind}: it is {target!r:.80}, which {reason}. Name a class, a function or {_an(kind)}.")


def is_ready(kind: str, target: object) -> bool:
    """Whether the object at a path is a plugin (of a kind, or of any kind if that is not known) and not a factory of plugins."""
    if isinstance(target, type) or inspect.isroutine(target):
        return False
    if kind == "task" and isinstance(target, list | tuple):
        return True
    kinds = [kind] if kind in _MEMBERS else list(_MEMBERS)
    return any(all(_has(target, member) for member in _members(one, target)) for one in kinds)


def serves(kind: str, target: Callable[..., Any]) -> bool:
    """Whether a function at a path can be the plugin itself, rather than a factory: its arguments are those of a call."""
    if isinstance(target, type) or adapted(kind, target) is target:
        return False
    return len(required(target)) == _ARGUMENTS.get(kind, len(required(target)) or -1)


def make(kind: str, spec: Spec, **defaults: Any) -> Any:
    """Builds a plugin.

    Args:
        kind: what to build (a key of `KINDS`).
        spec: name, ``"package.module:Attr"`` (of a factory or a ready object), mapping with ``name`` and options, or a ready
            object (returned as it is).
        **defaults: offered to the factory if it takes them and `spec` does not set them (e.g. a tool's ``corpus``).

    Raises:
        UnknownName: for an unknown name or option.
        ConfigError: if an option without a default is missing.
    """
    if isinstance(spec, str):
        spec = {"name": spec}
    if not isinstance(spec, Mapping):
        return adapted(kind, spec)
    own = dict(spec)
    name = own.pop("name", None)
    if not isinstance(name, str):
        raise UnknownName(f"A {kind} written as a mapping needs a 'name'; got the keys {sorted(map(str, spec))}.")
    factory = load(kind, name)
    if is_ready(kind, factory):
        if own:
            raise ConfigError(f"{name!r} is a ready {kind}, which takes no options; got {', '.join(own)}.")
        return adapted(kind, factory)
    refuse_value(kind, name, factory)
    accepted = options(factory)
    anything = any(p.kind is p.VAR_KEYWORD for p in accepted.values())
    for option in own:
        if option not in accepted and not anything:
            raise unknown_name(f"option of the {kind} {name!r}", option, accepted)
    offered = {key: value for key, value in defaults.items() if key in accepted and key not in own}
    lacking = sorted(required(factory) - own.keys() - offered.keys())
    if lacking and not own and serves(kind, factory):
        return adapted(kind, factory)
    if lacking:
        raise ConfigError(f"The {kind} {name!r} needs a value for {', '.join(map(repr, lacking))}: give {lacking[0]}=...")
    try:
        plugin = adapted(kind, factory(**own, **offered))
    except SwirlError:
        raise
    except BaseException as error:
        failure = plugin_failure(error)
        raise PluginError(f"The {kind} {name!r} could not be made: {type(failure).__name__}: {failure}") from failure
    with contextlib.suppress(TypeError):  # an object that can be neither hashed nor referred to weakly
        _options_of[plugin] = own
    return plugin


_options_of: weakref.WeakKeyDictionary[Any, dict[str, Any]] = weakref.WeakKeyDictionary()


def given_options(plugin: object) -> Mapping[str, Any] | None:
    """Returns the options that `make` built a plugin with; None if it did not build it."""
    try:
        return _options_of.get(plugin)
    except TypeError:
        return None


def make_tool(name: Spec, **options: Any) -> Tool:
    """Builds a tool: ``make_tool("search", corpus=tasks.corpus, top_k=5)``."""
    return cast("Tool", make("tool", _with(name, options)))


def make_judge(name: Spec, **options: Any) -> Judge:
    """Builds a judge: ``make_judge("rules")``."""
    return cast("Judge", make("judge", _with(name, options)))


def make_agent(name: Spec, **options: Any) -> Agent:
    """Builds an agent: ``make_agent("scripted", noise=0.2)``."""
    return cast("Agent", make("agent", _with(name, options)))


def make_tasks(name: Spec, **options: Any) -> TaskSource:
    """Builds a task source: ``make_tasks("hotpotqa", split="dev500", data_dir="data")``."""
    return cast("TaskSource", make("task", _with(name, options)))


def make_grader(grader: Spec | Callable[[Task, str], bool | None]) -> Grader:
    """Returns a grader of final answers: from a spec, ``{"name": "llm", "agent": ...}``, or a function of a task and an answer.

    Raises:
        PluginError: for what is neither.
    """
    return cast("Grader", conforming("grader", make("grader", grader)))


@functools.lru_cache(maxsize=256)
def make_format(name: str, tools: Sequence[str], schemas: tuple[tuple[str, str], ...] = ()) -> ActionFormat:
    """Builds (once) the action format of a name for the tags of the tools: ``make_format("xml", ("search_query",))``.

    Args:
        name: name of the format.
        tools: tags of the tools.
        schemas: (tag, JSON Schema as text) of each tool with typed arguments; for formats that take ``parameters``.
    """
    parameters = {tag: json.loads(schema) for tag, schema in schemas}
    return cast("ActionFormat", make("format", {"name": name, "tools": tools}, parameters=parameters))


def format_of(settings: Settings) -> ActionFormat:
    """Returns the format of an episode, with the arguments of its tools as far as the settings know them."""
    functions = [item["function"] for item in json.loads(settings.functions or "[]")]
    schemas = tuple((function["name"], json.dumps(function["parameters"])) for function in functions)
    return make_format(settings.format, settings.tools, schemas)


def _with(spec: Spec, options: dict[str, Any]) -> Spec:
    if isinstance(spec, str):
        return {"name": spec, **options}
    if isinstance(spec, Mapping):
        return {**spec, **options}
    return spec
