"""The tool `notes`: a scratch pad per episode, and the smallest example of a tool with state."""

from __future__ import annotations

from collections.abc import Sequence

from swirl_env.errors import ConfigError
from swirl_env.types import Task, ToolResult


class Notes:
    """Keeps what a policy writes, for the rest of the episode; the result is the whole pad, one numbered line per note.

    Args:
        max_notes: most notes per episode.
        max_chars: most characters of a note.
    """

    tag = "notes"
    description = "keeps what you write and shows all notes of this question so far; write nothing to just read them."

    def __init__(self, max_notes: int = 50, max_chars: int = 1_000) -> None:
        if max_notes < 1 or max_chars < 1:
            raise ConfigError(f"max_notes and max_chars are at least 1; got {max_notes} and {max_chars}.")
        self.max_notes, self.max_chars = max_notes, max_chars

    def open(self, task: Task, seed: int) -> NotesSession:
        """Returns the empty pad of one episode."""
        return NotesSession(self)


class NotesSession:
    """The notes of one episode.

    Args:
        tool: its limits.
        notes: what is on the pad.
    """

    def __init__(self, tool: Notes, notes: Sequence[str] = ()) -> None:
        self.tool, self.notes = tool, list(notes)

    def run(self, queries: Sequence[str]) -> list[ToolResult]:
        """Adds each text to the pad and returns the pad as it is then."""
        return [self._one(query) for query in queries]

    def fork(self) -> NotesSession:
        """Returns a pad with the same notes; later ones go to one of the two only."""
        return NotesSession(self.tool, self.notes)

    def close(self) -> None:
        """Throws the notes away."""
        self.notes.clear()

    def _one(self, query: str) -> ToolResult:
        note = " ".join(query.encode("utf-8", "replace").decode().split())
        if len(note) > self.tool.max_chars:
            return ToolResult(f"A note has at most {self.tool.max_chars} characters; this one has {len(note)}.", "limit")
        if note and len(self.notes) >= self.tool.max_notes:
            return ToolResult(f"There is room for {self.tool.max_notes} notes, and no more.", "limit")
        if note:
            self.notes.append(note)
        if not self.notes:
            return ToolResult("There are no notes yet.", data={"notes": []})
        text = "\n".join(f"{number}. {line}" for number, line in enumerate(self.notes, start=1))
        return ToolResult(text, data={"notes": list(self.notes)})
