"""The logs of a training run: JSON Lines, one row per update."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

from swirl_env.errors import StoreError
from swirl_env.store.lines import read_lines

METRICS, TIMING = "metrics.jsonl", "timing.jsonl"


def read_log(folder: Path, name: str = METRICS) -> list[dict[str, Any]]:
    """Returns the whole rows of a log; a torn last line is left out, and an absent file has no rows.

    Raises:
        StoreError: for a line that is no row, with how to go on without it.
    """
    return [_row(folder / name, number, line) for number, _, line in read_lines(folder / name)]


def _row(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict) or not isinstance(row.get("update"), int):
        raise StoreError(
            f"{path}, line {number} is damaged: expected the metrics of an update. Restore the file, or go on without this line: "
            f"{shlex.join(['sed', '-i.bak', f'{number}d', str(path)])}"
        )
    return row
