"""Run folders -> one HTML page that needs nothing else: no server, no request, no other file.

Episodes are embedded in pieces, compressed; the page unpacks a piece when one of its episodes is opened. Everything that a
model or a tool wrote reaches the document as text nodes alone, and the page's own policy forbids all scripts but its own.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec

from swirl_env.errors import MissingExtra
from swirl_env.store import Store
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
    target.write_text(_render(_packed(index), pieces), encoding="utf-8")
    return len(rows)


def _packed(content: object) -> str:
    """Returns JSON, compressed, in characters that mean nothing to HTML."""
    return base64.b64encode(gzip.compress(msgspec.json.encode(content), 6, mtime=0)).decode("ascii")


def _render(index: str, pieces: Sequence[str]) -> str:
    try:
        import jinja2
        from markupsafe import Markup
    except ModuleNotFoundError as error:
        raise MissingExtra("The page needs 'jinja2'. Install it with: pip install 'swirl-env[report]'") from error
    files = {name: _file(f"page.{name}") for name in ("html", "css", "js")}
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(files["html"])
    return template.render(
        style=Markup(files["css"]),
        script=Markup(files["js"]),
        style_hash=_hash(files["css"]),
        script_hash=_hash(files["js"]),
        index=index,
        pieces=pieces,
    )


def _file(name: str) -> str:
    return resources.files("swirl_env.view").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """Returns a source expression of the content security policy."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
