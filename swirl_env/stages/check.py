"""``swirl check NAME ...``: the contract suite on plugins, as a report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from swirl_env.contract import CONTRACTS, Finding, check
from swirl_env.errors import ConfigError, printable

USAGE = f"""\
usage: swirl check PLUGIN [PLUGIN ...] [kind={"|".join(CONTRACTS)}] [option=value ...]

Runs the contract suite on each plugin: a registered name or package.module:Attr. Options go to the plugin's constructor.
Exit code 0: every promise is kept; 1: one is broken; 2: a plugin could not be found."""


def run(argv: Sequence[str]) -> int:
    """Checks the plugins named in `argv`; returns 1 where a promise is broken."""
    if not argv or {"-h", "--help"} & set(argv):
        print(USAGE)
        return 0 if argv else 2
    plugins = [arg for arg in argv if "=" not in arg]
    options = {key: _value(text) for key, _, text in (arg.partition("=") for arg in argv if "=" in arg)}
    kind = options.pop("kind", None)
    if not plugins:
        raise ConfigError("Expected the plugin to check: swirl check my_pkg:MyTool [kind=tool] [option=value ...]")
    return max(_report(plugin, check(kind, plugin, **options)) for plugin in plugins)


def _value(text: str) -> Any:
    """Returns the value of an option as YAML reads it: ``3`` is a number, ``true`` a truth value."""
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _report(plugin: str, findings: Sequence[Finding]) -> int:
    console = Console(highlight=False, soft_wrap=True)
    console.print(Text(printable(plugin), "bold"))
    for finding in findings:
        mark = Text(" ok      ", "green") if finding.ok else Text(" BROKEN  ", "bold red")
        console.print(Text.assemble("  ", mark, printable(f"{finding.name}: {finding.message}")))
    broken = sum(not finding.ok for finding in findings)
    console.print(f"  {len(findings) - broken} of {len(findings)} promises kept" + (f", {broken} broken" if broken else ""))
    return int(broken > 0)
