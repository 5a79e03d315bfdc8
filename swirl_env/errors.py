"""Every exception that swirl-env raises on purpose.

    SwirlError
    ├── UnknownName         a name, key or option that does not exist (with the nearest ones)
    ├── MissingExtra        a plugin needs packages that are not installed (with the install command)
    ├── DataNotFound        a data set's files are missing
    ├── PluginError         a plugin breaks its contract
    ├── ConfigError         an invalid value or combination of values
    └── StoreError          a run folder cannot be read or written
        ├── VersionError        written by another version
        ├── DuplicateKey        the same task and sample twice
        └── StoreLocked         another process is writing to it

`Interrupted` is the one exception that is no `SwirlError`: Ctrl-C, with a sentence on how to go on.

Bad input from a policy is no exception: it becomes an observation.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SwirlError(Exception):
    """Base of all errors of this package; its message says what was expected, what came, and the fix."""


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
