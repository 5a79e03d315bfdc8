"""Every exception that swirl-env raises on purpose.

    SwirlError
    ├── UnknownName         a name, key or option that does not exist (with the nearest ones)
    ├── MissingExtra        a plugin needs packages that are not installed (with the install command)
    ├── DataNotFound        a data set's files are missing
    ├── PluginError         a plugin breaks its contract
    ├── ConfigError         an invalid value or combination of values
    ├── TrainingError       a training run learns nothing, or cannot go on
    └── StoreError          a run folder cannot be read or written
        ├── VersionError        written by another version
        ├── DuplicateKey        the same task and sample twice
        └── StoreLocked         another process is writing to it

`Interrupted` is the one exception that is no `SwirlError`: Ctrl-C, with a sentence on how to go on.

Bad input from a policy is no exception: it becomes an observation.
"""

from __future__ import annotations

import difflib
import errno
import logging
import os
import traceback
import unicodedata
import weakref
from collections.abc import Iterable


def printable(text: str) -> str:
    r"""Returns text that a terminal or a log can show: control characters and invisible ones are written as escapes.

    Model and tool text may hold escape sequences (ESC, C1), overrides of the reading direction (U+202A to 202E, 2066 to 2069),
    zero-width characters and lone surrogates; all appear as ``\x1b`` or ``\u202e``. Line feeds, tabs and blanks stay.
    """
    return text if text.isprintable() else text.translate(_ESCAPES)


class _Escapes(dict[int, str]):
    """Translation table that is filled as characters turn up."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        plain = char.isprintable() or char in "\n\t" or unicodedata.category(char) == "Zs"
        self[code] = char if plain else char.encode("unicode_escape").decode("ascii")
        return self[code]


_ESCAPES = _Escapes()


class SwirlError(Exception):
    """Base of all errors of this package; its message says what was expected, what came, and the fix."""

    def __str__(self) -> str:
        return printable(super().__str__())


class UnknownName(SwirlError, LookupError):
    """A name, key or option that does not exist."""


class MissingExtra(SwirlError, ImportError):
    """A plugin needs packages that are not installed."""


class DataNotFound(SwirlError, FileNotFoundError):
    """A data set's files are missing."""


class PluginError(SwirlError, TypeError):
    """A plugin breaks its contract."""


class ConfigError(SwirlError, ValueError):
    """An invalid value or combination of values."""


class TrainingError(SwirlError):
    """A training run that learns nothing, or cannot go on; its message gives the reason."""


class StoreError(SwirlError):
    """A run folder cannot be read or written."""


class VersionError(StoreError):
    """A record was written by another version of the schema."""


class DuplicateKey(StoreError):
    """The same task and sample were written twice."""


class StoreLocked(StoreError):
    """Another process is writing to the run folder."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, with a sentence on how to go on."""


def unknown_name(what: str, name: str, known: Iterable[str]) -> UnknownName:
    """Returns the error for `name`, with the nearest known name and the whole list.

    Args:
        what: what kind of thing was asked for, e.g. ``"tool"``.
        name: what was asked for.
        known: what there is.
    """
    choices = sorted(known)
    near = difflib.get_close_matches(name, choices, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return UnknownName(f"No {what} named {name!r}.{hint} Known: {', '.join(choices) or 'none'}.")


def plugin_failure(error: BaseException) -> Exception:
    """Returns what a plugin raised as an error like any other; what is not the plugin's own is raised on.

    A plugin that ends the program (``sys.exit``), closes a generator or panics in Rust has failed: a run must not end because
    of it, least of all with exit code 0. Ctrl-C and a task that is cancelled are not the plugin's.
    """
    if isinstance(error, Exception):
        return error
    if isinstance(error, SystemExit | GeneratorExit) or type(error).__name__ == "PanicException":  # PyO3's
        return RuntimeError(f"{type(error).__name__}({error})").with_traceback(error.__traceback__)
    raise error


log = logging.getLogger(__name__)
_SHOWN = 500
"""Most characters of an input that a log line quotes."""
_seen: weakref.WeakKeyDictionary[object, set[tuple[object, ...]]] = weakref.WeakKeyDictionary()
"""Plugin -> the errors of it that have been logged."""
_last: weakref.WeakKeyDictionary[object, tuple[object, str]] = weakref.WeakKeyDictionary()
"""Plugin -> its last error: what makes it the same as another, and its message."""


def error_place(error: BaseException) -> tuple[object, ...]:
    """Returns what makes an error the same as another: its type and the line that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    return (type(error), *((frames[-1].filename, frames[-1].lineno) if frames else ()))


def log_once(plugin: object, what: str, error: BaseException, item: object) -> None:
    """Logs an error of a plugin with its traceback and the input that caused it, the first time that it occurs.

    Args:
        plugin: what raised.
        what: it in words, e.g. ``"tool search_query"``.
        error: what it raised.
        item: its input; it is escaped, as are message and traceback: model text must not reach a terminal raw.
    """
    try:
        known = _seen.setdefault(plugin, set())
    except TypeError:  # an object that can be neither hashed nor referred to weakly
        plugin = type(plugin)
        known = _seen.setdefault(plugin, set())
    place = error_place(error)
    _last[plugin] = place, printable(f"{type(error).__name__}: {error}"[:_SHOWN])
    if place in known:
        return
    known.add(place)
    shown = item if isinstance(item, str) else repr(item)
    trace = "".join(traceback.format_exception(error))
    log.warning("%s failed on %s\n%s", what, printable(shown[:_SHOWN]), printable(trace).rstrip())


def last_failure(plugin: object) -> tuple[object, str]:
    """Returns the last error of a plugin that `log_once` has seen: its place (see `error_place`) and its message."""
    try:
        return _last.get(plugin, (None, ""))
    except TypeError:
        return _last.get(type(plugin), (None, ""))


def describe_os_error(error: OSError) -> str:
    """Returns what the system says of a file, and what to do about it."""
    file = f"{error.filename!s:.200}" if error.filename else "A file"
    fix = {
        errno.ENAMETOOLONG: "Choose a shorter name.",
        errno.ENOSPC: "Make room, then go on: what was acknowledged is stored.",
        errno.EROFS: "Choose another folder with out=.",
        errno.EACCES: "Choose another folder with out=, or give this user the right to it.",
    }.get(error.errno or 0, "Choose another folder with out=, or make this one usable.")
    return f"{file}: {error.strerror or error}. {fix}"


def plugin_traceback(error: BaseException) -> list[str]:
    """Returns the lines of a traceback from where an error enters a plugin that is not ours; none if no such plugin raised."""
    cause: BaseException | None = error if isinstance(error, PluginError) else None
    seen: set[int] = set()
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        frames = traceback.extract_tb(cause.__traceback__)
        # A file that cannot be read as Python has no frame of its own: the import system is the last one.
        foreign = [i for i, frame in enumerate(frames) if not _is_known(frame.filename)]
        if foreign:
            lines = traceback.format_list(frames[foreign[0] :]) + traceback.format_exception_only(cause)
            return ["Traceback of the plugin (most recent call last):\n", *lines]
        cause = cause.__cause__
    return []


def _is_known(filename: str) -> bool:
    """Whether a file is ours or the interpreter's, or belongs to what runs our commands."""
    path = os.path.realpath(filename)
    ours = os.path.dirname(os.path.realpath(__file__))
    own = [ours, *(os.path.realpath(os.path.join(ours, link)) for link in ("agents", "tools", "algos", "benchmarks"))]
    stdlib = os.path.dirname(os.path.realpath(os.__file__))
    if filename.startswith("<") or any(path.startswith(folder + os.sep) for folder in own):
        return True
    packages = f"{os.sep}site-packages{os.sep}"
    if packages in path:
        return path.partition(packages)[2].partition(os.sep)[0] in ("hydra", "omegaconf", "msgspec", "swirl_env")
    return path.startswith(stdlib + os.sep) or os.path.basename(path) in ("swirl", "pytest", "__main__.py")
