"""Short names for plugins with their options: equal names mean equal behaviour. They name verdict tables and cache entries.

A name covers the options, the source code, and the content of the files and models that options name: weights that were
replaced under the same path, or a rule that was edited, give another name.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Protocol, cast

import msgspec

from swirl_env.cache import file_fingerprint
from swirl_env.protocols import Agent, Judge, Tool
from swirl_env.registry import KINDS, Spec, entries, given_options, make
from swirl_env.source_code import source_hash

if TYPE_CHECKING:
    from torch import Tensor

_SOURCE = " (content)"
"""Marks what is hashed of an option or a plugin next to its options; no option has such a name."""
_NAMES_FILES = re.compile(r"(^|_)(model|adapter|tokenizer|weights|checkpoint|file|path|folder|dir|template)$")
"""Options whose values may name a file or folder without a slash in them."""


class Weights(Protocol):
    """A model with parameters and buffers, as torch's modules are."""

    def named_parameters(self) -> Iterable[tuple[str, Tensor]]:
        """Yields name and tensor of each parameter."""
        ...

    def named_buffers(self) -> Iterable[tuple[str, Tensor]]:
        """Yields name and tensor of each buffer."""
        ...


def fingerprint(plugin: Spec, kind: str = "judge") -> str:
    """Returns ``name-hash`` of a plugin: its name, and a hash of its options and code; valid as part of a file name.

    A plugin with a `fingerprint` of its own has that one. Otherwise its source code counts (see
    `swirl_env.source_code`), and the options of its constructor: its attributes
    of the same names, with or without a leading underscore; if it lacks some of these, the options that the registry built
    it with; if there are none, all its public attributes.

    Args:
        plugin: the object; or a name, or a mapping with ``name`` and options, which is built first.
        kind: its kind, for building it.
    """
    built = make(kind, plugin)
    own = getattr(built, "fingerprint", None)
    if isinstance(own, str):
        return own
    options = _options(type(built))
    values = {key: getattr(built, name) for key in options for name in (f"_{key}", key) if hasattr(built, name)}
    built_with = given_options(built)
    if len(values) < len(options) and built_with is not None:
        values = {**{key: value for key, value in options.items() if value is not inspect.Parameter.empty}, **built_with}
    if options and not values:
        values = {key: value for key, value in getattr(built, "__dict__", {}).items() if not key.startswith("_")}
    code = {_SOURCE: source_hash(built)}
    return named(_name_of(f"{type(built).__module__}:{type(built).__qualname__}"), {**values, **code})


def named(name: str, options: Mapping[str, object]) -> str:
    """Returns ``name-hash`` for a name and options; plugins with options that matter use it for their own `fingerprint`."""
    files = {f"{key}{_SOURCE}": content for key, value in options.items() if (content := _content(key, value)) is not None}
    text = msgspec.json.encode({**options, **files}, enc_hook=_plain, order="deterministic")
    return f"{re.sub(r'[^A-Za-z0-9_.]+', '_', name)}-{hashlib.blake2b(text, digest_size=6).hexdigest()}"


def _plain(value: object) -> object:
    """Returns a JSON value in place of one that JSON cannot hold."""
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, type) or inspect.isroutine(value):
        return [f"{value.__module__}:{value.__qualname__}", source_hash(value)]
    if hasattr(value, "named_parameters") and hasattr(value, "named_buffers"):
        return weights_fingerprint(cast("Weights", value))
    if isinstance(value, Mapping):
        return dict(value)
    # An option that is itself a plugin counts with its options; any other object only by its class.
    plugin = isinstance(getattr(value, "fingerprint", None), str) or isinstance(value, Tool | Judge | Agent)
    return fingerprint(value) if plugin else [f"{type(value).__module__}:{type(value).__qualname__}", source_hash(value)]


def _content(option: str, value: object) -> str | None:
    """Returns the hash of the file or folder that an option names; None if it names none."""
    if not isinstance(value, str | PurePath) or not str(value):
        return None
    if isinstance(value, str) and os.sep not in value and not _NAMES_FILES.search(option):
        return None
    try:
        path = Path(value).expanduser()
        return content_hash(path) if path.exists() else None
    except (OSError, ValueError, RuntimeError):  # a text that is no path, a home that does not exist, a file one may not read
        return None


def content_hash(path: Path) -> str:
    """Returns the hash of a file's bytes, or of all files in a folder with their names, hidden ones left out.

    Large files are read once: their hashes are remembered (see `swirl_env.cache.file_fingerprint`).
    """
    if path.is_file():
        return file_fingerprint(path)
    digest = hashlib.blake2b(digest_size=16)
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(name for name in names if not name.startswith(".")):
            file = Path(folder, name)
            if file.is_file():
                digest.update(f"{file.relative_to(path)}\0{file_fingerprint(file)}\0".encode(errors="surrogateescape"))
    return digest.hexdigest()


def weights_fingerprint(model: Weights) -> str:
    """Returns the hash of all parameters and buffers, with their names and types; adapters count too."""
    import torch

    digest = hashlib.blake2b(digest_size=16)
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _options(cls: type) -> dict[str, object]:
    """Returns the options that a constructor takes, with their defaults (`inspect.Parameter.empty` if there is none)."""
    try:
        parameters = inspect.signature(cls).parameters.values()
    except (TypeError, ValueError):
        return {}
    return {p.name: p.default for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}


@functools.cache
def _name_of(path: str) -> str:
    """Returns the registered name of a class, or its path if it has none."""
    return next((entry.name for kind in KINDS for entry in entries(kind).values() if entry.value == path), path)
