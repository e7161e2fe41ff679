"""What a person does in the browser, step by step."""

from __future__ import annotations

import re
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.e2e.running_hub import PASSWORD, RunningHub, eventually

_SPAWN_TIMEOUT_MS = 90_000


def log_in(page: Page, hub: RunningHub, user: str) -> None:
    """``user`` is logged in and sees what the hub shows first."""
    page.goto(hub.url)
    page.fill("#username_input", user)
    page.fill("#password_input", PASSWORD)
    page.click("#login_submit")
    page.wait_for_url(lambda url: "/hub/login" not in url)


def start_server(page: Page, screenshots: Path, name: str) -> str:
    """The server that the form on the page describes runs, and Lab is open; what the progress page said."""
    page.click("input[type=submit], button[type=submit]")
    page.wait_for_url("**/hub/spawn-pending/**")
    said = ""
    while "/hub/spawn-pending/" in page.url:
        said = page.locator("#progress-log").inner_text(timeout=_SPAWN_TIMEOUT_MS) or said
        if "JupyterLab" in said:
            page.screenshot(path=screenshots / f"{name}-progress.png")
            break
        page.wait_for_timeout(50)
    page.wait_for_url("**/user/**/lab**", timeout=_SPAWN_TIMEOUT_MS)
    page.locator("#jp-main-dock-panel").wait_for(timeout=_SPAWN_TIMEOUT_MS)
    return said


def run_in_new_notebook(page: Page, code: str) -> None:
    """A new notebook's first cell was run by its kernel; the notebook is open, and not saved."""
    page.locator(".jp-LauncherCard[data-category=Notebook]").first.click()
    cell = page.locator(".jp-Notebook .jp-Cell .cm-content").first
    cell.click()
    # The kernel must be there before it is asked, or Lab opens a dialog.
    expect(page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]").first).to_be_visible(timeout=60_000)
    page.keyboard.insert_text(code)
    prompt = page.locator(".jp-Notebook .jp-InputPrompt").first
    for attempt in range(3):
        cell.click()
        page.keyboard.press("Control+Enter")
        try:
            expect(prompt).to_have_text(re.compile(r"\[(\*|\d+)\]"), timeout=10_000)
            break
        except AssertionError:
            # Lab drops a run that meets its connection to the kernel before it stands.
            if attempt == 2:
                raise
    expect(prompt).to_have_text(re.compile(r"\[\d+\]"), timeout=60_000)


def save_notebook(page: Page, path: Path) -> bytes:
    """The open notebook is saved at ``path``, with its output in it; its bytes."""

    # The output is in the document once it stands on the page.
    expect(page.locator(".jp-Notebook .jp-OutputArea-output").first).to_be_visible(timeout=30_000)
    page.keyboard.press("Control+s")
    page.get_by_role("button", name="Rename and Save").click()  # Lab asks at the first save

    def saved() -> bytes:
        content = path.read_bytes()
        return content if b'"output_type": "stream"' in content else b""

    content = eventually(f"{path} is saved with its output", saved, 30)
    assert isinstance(content, bytes)
    return content


def stop_server(page: Page, hub: RunningHub, user: str) -> None:
    """The user's server was stopped by its button, and its fast home is gone."""
    page.goto(f"{hub.url}/hub/home")
    page.click("#stop")
    eventually("the fast home is wiped", lambda: not hub.home(user).exists(), 40)
    expect(page.locator("#start")).to_have_text(re.compile("Start My Server"), timeout=40_000)
