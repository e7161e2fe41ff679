"""Policies for tests."""

from __future__ import annotations

from typing import Any

from hub.policy import Policy

SMALL = """
everyone: {profiles: [one], limits: {gpus: 0, cpus: 2, memory: 2G}}
profiles:
  one: {display_name: One, image: "quay.io/a/b:1", cpus: 1, memory: 1G, gpus: 0}
"""


def large_policy(groups: int = 200, profiles: int = 100) -> Policy:
    """Every profile has four options; every group offers twenty profiles, and has a note."""
    choices = {
        "image": {
            "values": {f"i{n}": {"display_name": f"Image {n}", "image": f"quay.io/jupyter/i{n}:1"} for n in range(5)},
            "default": "i0",
        },
        "gpus": {"values": [0, 1, 2], "default": 1},
        "cpus": {"values": [2, 4, 8, 16], "default": 8},
        "memory": {"values": ["4G", "8G", "16G", "32G"], "default": "8G"},
    }
    limits = {"gpus": 2, "cpus": 16, "memory": "128G"}
    document: dict[str, Any] = {
        "groups": {
            f"group-{n}": {
                "profiles": [f"profile-{(n * 7 + offset) % profiles}" for offset in range(20)],
                "limits": limits,
                "note": f"Note of group {n}",
            }
            for n in range(groups)
        },
        "everyone": {"profiles": ["profile-0"], "limits": limits},
        "profiles": {
            f"profile-{n}": {
                "display_name": f"🚀 Profile {n}",
                "description": "With everything",
                "custom_image": True,
                "choices": choices,
            }
            for n in range(profiles)
        },
        "images": {"allow": ["quay.io/jupyter/*"]},
    }
    return Policy.model_validate(document)
