"""A whole login with an OpenID provider in a browser: what people see, and what they see when something is wrong."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.e2e.running_hub import RunningHub
from tests.openid_provider import OpenidProvider

pytestmark = pytest.mark.browser

PROFILES = "input[type=radio][name=profile]"


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenidProvider]:
    with OpenidProvider(tmp_path_factory.mktemp("provider")) as provider:
        yield provider


@pytest.fixture(scope="module")
def hub(provider: OpenidProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    """`make up LOGIN=oidc` with the provider's address."""
    running = RunningHub(tmp_path_factory.mktemp("login") / "data", settings=provider.settings)
    try:
        running.start()
        yield running
    finally:
        running.clean_up()


def log_in(page: Page, hub: RunningHub, sub: str) -> None:
    page.goto(hub.url)
    expect(page.get_by_text("all users share one account of the operating system")).to_be_visible()
    page.get_by_role("button", name="Sign in with Authentik").click()
    page.fill("input[name=sub]", sub)
    page.get_by_role("button", name="Authorize").click()
    page.wait_for_url(f"{hub.url}/**")


def test_groups_of_the_provider_decide_what_people_see(
    browser: Browser, hub: RunningHub, provider: OpenidProvider, screenshots: Path
) -> None:
    seen = {}
    for name, groups in (("mia", ["cpsHPCAccess"]), ("ben", ["staff"]), ("root", ["jupyter_admin"])):
        context = browser.new_context(viewport={"width": 1200, "height": 900})
        page = context.new_page()
        log_in(page, hub, provider.user(name, *groups))
        expect(page.locator(PROFILES).first).to_be_visible()
        seen[name] = [page.locator(PROFILES).count(), page.get_by_role("link", name="Admin").count()]
        page.screenshot(path=screenshots / f"{name}.png", full_page=True)
        if name == "root":
            page.goto(f"{hub.url}/hub/admin")
            expect(page.get_by_test_id("user-name-div-mia")).to_be_visible()
            page.screenshot(path=screenshots / "admin.png")
        context.close()
    assert seen == {"mia": [4, 0], "ben": [1, 0], "root": [1, 1]}


def test_a_string_for_groups_is_refused_on_a_readable_page(
    page: Page, hub: RunningHub, provider: OpenidProvider, screenshots: Path
) -> None:
    log_in(page, hub, provider.user("<script>alert(1)</script>", sub="odd", groups="cpsHPCAccess"))
    expect(page.get_by_text("sent a string as groups, not a list of group names")).to_be_visible()
    page.screenshot(path=screenshots / "string.png")
    provider.user("<script>document.title='owned'</script>", "cpsHPCAccess", sub="odd")
    log_in(page, hub, "odd")
    expect(page.get_by_text("the user name '<script>document.title=")).to_be_visible()
    assert page.title() == "JupyterHub"
    page.screenshot(path=screenshots / "script.png")


def test_a_group_taken_away_and_a_provider_that_is_down(
    page: Page, hub: RunningHub, provider: OpenidProvider, screenshots: Path
) -> None:
    log_in(page, hub, provider.user("lena", "cpsHPCAccess"))
    expect(page.locator(PROFILES)).to_have_count(4)

    provider.user("lena", "staff")
    page.get_by_text("Single A100 GPU").click()
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_text("is not among those offered to lena: standard")).to_be_visible()
    page.screenshot(path=screenshots / "taken-away.png")
    page.goto(f"{hub.url}/hub/spawn")
    expect(page.locator(PROFILES)).to_have_count(1)
    provider.user("lena", "cpsHPCAccess")
    page.goto(f"{hub.url}/hub/spawn")
    expect(page.locator(PROFILES)).to_have_count(4)

    provider.stop()
    why = re.compile(r"no GPUs now: the groups of lena could not be confirmed .* at \d\d:\d\d UTC: Connection refused")
    page.get_by_text("Single A100 GPU").click()
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_text(why)).to_be_visible()
    page.screenshot(path=screenshots / "no-gpus-now.png", full_page=True)
    page.get_by_text("CPU Only (Basic)").click()
    page.get_by_role("button", name="Start").click()
    page.wait_for_url("**/user/lena/lab**", timeout=90_000)
    page.goto(f"{hub.url}/hub/spawn/lena/gpu")
    expect(page.get_by_text(why)).to_be_visible()
    page.screenshot(path=screenshots / "told-before.png", full_page=True)

    provider.start()
    page.goto(f"{hub.url}/hub/spawn/lena/gpu")
    expect(page.get_by_text("no GPUs now")).to_have_count(0)
    page.get_by_text("Single A100 GPU").click()
    page.get_by_role("button", name="Start").click()
    page.wait_for_url("**/user/lena/gpu/lab**", timeout=90_000)
    assert "Traceback" not in hub.log
