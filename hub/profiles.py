"""The profiles a member of some groups is offered: as a document, and as KubeSpawner's form wants them."""

from __future__ import annotations

import html
from collections.abc import Collection
from typing import Any

from hub.groups import entitlement
from hub.options import UNLISTED_IMAGE, Option, cores_text, gpus_text, memory_text, options_of
from hub.policy import Policy, Profile
from hub.quantity import cpus_number, format_memory

SCHEMA = 1
UNENFORCED = "limits are not enforced on this machine"


def offered_profiles(groups: Collection[str], policy: Policy) -> dict[str, Any]:
    """The document of ``profiles --json``: sizes and image are the defaults where there is a choice."""
    allowed = entitlement(groups, policy)
    note = " ".join(allowed.notes) or None
    return {
        "schema": SCHEMA,
        "profiles": [
            _document(slug, policy.profiles[slug], note) | {"default": index == 0}
            for index, slug in enumerate(allowed.profiles)
        ],
    }


def _document(slug: str, profile: Profile, note: str | None) -> dict[str, Any]:
    options = options_of(profile)
    values = {option.name: _default(option) for option in options}
    return {
        "slug": slug,
        "display_name": profile.display_name,
        "default": False,
        "cpus": cpus_number(int(values["cpus"])),
        "memory": format_memory(int(values["memory"])),
        "gpus": values["gpus"],
        "image": values["image"],
        "note": note,
        "profile_options": {
            option.name: _option(option, unlisted=option.name == "image" and profile.custom_image)
            for option in options
            if option.offered
        },
    }


def _option(option: Option, *, unlisted: bool) -> dict[str, Any]:
    document: dict[str, Any] = {
        "display_name": option.display_name,
        "choices": {
            choice.key: {"display_name": choice.display_name, "default": choice.key == option.default}
            for choice in option.choices
        },
    }
    if option.name == "image":
        for choice in option.choices:
            document["choices"][choice.key]["image"] = choice.value
    if unlisted:
        document["unlisted_choice"] = {"enabled": True, "key": UNLISTED_IMAGE}
    return document


def _default(option: Option) -> str | int:
    choice = option.choice(option.default)
    return choice.value if choice is not None else ""


def form_profiles(groups: Collection[str], policy: Policy, *, enforced: bool) -> list[dict[str, Any]]:
    """``offered_profiles`` as KubeSpawner's ``profile_list``.

    KubeSpawner's template escapes nothing, so everything is escaped here. There are no overrides in it: what is started
    comes from ``resolve``, and this list is only shown.
    """
    allowed = entitlement(groups, policy)
    shown = []
    for index, slug in enumerate(allowed.profiles):
        profile = policy.profiles[slug]
        entry: dict[str, Any] = {
            "slug": slug,
            "display_name": html.escape(profile.display_name),
            "description": "<br>".join(
                [
                    *(html.escape(line) for line in _description(profile, enforced=enforced)),
                    *(f"<strong>{html.escape(note)}</strong>" for note in allowed.notes),
                ]
            ),
            "default": index == 0,
        }
        options = {
            option.name: _form_option(option, profile, policy) for option in options_of(profile) if option.offered
        }
        if options:
            entry["profile_options"] = options
        shown.append(entry)
    return shown


def _description(profile: Profile, *, enforced: bool) -> list[str]:
    """What the profile is, a line for each idea."""
    options = options_of(profile)
    fixed = {option.name: _default(option) for option in options if not option.offered}
    texts = (("cpus", cores_text), ("memory", memory_text), ("gpus", gpus_text))
    sizes = [text(int(fixed[name])) for name, text in texts if name in fixed]
    free = [option.display_name for option in options if option.offered]
    lines = [profile.description] if profile.description else []
    about = ", ".join(sizes) or f"{', '.join(free)} of your choice"
    lines.append(about if enforced else f"{about} ({UNENFORCED})")
    if "image" in fixed:
        lines.append(f"Image: {fixed['image']}")
    return lines


def _form_option(option: Option, profile: Profile, policy: Policy) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "display_name": option.display_name,
        "choices": {
            choice.key: {"display_name": html.escape(choice.display_name), "default": choice.key == option.default}
            for choice in option.choices
        },
    }
    if option.name == "image" and profile.custom_image:
        allowed = ", ".join(policy.images.allow) or "none"
        entry["unlisted_choice"] = {
            "enabled": True,
            "display_name": "Image, with its tag or digest",
            "display_name_in_choices": "Other…",
            "validation_message": html.escape(f"registry/name:tag or registry/name@sha256:…; allowed: {allowed}"),
        }
    return entry


def form_options(fields: dict[str, list[str]]) -> dict[str, object]:
    """The options body in the fields of KubeSpawner's form.

    The form sends the options of all its profiles; those of profiles that were not selected are left out. Everything
    else is kept as it is, a field sent twice as a list, so that ``resolve`` can refuse it.
    """
    slug = fields.get("profile", [""])[0]
    options: dict[str, object] = {}
    for name, values in fields.items():
        if name == "_xsrf":
            continue
        key = name
        if name.startswith("profile-option-"):
            prefix = f"profile-option-{slug}--"
            if not slug or not name.startswith(prefix):
                continue
            key = name[len(prefix) :]
        options[key] = values[0] if len(values) == 1 else values
    return options
