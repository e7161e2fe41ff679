"""The one function that says yes or no to a server."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from hub.groups import Entitlement, entitlement
from hub.images import ImageError, parse_image, parse_pattern
from hub.options import UNLISTED_IMAGE, Option, options_of
from hub.policy import Policy, Profile
from hub.quantity import QuantityError, Size, total
from hub.text import quoted, visible


@dataclass(frozen=True, kw_only=True)
class Decision:
    """A server that may be started: what was granted, and what counts against the user's cap until it has stopped."""

    profile: str
    image: str
    size: Size

    def to_json(self) -> dict[str, object]:
        return {"profile": self.profile, "image": self.image, **self.size.to_json()}

    @classmethod
    def from_json(cls, document: object) -> Decision:
        """What ``to_json`` wrote. Raises ``QuantityError`` for anything else."""
        if not isinstance(document, dict):
            raise QuantityError("is no decision")
        size = {key: value for key, value in document.items() if key not in ("profile", "image")}
        return cls(
            profile=str(document.get("profile", "")),
            image=str(document.get("image", "")),
            size=Size.from_json(size),
        )


@dataclass(frozen=True)
class Granted:
    decision: Decision


@dataclass(frozen=True)
class Refused:
    """``reason`` is one readable line without control characters.

    ``malformed``: no such request can be granted to anybody; ``forbidden``: not to this user, or not now.
    """

    reason: str
    kind: Literal["malformed", "forbidden"]


def resolve(
    user: str, groups: Collection[str], *, options: object, running: Mapping[str, Size], policy: Policy
) -> Granted | Refused:
    """Whether ``user``, a member of ``groups``, may start a server with ``options`` beside those ``running``.

    Total: any JSON value as ``options`` gives one of the two answers. What is granted is one of the choices offered,
    and never brings the sum over all running servers above the cap. Nothing is ignored and nothing is clipped.
    """
    allowed = entitlement(groups, policy)
    profile = _profile(user, options, allowed)
    if isinstance(profile, Refused):
        return profile
    chosen = options if isinstance(options, dict) else {}
    decision = _choose(profile, policy.profiles[profile], chosen, policy)
    if isinstance(decision, Refused):
        return decision
    excess = total([decision.size, *running.values()]).excess(allowed.cap)
    if excess:
        beside = f" together with {len(running)} other server{'s' if len(running) > 1 else ''}" if running else ""
        return _forbidden(f"{_who(user)} would have {'; '.join(excess)}{beside}")
    return Granted(decision)


def _profile(user: str, options: object, allowed: Entitlement) -> str | Refused:
    """The slug asked for, or the default."""
    if options is not None and not isinstance(options, dict):
        return _malformed(f"options must be a JSON object, not {_kind(options)}")
    if not allowed.profiles:
        return _forbidden(f"no profile is offered to {_who(user)}")
    if not options:
        return allowed.profiles[0]
    offered = f"offered to {_who(user)}: {', '.join(allowed.profiles)}"
    if "profile" not in options:
        return _malformed(f"options without a profile; {offered}")
    slug = options["profile"]
    if not isinstance(slug, str):
        return _malformed(f"profile must be a string, not {_kind(slug)}; {offered}")
    if slug not in allowed.profiles:
        return _forbidden(f"profile {quoted(slug)} is not among those {offered}")
    return slug


def _choose(slug: str, profile: Profile, chosen: Mapping[object, object], policy: Policy) -> Decision | Refused:
    """The decision that ``chosen`` describes, with the defaults of ``profile`` for what is not in it."""
    options = {option.name: option for option in options_of(profile)}
    accepted = ["profile", *(option.name for option in options.values() if option.offered)]
    if profile.custom_image:
        accepted.append(UNLISTED_IMAGE)
    for key in chosen:
        if key not in accepted:
            shown = quoted(key) if isinstance(key, str) else _kind(key)
            return _malformed(f"profile {slug} has no option {shown}; it has: {', '.join(accepted[1:]) or 'none'}")
    values: dict[str, str | int] = {}
    for name, option in options.items():
        value = _pick(option, chosen.get(name, option.default))
        if isinstance(value, Refused):
            return value
        values[name] = value
    if UNLISTED_IMAGE in chosen:
        if "image" in chosen:
            return _malformed(f"image and {UNLISTED_IMAGE} exclude each other")
        image = _custom_image(chosen[UNLISTED_IMAGE], policy)
        if isinstance(image, Refused):
            return image
        values["image"] = image
    return Decision(
        profile=slug,
        image=str(values["image"]),
        size=Size(millicpu=int(values["cpus"]), memory_bytes=int(values["memory"]), gpus=int(values["gpus"])),
    )


def _pick(option: Option, key: object) -> str | int | Refused:
    choices = ", ".join(choice.key for choice in option.choices)
    if not isinstance(key, str):
        return _malformed(f"{option.name} must be a string, one of: {choices}; not {_kind(key)}")
    choice = option.choice(key)
    if choice is None:
        return _malformed(f"{option.name} {quoted(key)} is none of: {choices}")
    return choice.value


def _custom_image(text: object, policy: Policy) -> str | Refused:
    if not isinstance(text, str):
        return _malformed(f"{UNLISTED_IMAGE} must be a string, not {_kind(text)}")
    try:
        image = parse_image(text)
    except ImageError as error:
        return _malformed(str(error))
    if not any(parse_pattern(pattern).matches(image) for pattern in policy.images.allow):
        allowed = ", ".join(policy.images.allow) or "none"
        return _forbidden(f"image {quoted(text)} is not allowed here; allowed: {allowed}")
    return text


def _kind(value: object) -> str:
    """What a JSON value is, in the words of JSON."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    names = ((str, "a string"), (int | float, "a number"), (list, "a list"), (dict, "an object"))
    return next((name for kind, name in names if isinstance(value, kind)), "something else")


def _who(user: str) -> str:
    return visible(user, limit=60) or "this user"


def _malformed(reason: str) -> Refused:
    return Refused(visible(reason, limit=600), "malformed")


def _forbidden(reason: str) -> Refused:
    return Refused(visible(reason, limit=600), "forbidden")
