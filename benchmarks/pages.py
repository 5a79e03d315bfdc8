"""What a benchmark ends with: a report on everything it ran, and a page of its episodes."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from swirl_env.config.options import BenchOptions
from swirl_env.config.overrides import command, override
from swirl_env.errors import ConfigError, StoreError
from swirl_env.stages.report import read_report
from swirl_env.stages.run_config import flat
from swirl_env.stages.view import episode_stores
from swirl_env.view.page import write_page
from swirl_env.view.report.files import write_report

_PACKAGES = ("scipy", "matplotlib", "jinja2")


def compared_keys(options: BenchOptions) -> list[str]:
    """Returns the keys in which the rows and the arms of a benchmark may differ, its questions aside."""
    arms = [] if options.part == "agents" else [options.arms.get(name, {}) for name in options.algos]
    keys = [key for arm in arms for key in flat(arm) if not key.startswith(("algo.", "eval."))]
    return list(dict.fromkeys(["algo", "agent", "max_steps", *keys]))


def write_and_print(path: Path, by: Sequence[str]) -> None:
    """Writes the report and the page of a benchmark into its folder; prints where they are and what to look at next."""
    folder = path / "report"
    again = command("report", path, "by=" + ",".join(by), override("out", str(folder)))
    if missing := [name for name in _PACKAGES if importlib.util.find_spec(name) is None]:
        print(f"no report, as {', '.join(missing)} is not installed: pip install 'swirl-env[report]', then {again}")
        return
    try:
        report = read_report([str(path)], by)
    except ConfigError as error:  # rows of one's own that cannot be compared: everything else is there
        print(f"no report: {error}")
        return
    print(f"report: {write_report(report, folder)}")
    try:
        page = path / "view.html"
        write_page(episode_stores([path]), page)
        print(f"episodes: {page}")
    except StoreError:  # no run stored its episodes
        pass
    print("next: " + "   or   ".join([*(one.text for one in report.commands[:1]), again]))
