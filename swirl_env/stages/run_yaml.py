"""The YAML of run folders: JSON values in, the same JSON values out, whatever a text in them looks like.

Texts that look like dates stay texts, ``1e-3`` is a number, and ``${...}`` in a prompt is no reference to another key. The file
may come from anybody, so what no stage has written is refused before it is built.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

_MAX_BYTES = 1_000_000
_MAX_DEPTH = 50
_FLOAT = re.compile(
    r"[-+]?(?:\d[\d_]*(?:\.[\d_]*)?[eE][-+]?\d+|\d[\d_]*\.[\d_]*|\.\d[\d_]*(?:[eE][-+]?\d+)?|\.(?:inf|Inf|INF))|\.(?:nan|NaN|NAN)"
)


_SPECIAL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


def _resolvers() -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    """Returns how plain scalars are read: YAML's own rules without dates, and with the floats that Python and JSON write."""
    rules: dict[str, list[tuple[str, re.Pattern[str]]]] = {
        first: [(tag, form) for tag, form in forms if tag not in ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:float")]
        for first, forms in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    for first in "-+.0123456789":
        rules[first] = [("tag:yaml.org,2002:float", re.compile(rf"(?:{_FLOAT.pattern})\Z")), *rules.get(first, [])]
    return rules


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML has no types
    yaml_implicit_resolvers = _resolvers()

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        if not all(isinstance(key, yaml.ScalarNode) for key, _ in node.value):
            raise yaml.constructor.ConstructorError(None, None, "a key is no text", node.start_mark)
        keys = [key.value for key, _ in node.value]
        if len(set(keys)) < len(keys):
            raise yaml.constructor.ConstructorError(None, None, "a key stands twice", node.start_mark)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping


class _Dumper(yaml.SafeDumper):  # type: ignore[misc]
    yaml_implicit_resolvers = _resolvers()

    def ignore_aliases(self, data: object) -> bool:
        return True


def _write_text(dumper: _Dumper, text: str) -> Any:
    # YAML takes further characters for line breaks; only between double quotes they are written as escapes.
    style = '"' if _SPECIAL.search(text) else "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _write_text)
_Dumper.add_representer(tuple, _Dumper.represent_list)


def write_yaml(config: Mapping[str, Any]) -> str:
    """Returns a configuration as YAML, keys in their order, texts of several lines as blocks."""
    return str(yaml.dump(dict(config), Dumper=_Dumper, default_flow_style=False, allow_unicode=True, sort_keys=False, width=120))


def read_yaml(content: bytes) -> object:
    """Returns what YAML says.

    Raises:
        yaml.YAMLError, ValueError, RecursionError: for what is no YAML, or what no stage has written: large files, deep
            nesting, and aliases, which a few lines can expand without end.
    """
    if len(content) > _MAX_BYTES:
        raise ValueError(f"{len(content):,} bytes, expected at most {_MAX_BYTES:,}")
    depth = 0
    for event in yaml.parse(content, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_DEPTH or isinstance(event, yaml.AliasEvent):
            raise ValueError("nested too deep" if depth > _MAX_DEPTH else "it holds an alias")
    loaded: object = yaml.load(content.decode(), Loader=_Loader)
    return loaded
