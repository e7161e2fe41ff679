"""The form a user chooses a profile with: KubeSpawner's own, filled from the policy, and read back.

There are no overrides in it: what is started comes from ``resolve``, and the form is only shown.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from jinja2 import ChoiceLoader, Environment, FileSystemLoader, PackageLoader, Template
from markupsafe import Markup

from hub.groups import entitlement
from hub.options import Option, options_of
from hub.policy import Policy, Profile
from hub.quantity import cores_text, gpus_text, memory_text

UNENFORCED = "limits are not enforced on this machine"


def form_profiles(groups: Collection[str], policy: Policy, *, enforced: bool) -> list[dict[str, Any]]:
    """What a member of ``groups`` is offered, as KubeSpawner's ``profile_list``.

    What is ``Markup`` in it is HTML, and all else is text that ``render_form`` escapes: KubeSpawner would not.
    """
    allowed = entitlement(groups, policy)
    images = ", ".join(policy.images.allow) or "none"
    return [
        _entry(slug, policy.profiles[slug], images, enforced=enforced) | {"default": index == 0}
        for index, slug in enumerate(allowed.profiles)
    ]


def form_notes(groups: Collection[str], policy: Policy) -> Markup:
    """The notes of ``groups``, as HTML to stand below the profiles; empty where there are none."""
    notes = entitlement(groups, policy).notes
    return Markup("").join(Markup("<p><strong>") + note + Markup("</strong></p>") for note in notes)


def _entry(slug: str, profile: Profile, images: str, *, enforced: bool) -> dict[str, Any]:
    options = options_of(profile)
    return {
        "slug": slug,
        "display_name": profile.display_name,
        "description": Markup("<br>").join(_description(profile, options, enforced=enforced)),
        "profile_options": {option.name: _option(option, profile, images) for option in options if option.offered},
    }


def _description(profile: Profile, options: Sequence[Option], *, enforced: bool) -> list[str]:
    """What the profile is, a line for each idea."""
    fixed = {option.name: option.default.value for option in options if not option.offered}
    texts = (("cpus", cores_text), ("memory", memory_text), ("gpus", gpus_text))
    sizes = [text(int(fixed[name])) for name, text in texts if name in fixed]
    free = [option.display_name for option in options if option.offered]
    lines = [profile.description] if profile.description else []
    about = ", ".join(sizes) or f"{', '.join(free)} of your choice"
    lines.append(about if enforced else f"{about} ({UNENFORCED})")
    if "image" in fixed:
        lines.append(f"Image: {fixed['image']}")
    return lines


def _option(option: Option, profile: Profile, images: str) -> dict[str, Any]:
    unlisted: dict[str, Any] = {"enabled": False}
    if option.name == "image" and profile.custom_image:
        unlisted = {
            "enabled": True,
            "display_name": "Image, with its tag or digest",
            "display_name_in_choices": "Other…",
            "validation_message": f"registry/name:tag or registry/name@sha256:…; allowed: {images}",
        }
    return {
        "display_name": option.display_name,
        "choices": {
            choice.key: {"display_name": choice.display_name, "default": choice is option.default}
            for choice in option.choices
        },
        "unlisted_choice": unlisted,
    }


def render_form(
    profiles: list[dict[str, Any]], user_options: Mapping[str, Any], *, paths: Sequence[str] = (), text: str = ""
) -> Markup:
    """``profiles`` in KubeSpawner's template, with what ``user_options`` say selected.

    Does what ``KubeSpawner._render_options_form`` does, but for three things: the template is compiled once and not at
    every look at the form, the profiles are not copied, and what is no markup is escaped. ``paths`` and ``text`` are
    the administrator's own templates (``additional_profile_form_template_paths``, ``profile_form_template``).
    """
    return Markup(_template(tuple(paths), text).render(profile_list=profiles, user_options=user_options))  # noqa: S704  rendered with autoescape


@functools.lru_cache(maxsize=8)
def _template(paths: tuple[str, ...], text: str) -> Template:
    loader = ChoiceLoader([FileSystemLoader(list(paths)), PackageLoader("kubespawner", "templates")])
    environment = Environment(loader=loader, autoescape=True)
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False}  # a profile's place in the list means something
    return environment.from_string(text) if text else environment.get_template("form.html")


def form_options(fields: Mapping[str, Sequence[str]]) -> dict[str, object]:
    """The options body in the fields of KubeSpawner's form.

    The form sends the options of all its profiles; those of profiles that were not selected are left out. Everything
    else is kept as it is, what was sent twice as a list, so that ``resolve`` can refuse it.
    """
    slug = next(iter(fields.get("profile", ())), "")
    found: dict[str, list[str]] = {}
    for name, values in fields.items():
        if name == "_xsrf":
            continue
        key = name
        if name.startswith("profile-option-"):
            prefix = f"profile-option-{slug}--"
            if not slug or not name.startswith(prefix):
                continue
            key = name[len(prefix) :]
        found.setdefault(key, []).extend(values)
    return {key: values[0] if len(values) == 1 else values for key, values in found.items()}
