"""Run folders -> one HTML page that needs nothing else: no server, no request, no other file.

Episodes are embedded in pieces, compressed; the page unpacks a piece when one of its episodes is opened. Everything that a
model or a tool wrote reaches the document as text nodes alone, and the page's own policy forbids all scripts but its own.
"""

from __future__ import annotations

import base64
import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from swirl_env.store import Store
from swirl_env.store.lines import replace_file
from swirl_env.view.html import render_page
from swirl_env.view.records import records

_PIECE = 128
"""Episodes per piece."""


def write_page(runs: Sequence[tuple[str, Store]], target: Path) -> int:
    """Writes the page and returns how many episodes it holds.

    Args:
        runs: name and store of each run to show.
        target: the file; its folder must exist.

    Raises:
        MissingExtra: jinja2 is not installed.
        StoreError: if the file could not be written; a page that was there before is whole.
    """
    rows: list[list[Any]] = []
    pieces: list[str] = []
    waiting: list[dict[str, Any]] = []
    for number, (_, store) in enumerate(runs):
        for row, episode in records(store, number):
            rows.append(row)
            waiting.append(episode)
            if len(waiting) == _PIECE:
                pieces.append(_packed(waiting))
                waiting = []
    if waiting:
        pieces.append(_packed(waiting))
    index = {"runs": [name for name, _ in runs], "piece": _PIECE, "rows": rows}
    page = render_page("page", index=_packed(index), pieces=pieces).encode()
    if target.is_file() or not target.exists():
        replace_file(target, page)
    else:  # a device or a pipe is written to, not replaced
        target.write_bytes(page)
    return len(rows)


def _packed(content: object) -> str:
    """Returns JSON, compressed, in characters that mean nothing to HTML."""
    return base64.b64encode(gzip.compress(msgspec.json.encode(content), 6, mtime=0)).decode("ascii")
