"""The options a profile offers: their keys, their choices, and what each choice stands for.

One place for the names that ``profiles --json`` prints, KubeSpawner's form sends and ``resolve`` accepts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from hub.policy import Profile
from hub.quantity import format_cpus, format_memory

OptionName = Literal["image", "gpus", "cpus", "memory"]
OPTION_NAMES: tuple[OptionName, ...] = ("image", "gpus", "cpus", "memory")
UNLISTED_IMAGE = "image--unlisted-choice"

_DISPLAY_NAMES: Mapping[OptionName, str] = {"image": "Image", "gpus": "GPUs", "cpus": "Cores", "memory": "Memory"}


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One value of an option: an image, millicpu, bytes or GPUs."""

    key: str
    display_name: str
    value: str | int


@dataclass(frozen=True, kw_only=True)
class Option:
    """Something to choose in a profile. A fixed value is an option with one choice that is not offered."""

    name: OptionName
    display_name: str
    choices: tuple[Choice, ...]
    default: str
    offered: bool

    def choice(self, key: str) -> Choice | None:
        return next((choice for choice in self.choices if choice.key == key), None)


def options_of(profile: Profile) -> tuple[Option, ...]:
    """All four options of ``profile``, fixed or offered."""
    return tuple(_option(name, profile) for name in OPTION_NAMES)


def _option(name: OptionName, profile: Profile) -> Option:
    default: str
    offered = True
    if name == "image":
        listed = profile.choices.image
        if listed is not None:
            choices = [
                Choice(key=key, display_name=image.display_name, value=image.image)
                for key, image in listed.values.items()
            ]
            default = listed.default
        else:
            offered, default = False, profile.image or ""
            choices = [Choice(key=default, display_name=default, value=default)]
    else:
        picks = {
            "gpus": (profile.choices.gpus, profile.gpus),
            "cpus": (profile.choices.millicpu, profile.millicpu),
            "memory": (profile.choices.memory_bytes, profile.memory_bytes),
        }
        offer, fixed = picks[name]
        offered = offer is not None
        values, chosen = (offer.values, offer.default) if offer is not None else ((fixed or 0,), fixed or 0)
        choices = [_number(name, value) for value in values]
        default = _number(name, chosen).key
    return Option(
        name=name, display_name=_DISPLAY_NAMES[name], choices=tuple(choices), default=default, offered=offered
    )


def _number(name: OptionName, value: int) -> Choice:
    if name == "gpus":
        return Choice(key=str(value), display_name=gpus_text(value), value=value)
    if name == "cpus":
        return Choice(key=format_cpus(value), display_name=cores_text(value), value=value)
    return Choice(key=format_memory(value), display_name=memory_text(value).removesuffix(" memory"), value=value)


def gpus_text(gpus: int) -> str:
    return "no GPU" if gpus == 0 else f"{gpus} GPU" + ("s" if gpus > 1 else "")


def cores_text(millicpu: int) -> str:
    return f"{format_cpus(millicpu)} core" + ("" if millicpu == 1000 else "s")


def memory_text(size_bytes: int) -> str:
    quantity = format_memory(size_bytes)
    return f"{quantity[:-1]} {quantity[-1]}B memory" if quantity[-1] in "KMGT" else f"{quantity} bytes of memory"
