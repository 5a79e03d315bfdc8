"""Errors of hydra and omegaconf as one line: what was expected, what came, the fix."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator

from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from swirl_env.config.plugins import GROUPS, LISTS, choices
from swirl_env.errors import ConfigError, SwirlError, UnknownName, unknown_name


def explained(stage: str, error: Exception) -> SwirlError | None:
    """Returns an error of hydra or omegaconf as a `SwirlError`; None for anything that is no mistake of the user."""
    if isinstance(error, MissingConfigException):
        return _unknown_choice(error)
    if isinstance(error, OverrideParseException):
        return _unreadable(stage, error)
    if isinstance(error, MissingMandatoryValue):
        return missing_value(stage, str(error.full_key))
    if isinstance(error, ConfigCompositionException):
        if group := re.match(r"Could not override '([^']*)'\.\s*No match", str(error)):
            return ConfigError(f"`swirl {stage}` has no group {group[1]!r}. `swirl {stage} --help` lists its groups and keys.")
        cause = error.__cause__
        if isinstance(cause, OmegaConfBaseException) and isinstance(cause.parent_node, DictConfig):
            return _unknown_key(stage, cause)
        ambiguous = re.match(r"Ambiguous value for argument '(.*)'\n", str(error))
        return _ambiguous(ambiguous[1]) if ambiguous else ConfigError(_first_lines(str(error)))
    if isinstance(error, OmegaConfBaseException):
        return ConfigError(f"{error.full_key}: {_first_lines(str(error))}" if error.full_key else _first_lines(str(error)))
    if "Config group override must be" in str(error):
        return ConfigError(
            f"A group takes the name of a choice (or a list of names): {', '.join(GROUPS)}. For no judge: judge=none."
        )
    if isinstance(error, HydraException) or re.search(r"\bflag |Only one of --", str(error)):
        return ConfigError(_first_lines(str(error)))
    return None


def missing_value(stage: str, key: str) -> ConfigError:
    """Returns the error for a key without a default that the command line does not set."""
    return ConfigError(f"`swirl {stage}` needs a value for {key!r}: give {key}=...  (`swirl {stage} --help` says what it is)")


def _unknown_choice(error: MissingConfigException) -> SwirlError:
    group, _, name = (error.missing_cfg_file or "").partition("/")
    if group in GROUPS and name:
        return unknown_name(group, name, choices(group))
    if group == "hydra" and name:
        kind, _, choice = name.rpartition("/")
        known = [option.removesuffix(".yaml") for option in error.options or ()]
        unknown = unknown_name(f"hydra/{kind}", choice, known)
        return UnknownName(f"{unknown} Launchers and sweepers come with: pip install 'swirl-env[sweeps]'")
    if name and error.options:
        return unknown_name(group, name, [option.removesuffix(".yaml") for option in error.options])
    return UnknownName(_first_lines(str(error)))


def _ambiguous(override: str) -> ConfigError:
    key, _, values = override.partition("=")
    if key in GROUPS:
        one = f"for all of them write {key}=[{values}]" if key in LISTS else f"one run takes a single {key}"
        return ConfigError(f"{override!r} names several values. To run one after the other add --multirun (-m); {one}.")
    return ConfigError(
        f"{override!r} names several values. To run one after the other add --multirun (-m); for a list write {key}=[{values}]; "
        f"for a text with commas quote it, {key}=\"'{values}'\"."
    )


def _unreadable(stage: str, error: OverrideParseException) -> ConfigError:
    reason = _first_lines(str(error))
    return ConfigError(
        f"Expected key=value, got {error.override!r} ({reason}). Quote a value that holds spaces or any of = , ( ) [ ] {{ }}: "
        f"key=\"'value'\"."
    )


def _unknown_key(stage: str, cause: OmegaConfBaseException) -> SwirlError:
    """Returns the error for a key that is not in the configuration, with the nearest that is."""
    node = cause.parent_node
    assert isinstance(node, DictConfig)
    wanted, key = str(cause.full_key), str(cause.key)
    top = wanted.partition(".")[0]
    if top == "tool" and (top == wanted or wanted.count(".") == 1):
        name = wanted.split(".")[1] if "." in wanted else key
        near = difflib.get_close_matches(name, choices("tool"), n=1)
        return ConfigError(
            f"The tool {name!r} is not selected, so {wanted} has no place: select it too, tool=[{near[0] if near else name}]."
        )
    prefix = wanted.removesuffix(key)
    known = [f"{prefix}{name}" for name in map(str, node) if name not in ("name", "hydra")]
    known += ["tool"] if "task" in known and "tool" not in known else []
    elsewhere = [name for name in _keys(node._get_root()) if name.rpartition(".")[2] == key]
    near = elsewhere[:1] or difflib.get_close_matches(wanted, known, n=1, cutoff=0.6)
    hint = f" Did you mean {near[0]}?" if near else ""
    if prefix and node.get("name"):
        what = f"The {top} {str(node['name'])!r} has no option {key!r}.{hint} Its options: {', '.join(known) or 'none'}."
    elif top in GROUPS and "." in wanted:
        what = f"{prefix.removesuffix('.')} is a value, not a section: {wanted} has no place in it."
    elif top in GROUPS:
        what = f"`swirl {stage}` has no group {top!r}.{hint}"
    else:
        what = f"`swirl {stage}` has no key {wanted!r}.{hint} Known: {', '.join(known)}."
    return UnknownName(what)


def _keys(node: object, prefix: str = "") -> Iterator[str]:
    """Yields the keys of a configuration, those of its sections in full."""
    if isinstance(node, DictConfig) and not node._is_none() and not node._is_missing():
        for key in map(str, node):
            if key not in ("name", "hydra"):
                yield f"{prefix}{key}"
                yield from _keys(node._get_node(key), f"{prefix}{key}.")


def _first_lines(message: str) -> str:
    """Returns a message of several lines as one, without the advice that follows an empty line."""
    lines = [line.strip() for line in message.strip().split("\n\n")[0].splitlines()]
    return re.sub(r"\s+", " ", " ".join(line for line in lines if not line.startswith(("full_key:", "object_type", "See http"))))
