"""A browser and a hub for the tests that a person could do by hand."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.e2e.running_hub import RunningHub

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless Chromium. Without one, one line says what to install.

    Not for the whole session: Playwright's event loop would be in the way of every test with a loop of its own.
    """
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, _BROWSERS)), None)
    if path is None:
        pytest.fail(
            "no Chromium: install it (on Debian: apt-get install chromium) or say CHROMIUM=/path", pytrace=False
        )
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=_OPTIONS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, screenshots: Path) -> Iterator[Page]:
    """A fresh browser window that nobody is logged into. What it showed last is kept as a picture."""
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    page = context.new_page()
    page.set_default_timeout(60_000)
    yield page
    page.screenshot(path=screenshots / "last.png")
    context.close()


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[RunningHub]:
    """A hub that was started and has nothing in it yet."""
    running = RunningHub(tmp_path / "data")
    running.start()
    try:
        yield running
    finally:
        running.clean_up()


@pytest.fixture
def screenshots(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Where this test leaves its pictures: SCREENSHOTS, or a directory of the test run."""
    directory = Path(os.environ.get("SCREENSHOTS") or tmp_path / "screenshots") / str(request.node.name)
    directory.mkdir(parents=True, exist_ok=True)
    return directory
