"""HTML pages from a template, with their style and script in them: a page's policy forbids all others, and every request."""

from __future__ import annotations

import base64
import hashlib
from importlib import resources

from swirl_env.errors import MissingExtra


def render_page(name: str, **content: object) -> str:
    """Returns the page of the template ``NAME.html`` with ``NAME.css`` and ``NAME.js``; all content is escaped.

    Raises:
        MissingExtra: if jinja2 is not installed.
    """
    try:
        import jinja2
        from markupsafe import Markup
    except ModuleNotFoundError as error:
        raise MissingExtra("The page needs 'jinja2'. Install it with: pip install 'swirl-env[report]'") from error
    style, script = (f"{_file(f'theme.{kind}')}{_file(f'{name}.{kind}')}" for kind in ("css", "js"))
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters["base64"] = lambda content: base64.b64encode(content).decode("ascii")
    template = environment.from_string(_file(f"{name}.html"))
    return template.render(
        style=Markup(style), script=Markup(script), style_hash=_hash(style), script_hash=_hash(script), **content
    )  # fmt: skip


def _file(name: str) -> str:
    return resources.files("swirl_env.view").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """Returns a source expression of the content security policy."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
