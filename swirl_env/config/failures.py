"""Why a cell of a sweep failed: a line in a file of its folder, whichever process ran it, until it is tried again."""

from __future__ import annotations

from pathlib import Path

from swirl_env.errors import printable

FILE = "failed.txt"
_LONGEST = 2_000
"""Most characters of a reason that are stored and shown."""


def note_failure(folder: Path, error: Exception) -> None:
    """Writes why the cell failed; a folder that cannot be written must not hide the error itself."""
    reason = str(error) or type(error).__name__
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FILE).write_text(f"{reason[:_LONGEST]}\n", encoding="utf-8", errors="replace")
    except OSError:
        return


def forget_failure(folder: Path) -> None:
    """Removes what `note_failure` wrote: the cell is tried again."""
    try:
        (folder / FILE).unlink(missing_ok=True)
    except OSError:
        return


def failure_of(folder: Path) -> str:
    """Returns why a cell failed, on one line; empty if it did not, or began without failing."""
    try:
        with (folder / FILE).open(encoding="utf-8", errors="replace") as file:
            return " ".join(printable(file.read(_LONGEST)).split())
    except OSError:
        return ""
