"""The page of `swirl view` with 10,000 episodes in headless Chromium; every figure comes from the browser itself."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from swirl_env.benchmarks.perf.env import episodes
from swirl_env.benchmarks.perf.timing import MS, Report, Row, row
from swirl_env.errors import MissingExtra
from swirl_env.store import Store
from swirl_env.view.page import write_page

BAR_PAINT_MS, BAR_FILTER_MS, BAR_MB = 1_000.0, 100.0, 300.0
LOADS = 5
"""Fresh tabs that are measured."""
WORDS = ("atlas", "river", "the", "of", "born", "city", "q", "")
"""What is typed into the search box, a filter each."""
ORDERS = ("task", "wrong", "steps", "bad", "stored")
_NOTE_READY = """
new MutationObserver(() => { if (document.documentElement?.dataset.ready) window.readyAt ??= performance.now(); })
  .observe(document, { subtree: true, childList: true, attributes: true });
"""
_PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
_FILTER = """
async (word) => {
  const box = document.getElementById('search'), start = performance.now();
  box.value = word;
  box.dispatchEvent(new Event('input'));
  document.getElementById('list').getBoundingClientRect();  // style and layout of the new rows, too
  return performance.now() - start;
}
"""
_SORT = """
(order) => {
  const select = document.getElementById('sort'), start = performance.now();
  select.value = order;
  select.dispatchEvent(new Event('change'));
  document.getElementById('list').getBoundingClientRect();
  return performance.now() - start;
}
"""
_OPEN = """
async () => {
  const start = performance.now(), article = document.getElementById('episode');
  location.hash = link(shown[Math.floor(shown.length / 2)]);
  await new Promise((done) => { const ask = () => article.querySelector('.step') ? done() : requestAnimationFrame(ask); ask(); });
  const taken = performance.now() - start;
  location.hash = '';
  return taken;
}
"""


def viewer(size: int = 10_000) -> Report:
    """Times first paint, filters and opening an episode, and the memory of the tab.

    Raises:
        MissingExtra: without playwright or Chromium.
    """
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "view.html"
        with Store(Path(folder) / "run") as store:
            for trajectory in episodes(size):
                store.append(trajectory)
            write_page([("run", store)], page)
        measured = _measure(page)
        megabytes = page.stat().st_size / 1e6
    about = f"{size:,} episodes, a page of {megabytes:.1f} MB, {LOADS} fresh tabs"
    return Report("viewer", about, tuple(_rows(measured)))


def _measure(page: Path) -> dict[str, list[float]]:
    figures: dict[str, list[float]] = {name: [] for name in ("paint", "ready", "filter", "sort", "open", "heap", "tab")}
    with _playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=_chromium(), args=["--no-sandbox", "--enable-precise-memory-info", "--js-flags=--expose-gc"]
        )
        for _ in range(LOADS):
            tab = browser.new_page(viewport={"width": 1280, "height": 800})
            tab.add_init_script(_NOTE_READY)
            tab.goto(page.as_uri())
            tab.wait_for_selector("html[data-ready=true]")
            tab.wait_for_function(_PAINT)
            figures["paint"].append(tab.evaluate(_PAINT))
            figures["ready"].append(tab.evaluate("window.readyAt"))
            figures["filter"] += [tab.evaluate(_FILTER, word) for word in WORDS]
            figures["sort"] += [tab.evaluate(_SORT, order) for order in ORDERS]
            figures["open"].append(tab.evaluate(_OPEN))
            figures["heap"].append(tab.evaluate("performance.memory.usedJSHeapSize") / 1e6)
            figures["tab"].append(_tab_memory(browser))
            tab.close()
        browser.close()
    return figures


def _tab_memory(browser: Any) -> float:
    """Returns the private memory of the largest renderer process, in megabytes; the browser says which processes those are."""
    session = browser.new_browser_cdp_session()
    processes = session.send("SystemInfo.getProcessInfo")["processInfo"]
    session.detach()
    return max(_private(int(process["id"])) for process in processes if process["type"] == "renderer")


def _private(process: int) -> float:
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) * 1024 / 1e6


def _rows(measured: Mapping[str, Sequence[float]]) -> list[Row]:
    def times(name: str, what: str, bar: float = 0.0) -> Row:
        values = [value * MS for value in measured[name]]
        slowest = max(measured[name])
        return row(what, values, "ms", **({"bar": f"each < {bar:g} ms", "met": slowest < bar} if bar else {}))

    def memory(name: str, what: str) -> Row:
        values = sorted(measured[name])
        middle, most = values[len(values) // 2], values[-1]
        mean = sum(values) / len(values)
        return Row(what, "MB", middle, most, mean, len(values), bar=f"each < {BAR_MB:g} MB", met=most < BAR_MB)

    return [
        times("paint", "first contentful paint", BAR_PAINT_MS),
        times("ready", "list filled, controls at work"),
        times("filter", "a filter by search, layout included", BAR_FILTER_MS),
        times("sort", "the whole list in another order", BAR_FILTER_MS),
        times("open", "an episode opened by its link"),
        memory("heap", "JavaScript heap"),
        memory("tab", "private memory of the tab's process"),
    ]


def _playwright() -> Any:
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError as error:
        raise MissingExtra("The viewer is measured with 'playwright'. Install it with: pip install playwright") from error
    return sync_playwright()


def _chromium() -> str:
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        raise MissingExtra("The viewer is measured in Chromium, which is not installed (Debian: apt-get install chromium).")
    return path
