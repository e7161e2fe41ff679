"""Whatever text others wrote: a real browser shows it as text, and runs nothing of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from urllib.parse import quote

import pytest
import yaml
from playwright.sync_api import Browser, Dialog, Page, expect

from hub.policy_file import SHIPPED
from tests.crowded_hub import CrowdedHub
from tests.hub_process import PASSWORD, eventually

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def trap(where: str) -> str:
    """A text that tells us when it is taken for a page, and from where."""
    return f"\"><img src=x onerror=caught('{where}')><script>caught('{where}')</script>{{{{7*7}}}}${{8*8}}"


MALLORY = "<img src=x onerror=caught(9)>\u202ettam"  # as far as a name can go: no slash
GROUP = trap("group")


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CrowdedHub]:
    top = tmp_path_factory.mktemp("hostile")
    policy = yaml.safe_load(Path(SHIPPED).read_text())
    policy["groups"][GROUP] = policy["groups"]["cpsHPCAccess"] | {"note": trap("note")}
    for slug, profile in policy["profiles"].items():
        profile |= {"display_name": trap(f"name of {slug}"), "description": trap(f"description of {slug}")}
    for key, image in policy["profiles"]["custom"]["choices"]["image"]["values"].items():
        image["display_name"] = trap(f"image {key}")
    (top / "policy.yaml").write_text(yaml.safe_dump(policy, allow_unicode=True))
    people = {MALLORY: [GROUP], "mallory": [GROUP], "admin": ["jupyter_admin"]}
    hub = CrowdedHub(top / "data", people=people, policy_file=str(top / "policy.yaml"))
    try:
        hub.start()
        yield hub
    finally:
        hub.end()


class Victim:
    """A browser in which somebody is logged in, and what ran in it that should not have."""

    def __init__(self, browser: Browser, hub: CrowdedHub, user: str, screenshots: Path) -> None:
        self._hub = hub
        self._screenshots = screenshots
        self.caught: list[object] = []
        self.page: Page = browser.new_page(viewport={"width": 1200, "height": 1000})
        self.page.expose_function("caught", self._catch)
        self.page.on("dialog", self._dismiss)
        self.visit("/hub/login?next=" + quote("/hub/token"), "")
        self.page.fill("#username_input", user)
        self.page.fill("#password_input", PASSWORD)
        self.page.click("#login_submit")
        self.page.wait_for_url("**/hub/token")

    def _catch(self, where: object) -> None:
        self.caught.append(where)

    def _dismiss(self, dialog: Dialog) -> None:
        self.caught.append(dialog.message)
        dialog.dismiss()

    def visit(self, path: str, picture: str) -> None:
        """The page is there with all that it names; nothing of what it shows was run."""
        self.page.goto(self._hub.base + path)
        self.look(picture)

    def look(self, picture: str) -> None:
        if picture:
            self.page.screenshot(path=self._screenshots / f"{picture}.png", full_page=True)
        assert self.caught == []
        assert self.page.url.startswith(self._hub.base)

    def shows(self, text: str) -> None:
        expect(self.page.locator("body")).to_contain_text(text)

    def close(self) -> None:
        self.look("")
        self.page.close()


@pytest.fixture
def victim(browser: Browser, hub: CrowdedHub, screenshots: Path) -> Iterator[Victim]:
    victim = Victim(browser, hub, "mallory", screenshots)
    yield victim
    victim.close()


def test_texts_of_the_policy_are_text_on_the_form(victim: Victim) -> None:
    victim.visit("/hub/spawn", "form")
    for where in ("name of a100-1", "description of custom", "note", "image pytorch"):
        victim.shows(trap(where))
    assert victim.page.locator("img[src=x]").count() == 0
    victim.page.locator("input[value=custom]").click()
    victim.page.locator("#profile-option-custom--image").select_option("unlisted-choice")
    victim.look("form-custom")


@pytest.mark.parametrize(
    ("field", "shown"),
    [
        (trap("option"), "profile '\"><img src=x onerror=caught('option')><script>"),
        ("\u202ecustom\u0000\n<b>", "profile '\\u202ecustom\\u0000\\u000a<b>'"),
    ],
    ids=["a script", "hidden characters"],
)
def test_what_a_link_puts_into_options_is_text_in_the_refusal(victim: Victim, field: str, shown: str) -> None:
    victim.visit("/hub/spawn?profile=" + quote(field), "refused")
    expect(victim.page.locator(".spawn-error-msg")).to_contain_text(shown)
    victim.visit(f"/hub/spawn?profile=custom&{quote(field)}=1", "refused-key")
    expect(victim.page.locator(".spawn-error-msg")).to_be_visible()
    victim.visit(f"/hub/spawn/mallory/{quote(field.replace('/', ''))}?profile=custom", "refused-server")


@pytest.mark.parametrize(
    "target",
    ["javascript:caught(1)", "//evil.example/", "https://evil.example/", trap("next"), "data:text/html,<script>"],
)
def test_where_to_go_next_is_never_elsewhere(victim: Victim, target: str) -> None:
    for page in ("spawn", "home", "login"):
        victim.visit(f"/hub/{page}?next={quote(target)}", f"next-{page}")


def test_what_a_failing_image_says_is_text(victim: Victim, hub: CrowdedHub) -> None:
    hub.rule("mallory", "sick", f"fails {trap('notebook')}\u202e")
    victim.visit("/hub/spawn/mallory/sick", "")
    victim.page.locator("input[value=cpu-basic]").click()
    victim.page.click("button[type=submit]")
    victim.shows("JupyterLab ended with exit code 1")
    victim.shows(trap("notebook") + "\\u202e")
    victim.look("failed")
    victim.visit("/hub/spawn-pending/mallory/sick", "failed-again")


def test_names_of_users_servers_and_groups_are_text(
    hub: CrowdedHub, victim: Victim, browser: Browser, screenshots: Path
) -> None:
    named = "/hub/api/users/mallory/servers/odd"
    assert hub.rest("POST", named, "mallory", {"profile": "cpu-basic"}).status in (201, 202)
    if version("jupyterhub") >= "6":
        eventually(lambda: bool((hub.server("mallory", "odd") or {}).get("ready")), 60, "ready")
        hub.rest("DELETE", named, "mallory")
        eventually(lambda: hub.server("mallory", "odd") is None, 60, "stopped")
        for name, status in ((trap("server"), 200), ("\u202ex", 400), ("\u0000", 400)):
            assert hub.rest("PATCH", named, "mallory", {"display_name": name}).status == status
        victim.visit("/hub/home", "home")
        victim.shows(trap("server"))

    mallory = Victim(browser, hub, MALLORY, screenshots)
    for page in ("home", "spawn", "token"):
        mallory.visit(f"/hub/{page}", f"mallory-{page}")
        mallory.shows("<img src=x onerror=caught(9)>")
    mallory.visit("/hub/spawn?profile=standard", "mallory-refused")
    expect(mallory.page.locator(".spawn-error-msg")).to_contain_text("offered to <img src=x onerror=caught(9)>\\u202e")
    mallory.close()

    admin = Victim(browser, hub, "admin", screenshots)
    for page, text in (("admin", "<img src=x onerror=caught(9)>"), ("admin#/groups", GROUP)):
        admin.visit(f"/hub/{page}", "")
        admin.shows(text)  # drawn by a script, after the page is there
        admin.look(page.replace("#/", "-"))
    admin.visit("/hub/spawn/" + quote(MALLORY), "admin-spawn")
    admin.shows("Spawning server for <img src=x onerror=caught(9)>")
    admin.close()
    assert json.loads(hub.rest("GET", "/hub/api/user", "mallory").text)["groups"] == [GROUP]
