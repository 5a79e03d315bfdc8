"""The contract suite: does a plugin do what its kind has to do? Real calls, and one readable finding per rule.

    from swirl_env.contract import assert_contract

    def test_my_tool():
        assert_contract("tool", "my_package:MyTool", top_k=3)

On the command line: ``swirl check my_package:MyTool``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from swirl_env import registry
from swirl_env.contract import agents, algos, formats, judges, samples, sessions, tasks, tools
from swirl_env.contract.rules import Finding, Unchecked, described, run_rule
from swirl_env.errors import ConfigError, PluginError, SwirlError, unknown_name
from swirl_env.registry import Spec

__all__ = ["CONTRACTS", "Finding", "assert_contract", "check", "detect"]

CONTRACTS: dict[str, Any] = {
    "tool": tools,
    "judge": judges,
    "agent": agents,
    "task": tasks,
    "format": formats,
    "algo": algos,
}
"""Kind of plugin -> the module with its rules."""

_TELLING = {"format": ("parse", "call"), "tool": ("run",), "judge": ("judge",), "agent": ("act",), "algo": ("train",)}
"""Kind -> the methods that tell it apart, in the order in which they are looked for."""


def check(kind: str | None, spec: Spec, **options: Any) -> list[Finding]:
    """Runs the contract of a kind on one plugin.

    Args:
        kind: ``tool``, ``judge``, ``agent``, ``task``, ``format`` or ``algo``; None finds it out (see `detect`).
        spec: name, ``"package.module:Attr"``, mapping with ``name`` and options, or a ready object.
        **options: of the plugin. A tool that takes a ``corpus`` and gets none is offered a small one, a format two tags.

    Returns:
        One finding per rule; if a plugin cannot be built or breaks a rule that others rest on, the findings up to that one.

    Raises:
        SwirlError: if there is no plugin to check: an unknown name or option, a missing extra, absent data.
    """
    if kind is not None and kind not in CONTRACTS:
        raise unknown_name("kind of plugin with a contract", kind, CONTRACTS)
    if kind is None and isinstance(spec, str | Mapping):
        kind = _named_kind(spec)
    try:
        plugin = _build(kind, spec, options)
    except (Exception, SystemExit) as error:
        # What a constructor raises is the cause of a PluginError; other errors of ours say that there is nothing to check.
        cause = error.__cause__ if isinstance(error, PluginError) else error
        if cause is None or isinstance(cause, SwirlError):
            raise
        return [Finding("can be built", False, f"expected a plugin, got {described(cause)}; fix its module or constructor.")]
    contract = CONTRACTS[kind or detect(plugin)]
    if contract is tools and callable(getattr(plugin, "open", None)):
        contract = sessions
    if contract is agents:
        plugin = agents.in_batches(plugin)
    findings = [Finding("can be built", True, f"Is imported and built as {type(plugin).__name__}.")]
    for at, rule in enumerate(contract.RULES, 1):
        finding = run_rule(rule, plugin)
        left = len(contract.RULES) - at
        if not finding.ok and rule in contract.GATES and left:
            return [*findings, Finding(finding.name, False, f"{finding.message} (This comes before {left} other rules.)")]
        findings.append(finding)
    if isinstance(spec, str | Mapping):
        twin = _build(kind, spec, options) if contract.TWIN_RULES else None
        twin = agents.in_batches(twin) if contract is agents else twin
        findings += [run_rule(rule, plugin, twin) for rule in contract.TWIN_RULES]
    return findings


def assert_contract(kind: str | None, spec: Spec, **options: Any) -> None:
    """Raises AssertionError with every broken rule of `check`, for a plugin's own tests."""
    broken = [finding for finding in check(kind, spec, **options) if not finding.ok]
    if broken:
        lines = "\n".join(f"  {finding}" for finding in broken)
        raise AssertionError(f"{len(broken)} broken rule{'s' if len(broken) > 1 else ''} of {spec!r}:\n{lines}")


def detect(plugin: object) -> str:
    """Returns the kind of a plugin (or of its class) by the methods that it has.

    Raises:
        ConfigError: if it has the methods of no kind.
    """
    for kind, methods in _TELLING.items():
        if all(callable(getattr(plugin, method, None)) for method in methods):
            return kind
    if callable(getattr(plugin, "open", None)) and hasattr(plugin, "description"):
        return "tool"
    if callable(getattr(plugin, "act_one", None)):
        return "agent"
    if hasattr(plugin, "__getitem__") and hasattr(plugin, "__len__"):
        return "task"
    name = plugin.__name__ if isinstance(plugin, type) else type(plugin).__name__
    raise ConfigError(
        f"Expected a tool (run), judge (judge), agent (act or act_one), algorithm (train), task source (len and items) or format "
        f"(parse, call); {name} has none of these methods. Add the method, or say the kind."
    )


def _named_kind(spec: str | Mapping[str, Any]) -> str | None:
    """Returns the kind under which a name is registered; None for ``"package.module:Attr"``, which is built to find out."""
    name = spec if isinstance(spec, str) else str(spec.get("name", ""))
    if ":" in name:
        return None
    kinds = [kind for kind in CONTRACTS if name in registry.names(kind)]
    if not kinds:
        raise unknown_name("plugin", name, [known for kind in CONTRACTS for known in registry.names(kind)])
    if len(kinds) > 1:
        raise ConfigError(f"{name!r} is the name of a {' and of a '.join(kinds)}; say which kind you mean.")
    return kinds[0]


def _build(kind: str | None, spec: Spec, options: dict[str, Any]) -> Unchecked:
    if not isinstance(spec, str | Mapping):
        if options:
            raise ConfigError(f"Options {sorted(options)} belong to a plugin made by name, but {spec!r} is an object.")
        return spec
    named = {"name": spec, **options} if isinstance(spec, str) else {**spec, **options}
    name = str(named["name"])
    factory = registry.load(kind or "plugin", name)
    if kind is None and isinstance(factory, type):
        kind = detect(factory)
    offered: dict[str, Any] = {}
    if kind == "tool":
        offered["corpus"] = samples.corpus()
    if kind == "format":
        offered["tools"] = samples.TAGS
    if registry.is_ready(kind or "plugin", factory):
        return registry.make(kind or "plugin", named)
    registry.refuse_value(kind or "plugin", name, factory)
    lacking = sorted(registry.required(factory) - named.keys() - offered.keys())
    if lacking and not (kind is not None and not options and registry.serves(kind, factory)):
        hint = "" if kind is not None or isinstance(factory, type) else "; or say what the function is, kind=tool"
        raise ConfigError(f"{name!r} needs a value for {', '.join(lacking)}; give it as an option, {lacking[0]}=...{hint}")
    return registry.make(kind or "plugin", named, **offered)
