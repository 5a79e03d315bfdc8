"""``swirl view DIR ...``: the episodes of run folders as one HTML page, written to a file and, if asked, served on loopback."""

from __future__ import annotations

import functools
import http.server
import os
from collections.abc import Sequence
from pathlib import Path

from swirl_env.config.overrides import command
from swirl_env.config.plain_arguments import parse
from swirl_env.errors import ConfigError, StoreError
from swirl_env.stages import folders
from swirl_env.store import Store
from swirl_env.view.page import write_page

USAGE = """\
usage: swirl view DIR [DIR ...] [out=FILE.html] [serve=true] [port=8000]

Writes one self-contained HTML page with the episodes of the runs: search, filters, each step with its reward and critique,
two judges and two runs side by side. DIR is a run folder, or a folder of runs as a sweep leaves it.

  out=FILE     where the page goes; by default view.html in the first DIR
  serve=true   also serves it on http://127.0.0.1:port until Ctrl-C"""


def run(argv: Sequence[str]) -> int:
    """Runs the command and returns its exit code."""
    words, options = parse(argv, {"out": str, "serve": bool, "port": int})
    if words is None:
        print(USAGE)
        return 0
    if not words:
        raise ConfigError("Expected a run folder to show: swirl view DIR [DIR ...].")
    stores = episode_stores(list(map(Path, words)))
    target = Path(options.get("out", Path(words[0]) / "view.html"))
    if not target.parent.is_dir():
        raise ConfigError(f"The folder of out={target} does not exist: {target.parent}.")
    try:
        count = write_page(stores, target)
    except OSError as error:
        raise StoreError(f"{target} cannot be written: {error.strerror}. Choose another file with out=.") from error
    print(f"{count:,} episode{'' if count == 1 else 's'} of {len(stores)} run{'' if len(stores) == 1 else 's'} in {target}")
    first = next((trajectory.task.id for trajectory in stores[0][1]), None)
    show = "" if first is None else f"   or   {command('show', stores[0][0], first)}"
    print(f"next: open {target} in a browser{show}")
    if options.get("serve"):
        _serve(target, options.get("port", 8000))
    return 0


def episode_stores(paths: Sequence[Path]) -> list[tuple[str, Store]]:
    """Returns name and store of each run of episodes that folders stand for, rollouts that training runs keep included.

    Raises:
        StoreError: if a folder holds none.
    """
    stores = dict.fromkeys(run for path in paths for run in _runs(path))
    return [(str(run), Store(run, "r")) for run in stores]


def _runs(folder: Path) -> list[Path]:
    """Returns the run folders that a folder stands for.

    Raises:
        StoreError: it holds none.
    """
    if (folder / "trajectories").is_dir():
        return [folder]
    if folders.kind_of(folder) == "training":
        return [folders.with_episodes(folder, "training")]
    below = list(folders.with_episodes_below(folder)) if folder.is_dir() else []
    if not below:
        what = "holds no episodes" if folder.is_dir() else "does not exist"
        near = folders.nearest_run(folder)
        hint = f" Did you mean {near}?" if near else ""
        raise StoreError(f"{folder} {what}. Give a folder that `swirl generate` or `swirl eval` wrote.{hint}")
    return below


def _serve(page: Path, port: int) -> None:
    """Serves the page, and nothing else, on loopback until Ctrl-C."""
    content = page.read_bytes()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            is_page = self.path.partition("?")[0] == "/"
            self.send_response(200 if is_page else 404)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(content) if is_page else 0))
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()
            if is_page:
                self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    try:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
    except OSError as error:
        raise ConfigError(f"Port {port} cannot be used: {os.strerror(error.errno or 0)}. Choose another with port=.") from error
    with server:
        print(f"serving on http://127.0.0.1:{server.server_address[1]} until Ctrl-C", flush=True)
        serve = functools.partial(server.serve_forever, poll_interval=0.2)
        try:
            serve()
        except KeyboardInterrupt:
            print()
