from __future__ import annotations

import re
import time
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.form import form_notes, form_options, form_profiles, render_form
from hub.policy import Policy
from hub.policy_file import load_policy, parse_policy
from hub.profiles import offered_profiles
from hub.resolve import Granted, resolve
from tests.unit.hub.policies import large_policy

POLICY = load_policy()
HPC = ("cpsHPCAccess",)


class Page(HTMLParser):
    """What a browser would make of a page: its elements with their attributes, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(str(html))  # of Markup every part would be escaped again

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def form(groups: tuple[str, ...], policy: Policy = POLICY, **options: Any) -> Page:
    profiles = form_profiles(groups, policy, enforced=True)
    return Page(render_form(profiles, options) + form_notes(groups, policy))


def test_the_form_shows_the_groups_profiles_with_the_default_selected() -> None:
    radios = form(HPC).all("input")[:4]
    assert [radio["value"] for radio in radios] == ["cpu-basic", "a100-1", "a100-2", "custom"]
    assert ["checked" in radio for radio in radios] == [True, False, False, False]
    assert "⚙️ Custom Configuration" in form(HPC).text


def test_the_form_shows_the_note_once() -> None:
    assert form(()).text.count("For GPU access, please contact your administrator.") == 1
    assert form_notes(HPC, POLICY) == ""


def test_the_form_says_where_limits_are_not_enforced() -> None:
    (unenforced,), (enforced,) = (form_profiles((), POLICY, enforced=enforced) for enforced in (False, True))
    assert "not enforced" in unenforced["description"]
    assert "not enforced" not in enforced["description"]


def test_saved_options_are_selected() -> None:
    radios = form(HPC, profile="a100-2").all("input")[:4]
    assert ["checked" in radio for radio in radios] == [False, False, True, False]


def test_whatever_the_form_offers_is_granted_when_it_is_sent_back() -> None:
    """Every choice of every profile, with what the browser sends of the other profiles."""
    page = form(HPC)
    selects: dict[str, list[str]] = {}
    for tag, attributes in page.elements:
        if tag == "select":
            selects[str(attributes["name"])] = []
        elif tag == "option" and attributes["value"] != "unlisted-choice":
            list(selects.values())[-1].append(str(attributes["value"]))
    assert len(selects) == 4
    for profile in ("cpu-basic", "custom"):
        for name, values in selects.items():
            for value in values:
                fields = {"profile": [profile], **{other: [some[0]] for other, some in selects.items()}, name: [value]}
                options = form_options(fields)
                assert isinstance(resolve("ada", HPC, options=options, running={}, policy=POLICY), Granted), options


HOSTILE = """<script>alert(1)</script>" onfocus='alert(2)' {{ 7 * 7 }} {% raw %} &lt; {0} $x"""


def hostile_policy() -> Policy:
    """Every text that a policy can hold is hostile."""
    text = HOSTILE.replace("\\", "").replace('"', '\\"')
    return parse_policy(f"""
groups:
  "{text}":
    profiles: [one]
    limits: {{gpus: 1, cpus: 1, memory: 1G}}
    note: "{text}"
everyone: {{profiles: [one], limits: {{gpus: 1, cpus: 1, memory: 1G}}, note: "{text}"}}
profiles:
  one:
    display_name: "{text}"
    description: "{text}"
    cpus: 1
    memory: 1G
    choices:
      gpus: {{values: [0, 1], default: 0}}
      image: {{values: {{a: {{display_name: "{text}", image: "quay.io/a/b:1"}}}}, default: a}}
    custom_image: true
images: {{allow: [quay.io/a/*]}}
""")


@pytest.mark.parametrize("groups", [(), (HOSTILE,)])
def test_no_text_of_the_policy_becomes_markup(groups: tuple[str, ...]) -> None:
    policy = hostile_policy()
    page, harmless = form(groups, policy), form(())
    assert page.text.count(HOSTILE) == 4  # name, description, image, note
    assert len(page.all("script")) == len(harmless.all("script")) == 1
    names = {name for _, attributes in page.elements for name in attributes}
    assert not {name for name in names if name.startswith("on")}
    assert "49" not in page.text


def test_no_saved_option_leaves_the_script_it_is_written_into() -> None:
    html = render_form(form_profiles(HPC, POLICY, enforced=True), {"profile": f"</script>{HOSTILE}"})
    assert html.count("</script>") == 1
    assert len(Page(html).all("script")) == 1


def test_what_has_no_markup_is_escaped_in_an_administrators_own_template_too() -> None:
    profiles = form_profiles((), hostile_policy(), enforced=True)
    own = "{% for profile in profile_list %}<p title='{{ profile.display_name }}'>{{ user_options.x }}</p>{% endfor %}"
    page = Page(render_form(profiles, {"x": "<b>"}, text=own))
    assert page.elements == [("p", {"title": HOSTILE})]
    assert page.text == "<b>"


def test_an_administrators_template_is_taken_from_their_directory(tmp_path: Path) -> None:
    (tmp_path / "form.html").write_text("{{ profile_list | length }} profiles")
    profiles = form_profiles(HPC, POLICY, enforced=True)
    assert render_form(profiles, {}, paths=[str(tmp_path)]) == "4 profiles"


def test_the_form_and_the_document_offer_the_same() -> None:
    for groups in ((), HPC):
        shown, document = form_profiles(groups, POLICY, enforced=True), offered_profiles(groups, POLICY)["profiles"]
        for entry, profile in zip(shown, document, strict=True):
            assert (entry["slug"], entry["default"]) == (profile["slug"], profile["default"])
            assert {name: list(option["choices"]) for name, option in entry["profile_options"].items()} == {
                name: list(option["choices"]) for name, option in profile["profile_options"].items()
            }


def test_the_forms_fields_become_the_options_body() -> None:
    fields = {
        "profile": ["custom"],
        "profile-option-custom--image--unlisted-choice": ["quay.io/jupyter/x:1"],
        "profile-option-custom--gpus": ["2"],
        "profile-option-other--gpus": ["9"],
        "_xsrf": ["secret"],
    }
    assert form_options(fields) == {"profile": "custom", "image--unlisted-choice": "quay.io/jupyter/x:1", "gpus": "2"}


@pytest.mark.parametrize(
    ("fields", "options"),
    [
        ({}, {}),
        ({"image": ["x"]}, {"image": "x"}),
        ({"profile": ["a", "b"], "x": []}, {"profile": ["a", "b"], "x": []}),
        ({"profile": ["a"], "gpus": ["9"], "profile-option-a--gpus": ["1"]}, {"profile": "a", "gpus": ["9", "1"]}),
        ({"profile": ["a"], "profile-option-a--profile": ["b"]}, {"profile": ["a", "b"]}),
        ({"profile": []}, {"profile": []}),
    ],
)
def test_fields_that_the_form_does_not_have_are_kept_for_refusal(
    fields: dict[str, list[str]], options: dict[str, object]
) -> None:
    assert form_options(fields) == options


@given(
    st.dictionaries(
        st.text(max_size=9) | st.sampled_from(["profile", "profile-option-custom--gpus", "profile-option-custom--"]),
        st.lists(st.text(max_size=9) | st.sampled_from(["custom", "1"]), max_size=3),
        max_size=4,
    )
)
def test_any_fields_lead_to_a_decision_or_a_refusal(fields: dict[str, list[str]]) -> None:
    resolve("ada", HPC, options=form_options(fields), running={}, policy=POLICY)


def test_a_form_of_100_profiles_for_200_groups_is_rendered_within_50_ms(
    record_property: Callable[[str, object], None],
) -> None:
    policy = large_policy(groups=200, profiles=100)
    groups = tuple(policy.groups)

    def render() -> str:
        profiles = form_profiles(groups, policy, enforced=True)
        return render_form(profiles, {}) + form_notes(groups, policy)

    assert len(re.findall('type="radio"', render())) == 100
    taken_s = []
    for _ in range(9):
        begun = time.process_time()
        render()
        taken_s.append(time.process_time() - begun)
    taken_ms = min(taken_s) * 1000  # what others do at the same time is no part of it
    record_property("ms of processor time", round(taken_ms, 1))
    assert taken_ms < 50
