"""The report in a real browser: tables by role, filter, sorting, keyboard, themes, sizes, hostile names."""

from pathlib import Path

import pytest

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")
pytest.importorskip("scipy")
pytest.importorskip("playwright.sync_api")

from reported import sweep, train_run
from test_view import HOSTILE, HostileAgent, make_run

from browsers import browser, page
from swirl_env.stages.report import read_report
from swirl_env.store import Store
from swirl_env.types import Verdict
from swirl_env.view.report.files import write_report

__all__ = ["browser", "page"]  # fixtures
pytestmark = pytest.mark.slow
EVIL = "_<img src=x onerror=alert(3)>$\\frac{$ {{7*7}} \x1b[31m\u202e\U0001f600 漢字 -->"


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        sweep()
        train_run("evil", 0.3, algo={"name": EVIL}, seed=0)
        train_run("live", 0.4, finished=False, algo={"name": "rft"}, seed=0)
        make_run(f"episodes/{EVIL.replace('/', '-')}", 6, HostileAgent())
        run = Path(f"episodes/{EVIL.replace('/', '-')}")
        with Store(run) as store:
            for trajectory in list(store):
                store.append_verdicts("other-1", trajectory.key, [Verdict.bad(HOSTILE, "other") for _ in trajectory.steps])
        report = read_report(["sweep", "evil", "live", str(run)], ["algo"])
        return folder / write_report(report, Path("out"))


def column(page, name, number):
    table = page.get_by_role("table", name=name, exact=True).first
    return [row.get_by_role("cell").nth(number).inner_text() for row in table.get_by_role("row").all()[1:] if row.is_visible()]


def test_tables_sort_by_their_headings(page):
    heading = page.get_by_role("button", name="Sort by success %")
    heading.click()
    down = [float(value) for value in column(page, "Cells", 1) if value != "-"]
    assert down == sorted(down, reverse=True) and len(down) == 3
    heading.click()
    up = [value for value in column(page, "Cells", 1)]
    assert up == [f"{value:.1f}" for value in sorted(down)] + ["-"], "what is missing stays last"
    assert page.get_by_role("columnheader", name="Sort by success %").get_attribute("aria-sort") == "ascending"


def test_rows_are_filtered_in_all_tables(page):
    page.keyboard.press("/")
    page.keyboard.type("reinforce")
    shown = [row.inner_text() for row in page.locator("tbody tr").all() if row.is_visible()]
    assert shown and all("reinforce" in text for text in shown)
    assert page.get_by_role("status").inner_text().startswith(f"{len(shown)} of ")
    page.get_by_role("searchbox").fill("no such cell")
    assert page.get_by_role("status").inner_text().startswith("0 of ")
    page.get_by_role("searchbox").fill("")
    assert page.locator("tbody tr").first.is_visible()


def test_keyboard_steps_through_the_sections_and_switches_the_theme(page):
    titles = page.get_by_role("heading", level=2).all_inner_texts()
    assert len(titles) >= 4
    focused = "document.activeElement.textContent"
    page.keyboard.press("n")
    assert page.evaluate(focused) == titles[0]
    page.keyboard.press("n")
    assert page.evaluate(focused) == titles[1]
    page.keyboard.press("p")
    assert page.evaluate(focused) == titles[0]
    colour = "getComputedStyle(document.body).backgroundColor"
    before = page.evaluate(colour)
    page.get_by_role("button", name="Switch between dark and light").click()
    dark = page.evaluate(colour)
    assert page.locator("img.dark").first.is_visible() and not page.locator("img.light").first.is_visible()
    page.keyboard.press("t")
    assert dark != before == page.evaluate(colour)
    page.get_by_role("button", name="Keyboard shortcuts").click()
    assert page.get_by_text("next and previous section").is_visible()


def test_links_lead_to_the_sections(page):
    link = page.get_by_role("navigation", name="Sections").get_by_role("link").last
    link.click()
    assert page.evaluate("location.hash").startswith("#section-")


def test_every_picture_is_drawn_and_told_in_words(page):
    sizes = page.evaluate("[...document.images].map((one) => [one.alt, one.complete && one.naturalWidth])")
    assert len(sizes) >= 12 and all(alt and width for alt, width in sizes)
    assert page.get_by_role("img", name="swirl: 50.0 %, 55.0 %, 60.0 %, 2.0 %, 58.0 %").count() == 1


def test_hostile_names_are_shown_and_do_nothing(page):
    text = page.get_by_role("main").inner_text()
    assert "<img src=x onerror=alert(3)>" in text and "{{7*7}}" in text and "49" not in text
    assert "\\x1b[31m" in text and "\\u202e" in text and "\u202e" not in text
    assert page.locator("main img:not(.light):not(.dark)").count() == 0


def test_the_commands_to_run_next_are_listed(page):
    region = page.get_by_role("region", name="What to run next")
    commands = region.get_by_role("code").all_inner_texts()
    assert any(text.startswith("swirl show") for text in commands) and any(text.startswith("swirl view") for text in commands)
