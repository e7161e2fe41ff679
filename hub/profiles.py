"""The profiles a member of some groups is offered, as the document of ``profiles --json``."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from hub.groups import entitlement
from hub.options import UNLISTED_IMAGE, Option, default_size, options_of
from hub.policy import Policy, Profile

SCHEMA = 1


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
    size = default_size(profile)
    return {
        "slug": slug,
        "display_name": profile.display_name,
        "default": False,
        **size.to_json(),
        "image": options[0].default.value,
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
            choice.key: {"display_name": choice.display_name, "default": choice is option.default}
            for choice in option.choices
        },
    }
    if option.name == "image":
        for choice in option.choices:
            document["choices"][choice.key]["image"] = choice.value
    if unlisted:
        document["unlisted_choice"] = {"enabled": True, "key": UNLISTED_IMAGE}
    return document
