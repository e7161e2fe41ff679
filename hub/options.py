"""The options a profile offers: their keys, their choices, and what each choice stands for.

One place for the names that ``profiles --json`` prints, KubeSpawner's form sends and ``resolve`` accepts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from hub.policy import Choices, Profile
from hub.quantity import Size, cores_text, format_cpus, format_memory, gpus_text, memory_text

OptionName = Literal["image", "gpus", "cpus", "memory"]
UNLISTED_IMAGE = "image--unlisted-choice"

_DISPLAY_NAMES: Mapping[OptionName, str] = {"image": "Image", "gpus": "GPUs", "cpus": "Cores", "memory": "Memory"}


class Choice(NamedTuple):
    """One value of an option: an image, millicpu, bytes or GPUs."""

    key: str
    display_name: str
    value: str | int


class Option(NamedTuple):
    """Something to choose in a profile. A fixed value is an option with one choice that is not offered."""

    name: OptionName
    choices: tuple[Choice, ...]
    default: Choice
    offered: bool

    @property
    def display_name(self) -> str:
        return _DISPLAY_NAMES[self.name]

    def choice(self, key: str) -> Choice | None:
        return next((choice for choice in self.choices if choice.key == key), None)


def options_of(profile: Profile) -> tuple[Option, ...]:
    """All four options of ``profile``, fixed or offered."""
    choices = profile.choices
    return (
        _image(profile),
        _number("gpus", choices.gpus, profile.gpus),
        _number("cpus", choices.millicpu, profile.millicpu),
        _number("memory", choices.memory_bytes, profile.memory_bytes),
    )


def size_of(values: Mapping[OptionName, str | int]) -> Size:
    """The size in the values of the three options that are numbers."""
    return Size(millicpu=int(values["cpus"]), memory_bytes=int(values["memory"]), gpus=int(values["gpus"]))


def default_size(profile: Profile) -> Size:
    """What ``profile`` has where nothing was chosen."""
    return size_of({option.name: option.default.value for option in options_of(profile)})


def smallest_size(profile: Profile) -> Size:
    """The least of each kind that can be chosen in ``profile``."""
    numbers = (option for option in options_of(profile) if option.name != "image")
    return size_of({option.name: min(int(choice.value) for choice in option.choices) for option in numbers})


def _image(profile: Profile) -> Option:
    listed = profile.choices.image
    if listed is None:
        fixed = Choice(profile.image or "", profile.image or "", profile.image or "")
        return Option("image", (fixed,), fixed, offered=False)
    choices = {key: Choice(key, image.display_name, image.image) for key, image in listed.values.items()}
    return Option("image", tuple(choices.values()), choices[listed.default], offered=True)


def _number(name: OptionName, offer: Choices[int] | None, fixed: int | None) -> Option:
    if offer is None:
        choice = _choice(name, fixed or 0)
        return Option(name, (choice,), choice, offered=False)
    choices = tuple(_choice(name, value) for value in offer.values)
    return Option(name, choices, choices[offer.values.index(offer.default)], offered=True)


def _choice(name: OptionName, value: int) -> Choice:
    if name == "gpus":
        return Choice(str(value), gpus_text(value), value)
    if name == "cpus":
        return Choice(format_cpus(value), cores_text(value), value)
    return Choice(format_memory(value), memory_text(value).removesuffix(" memory"), value)
