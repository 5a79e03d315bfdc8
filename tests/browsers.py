"""Pages in a real browser: a tab on a wide screen and on a phone, on which nothing may go wrong or be asked of the network."""

import os
import shutil

import pytest

playwright = pytest.importorskip("playwright.sync_api")


@pytest.fixture(scope="module")
def browser():
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        reason = "no Chromium on this machine (Debian: apt-get install chromium)"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(params=[(1280, 800), (390, 844)], ids=["wide", "phone"])
def page(request, browser, page_file):
    tab = browser.new_page(viewport=dict(zip(("width", "height"), request.param, strict=True)))
    problems = []
    tab.on("console", lambda message: problems.append(message.text))
    tab.on("pageerror", lambda error: problems.append(str(error)))
    tab.on("dialog", lambda dialog: problems.append(f"dialog: {dialog.message}"))
    tab.on("request", lambda made: None if made.url.startswith(("file:", "data:", "blob:")) else problems.append(made.url))
    tab.goto(page_file.as_uri())
    tab.wait_for_selector("html[data-ready=true]")
    yield tab
    assert problems == []
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page scrolls sideways"
    tab.close()
