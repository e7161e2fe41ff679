from __future__ import annotations

from typing import Any

from hub.policy_file import load_policy
from hub.profiles import offered_profiles
from hub.resolve import Granted, resolve

HPC = ("cpsHPCAccess",)
POLICY = load_policy()


def by_slug(groups: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    document = offered_profiles(groups, POLICY)
    assert document["schema"] == 1
    return {profile["slug"]: profile for profile in document["profiles"]}


def test_everybody_is_offered_one_profile_with_the_note() -> None:
    (standard,) = by_slug(()).values()
    assert standard == {
        "slug": "standard",
        "display_name": "💻 Standard Notebook Environment",
        "default": True,
        "cpus": 2,
        "memory": "4G",
        "gpus": 0,
        "image": "quay.io/jupyter/pytorch-notebook:2025-11-06",
        "note": "For GPU access, please contact your administrator.",
        "profile_options": {},
    }


def test_the_group_is_offered_four_profiles_the_basic_one_by_default_and_no_note() -> None:
    profiles = by_slug(HPC)
    assert list(profiles) == ["cpu-basic", "a100-1", "a100-2", "custom"]
    assert [slug for slug, profile in profiles.items() if profile["default"]] == ["cpu-basic"]
    assert {profile["note"] for profile in profiles.values()} == {None}
    custom = profiles["custom"]
    assert (custom["cpus"], custom["memory"], custom["gpus"]) == (8, "32G", 1)
    defaults = {
        name: [key for key, choice in option["choices"].items() if choice["default"]]
        for name, option in custom["profile_options"].items()
    }
    assert defaults == {"image": ["pytorch"], "gpus": ["1"], "cpus": ["8"], "memory": ["32G"]}
    assert custom["profile_options"]["image"]["unlisted_choice"]["enabled"]


def test_every_choice_that_is_printed_is_accepted_as_it_is_printed() -> None:
    for slug, profile in by_slug(HPC).items():
        for name, option in profile["profile_options"].items():
            for key in option["choices"]:
                options = {"profile": slug, name: key}
                assert isinstance(resolve("ada", HPC, options=options, running={}, policy=POLICY), Granted), options
