"""The page of trajectories in a real browser: every control by its role, keyboard, links, themes, sizes, hostile text."""

import pytest

pytest.importorskip("jinja2")
pytest.importorskip("playwright.sync_api")

from test_view import HostileAgent, make_run

from browsers import browser, page
from swirl_env.store import Store
from swirl_env.view.page import write_page

__all__ = ["browser", "page"]  # fixtures
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("view")
    make_run(folder / "a", 40)
    make_run(folder / "b", 20, HostileAgent())
    target = folder / "view.html"
    assert write_page([("a", Store(folder / "a", "r")), ("b", Store(folder / "b", "r"))], target) == 60
    return target


def count(page):
    return page.get_by_role("status").inner_text()


def test_search_filters_and_sorting_by_role(page):
    assert count(page) == "60 of 60"
    page.get_by_label("Run", exact=True).select_option(label="b")
    assert count(page) == "20 of 60"
    page.get_by_role("combobox", name="Outcome").select_option("right")
    assert count(page) == "10 of 60"
    page.get_by_role("combobox", name="Outcome").select_option("")
    page.get_by_role("searchbox").fill("What is 7")
    assert count(page) == "2 of 60"
    page.get_by_role("searchbox").fill("no such question")
    assert count(page) == "0 of 60" and page.get_by_role("option", name="What").count() == 0
    page.get_by_role("searchbox").fill("")
    page.get_by_label("Run", exact=True).select_option("")
    page.get_by_label("Sort by").select_option("wrong")
    assert page.get_by_role("listbox").get_by_role("img").first.get_attribute("aria-label") == "wrong"


def test_keyboard_opens_steps_through_and_goes_back(page):
    for key in ("j", "ArrowDown", "k", "Enter"):
        page.keyboard.press(key)
    page.wait_for_selector("article:not([hidden]) .step")
    first = page.get_by_role("heading", level=2).inner_text()
    page.keyboard.press("n")
    page.wait_for_function("text => document.querySelector('h2').textContent !== text", arg=first)
    page.keyboard.press("p")
    page.wait_for_function("text => document.querySelector('h2').textContent === text", arg=first)
    page.keyboard.press("Escape")
    page.get_by_role("listbox").wait_for()
    page.keyboard.press("/")
    page.keyboard.type("12")
    assert page.get_by_role("searchbox").input_value() == "12"


def test_an_episode_has_a_link_and_shows_two_runs_side_by_side(page, page_file):
    page.goto(page_file.as_uri() + "#/a/sum-4/0")
    page.wait_for_selector(".step")
    assert "What is 4 + 1?" in page.get_by_role("heading", level=2).inner_text()
    page.get_by_label("Compare with").select_option(label="b #0")
    page.get_by_role("region", name="Episode in b").wait_for()
    assert page.get_by_role("region", name="Episode in").count() == 2
    page.get_by_role("button", name="All episodes").click()
    page.get_by_role("listbox").wait_for()
    page.goto(page_file.as_uri() + "#/a/no-such/0")
    page.get_by_role("listbox").wait_for()


def test_hostile_text_is_shown_and_does_nothing(page, page_file):
    page.goto(page_file.as_uri() + "#/b/sum-4/0")
    page.wait_for_selector(".step")
    text = page.get_by_role("article").inner_text()
    assert "<script>alert(1)</script>" in text and "{{ 7*7 }}" in text
    assert "\\u001b[31m" in text and "\\u202eright" in text and "\u202e" not in text
    assert page.locator("article img").count() == 0


def test_themes_switch_by_button_and_key(page):
    colour = "getComputedStyle(document.body).backgroundColor"
    before = page.evaluate(colour)
    page.get_by_role("button", name="Switch between dark and light").click()
    dark = page.evaluate(colour)
    page.keyboard.press("t")
    assert dark != before == page.evaluate(colour)
    page.get_by_role("button", name="Keyboard shortcuts").click()
    assert page.get_by_text("goes back").is_visible()
