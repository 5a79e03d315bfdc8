"""Texts as options: instructions, system messages, worked examples and rubrics, as the text itself, a file, or a name.

A text that ends in a line break is always the text itself. Run folders hold texts in that form, so a run that goes on reads
no file and looks up no name: what a file said when the run began still holds after it was moved or edited.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from swirl_env.errors import ConfigError, DataNotFound
from swirl_env.registry import entries, load


class _IsText:
    """Marks the type of an option whose value is a text, a file or a name."""


IS_TEXT = _IsText()
Text = Annotated[str, IS_TEXT]
"""Type of such an option: the command line reads its file once and records what it says."""

_LONGEST_NAME, _LONGEST_TEXT = 250, 200_000
_CODE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
_FILE = re.compile(r"\S*/\S*\.\w+|[\w.~-]+\.(txt|md|markdown|rst|jinja2?|j2|tmpl|template|prompt|ya?ml|json)")
"""What can only be meant as a file."""


def read_text(value: str, option: str) -> str:
    """Returns the text that an option means, without line breaks at its end.

    Args:
        value: the text; or the path of a UTF-8 file; or the name of a text that a package registers (entry point group
            ``swirl_env.prompts``), or ``"package.module:TEXT"``.
        option: what it is for, in messages.

    Raises:
        DataNotFound: for a path without a file.
        UnknownName: for a ``"package.module:TEXT"`` that is not there.
        ConfigError: for a value, a file or a name that holds no text.
    """
    if not isinstance(value, str):
        raise ConfigError(f"{option} is a text, the path of a file or a name; got {value!r:.60}.")
    named = named_text(value, option)
    text = (value if named is None else named).rstrip("\n")
    if len(text) > _LONGEST_TEXT:
        raise ConfigError(f"{option} has {len(text):,} characters; at most {_LONGEST_TEXT:,} are read.")
    return text


def named_text(value: str, option: str) -> str | None:
    """Returns the text of the file or the name that a value is; None for a value that is a text itself.

    Raises:
        As `read_text`.
    """
    if not value or "\n" in value or len(value) > _LONGEST_NAME:
        return None
    if (text := _file_text(value, option)) is not None:
        return text
    if value in entries("prompt") or _CODE.fullmatch(value):
        target: object = load("prompt", value)
        if not isinstance(target, str):
            raise ConfigError(f"{option}={value} is no text but {_an(target)}.")
        return target
    if _FILE.fullmatch(value):
        raise DataNotFound(f"{option}: there is no file {value!r}. Give its path, or write the text itself.")
    return None


def recorded_text(value: str, option: str) -> str:
    """Returns the form in which a run folder holds a text (see the top of this module); an empty text stays empty."""
    return literal(read_text(value, option).encode("utf-8", "replace").decode())


def literal(text: str) -> str:
    """Returns a text that is read as it stands, never as the name of a file."""
    return text if not text or text.endswith("\n") else f"{text}\n"


def _file_text(path: str, option: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8-sig") if Path(path).is_file() else None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{option}: the file {path!r} cannot be read as text: {error}.") from error


def _an(target: object) -> str:
    return "a function" if callable(target) else f"a {type(target).__name__}"
