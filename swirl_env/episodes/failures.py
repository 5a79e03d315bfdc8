"""When the failure of a tool, judge or grader is permanent: the same error on every call, whole batches in a row."""

from __future__ import annotations

from swirl_env.errors import PluginError, last_failure

PERMANENT_BATCHES, PERMANENT_CALLS = 3, 8
"""A failure is permanent once this many whole batches in a row, of this many calls together, have failed with one error."""


class Failures:
    """Counts the calls of a plugin that fail because it raises or returns something invalid.

    A run of many episodes stops at a permanent failure (`Engine.raise_permanent`); a single environment goes on.

    Args:
        what: the plugin in words, e.g. ``the tool 'search_query'``.
        plugin: the plugin.
    """

    def __init__(self, what: str, plugin: object) -> None:
        self.what, self.plugin = what, plugin
        self.permanent: PluginError | None = None
        """Set once its failure is permanent."""
        self.batches = 0
        """Whole batches in a row that have failed with one error."""
        self._calls = 0
        self._place: object = None

    def add(self, failed: int, n: int) -> None:
        """Counts a batch of n calls, of which some failed."""
        if failed < n or not n:
            self.clear()
            return
        place, text = last_failure(self.plugin)
        if place != self._place:
            self.clear()
        self._place = place
        self.batches += 1
        self._calls += n
        if self.batches >= PERMANENT_BATCHES and self._calls >= PERMANENT_CALLS:
            self.permanent = PluginError(
                f"{self.what[:1].upper()}{self.what[1:]} failed on every one of the last {self._calls} calls with the same "
                f"error: {text} (its traceback is in the log). Answer bad input of a policy, do not raise; see docs/plugins.md."
            )

    def clear(self) -> None:
        """Forgets what was counted: a call has worked."""
        self.batches = self._calls = 0
        self._place = self.permanent = None
