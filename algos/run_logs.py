"""The logs of a training run: JSON Lines, one row per update."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from swirl_env.store.lines import read_lines

METRICS, TIMING = "metrics.jsonl", "timing.jsonl"


def read_log(folder: Path, name: str = METRICS) -> list[dict[str, Any]]:
    """Returns the whole rows of a log; a torn last line is left out, and an absent file has no rows."""
    return [json.loads(line) for _, _, line in read_lines(folder / name)]
